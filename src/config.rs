//! The settings of the program: one section per part, defined by that part. Read from a TOML file; flags override it.
//!
//! An unknown key is an error that suggests the most similar known key.

use crate::api::{ServerSettings, TokenError};
use crate::capture::CaptureSettings;
use crate::filter::{LimitSettings, SamplingSettings, SamplingSettingsError};
use crate::forward::{TokenSettings, TraceSettings};
use crate::gateway::{GatewaySettings, Reroute};
use crate::live_export::{ExportSettings, ExportSettingsError};
use crate::proxy::ProxySettings;
use crate::query::Prices;
use crate::rollout::{RetentionError, RetentionSettings};
use crate::run::RunSettings;
use crate::store::sqlite::Synchronous;
use crate::tls::TlsSettings;
use crate::trace::units::millis;
use crate::trajectory::VerdictSettings;
use crate::upstream::{ConnectTo, UpstreamSettings};
use crate::wire::redact::RedactSettings;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

/// All settings. Every setting has a default.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Config {
    /// The proxy listener.
    pub(crate) proxy: ProxySettings,
    /// The API listener.
    pub(crate) server: ServerSettings,
    /// The CA, and the roots that endpoints are verified with.
    pub(crate) tls: TlsSettings,
    /// Connections to endpoints.
    pub(crate) upstream: UpstreamSettings,
    /// What is recorded, and the bounds of the capture queue.
    pub(crate) capture: CaptureSettings,
    /// How much of a span and of a rollout is stored.
    pub(crate) limits: LimitSettings,
    /// Which traces are stored.
    pub(crate) sampling: SamplingSettings,
    /// What is redacted before storage.
    pub(crate) redact: RedactSettings,
    /// Which hosts receive a `traceparent` header.
    pub(crate) trace: TraceSettings,
    /// Whether token ids are requested from engines.
    pub(crate) tokens: TokenSettings,
    /// The LLM gateway and its backends.
    pub(crate) gateway: GatewaySettings,
    /// Requests to the proxy that the gateway handles instead of their endpoint.
    pub(crate) reroute: Vec<Reroute>,
    /// The environment of a traced command.
    pub(crate) run: RunSettings,
    /// Where spans are stored, and for how long.
    pub(crate) store: StoreSettings,
    /// Where stored spans are sent.
    pub(crate) export: ExportSettings,
    /// When a rollout is sound enough to train on.
    pub(crate) verdict: VerdictSettings,
    /// What tokens cost.
    pub(crate) prices: Prices,
    /// How the program stops.
    pub(crate) shutdown: ShutdownSettings,
}

/// The section `[store]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct StoreSettings {
    /// A file, `memory:`, or the URL of a PostgreSQL server. `None`: `traces.db` in the data folder.
    pub(crate) path: Option<PathBuf>,
    /// `normal`: commits survive a crash of the program. `full`: also a crash of the machine.
    pub(crate) synchronous: Synchronous,
    /// Maximum size of the file that buffers spans while the PostgreSQL server is unreachable.
    pub(crate) max_spool_bytes: u64,
    /// Limits on stored data; the oldest is deleted first.
    pub(crate) retention: RetentionSettings,
}

impl Default for StoreSettings {
    fn default() -> Self {
        Self {
            path: None,
            synchronous: Synchronous::default(),
            max_spool_bytes: 1 << 30,
            retention: RetentionSettings::default(),
        }
    }
}

/// The kind of a store, and its location.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum StorePlace {
    /// In memory; lost when the program ends.
    Memory,
    /// An SQLite file. `None`: `traces.db` in the data folder.
    File(Option<PathBuf>),
    /// A PostgreSQL-compatible server, by its URL.
    Postgres(String),
}

impl StoreSettings {
    /// The store that `path` names.
    pub(crate) fn place(&self) -> StorePlace {
        match self.path.as_ref().and_then(|path| path.to_str()) {
            Some("memory:") => StorePlace::Memory,
            Some(url) if url.starts_with("postgres://") || url.starts_with("postgresql://") => {
                StorePlace::Postgres(url.to_owned())
            }
            _ => StorePlace::File(self.path.clone()),
        }
    }
}

/// The section `[shutdown]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct ShutdownSettings {
    /// How long exchanges in flight may take to finish after SIGTERM or SIGINT; then they are aborted.
    #[serde(rename = "drain_timeout_ms", with = "millis")]
    pub(crate) drain_timeout: Duration,
}

impl Default for ShutdownSettings {
    fn default() -> Self {
        Self { drain_timeout: Duration::from_secs(30) }
    }
}

/// Why settings cannot be used. Messages name the setting, the cause and the fix.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {path}: {cause}")]
    Read {
        /// As given by the user.
        path: PathBuf,
        /// The error of the operating system.
        cause: std::io::Error,
    },
    /// The file is not valid TOML, or has an unknown setting or a value of the wrong type.
    #[error("{path}: {cause}")]
    Syntax {
        /// As given by the user.
        path: PathBuf,
        /// Names the place in the file.
        cause: SyntaxError,
    },
    /// The proxy would be open to other machines without authentication.
    #[error(
        "proxy.listen is {0}, which other machines can reach, but proxy.token is empty; set proxy.token (or \
         TRACEWIRE_TOKEN), or listen on 127.0.0.1"
    )]
    ProxyWithoutToken(SocketAddr),
    /// The API server would be open to other machines without authentication.
    #[error(
        "{setting} is {listen}, which other machines can reach, but server.tokens is empty; add a token to server.tokens, \
         or listen on 127.0.0.1"
    )]
    ServerWithoutToken {
        /// The name of the setting with the address.
        setting: &'static str,
        /// The address.
        listen: SocketAddr,
    },
    /// A token that can't be used as it was meant.
    #[error("entry {number} of server.tokens {cause}")]
    ServerToken {
        /// The place in the list, from 1: the token itself is secret.
        number: usize,
        /// What is wrong with it.
        cause: TokenError,
    },
    /// A browser never sends such an origin.
    #[error(
        "server.cors_origins: `{0}` is not an origin; write SCHEME://HOST[:PORT], such as http://localhost:3000, or `*`"
    )]
    CorsOrigin(String),
    /// No client can send such a token.
    #[error("proxy.token (or TRACEWIRE_TOKEN) contains a line break or another control character; remove it")]
    ControlInProxyToken,
    /// An export that can't be used.
    #[error("[export]: {0}")]
    Export(#[from] ExportSettingsError),
    /// Rules of sampling that can't be used.
    #[error("[sampling]: {0}")]
    Sampling(#[from] SamplingSettingsError),
    /// A rule that can't be used.
    #[error("[[store.retention.rule]]: {0}")]
    Retention(#[from] RetentionError),
    /// A rule of `upstream.connect_to` is malformed.
    #[error("upstream.connect_to: {0}")]
    ConnectTo(<ConnectTo as FromStr>::Err),
}

/// Why the text of a settings file cannot be parsed.
#[derive(Debug, thiserror::Error)]
#[error("{message}{}", suggestion.as_ref().map(|key| format!("did you mean `{key}`?")).unwrap_or_default())]
pub(crate) struct SyntaxError {
    /// Contains line, column and an excerpt; ends with a line break.
    message: String,
    /// The known key that is most similar to an unknown one.
    suggestion: Option<String>,
}

impl Config {
    /// Reads a settings file.
    pub(crate) fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|cause| ConfigError::Read { path: path.to_owned(), cause })?;
        Self::parse(&text).map_err(|cause| ConfigError::Syntax { path: path.to_owned(), cause })
    }

    /// Parses the text of a settings file.
    pub(crate) fn parse(text: &str) -> Result<Self, SyntaxError> {
        toml::from_str(text).map_err(|error| {
            let suggestion = unknown_key(error.message()).and_then(|key| most_similar(&key, error.message()));
            SyntaxError { message: in_words(&error.to_string()), suggestion }
        })
    }

    /// Checks what the types cannot: listeners that need a token, and rules that must parse.
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        let (proxy, server) = (&self.proxy, &self.server);
        if !proxy.listen.ip().is_loopback() && proxy.token.is_empty() {
            return Err(ConfigError::ProxyWithoutToken(proxy.listen));
        }
        if proxy.token.expose().chars().any(char::is_control) {
            return Err(ConfigError::ControlInProxyToken);
        }
        let listeners = [("server.listen", Some(server.listen)), ("server.otlp_grpc_listen", server.otlp_grpc_listen)];
        for (setting, listen) in listeners {
            if let Some(listen) = listen
                && !listen.ip().is_loopback()
                && server.tokens.is_empty()
            {
                return Err(ConfigError::ServerWithoutToken { setting, listen });
            }
        }
        for (index, token) in server.tokens.iter().enumerate() {
            let checked = token.check(&server.tokens[..index]);
            checked.map_err(|cause| ConfigError::ServerToken { number: index + 1, cause })?;
        }
        let is_origin = |text: &String| {
            let place = text.split_once("://").map(|(_, place)| place);
            text == "*" || place.is_some_and(|place| !place.is_empty() && !place.contains(['/', ' ']))
        };
        if let Some(invalid) = server.cors_origins.iter().find(|origin| !is_origin(origin)) {
            return Err(ConfigError::CorsOrigin(invalid.clone()));
        }
        self.export.check()?;
        self.sampling.check()?;
        self.store.retention.check()?;
        for rule in &self.upstream.connect_to {
            rule.parse::<ConnectTo>().map_err(ConfigError::ConnectTo)?;
        }
        Ok(())
    }
}

/// An error message of serde without names of Rust's types.
fn in_words(message: &str) -> String {
    let Some((before, expected)) = message.rsplit_once("expected ") else { return message.to_owned() };
    let end = expected.trim_end_matches('\n').len();
    let (expected, after) = expected.split_at(end);
    let expected = match expected {
        "u8" | "u16" | "u32" | "u64" | "usize" => "a whole number that is not negative and not too large",
        "i64" | "i32" => "a whole number",
        "f64" | "f32" => "a number",
        "a boolean" => "true or false",
        "a sequence" => "a list",
        "path string" | "a borrowed string" => "a string",
        "a map" => "a table",
        other if other.starts_with("struct ") => "a table",
        other => other,
    };
    let found = [("invalid type: sequence", "invalid type: a list"), ("invalid type: map", "invalid type: a table")];
    let before = found.iter().fold(before.to_owned(), |text, (rust, words)| text.replace(rust, words));
    format!("{before}expected {expected}{after}")
}

/// The unknown key in an error message of serde.
fn unknown_key(message: &str) -> Option<String> {
    let rest = message.split("unknown field `").nth(1)?;
    rest.split('`').next().map(str::to_owned)
}

/// The known key most similar to `key`, if one is similar. serde's message lists all known keys.
fn most_similar(key: &str, message: &str) -> Option<String> {
    let known = message.split("expected").nth(1)?.split('`').skip(1).step_by(2);
    let (distance, known) = known.map(|known| (strsim::levenshtein(key, known), known)).min()?;
    // A missing or wrong unit suffix is a common mistake.
    let same_stem = known.starts_with(key) || key.rsplit_once('_').is_some_and(|(stem, _)| known.starts_with(stem));
    (distance <= MAX_TYPOS || same_stem).then(|| known.to_owned())
}

const MAX_TYPOS: usize = 3;

/// The folder for stores and the CA: `TRACEWIRE_HOME`, or `tracewire` in `XDG_DATA_HOME`, or `tracewire` in
/// `~/.local/share`. `None` if none of the variables is set.
pub(crate) fn data_folder(variable: &dyn Fn(&str) -> Option<std::ffi::OsString>) -> Option<PathBuf> {
    let set = |name: &str| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("TRACEWIRE_HOME")
        .or_else(|| set("XDG_DATA_HOME").map(|folder| folder.join("tracewire")))
        .or_else(|| set("HOME").map(|home| home.join(".local/share/tracewire")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_file_contains_the_defaults() {
        let shipped = Config::parse(include_str!("../proxy.toml")).unwrap();
        assert_eq!(shipped, Config::default());
    }

    #[test]
    fn the_shipped_file_names_every_setting() {
        let shipped: toml::Table = include_str!("../proxy.toml").parse().unwrap();
        let all = toml::Table::try_from(Config::default()).unwrap();
        for (section, keys) in all {
            let Some(keys) = keys.as_table() else {
                let listed = format!("[[{section}]]");
                assert!(include_str!("../proxy.toml").contains(&listed), "{listed} is missing");
                continue;
            };
            for key in keys.keys() {
                assert!(shipped[&section].get(key).is_some(), "[{section}] {key} is missing");
            }
        }
    }

    #[test]
    fn an_unknown_key_gets_a_suggestion() {
        let error = |text| Config::parse(text).unwrap_err().to_string();
        let unit = error("[upstream]\nconnect_timeout_secs = 5\n");
        assert!(unit.contains("did you mean `connect_timeout_ms`?"), "{unit}");
        let typo = error("[capture]\ninclude_heders = true\n");
        assert!(typo.contains("did you mean `include_headers`?"), "{typo}");
        let kind = error("[upstream]\nconnect_timeout_ms = \"5s\"\n");
        assert!(kind.contains("connect_timeout_ms"), "{kind}");
    }

    #[test]
    fn messages_speak_of_what_was_written() {
        for (text, words) in [
            ("[proxy]\nmax_connections = -1\n", "a whole number that is not negative"),
            ("[proxy]\nmax_connections = \"many\"\n", "a whole number that is not negative"),
            ("[capture]\ninclude_bodies = 1\n", "true or false"),
            ("[proxy]\nblock = \"a\"\n", "a list"),
            ("proxy = 1\n", "a table"),
            ("[proxy]\nlisten = \"8080\"\n", "`8080` is not an address to listen on"),
            ("[proxy]\npassthrough = [\"a b\"]\n", "`a b` is not a pattern of hosts"),
            ("[[reroute]]\nhosts = []\n", "the list of hosts is empty"),
        ] {
            let error = Config::parse(text).unwrap_err().to_string();
            let has_type =
                ["u16", "u32", "u64", "usize", "struct", "sequence", "socket"].iter().any(|name| error.contains(name));
            assert!(error.contains(words) && !has_type, "{error}");
        }
        let config = Config::parse("[proxy]\nlisten = \"localhost:8080\"\n").unwrap();
        assert_eq!(config, Config::default());
    }

    #[test]
    fn what_can_have_no_effect_is_refused() {
        for origin in ["localhost:3000", "", "http://", "http://a/", "http://a b"] {
            let config = Config::parse(&format!("[server]\ncors_origins = [\"{origin}\"]\n")).unwrap();
            assert!(config.check().unwrap_err().to_string().contains("is not an origin"), "{origin}");
        }
        for origin in ["*", "http://localhost:3000", "https://a.example"] {
            let config = Config::parse(&format!("[server]\ncors_origins = [\"{origin}\"]\n")).unwrap();
            assert!(config.check().is_ok(), "{origin}");
        }
        let error = Config::parse("[upstream]\nproxy = \"banana\"\n").unwrap_err().to_string();
        assert!(error.contains("use \"env\", \"none\""), "{error}");
    }

    #[test]
    fn a_public_listener_needs_a_token() {
        let mut config = Config::parse("[proxy]\nlisten = \"0.0.0.0:8080\"\n").unwrap();
        assert!(config.check().unwrap_err().to_string().contains("proxy.token"));
        config.proxy.token = crate::util::secret::Secret::new("t");
        assert!(config.check().is_ok());
        config.server.otlp_grpc_listen = Some(SocketAddr::from(([0, 0, 0, 0], 4317)));
        let error = config.check().unwrap_err().to_string();
        assert!(error.contains("server.otlp_grpc_listen") && error.contains("server.tokens"), "{error}");
    }
}

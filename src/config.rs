//! The settings of a program, composed of what each part owns. Read from `proxy.toml`; flags override it.
//!
//! A key that nobody knows is an error that names the nearest one that somebody does.

use crate::api::ServerSettings;
use crate::capture::CaptureSettings;
use crate::forward::{TokenSettings, TraceSettings};
use crate::gateway::{GatewaySettings, Reroute};
use crate::proxy::ProxySettings;
use crate::run::RunSettings;
use crate::store::Retention;
use crate::store::sqlite::Synchronous;
use crate::tls::TlsSettings;
use crate::trace::units::millis;
use crate::upstream::{ConnectTo, UpstreamSettings};
use crate::wire::redact::RedactSettings;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// All settings; every one has a default.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The proxy door.
    pub proxy: ProxySettings,
    /// The server door.
    pub server: ServerSettings,
    /// Certificates.
    pub tls: TlsSettings,
    /// The way to endpoints.
    pub upstream: UpstreamSettings,
    /// What is recorded.
    pub capture: CaptureSettings,
    /// What is redacted.
    pub redact: RedactSettings,
    /// What happens to `traceparent`.
    pub trace: TraceSettings,
    /// Token ids on agents' behalf.
    pub tokens: TokenSettings,
    /// The LLM gateway.
    pub gateway: GatewaySettings,
    /// Calls of the proxy door that go to the gateway.
    pub reroute: Vec<Reroute>,
    /// What is done to a command's environment.
    pub run: RunSettings,
    /// Where spans are kept.
    pub store: StoreSettings,
    /// Stopping.
    pub shutdown: ShutdownSettings,
}

/// `[store]` of the settings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StoreSettings {
    /// A file, `memory:`, or the URL of a PostgreSQL server; empty: `traces.db` under the data folder.
    pub path: Option<PathBuf>,
    /// `normal` survives a crash of the program, `full` also one of the machine.
    pub synchronous: Synchronous,
    /// The most bytes of the file in which spans wait while a PostgreSQL server is away.
    pub max_spool_bytes: u64,
    /// Limits on what is kept.
    pub retention: Retention,
}

impl Default for StoreSettings {
    fn default() -> Self {
        Self {
            path: None,
            synchronous: Synchronous::default(),
            max_spool_bytes: 1 << 30,
            retention: Retention::default(),
        }
    }
}

/// Where a store is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StorePlace {
    /// In memory.
    Memory,
    /// In a file; none: the one under the data folder.
    File(Option<PathBuf>),
    /// In a PostgreSQL server.
    Postgres(String),
}

impl StoreSettings {
    /// Where the store is.
    pub fn place(&self) -> StorePlace {
        match self.path.as_ref().and_then(|path| path.to_str()) {
            Some("memory:") => StorePlace::Memory,
            Some(url) if url.starts_with("postgres://") || url.starts_with("postgresql://") => {
                StorePlace::Postgres(url.to_owned())
            }
            _ => StorePlace::File(self.path.clone()),
        }
    }
}

/// `[shutdown]` of the settings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ShutdownSettings {
    /// How long exchanges in flight may take to finish after SIGTERM or SIGINT.
    #[serde(rename = "drain_timeout_ms", with = "millis")]
    pub drain_timeout: Duration,
}

impl Default for ShutdownSettings {
    fn default() -> Self {
        Self { drain_timeout: Duration::from_secs(30) }
    }
}

/// Why settings can't be used. Messages name the file, the place and the fix.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file can't be read.
    #[error("{path} can't be read: {cause}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: std::io::Error,
    },
    /// The file is not what it should be.
    #[error("{path}: {cause}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// What is wrong, where, and what was meant perhaps.
        cause: String,
    },
    /// Values that can't be used together, or at all.
    #[error("{0}")]
    Invalid(String),
}

impl Config {
    /// Reads a file.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|cause| ConfigError::Read { path: path.to_owned(), cause })?;
        Self::parse(&text).map_err(|cause| ConfigError::Parse { path: path.to_owned(), cause })
    }

    /// Reads the text of a file.
    pub fn parse(text: &str) -> Result<Self, String> {
        toml::from_str(text).map_err(|error| {
            let hint = unknown_key(error.message()).and_then(|key| nearest(&key, error.message()));
            match hint {
                Some(known) => format!("{error}did you mean `{known}`?"),
                None => error.to_string(),
            }
        })
    }

    /// Checks what no type can: addresses that need a token, rules that must parse.
    pub fn check(&self) -> Result<(), ConfigError> {
        if !self.proxy.listen.ip().is_loopback() && self.proxy.token.is_empty() {
            return Err(ConfigError::Invalid(format!(
                "the proxy door would listen on {}, where others can reach it, without a token; set proxy.token (or \
                 TRACEWIRE_TOKEN), or listen on 127.0.0.1",
                self.proxy.listen
            )));
        }
        let server = &self.server;
        let doors = [Some(server.listen), server.otlp_grpc_listen];
        if let Some(open) = doors.into_iter().flatten().find(|listen| !listen.ip().is_loopback())
            && server.tokens.is_empty()
        {
            return Err(ConfigError::Invalid(format!(
                "the server door would listen on {open}, where others can reach it, without a token; add one to \
                 server.tokens, or listen on 127.0.0.1"
            )));
        }
        if server.tokens.iter().any(|token| token.token.is_empty()) {
            return Err(ConfigError::Invalid("a token of server.tokens is empty; give it a text".to_owned()));
        }
        for rule in &self.upstream.connect_to {
            rule.parse::<ConnectTo>().map_err(|error| ConfigError::Invalid(error.to_string()))?;
        }
        Ok(())
    }
}

/// The key that serde did not know.
fn unknown_key(message: &str) -> Option<String> {
    let rest = message.split("unknown field `").nth(1)?;
    rest.split('`').next().map(str::to_owned)
}

/// The known key nearest to `key`, if any is near. serde lists them all in its message.
fn nearest(key: &str, message: &str) -> Option<String> {
    let known = message.split("expected").nth(1)?.split('`').skip(1).step_by(2);
    let scored = known.map(|known| (distance(key, known), known));
    let (score, known) = scored.min()?;
    // A missing or wrong unit suffix is the commonest slip.
    let same_stem = known.starts_with(key) || key.rsplit_once('_').is_some_and(|(stem, _)| known.starts_with(stem));
    (score <= 3 || same_stem).then(|| known.to_owned())
}

/// Levenshtein distance.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

/// The folder for stores and the CA: `TRACEWIRE_HOME`, else `tracewire` under `XDG_DATA_HOME`, else under
/// `~/.local/share`.
pub fn data_folder(variable: &dyn Fn(&str) -> Option<std::ffi::OsString>) -> Option<PathBuf> {
    let set = |name: &str| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("TRACEWIRE_HOME")
        .or_else(|| set("XDG_DATA_HOME").map(|folder| folder.join("tracewire")))
        .or_else(|| set("HOME").map(|home| home.join(".local/share/tracewire")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_file_says_the_defaults() {
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
    fn an_unknown_key_and_a_wrong_unit_are_explained() {
        let error = Config::parse("[upstream]\nconnect_timeout_secs = 5\n").unwrap_err();
        assert!(error.contains("did you mean `connect_timeout_ms`?"), "{error}");
        let error = Config::parse("[capture]\ninclude_heders = true\n").unwrap_err();
        assert!(error.contains("did you mean `include_headers`?"), "{error}");
        let error = Config::parse("[upstream]\nconnect_timeout_ms = \"5s\"\n").unwrap_err();
        assert!(error.contains("connect_timeout_ms"), "{error}");
    }

    #[test]
    fn a_public_door_needs_a_token() {
        let mut config = Config::parse("[proxy]\nlisten = \"0.0.0.0:8080\"\n").unwrap();
        assert!(config.check().unwrap_err().to_string().contains("proxy.token"));
        config.proxy.token = crate::proxy::Secret::new("t");
        assert!(config.check().is_ok());
    }
}

//! What a task's command finds: the way through the proxy, base URLs with the task's ids, its input, a place for a reward.
//!
//! It must not start the command.

use super::source::Task;
use crate::cli::client::{Address, Server, encoded};
use crate::cli::variable;
use crate::config::Config;
use crate::run::environment::{Environment, Request};
use crate::run::{Loopback, RunSettings};
use crate::util::secret::Secret;
use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use http::Method;
use serde_json::Value as JsonValue;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// When commands are told to call their model through the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum BaseUrl {
    /// If it has a backend
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

/// What all tasks' environments have in common.
pub(super) struct Surroundings {
    folder: TempDir,
    working_directory: PathBuf,
    settings: RunSettings,
    server: Address,
    // What commands show the server.
    key: String,
    base_urls: bool,
    proxy: Option<Proxy>,
}

struct Proxy {
    address: Address,
    token: Secret,
    ca_pem: String,
}

/// What one task's command is started with. Its files live as long.
pub(super) struct Prepared {
    pub(super) environment: Environment,
    pub(super) input: Vec<u8>,
    /// Where it may write a reward.
    pub(super) reward: PathBuf,
    _folder: TempDir,
}

impl Surroundings {
    /// Asks the server what it has, and the proxy for its certificate. A server that is not ours has no proxy.
    pub(super) async fn find(
        server: &Server,
        base_url: BaseUrl,
        proxy: Option<&str>,
        proxy_token: Option<String>,
        config: &Config,
    ) -> Result<Self> {
        let told = server.call(Method::GET, "/v1/tracewire/info", None).await?;
        let told = if told.is_missing() { JsonValue::Null } else { told.success()?.body };
        let address = match proxy {
            Some(url) => Some(Address::parse(url, "--proxy")?),
            None => told["proxy"].as_str().map(|url| reachable(url, &server.address)).transpose()?,
        };
        let token = proxy_token.or_else(|| variable("TRACEWIRE_PROXY_TOKEN")?.into_string().ok());
        let token = Secret::new(token.filter(|token| !token.is_empty()).unwrap_or_else(|| NO_TOKEN.to_owned()));
        let proxy = match address {
            Some(address) => Some(Proxy::at(address, token, config).await?),
            None => None,
        };
        let base_urls = match base_url {
            BaseUrl::Auto => told["backends"].as_u64().unwrap_or(0) > 0,
            BaseUrl::Always => true,
            BaseUrl::Never => false,
        };
        Ok(Self {
            folder: tempfile::Builder::new().prefix("tracewire-").tempdir().context("no temporary folder")?,
            working_directory: std::env::current_dir().context("the working directory is gone")?,
            settings: config.run.clone(),
            server: server.address.clone(),
            key: server.token().unwrap_or(NO_KEY).to_owned(),
            base_urls,
            proxy,
        })
    }

    /// Which proxy door records what commands do, if one does.
    pub(super) fn proxy_url(&self) -> Option<String> {
        self.proxy.as_ref().map(|proxy| proxy.address.url())
    }

    /// Writes a task's files, and puts its environment together.
    pub(super) fn prepare(&self, task: &Task) -> Result<Prepared> {
        let folder = tempfile::Builder::new().prefix("task-").tempdir_in(self.folder.path());
        let folder = folder.context("a folder for the rollout can't be made")?;
        let mut input = task.input.to_string().into_bytes();
        input.push(b'\n');
        let (file, reward) = (folder.path().join("input.json"), folder.path().join("reward"));
        fs::write(&file, &input).with_context(|| format!("{} can't be written", file.display()))?;
        let mut environment = match &self.proxy {
            Some(proxy) => self.traced(proxy, task, folder.path())?,
            None => Environment::default(),
        };
        environment.set.push(("TRACEWIRE_INPUT".to_owned(), file.into()));
        environment.set.push(("TRACEWIRE_REWARD".to_owned(), reward.clone().into()));
        let own = self.variables(task, &variable);
        environment.set.extend(own.into_iter().map(|(name, value)| (name.to_owned(), OsString::from(value))));
        if task.mode.is_none() {
            environment.unset.push(MODE.to_owned());
        }
        Ok(Prepared { environment, input, reward, _folder: folder })
    }

    /// What `tracewire env` sets, with the task's ids in the proxy's URL.
    fn traced(&self, proxy: &Proxy, task: &Task, folder: &Path) -> Result<Environment> {
        let mut settings = self.settings.clone();
        if settings.loopback == Loopback::Auto && !proxy.address.is_loopback() {
            // The proxy's localhost is not the command's.
            settings.loopback = Loopback::Leave;
        }
        let (proxy_url, bypass) = (proxy.url_for(task), self.bypass());
        let request = Request {
            folder,
            proxy_url: &proxy_url,
            ca_pem: &proxy.ca_pem,
            settings: &settings,
            bypass: &bypass,
            runtimes: &[],
            current: &variable,
            working_directory: &self.working_directory,
        };
        Ok(request.build()?)
    }

    /// The server's host, which commands call directly. This machine is named only if commands are sent to the server:
    /// then other calls to the same address are not proxied either. Without base URLs the proxy relays to its own API.
    fn bypass(&self) -> Vec<String> {
        let named = self.base_urls || !self.server.is_loopback();
        named.then(|| self.server.host.trim_matches(['[', ']']).to_owned()).into_iter().collect()
    }

    /// Ids and URLs. A key that the user has set stays.
    fn variables(&self, task: &Task, current: &dyn Fn(&str) -> Option<OsString>) -> Vec<(&'static str, String)> {
        let server = self.server.url();
        let (rollout, attempt) = (encoded(&task.rollout), encoded(&task.attempt));
        // Agent Lightning 1.0 knows two modes.
        let mode = if matches!(task.mode.as_deref(), None | Some("train")) { "train" } else { "val" };
        let mut set = vec![
            ("TRACEWIRE_ROLLOUT_ID", task.rollout.clone()),
            ("TRACEWIRE_ATTEMPT_ID", task.attempt.clone()),
            (
                "AGL_OPENAI_BASE_URL",
                format!("{server}/proxy/rollout/{rollout}/attempt/{attempt}/mode/{mode}/openai/v1"),
            ),
            ("AGL_EVENT_URL", format!("{server}/api/rollouts/{rollout}/attempt/{attempt}/events")),
            ("AGL_KEY", self.key.clone()),
        ];
        set.extend(task.mode.clone().map(|mode| (MODE, mode)));
        if self.base_urls {
            let base = format!("{server}/rollout/{rollout}/attempt/{attempt}");
            set.extend(["OPENAI_BASE_URL", "OPENAI_API_BASE"].map(|name| (name, format!("{base}/v1"))));
            set.extend(["ANTHROPIC_BASE_URL", "GOOGLE_GEMINI_BASE_URL"].map(|name| (name, base.clone())));
            let free = KEYS.into_iter().filter(|name| current(name).is_none_or(|value| value.is_empty()));
            set.extend(free.map(|name| (name, self.key.clone())));
        }
        set
    }
}

impl Proxy {
    async fn at(address: Address, token: Secret, config: &Config) -> Result<Self> {
        if address.is_tls() {
            bail!("--proxy is a URL with http://: the proxy door itself speaks no TLS");
        }
        let place = address.url();
        let door = Server::at(address.clone(), "--proxy", None, config)?;
        let answer = door.call(Method::GET, "/ca.pem", None).await?.success();
        let answer = answer.with_context(|| format!("{place} is no proxy door of Tracewire; give --proxy"))?;
        let ca_pem = answer.body.as_str().filter(|text| text.contains("BEGIN CERTIFICATE"));
        let ca_pem = ca_pem.with_context(|| format!("{place}/ca.pem is no certificate; give --proxy"))?.to_owned();
        Ok(Self { address, token, ca_pem })
    }

    /// Its URL, with whose calls come by it.
    fn url_for(&self, task: &Task) -> String {
        let [rollout, attempt, token] =
            [task.rollout.as_str(), task.attempt.as_str(), self.token.expose()].map(encoded);
        format!("http://{rollout}.{attempt}:{token}@{}", self.address.authority())
    }
}

/// The proxy's URL as its server tells it, seen from here.
fn reachable(told: &str, server: &Address) -> Result<Address> {
    let proxy = Address::parse(told, "the proxy's address that the server tells")?;
    let elsewhere = proxy.is_unspecified() || !server.is_loopback();
    Ok(if elsewhere { proxy.on_host(&server.host) } else { proxy })
}

const MODE: &str = "TRACEWIRE_MODE";
const KEYS: [&str; 3] = ["OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GEMINI_API_KEY"];
/// A proxy URL with a user has a password too.
const NO_TOKEN: &str = "x";
/// SDKs refuse to start without one.
const NO_KEY: &str = "tracewire";

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn surroundings(server: &str, base_urls: bool, proxy: Option<Proxy>) -> Surroundings {
        Surroundings {
            folder: tempfile::tempdir().unwrap(),
            working_directory: PathBuf::from("/"),
            settings: RunSettings::default(),
            server: Address::parse(server, "--server").unwrap(),
            key: "k".to_owned(),
            base_urls,
            proxy,
        }
    }

    fn task(mode: Option<&str>) -> Task {
        Task {
            rollout: "ro/ü".to_owned(),
            attempt: "at-1".to_owned(),
            input: json!({ "q": 1 }),
            mode: mode.map(str::to_owned),
            timeout: None,
        }
    }

    fn value(set: &[(&str, String)], name: &str) -> Option<String> {
        set.iter().find(|(known, _)| *known == name).map(|(_, value)| value.clone())
    }

    #[test]
    fn urls_have_the_tasks_ids_in_them() {
        let set = surroundings("http://h:1", true, None)
            .variables(&task(Some("test")), &|name| (name == "OPENAI_API_KEY").then(|| "mine".into()));
        for (name, expected) in [
            ("TRACEWIRE_ROLLOUT_ID", Some("ro/ü")),
            ("TRACEWIRE_MODE", Some("test")),
            ("AGL_OPENAI_BASE_URL", Some("http://h:1/proxy/rollout/ro%2F%C3%BC/attempt/at-1/mode/val/openai/v1")),
            ("AGL_EVENT_URL", Some("http://h:1/api/rollouts/ro%2F%C3%BC/attempt/at-1/events")),
            ("AGL_KEY", Some("k")),
            ("OPENAI_BASE_URL", Some("http://h:1/rollout/ro%2F%C3%BC/attempt/at-1/v1")),
            ("OPENAI_API_BASE", Some("http://h:1/rollout/ro%2F%C3%BC/attempt/at-1/v1")),
            ("ANTHROPIC_BASE_URL", Some("http://h:1/rollout/ro%2F%C3%BC/attempt/at-1")),
            ("GOOGLE_GEMINI_BASE_URL", Some("http://h:1/rollout/ro%2F%C3%BC/attempt/at-1")),
            ("OPENAI_API_KEY", None),
            ("ANTHROPIC_API_KEY", Some("k")),
            ("GEMINI_API_KEY", Some("k")),
        ] {
            assert_eq!(value(&set, name).as_deref(), expected, "{name}");
        }
        let set = surroundings("http://h:1", false, None).variables(&task(None), &|_| None);
        assert_eq!((value(&set, "OPENAI_BASE_URL"), value(&set, "TRACEWIRE_MODE")), (None, None));
        assert!(value(&set, "AGL_OPENAI_BASE_URL").unwrap().contains("/mode/train/"));
    }

    #[test]
    fn the_input_is_in_a_file_and_the_proxy_knows_whose_calls_come() {
        let address = Address::parse("http://127.0.0.1:8080", "--proxy").unwrap();
        let proxy = Proxy { address, token: Secret::new("a b"), ca_pem: "-- ca --\n".to_owned() };
        let surroundings = surroundings("http://127.0.0.1:4747", false, Some(proxy));
        let prepared = surroundings.prepare(&task(None)).unwrap();
        let get = |name| prepared.environment.value(name);
        assert_eq!(get("HTTPS_PROXY"), "http://ro%2F%C3%BC.at-1:a%20b@127.0.0.1:8080");
        assert_eq!(get("NO_PROXY"), "");
        assert!(fs::read_to_string(get("SSL_CERT_FILE")).unwrap().contains("-- ca --"));
        assert_eq!(fs::read(get("TRACEWIRE_INPUT")).unwrap(), b"{\"q\":1}\n");
        assert_eq!(prepared.input, b"{\"q\":1}\n");
        assert!(!prepared.reward.exists() && prepared.environment.unset.contains(&MODE.to_owned()));
    }

    #[test]
    fn the_server_is_called_past_the_proxy() {
        let bypass = |server, base_urls| surroundings(server, base_urls, None).bypass();
        assert!(bypass("http://127.0.0.1:1", false).is_empty());
        assert_eq!(bypass("http://127.0.0.1:1", true), ["127.0.0.1"]);
        assert_eq!(bypass("http://[::1]:1", true), ["::1"]);
        assert_eq!(bypass("http://trainer:1", false), ["trainer"]);
    }

    #[test]
    fn a_proxys_address_is_seen_from_here() {
        for (told, server, expected) in [
            ("http://127.0.0.1:8080", "http://127.0.0.1:4747", "http://127.0.0.1:8080"),
            ("http://0.0.0.0:8080", "http://localhost:4747", "http://localhost:8080"),
            ("http://[::]:8080", "http://10.0.0.1:4747", "http://10.0.0.1:8080"),
            ("http://127.0.0.1:8080", "https://trainer", "http://trainer:8080"),
        ] {
            let server = Address::parse(server, "--server").unwrap();
            assert_eq!(reachable(told, &server).unwrap().url(), expected);
        }
    }
}

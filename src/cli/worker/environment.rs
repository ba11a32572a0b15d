//! The environment of a task's command: the proxy, base URLs with the task's ids, its input, and a file for its reward.
//!
//! It prepares commands and does not start them.

use super::agent_key::{AgentKeys, secret_variables};
use super::args::{BaseUrlMode, WorkerArgs};
use super::task::Task;
use crate::cli::client::{HttpAddress, ServerClient, encoded};
use crate::cli::settings::variable;
use crate::config::Config;
use crate::files::{private_folder_in, write_private};
use crate::run::environment::{Environment, EnvironmentRequest};
use crate::run::{ATTEMPT_VARIABLE, ROLLOUT_VARIABLE, RunFolder, RunSettings, STORE_VARIABLE, TRACEPARENT_VARIABLE};
use crate::util::secret::Secret;
use crate::wire::traceparent::TraceParent;
use anyhow::{Context, Result, bail};
use http::Method;
use serde_json::Value as JsonValue;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;

/// What the environments of all tasks have in common.
pub(super) struct CommandEnvironment {
    /// Holds one folder per running task; removed with the worker.
    folder: RunFolder,
    working_directory: PathBuf,
    settings: RunSettings,
    server: HttpAddress,
    agent_keys: AgentKeys,
    /// Variables that commands must not inherit.
    secret_variables: Vec<String>,
    /// Whether base URLs point to the server's gateway.
    set_base_urls: bool,
    proxy: Option<RecordingProxy>,
}

/// The proxy that records the commands' traffic.
struct RecordingProxy {
    address: HttpAddress,
    /// `None`: the command's key if there are signed ones, or no password that matters.
    token: Option<Secret>,
    ca_pem: String,
}

/// A task's environment. Its files are removed when this is dropped.
pub(super) struct PreparedTask {
    pub(super) environment: Environment,
    /// For the command's stdin.
    pub(super) input: Vec<u8>,
    /// The file that the command may write its reward to; it does not exist yet.
    pub(super) reward: PathBuf,
    _folder: TempDir,
}

impl CommandEnvironment {
    /// Gets the proxy's address and the number of backends from the server, and the CA certificate from the proxy. Other
    /// servers than `tracewire serve` report no proxy.
    pub(super) async fn discover(server: &ServerClient, args: &WorkerArgs, config: &Config) -> Result<Self> {
        let info = server.call(Method::GET, "/v1/tracewire/info", None).await?;
        let info = if info.is_not_found() { JsonValue::Null } else { info.into_success()?.body };
        let agent_keys = AgentKeys::of_server(&info, args.agent_key.as_deref());
        let address = match args.proxy.as_deref() {
            Some(url) => Some(HttpAddress::parse(url, "--proxy")?),
            None => info["proxy"].as_str().map(|url| reachable_address(url, &server.address)).transpose()?,
        };
        let token = args.proxy_token.clone().or_else(|| variable("TRACEWIRE_PROXY_TOKEN")?.into_string().ok());
        // The server's own proxy takes the command's key.
        let has_keys = args.proxy.is_none() && agent_keys.are_signed();
        let token = token.filter(|token| !token.is_empty() && !has_keys).map(Secret::new);
        if token.as_ref().is_some_and(|token| server.token() == Some(token.expose())) {
            bail!(
                "the proxy's token is the server's too, and commands would get it; give the proxy a token of its own"
            );
        }
        let proxy = match address {
            Some(address) => Some(RecordingProxy::connect(address, token, config).await?),
            None => None,
        };
        let set_base_urls = match args.base_url {
            BaseUrlMode::Auto => info["backends"].as_u64().unwrap_or(0) > 0,
            BaseUrlMode::Always => true,
            BaseUrlMode::Never => false,
        };
        Ok(Self {
            folder: RunFolder::create().context("cannot create a temporary folder; check TMPDIR")?,
            working_directory: std::env::current_dir().context("the working directory no longer exists")?,
            settings: config.run.clone(),
            server: server.address.clone(),
            agent_keys,
            secret_variables: secret_variables(std::env::vars_os(), server.token()),
            set_base_urls,
            proxy,
        })
    }

    /// The proxy that records the commands' traffic, if there is one.
    pub(super) fn proxy_url(&self) -> Option<String> {
        self.proxy.as_ref().map(|proxy| proxy.address.url())
    }

    /// The API key of a task's command, which must end within `limit`.
    pub(super) async fn api_key(&self, server: &ServerClient, task: &Task, limit: Option<Duration>) -> Result<String> {
        self.agent_keys.key(server, task, limit).await
    }

    /// True if the server wants a token, and commands have nothing to present to it.
    pub(super) fn lacks_keys(&self, server: &ServerClient) -> bool {
        server.token().is_some() && self.agent_keys.are_placeholders()
    }

    /// Writes a task's files and builds its environment. The command gets this API key.
    pub(super) fn prepare(&self, task: &Task, command: &[OsString], api_key: &str) -> Result<PreparedTask> {
        let folder = private_folder_in(self.folder.path(), "task-");
        let folder = folder.context("cannot create a folder for the rollout")?;
        let mut input = task.input.to_string().into_bytes();
        input.push(b'\n');
        let (file, reward) = (folder.path().join("input.json"), folder.path().join("reward"));
        write_private(&file, &input).with_context(|| format!("cannot write {}", file.display()))?;
        let inherited =
            |name: &str| variable(name).filter(|_| !self.secret_variables.iter().any(|secret| secret == name));
        let mut environment = match &self.proxy {
            Some(proxy) => self.proxy_environment(proxy, task, command, folder.path(), api_key, &inherited)?,
            None => Environment::default(),
        };
        environment.set.push(("TRACEWIRE_INPUT".to_owned(), file.into()));
        environment.set.push(("TRACEWIRE_REWARD".to_owned(), reward.clone().into()));
        let variables = self.task_variables(task, &inherited, api_key);
        environment.set.extend(variables.into_iter().map(|(name, value)| (name.to_owned(), OsString::from(value))));
        let is_set = |name: &String| environment.set.iter().any(|(set, _)| set == name);
        let secret: Vec<String> = self.secret_variables.iter().filter(|name| !is_set(name)).cloned().collect();
        environment.unset.extend(secret);
        // Spans of the command go to the server, also if this program runs within `tracewire run`.
        environment.unset.push(STORE_VARIABLE.to_owned());
        if task.mode.is_none() {
            environment.unset.push(MODE_VARIABLE.to_owned());
        }
        Ok(PreparedTask { environment, input, reward, _folder: folder })
    }

    /// The variables of `tracewire env`, with the task's ids in the proxy's URL.
    fn proxy_environment(
        &self,
        proxy: &RecordingProxy,
        task: &Task,
        command: &[OsString],
        folder: &Path,
        api_key: &str,
        current: &dyn Fn(&str) -> Option<OsString>,
    ) -> Result<Environment> {
        let key = self.agent_keys.are_signed().then_some(api_key);
        let (proxy_url, bypass) = (proxy.url_for(task, key), self.bypass());
        let request = EnvironmentRequest {
            folder,
            proxy_url: &proxy_url,
            ca_pem: &proxy.ca_pem,
            settings: &self.settings,
            bypass: &bypass,
            runtimes: &[],
            command,
            current,
            working_directory: &self.working_directory,
        };
        Ok(request.build()?)
    }

    /// The server's host, which commands call directly. A loopback host is added only if base URLs point to it: other calls
    /// to that address then bypass the proxy too. Without base URLs the proxy relays requests to its own API.
    fn bypass(&self) -> Vec<String> {
        let bypasses = self.set_base_urls || !self.server.is_loopback();
        bypasses.then(|| self.server.host.trim_matches(['[', ']']).to_owned()).into_iter().collect()
    }

    /// The task's ids, URLs and API keys. API keys that the user has set stay.
    fn task_variables(
        &self,
        task: &Task,
        current: &dyn Fn(&str) -> Option<OsString>,
        api_key: &str,
    ) -> Vec<(&'static str, String)> {
        let server = self.server.url();
        let (rollout, attempt) = (encoded(&task.rollout), encoded(&task.attempt));
        // Agent Lightning 1.0 has two modes.
        let mode = if matches!(task.mode.as_deref(), None | Some("train")) { "train" } else { "val" };
        let parent = TraceParent::of_attempt_root(&task.rollout.as_str().into(), &task.attempt.as_str().into());
        let mut set = vec![
            (ROLLOUT_VARIABLE, task.rollout.clone()),
            (ATTEMPT_VARIABLE, task.attempt.clone()),
            (TRACEPARENT_VARIABLE, parent.to_string()),
            (
                "AGL_OPENAI_BASE_URL",
                format!("{server}/proxy/rollout/{rollout}/attempt/{attempt}/mode/{mode}/openai/v1"),
            ),
            ("AGL_EVENT_URL", format!("{server}/api/rollouts/{rollout}/attempt/{attempt}/events")),
            ("AGL_KEY", api_key.to_owned()),
        ];
        set.extend(task.mode.clone().map(|mode| (MODE_VARIABLE, mode)));
        if self.set_base_urls {
            let base = format!("{server}/rollout/{rollout}/attempt/{attempt}");
            set.extend(["OPENAI_BASE_URL", "OPENAI_API_BASE"].map(|name| (name, format!("{base}/v1"))));
            set.extend(["ANTHROPIC_BASE_URL", "GOOGLE_GEMINI_BASE_URL"].map(|name| (name, base.clone())));
            let unset = API_KEY_VARIABLES.into_iter().filter(|name| current(name).is_none_or(|value| value.is_empty()));
            set.extend(unset.map(|name| (name, api_key.to_owned())));
        }
        set
    }
}

impl RecordingProxy {
    async fn connect(address: HttpAddress, token: Option<Secret>, config: &Config) -> Result<Self> {
        if address.is_tls() {
            bail!("--proxy must be an http:// URL: connections to the proxy itself do not use TLS");
        }
        let url = address.url();
        let client = ServerClient::with_flag(address.clone(), "--proxy", None, config)?;
        let response = client.call(Method::GET, "/ca.pem", None).await?.into_success();
        let response = response.with_context(|| format!("{url} is not a Tracewire proxy; check --proxy"))?;
        let ca_pem = response.body.as_str().filter(|text| text.contains("BEGIN CERTIFICATE"));
        let ca_pem = ca_pem.with_context(|| format!("{url}/ca.pem is not a certificate; check --proxy"))?.to_owned();
        Ok(Self { address, token, ca_pem })
    }

    /// The proxy's URL with the task's ids as user name, and the token or the command's key.
    fn url_for(&self, task: &Task, key: Option<&str>) -> String {
        let password = self.token.as_ref().map(Secret::expose).or(key).unwrap_or(PLACEHOLDER_TOKEN);
        let [rollout, attempt, token] = [task.rollout.as_str(), task.attempt.as_str(), password].map(encoded);
        format!("http://{rollout}.{attempt}:{token}@{}", self.address.authority())
    }
}

/// The proxy's address as reported by the server, on the server's host if the reported host is not reachable from here.
fn reachable_address(reported: &str, server: &HttpAddress) -> Result<HttpAddress> {
    let proxy = HttpAddress::parse(reported, "the proxy address reported by the server")?;
    let on_server = proxy.is_unspecified() || !server.is_loopback();
    Ok(if on_server { proxy.on_host(&server.host) } else { proxy })
}

const MODE_VARIABLE: &str = "TRACEWIRE_MODE";
const API_KEY_VARIABLES: [&str; 3] = ["OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GEMINI_API_KEY"];
/// For a proxy without a token: a URL with a user name must have a password too.
const PLACEHOLDER_TOKEN: &str = "x";

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::fs;

    fn environment(server: &str, set_base_urls: bool, proxy: Option<RecordingProxy>) -> CommandEnvironment {
        CommandEnvironment {
            folder: RunFolder::create().unwrap(),
            working_directory: PathBuf::from("/"),
            settings: RunSettings::default(),
            server: HttpAddress::parse(server, "--server").unwrap(),
            agent_keys: AgentKeys::Fixed("k".to_owned()),
            secret_variables: Vec::new(),
            set_base_urls,
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
    fn urls_contain_the_tasks_ids() {
        let set = environment("http://h:1", true, None).task_variables(
            &task(Some("test")),
            &|name| (name == "OPENAI_API_KEY").then(|| "mine".into()),
            "k",
        );
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
        let set = environment("http://h:1", false, None).task_variables(&task(None), &|_| None, "k");
        assert_eq!((value(&set, "OPENAI_BASE_URL"), value(&set, "TRACEWIRE_MODE")), (None, None));
        assert!(value(&set, "AGL_OPENAI_BASE_URL").unwrap().contains("/mode/train/"));
    }

    #[test]
    fn the_input_is_in_a_file_and_the_proxy_url_names_the_task() {
        let address = HttpAddress::parse("http://127.0.0.1:8080", "--proxy").unwrap();
        let proxy = RecordingProxy { address, token: Some(Secret::new("a b")), ca_pem: "-- ca --\n".to_owned() };
        let environment = environment("http://127.0.0.1:4747", false, Some(proxy));
        let prepared = environment.prepare(&task(None), &[], "k").unwrap();
        let get = |name| prepared.environment.value(name);
        assert_eq!(get("HTTPS_PROXY"), "http://ro%2F%C3%BC.at-1:a%20b@127.0.0.1:8080");
        assert_eq!(get("NO_PROXY"), "");
        assert!(fs::read_to_string(get("SSL_CERT_FILE")).unwrap().contains("-- ca --"));
        assert_eq!(fs::read(get("TRACEWIRE_INPUT")).unwrap(), b"{\"q\":1}\n");
        assert_eq!(prepared.input, b"{\"q\":1}\n");
        assert!(!prepared.reward.exists());
        let unset = |name: &str| prepared.environment.unset.iter().any(|unset| unset == name);
        assert!(unset(MODE_VARIABLE) && unset(STORE_VARIABLE));
    }

    #[test]
    fn calls_to_the_server_bypass_the_proxy() {
        let bypass = |server, set_base_urls| environment(server, set_base_urls, None).bypass();
        assert!(bypass("http://127.0.0.1:1", false).is_empty());
        assert_eq!(bypass("http://127.0.0.1:1", true), ["127.0.0.1"]);
        assert_eq!(bypass("http://[::1]:1", true), ["::1"]);
        assert_eq!(bypass("http://trainer:1", false), ["trainer"]);
    }

    #[test]
    fn a_reported_proxy_address_is_made_reachable() {
        for (reported, server, expected) in [
            ("http://127.0.0.1:8080", "http://127.0.0.1:4747", "http://127.0.0.1:8080"),
            ("http://0.0.0.0:8080", "http://localhost:4747", "http://localhost:8080"),
            ("http://[::]:8080", "http://10.0.0.1:4747", "http://10.0.0.1:8080"),
            ("http://127.0.0.1:8080", "https://trainer", "http://trainer:8080"),
        ] {
            let server = HttpAddress::parse(server, "--server").unwrap();
            assert_eq!(reachable_address(reported, &server).unwrap().url(), expected);
        }
    }
}

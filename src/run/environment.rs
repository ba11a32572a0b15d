//! Builds the environment of a traced command: every variable of the table with its value.
//!
//! The user's values are extended, never lost, and values of an outer Tracewire environment are replaced.

use super::bundle::{BundleError, Bundles, write_bundles};
use super::extras::{Extras, ProxyReach, write_extras};
use super::runtime::{ADDED_NO_PROXY_VARIABLE, Extension, FILES_VARIABLE, Role, Runtime, VARIABLES};
use super::settings::{Loopback, RunSettings};
use super::user_environment::{ORIGINAL_PREFIX, UserEnvironment, original_variable};
use crate::trace::exchange::ANONYMOUS_USER;
use crate::util::secret::Secret;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use std::ffi::OsString;
use std::net::IpAddr;
use std::path::Path;

/// The changes to an environment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Environment {
    /// Names and values of variables to set, in the order of the table.
    pub set: Vec<(String, OsString)>,
    /// Names of variables to unset.
    pub unset: Vec<String>,
    /// Notes for the user.
    pub notes: Vec<String>,
}

impl Environment {
    /// Returns the value that a variable is set to, or an empty text.
    pub(crate) fn value(&self, name: &str) -> String {
        let found = self.set.iter().find(|(set, _)| set == name);
        found.map(|(_, value)| value.to_string_lossy().into_owned()).unwrap_or_default()
    }

    /// Removes the user's replaced values, which name files of this machine.
    pub(crate) fn remove_originals(&mut self) {
        self.set.retain(|(name, _)| !name.starts_with(ORIGINAL_PREFIX));
    }

    /// The changes that undo the environment of this process, as far as it set the variables. `None` if it has none.
    pub(crate) fn undone(current: &dyn Fn(&str) -> Option<OsString>) -> Option<Self> {
        current(FILES_VARIABLE).filter(|files| !files.is_empty())?;
        let user = UserEnvironment::new(current);
        let proxy = current("HTTPS_PROXY");
        let mut environment = Self::default();
        for variable in VARIABLES {
            let Some(value) = current(variable.name) else {
                if variable.role == Role::AllProtocols {
                    let users = user.original_proxy(variable.name);
                    environment.set.extend(users.map(|users| (variable.name.to_owned(), users)));
                }
                continue;
            };
            let users = match variable.role {
                Role::Proxy if Some(&value) != proxy.as_ref() => continue,
                Role::Flag(ours) if value != ours => continue,
                Role::Ftp if Some(&value) != ftp_proxy(&user).as_ref() => continue,
                Role::Proxy | Role::AllProtocols => user.original_proxy(variable.name),
                Role::Flag(_) | Role::Files | Role::Ftp => None,
                Role::AdditiveCa | Role::ReplacingCa | Role::NoProxy | Role::Extended(_) => user.value(variable.name),
            };
            match users {
                Some(users) if users == value => {}
                Some(users) => environment.set.push((variable.name.to_owned(), users)),
                None => environment.unset.push(variable.name.to_owned()),
            }
        }
        if current("SSL_CERT_DIR").is_none() {
            let users = user.value("SSL_CERT_DIR").map(|users| ("SSL_CERT_DIR".to_owned(), users));
            environment.set.extend(users);
        }
        let kept = VARIABLES.iter().map(|variable| variable.name).chain(["SSL_CERT_DIR"]).map(original_variable);
        let kept = kept.chain([ADDED_NO_PROXY_VARIABLE.to_owned()]).filter(|name| current(name).is_some());
        environment.unset.extend(kept);
        Some(environment)
    }
}

/// The inputs of an environment.
pub(crate) struct EnvironmentRequest<'a> {
    /// The folder for the files that variables name.
    pub folder: &'a Path,
    /// The proxy's URL, with credentials if it needs any.
    pub proxy_url: &'a str,
    /// The certificate of the proxy's CA, as PEM.
    pub ca_pem: &'a str,
    /// The user's settings.
    pub settings: &'a RunSettings,
    /// Hosts to reach directly, in addition to the user's. Without ports: curl and Python's requests compare hosts only.
    pub bypass: &'a [String],
    /// The runtimes to set variables for; if empty, all.
    pub runtimes: &'a [Runtime],
    /// The command that gets the environment; empty if it is for a shell.
    pub command: &'a [OsString],
    /// Reads a variable of this process, which an outer Tracewire environment may have set.
    pub current: &'a dyn Fn(&str) -> Option<OsString>,
    /// The folder to which relative paths in variables refer.
    pub working_directory: &'a Path,
}

impl EnvironmentRequest<'_> {
    /// Writes the files and returns the variables.
    pub(crate) fn build(&self) -> Result<Environment, BundleError> {
        let user = UserEnvironment::new(self.current);
        let bundles = write_bundles(self.folder, self.ca_pem, &user, self.working_directory)?;
        let extras = write_extras(self.folder, &bundles, self.settings, self.command, &user)?;
        Ok(self.compose(&user, &bundles, &extras))
    }

    fn compose(&self, user: &UserEnvironment<'_>, bundles: &Bundles, extras: &Extras) -> Environment {
        let notes = bundles.notes.iter().chain(&extras.notes).cloned().collect();
        let mut environment = Environment { notes, ..Environment::default() };
        let (no_proxy, added) = self.no_proxy(user, &mut environment.notes);
        let (host, port) = host_and_port(self.proxy_url);
        let reach = ProxyReach { host, port, no_proxy: &no_proxy };
        for variable in VARIABLES {
            let wanted = self.runtimes.is_empty()
                || variable.runtimes.is_empty()
                || variable.runtimes.iter().any(|runtime| self.runtimes.contains(runtime));
            if !wanted {
                continue;
            }
            let users = user.value(variable.name).filter(|value| !value.is_empty());
            if matches!(variable.role, Role::Proxy | Role::AllProtocols) {
                self.keep_for_nested(
                    &mut environment,
                    original_variable(variable.name),
                    user.original_proxy(variable.name),
                );
            }
            let value = match variable.role {
                Role::Proxy => Some(self.proxy_url.into()),
                Role::AdditiveCa | Role::ReplacingCa => {
                    bundles.file(variable.name).map(|path| path.as_os_str().to_owned())
                }
                // An empty value overrides an inherited one.
                Role::NoProxy => {
                    let is_set = user.inherited(variable.name).is_some_and(|value| !value.is_empty());
                    (!no_proxy.is_empty() || is_set).then(|| no_proxy.join(",").into())
                }
                Role::AllProtocols => {
                    if user.inherited(variable.name).is_some() {
                        environment.unset.push(variable.name.to_owned());
                    }
                    None
                }
                Role::Ftp => ftp_proxy(user),
                Role::Files => Some(self.folder.into()),
                Role::Flag(value) => Some(value.into()),
                Role::Extended(extension) => extras.value(extension, users.as_deref(), &reach),
            };
            if let Some(value) = value {
                environment.set.push((variable.name.to_owned(), value));
            }
            if matches!(variable.role, Role::AdditiveCa | Role::ReplacingCa | Role::Extended(Extension::Wgetrc)) {
                let original = users.map(|path| self.working_directory.join(path).into_os_string());
                self.keep_for_nested(&mut environment, original_variable(variable.name), original);
            }
        }
        self.keep_for_nested(&mut environment, original_variable("SSL_CERT_DIR"), user.value("SSL_CERT_DIR"));
        self.keep_for_nested(&mut environment, ADDED_NO_PROXY_VARIABLE.to_owned(), Some(added.join(",").into()));
        if bundles.merged_folder {
            environment.unset.push("SSL_CERT_DIR".to_owned());
        }
        environment
    }

    /// Sets a variable that a nested environment reads, or removes the one of an outer environment.
    fn keep_for_nested(&self, environment: &mut Environment, name: String, value: Option<OsString>) {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            environment.set.push((name, value));
        } else if (self.current)(&name).is_some() {
            environment.unset.push(name);
        }
    }

    /// Returns the hosts to reach directly, and those of them that are not the user's. Both spellings of the user's list are
    /// merged, and `run.loopback` is applied.
    fn no_proxy(&self, user: &UserEnvironment<'_>, notes: &mut Vec<String>) -> (Vec<String>, Vec<String>) {
        let users =
            ["NO_PROXY", "no_proxy"].map(|name| user.value(name).unwrap_or_default().to_string_lossy().into_owned());
        let mut hosts = UniqueHosts::default();
        for host in users.iter().flat_map(|list| list.split([',', ' ', '\t', '\n'])) {
            hosts.add(host.trim());
        }
        let users_hosts = hosts.0.len();
        self.bypass.iter().for_each(|host| hosts.add(host));
        let (proxy_host, _) = host_and_port(self.proxy_url);
        let proxy_is_here =
            proxy_host == "localhost" || proxy_host.parse().is_ok_and(|address: IpAddr| address.is_loopback());
        let why_left = match self.settings.loopback {
            Loopback::Leave => Some("--loopback leave, or run.loopback".to_owned()),
            // Its localhost is not the client's.
            Loopback::Auto if !proxy_is_here => Some(format!("the proxy runs elsewhere, on {proxy_host}")),
            Loopback::Auto | Loopback::Trace => None,
        };
        if let Some(why) = &why_left {
            LOOPBACK.iter().for_each(|host| hosts.add(host));
            notes.push(format!("requests to this machine itself are not traced ({why})"));
        }
        let mut hosts = hosts.0;
        if hosts.iter().any(|host| host == "*") {
            notes.push("nothing is traced, because NO_PROXY is `*`; unset it, or name hosts in it".to_owned());
        }
        let added = hosts[users_hosts..].to_vec();
        let loopback: Vec<_> = hosts.iter().filter(|host| LOOPBACK.contains(&host.as_str())).cloned().collect();
        match self.settings.loopback {
            Loopback::Auto if why_left.is_none() && !loopback.is_empty() => notes.push(format!(
                "not traced, because NO_PROXY excludes them: {} (--loopback trace traces them)",
                loopback.join(", ")
            )),
            Loopback::Trace => hosts.retain(|host| !LOOPBACK.contains(&host.as_str())),
            _ => {}
        }
        (hosts, added)
    }
}

/// The URL of a proxy at `HOST:PORT` for clients. With a token it has a user name too: many clients send no credentials
/// without one.
pub(crate) fn proxy_url(address: &str, token: &Secret) -> String {
    match token.expose() {
        "" => format!("http://{address}"),
        token => format!("http://{ANONYMOUS_USER}:{}@{address}", utf8_percent_encode(token, NON_ALPHANUMERIC)),
    }
}

/// A list of hosts without duplicates, in the order of their first occurrence.
#[derive(Default)]
struct UniqueHosts(Vec<String>);

impl UniqueHosts {
    fn add(&mut self, host: &str) {
        if !host.is_empty() && !self.0.iter().any(|known| known == host) {
            self.0.push(host.to_owned());
        }
    }
}

/// The user's proxy for all protocols, if the user has none for FTP.
fn ftp_proxy(user: &UserEnvironment<'_>) -> Option<OsString> {
    let all = || ["all_proxy", "ALL_PROXY"].iter().find_map(|name| user.original_proxy(name));
    let own = ["ftp_proxy", "FTP_PROXY"].iter().find_map(|name| user.inherited(name));
    let inherited = user.inherited("ftp_proxy");
    if own.is_none() || inherited.is_some() && inherited == all() { all() } else { None }
}

/// Host and port of a proxy URL that this program made.
fn host_and_port(url: &str) -> (&str, u16) {
    let place = url.split("://").last().unwrap_or_default().trim_end_matches('/');
    let place = place.rsplit('@').next().unwrap_or_default();
    let (host, port) = place.rsplit_once(':').unwrap_or((place, "80"));
    (host.trim_matches(['[', ']']), port.parse().unwrap_or(80))
}

const LOOPBACK: [&str; 5] = ["localhost", "127.0.0.1", "::1", "[::1]", "127.0.0.0/8"];

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::TempDir;

    struct Built(Environment, #[allow(dead_code, reason = "keeps the files")] TempDir);

    impl Built {
        fn get(&self, name: &str) -> String {
            self.0.value(name)
        }
    }

    fn built(settings: &RunSettings, runtimes: &[Runtime], users: &[(&str, &str)]) -> Built {
        let folder = tempfile::tempdir().unwrap();
        let request = EnvironmentRequest {
            folder: folder.path(),
            proxy_url: "http://ro:secret@127.0.0.1:8080",
            ca_pem: "-- ca --\n",
            settings,
            bypass: &["trainer".to_owned()],
            runtimes,
            command: &[],
            current: &|name| users.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).into()),
            working_directory: folder.path(),
        };
        Built(request.build().unwrap(), folder)
    }

    #[test]
    fn values_of_the_user_are_extended() {
        let users = [
            ("no_proxy", "a.example, b"),
            ("NODE_OPTIONS", "--max-old-space-size=64"),
            ("PYTHONPATH", "/mine"),
            ("JAVA_TOOL_OPTIONS", "-Xmx1g"),
            ("PHP_INI_SCAN_DIR", "/php"),
        ];
        let built = built(&RunSettings::default(), &[], &users);
        for name in ["NO_PROXY", "no_proxy", "npm_config_noproxy"] {
            assert_eq!(built.get(name), "a.example,b,trainer");
        }
        assert!(built.get("NODE_OPTIONS").starts_with("--max-old-space-size=64 --require "));
        assert!(built.get("PYTHONPATH").ends_with(":/mine"));
        assert!(built.get("PHP_INI_SCAN_DIR").starts_with("/php:"));
        let java = built.get("JAVA_TOOL_OPTIONS");
        assert!(java.starts_with("-Xmx1g ") && java.contains("-Dhttps.proxyPort=8080"), "{java}");
        assert!(java.contains("nonProxyHosts=a.example|b|trainer") && !java.contains("secret"), "{java}");
    }

    #[test]
    fn loopback_follows_its_setting_with_a_note() {
        let users = [("NO_PROXY", "localhost,corp")];
        let with = |loopback| built(&RunSettings { loopback, hooks: true }, &[], &users);
        let auto = with(Loopback::Auto);
        assert_eq!(auto.get("NO_PROXY"), "localhost,corp,trainer");
        assert!(auto.0.notes.iter().any(|note| note.contains("localhost")), "{:?}", auto.0.notes);
        assert_eq!(with(Loopback::Trace).get("NO_PROXY"), "corp,trainer");
        assert!(with(Loopback::Leave).get("NO_PROXY").contains("127.0.0.1,::1"));
    }

    #[test]
    fn a_list_that_excludes_everything_is_told() {
        let told = |list| built(&RunSettings::default(), &[], &[("no_proxy", list)]).0.notes.concat();
        assert!(told("corp, *").contains("nothing is traced"), "{}", told("corp, *"));
        assert!(!told("*.corp").contains("nothing is traced"));
    }

    #[test]
    fn a_nested_environment_replaces_the_outer_one() {
        let corporate = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(corporate.path(), "-- corporate --\n").unwrap();
        let corporate = corporate.path().to_str().unwrap().to_owned();
        let users = [
            ("NO_PROXY", "corp"),
            ("NODE_OPTIONS", "--inspect"),
            ("PYTHONPATH", "/mine"),
            ("JAVA_TOOL_OPTIONS", "-Xmx1g"),
            ("PHP_INI_SCAN_DIR", "/php"),
            ("SSL_CERT_FILE", corporate.as_str()),
        ];
        let leave = RunSettings { loopback: Loopback::Leave, hooks: true };
        let outer = built(&leave, &[], &users);
        let outer_files = outer.get("TRACEWIRE_FILES");
        let inherited = |level: &Built| -> Vec<(String, String)> {
            let mut all: Vec<(String, String)> =
                users.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            let set = level.0.set.iter().map(|(name, value)| (name.clone(), value.to_string_lossy().into_owned()));
            let set: Vec<_> = set.collect();
            all.retain(|(name, _)| set.iter().all(|(other, _)| other != name));
            all.extend(set);
            all
        };
        let variables = inherited(&outer);
        let variables: Vec<(&str, &str)> =
            variables.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let nested = built(&RunSettings::default(), &[], &variables);
        let direct = built(&RunSettings::default(), &[], &users);
        let (nested_files, direct_files) = (nested.get("TRACEWIRE_FILES"), direct.get("TRACEWIRE_FILES"));
        assert_eq!(nested.0.notes, direct.0.notes);
        for (name, value) in &nested.0.set {
            let value = value.to_string_lossy().into_owned();
            assert!(!value.contains(&outer_files), "{name}={value}");
            assert_eq!(value.replace(&nested_files, &direct_files), direct.get(name), "{name}");
        }
        for environment in [&outer, &nested] {
            let roots = std::fs::read_to_string(environment.get("SSL_CERT_FILE")).unwrap();
            assert_eq!(roots, "-- corporate --\n-- ca --\n");
        }
        assert_eq!(nested.get("NO_PROXY"), "corp,trainer");
    }

    #[test]
    fn hooks_are_optional_and_runtimes_filter() {
        let settings = RunSettings { hooks: false, ..RunSettings::default() };
        let without = built(&settings, &[], &[]);
        assert_eq!((without.get("NODE_OPTIONS"), without.get("PYTHONPATH")), (String::new(), String::new()));
        let git = built(&RunSettings::default(), &[Runtime::Git], &[]);
        assert!(!git.get("GIT_SSL_CAINFO").is_empty() && !git.get("HTTPS_PROXY").is_empty());
        assert_eq!(git.get("NODE_EXTRA_CA_CERTS"), "");
    }
}

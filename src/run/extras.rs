//! Files that some clients need besides CA files: hooks for Node and Python, a wgetrc, a PHP ini file, a Java trust store.
//!
//! All are written into one folder. The user's own files are not changed, and their settings are kept.

use super::bundle::{BundleError, Bundles, write};
use super::runtime::Extension;
use super::settings::RunSettings;
use super::truststore::java_trust_store;
use super::user_environment::UserEnvironment;
use crate::files::create_private_folder;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};

/// The files that were written.
#[derive(Debug, Default)]
pub(super) struct Extras {
    // None: the user has one.
    trust_store: Option<PathBuf>,
    node_hook: Option<PathBuf>,
    python_folder: Option<PathBuf>,
    wgetrc: PathBuf,
    php_folder: PathBuf,
    /// Notes for the user.
    pub(super) notes: Vec<String>,
}

/// The proxy, for clients that take no URL.
#[derive(Clone, Copy, Debug)]
pub(super) struct ProxyReach<'a> {
    /// The host, without brackets.
    pub(super) host: &'a str,
    /// The TCP port.
    pub(super) port: u16,
    /// Hosts to reach directly.
    pub(super) no_proxy: &'a [String],
}

/// Writes the files into `folder`.
pub(super) fn write_extras(
    folder: &Path,
    bundles: &Bundles,
    settings: &RunSettings,
    command: &[OsString],
    user: &UserEnvironment<'_>,
) -> Result<Extras, BundleError> {
    let bundle = bundles.full();
    let roots = fs::read_to_string(bundle).unwrap_or_default();
    let trust_store = write(folder.join("truststore.jks"), java_trust_store(&roots))?;
    let system = user.value("SYSTEM_WGETRC").map_or_else(|| PathBuf::from("/etc/wgetrc"), PathBuf::from);
    let system = fs::read_to_string(system).unwrap_or_default();
    // In a wgetrc the last value is used.
    let wgetrc = write(folder.join("wgetrc"), format!("{system}\nca_certificate = {}\n", bundle.display()))?;
    let php = create_folder(folder, "php")?;
    let ini = format!("curl.cainfo = \"{0}\"\nopenssl.cafile = \"{0}\"\n", bundle.display());
    write(php.join("tracewire.ini"), ini)?;
    let mut extras = Extras { trust_store: Some(trust_store), wgetrc, php_folder: php, ..Extras::default() };
    let java = user.value("JAVA_TOOL_OPTIONS").unwrap_or_default();
    if java.to_string_lossy().contains(JAVA_TRUST_STORE) {
        extras.trust_store = None;
        extras
            .notes
            .push("JAVA_TOOL_OPTIONS names a trust store, which is kept; import Tracewire's CA into it, or Java programs reject the proxy's certificates".to_owned());
    }
    if settings.hooks {
        let options = user.value("NODE_OPTIONS").unwrap_or_default();
        if forbids_reading(command, &options) {
            extras.notes.push(
                "the hook for Node.js is left out, because Node's --permission lets the program read only files that it \
                 names; with --allow-fs-read=* it is loaded"
                    .to_owned(),
            );
        } else {
            extras.node_hook = Some(write(folder.join("node.cjs"), NODE_HOOK)?);
        }
        let python = create_folder(folder, "python")?;
        write(python.join("sitecustomize.py"), PYTHON_HOOK)?;
        extras.python_folder = Some(python);
    }
    Ok(extras)
}

impl Extras {
    /// Returns the user's value of a variable with ours added; `None` leaves the variable unchanged.
    pub(super) fn value(
        &self,
        extension: Extension,
        users: Option<&OsStr>,
        reach: &ProxyReach<'_>,
    ) -> Option<OsString> {
        match extension {
            Extension::JavaOptions => Some(joined(users, " ", self.java_options(reach).as_ref())),
            Extension::NodeHook => {
                let hook = format!("--require {}", quoted(self.node_hook.as_ref()?));
                Some(joined(users, " ", hook.as_ref()))
            }
            Extension::PythonHook => {
                let folder = self.python_folder.as_ref()?.as_os_str();
                Some(users.map_or_else(|| folder.to_owned(), |users| joined(Some(folder), ":", users)))
            }
            Extension::Wgetrc => Some(self.wgetrc.clone().into()),
            // An empty first entry stands for the folder that PHP was built with.
            Extension::PhpIni => Some(joined(Some(users.unwrap_or_default()), ":", self.php_folder.as_os_str())),
        }
    }

    fn java_options(&self, reach: &ProxyReach<'_>) -> String {
        let hosts: Vec<_> = reach
            .no_proxy
            .iter()
            .map(|host| host.strip_prefix('.').map_or_else(|| host.clone(), |host| format!("*.{host}")))
            .collect();
        let mut options: Vec<String> = ["http", "https"]
            .iter()
            .flat_map(|scheme| {
                [format!("-D{scheme}.proxyHost={}", reach.host), format!("-D{scheme}.proxyPort={}", reach.port)]
            })
            .collect();
        // By default a JVM reaches loopback directly.
        options.push(format!("-Dhttp.nonProxyHosts={}", hosts.join("|")));
        if let Some(trust_store) = &self.trust_store {
            options.push(format!("-D{JAVA_TRUST_STORE}={}", trust_store.display()));
            options.push(format!("-D{JAVA_TRUST_STORE}Type=JKS"));
        }
        // The JVM splits the value at spaces outside quotation marks.
        let quoted = |option: String| if option.contains(' ') { format!("\"{option}\"") } else { option };
        options.into_iter().map(quoted).collect::<Vec<_>>().join(" ")
    }
}

/// True if Node's permission model would end the program because of our hook: no option names its path.
fn forbids_reading(command: &[OsString], node_options: &OsStr) -> bool {
    let options = node_options.to_string_lossy();
    let words = command.iter().map(|word| word.to_string_lossy()).chain(options.split_whitespace().map(Into::into));
    let words: Vec<_> = words.collect();
    let has = |wanted: &[&str]| words.iter().any(|word| wanted.contains(&word.as_ref()));
    has(&["--permission", "--experimental-permission"]) && !has(&["--allow-fs-read=*"])
}

/// Appends our value to the user's, which may be empty.
fn joined(users: Option<&OsStr>, between: &str, ours: &OsStr) -> OsString {
    let mut value = OsString::new();
    if let Some(users) = users {
        value.push(users);
        value.push(between);
    }
    value.push(ours);
    value
}

/// Quotes a path for NODE_OPTIONS, which is split at spaces.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    if text.contains([' ', '"', '\\']) {
        format!("\"{}\"", text.replace('\\', r"\\").replace('"', "\\\""))
    } else {
        text
    }
}

fn create_folder(folder: &Path, name: &str) -> Result<PathBuf, BundleError> {
    let path = folder.join(name);
    create_private_folder(&path).map_err(|cause| BundleError::new(path.clone(), cause))?;
    Ok(path)
}

const JAVA_TRUST_STORE: &str = "javax.net.ssl.trustStore";
const NODE_HOOK: &str = include_str!("hooks/node.cjs");
const PYTHON_HOOK: &str = include_str!("hooks/sitecustomize.py");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_permission_model_of_node_is_seen_in_command_and_options() {
        let forbids = |command: &str, options: &str| {
            let command: Vec<OsString> = command.split(' ').map(Into::into).collect();
            forbids_reading(&command, options.as_ref())
        };
        assert!(forbids("node --permission a.js", "") && forbids("npm start", "--experimental-permission"));
        assert!(!forbids("node --permission --allow-fs-read=* a.js", "") && !forbids("node a.js", "--inspect"));
    }
}

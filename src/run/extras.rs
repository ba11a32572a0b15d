//! What some clients need besides CA files: hooks for Node and Python, a wgetrc, a PHP ini file, a Java trust store.
//!
//! Everything goes into one folder; nothing of the user's is changed, and what the user had is carried along.

use super::RunSettings;
use super::bundle::{BundleError, Bundles, write};
use super::runtime::Extension;
use super::truststore::java_trust_store;
use super::user_environment::UserEnvironment;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};

/// The files.
#[derive(Debug, Default)]
pub struct Extras {
    // Empty: the user has one.
    trust_store: PathBuf,
    node_hook: Option<PathBuf>,
    python_folder: Option<PathBuf>,
    wgetrc: PathBuf,
    php_folder: PathBuf,
    /// What people should know.
    pub notes: Vec<String>,
}

/// How the environment reaches the proxy, for clients that take no URL.
#[derive(Clone, Copy, Debug)]
pub struct Reach<'a> {
    /// The proxy's host.
    pub host: &'a str,
    /// Its port.
    pub port: u16,
    /// Hosts that are not proxied.
    pub unproxied: &'a [String],
}

/// Writes the files into `folder`.
pub fn write_extras(
    folder: &Path,
    bundles: &Bundles,
    settings: &RunSettings,
    user: &UserEnvironment<'_>,
) -> Result<Extras, BundleError> {
    let whole = bundles.whole();
    let roots = fs::read_to_string(whole).unwrap_or_default();
    let trust_store = write(folder.join(TRUST_STORE_FILE), java_trust_store(&roots))?;
    let system = user.value("SYSTEM_WGETRC").map_or_else(|| PathBuf::from("/etc/wgetrc"), PathBuf::from);
    let system = fs::read_to_string(system).unwrap_or_default();
    // The last one counts.
    let wgetrc = write(folder.join("wgetrc"), format!("{system}\nca_certificate = {}\n", whole.display()))?;
    let php = folder_in(folder, "php")?;
    let ini = format!("curl.cainfo = \"{0}\"\nopenssl.cafile = \"{0}\"\n", whole.display());
    write(php.join("tracewire.ini"), ini)?;
    let mut extras = Extras { trust_store, wgetrc, php_folder: php, ..Extras::default() };
    let java = user.value("JAVA_TOOL_OPTIONS").unwrap_or_default();
    if names_own_trust_store(&java.to_string_lossy()) {
        extras.trust_store = PathBuf::new();
        extras.notes.push("JAVA_TOOL_OPTIONS names a trust store, which stays: import the CA there".to_owned());
    }
    if settings.hooks {
        extras.node_hook = Some(write(folder.join("node.cjs"), NODE_HOOK)?);
        let python = folder_in(folder, "python")?;
        write(python.join("sitecustomize.py"), PYTHON_HOOK)?;
        extras.python_folder = Some(python);
    }
    Ok(extras)
}

impl Extras {
    /// The value of a variable that extends what the user has; `None` leaves the variable alone.
    pub fn value(&self, extension: Extension, users: Option<&OsStr>, reach: &Reach<'_>) -> Option<OsString> {
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

    fn java_options(&self, reach: &Reach<'_>) -> String {
        let hosts: Vec<_> = reach
            .unproxied
            .iter()
            .map(|host| host.strip_prefix('.').map_or_else(|| host.clone(), |host| format!("*.{host}")))
            .collect();
        let mut options: Vec<String> = ["http", "https"]
            .iter()
            .flat_map(|scheme| {
                [format!("-D{scheme}.proxyHost={}", reach.host), format!("-D{scheme}.proxyPort={}", reach.port)]
            })
            .collect();
        // Without it a JVM spares loopback.
        options.push(format!("-Dhttp.nonProxyHosts={}", hosts.join("|")));
        if !self.trust_store.as_os_str().is_empty() {
            options.push(format!("-D{JAVA_TRUST_STORE}={}", self.trust_store.display()));
            options.push(format!("-D{JAVA_TRUST_STORE}Type=JKS"));
        }
        // The JVM divides at spaces, but not within quotation marks.
        let quoted = |option: String| if option.contains(' ') { format!("\"{option}\"") } else { option };
        options.into_iter().map(quoted).collect::<Vec<_>>().join(" ")
    }
}

/// True when JVM options name a trust store other than one that a shell or a run around this one got from us.
fn names_own_trust_store(options: &str) -> bool {
    let values = options.split(JAVA_TRUST_STORE).skip(1).filter_map(|rest| rest.strip_prefix('='));
    let path = |rest: &str| rest.split(" -").next().unwrap_or_default().trim_end().trim_end_matches('"').to_owned();
    values.map(path).any(|path| !Path::new(&path).ends_with(TRUST_STORE_FILE))
}

/// A user's value, empty or not, with ours behind it.
fn joined(users: Option<&OsStr>, between: &str, ours: &OsStr) -> OsString {
    let mut value = OsString::new();
    if let Some(users) = users {
        value.push(users);
        value.push(between);
    }
    value.push(ours);
    value
}

/// For NODE_OPTIONS, which divides at spaces.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    if text.contains([' ', '"', '\\']) {
        format!("\"{}\"", text.replace('\\', r"\\").replace('"', "\\\""))
    } else {
        text
    }
}

fn folder_in(folder: &Path, name: &str) -> Result<PathBuf, BundleError> {
    let path = folder.join(name);
    fs::create_dir_all(&path).map_err(|cause| BundleError::new(path.clone(), cause))?;
    Ok(path)
}

/// Known by its name when a command inside the environment is given one of its own.
const TRUST_STORE_FILE: &str = "tracewire-truststore.jks";
const JAVA_TRUST_STORE: &str = "javax.net.ssl.trustStore";
const NODE_HOOK: &str = include_str!("hooks/node.cjs");
const PYTHON_HOOK: &str = include_str!("hooks/sitecustomize.py");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trust_store_of_ours_is_replaced_and_one_of_the_users_stays() {
        let ours = format!("\"-Djavax.net.ssl.trustStore=/a b/{TRUST_STORE_FILE}\" -Djavax.net.ssl.trustStoreType=JKS");
        for (options, is_own) in [
            ("-Xmx1g", false),
            ("-Djavax.net.ssl.trustStore=/mine.jks -Xmx1g", true),
            (&format!("-Xmx1g {ours}"), false),
            (&format!("-Djavax.net.ssl.trustStore=/mine.jks {ours}"), true),
        ] {
            assert_eq!(names_own_trust_store(options), is_own, "{options}");
        }
    }
}

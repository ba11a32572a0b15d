//! The user's environment without the values of an outer Tracewire environment, so that a nested environment replaces the
//! outer one.
//!
//! An environment names the folder of its files ([`FILES_VARIABLE`]); values that point there are Tracewire's. Values of
//! the user that were replaced are kept in `TRACEWIRE_ORIGINAL_*`.

use super::runtime::{ADDED_NO_PROXY_VARIABLE, Extension, FILES_VARIABLE, Role, VARIABLES};
use std::env::{join_paths, split_paths};
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

/// Reads variables as the user set them.
pub(super) struct UserEnvironment<'a> {
    inherited: &'a dyn Fn(&str) -> Option<OsString>,
    /// The files of the outer environment; `None` if there is no outer environment.
    outer_files: Option<PathBuf>,
}

impl<'a> UserEnvironment<'a> {
    /// `inherited` reads the variables of this process.
    pub(super) fn new(inherited: &'a dyn Fn(&str) -> Option<OsString>) -> Self {
        let outer_files = inherited(FILES_VARIABLE).filter(|folder| !folder.is_empty()).map(PathBuf::from);
        Self { inherited, outer_files }
    }

    /// Returns the variable of this process, also if an outer environment set it.
    pub(super) fn inherited(&self, name: &str) -> Option<OsString> {
        (self.inherited)(name)
    }

    /// Returns the user's value: without the options and entries that the outer environment added, and with the user's own
    /// file where the outer environment replaced it.
    pub(super) fn value(&self, name: &str) -> Option<OsString> {
        let value = self.inherited(name);
        let Some(outer_files) = self.outer_files.as_deref() else { return value };
        if name == "SSL_CERT_DIR" {
            return value.or_else(|| self.original(name));
        }
        let role = VARIABLES.iter().find(|variable| variable.name == name).map(|variable| variable.role);
        let value = value?;
        let users = match role {
            Some(Role::AdditiveCa | Role::ReplacingCa | Role::Extended(Extension::Wgetrc)) => {
                return if Path::new(&value).starts_with(outer_files) { self.original(name) } else { Some(value) };
            }
            Some(Role::Extended(Extension::JavaOptions)) => without_java_options(&value, outer_files),
            Some(Role::Extended(Extension::NodeHook)) => without_node_hook(&value, outer_files),
            Some(Role::Extended(Extension::PythonHook | Extension::PhpIni)) => {
                let users = split_paths(&value).filter(|path| !path.starts_with(outer_files));
                join_paths(users).unwrap_or_default()
            }
            Some(Role::NoProxy) => {
                let added = self.inherited(ADDED_NO_PROXY_VARIABLE).unwrap_or_default();
                let (value, added) = (value.to_string_lossy(), added.to_string_lossy());
                let users = value.split(',').filter(|host| !added.split(',').any(|added| added == host.trim()));
                users.collect::<Vec<_>>().join(",").into()
            }
            Some(Role::Proxy | Role::AllProtocols | Role::Ftp | Role::Flag(_) | Role::Files) | None => value,
        };
        Some(users).filter(|users| !users.is_empty())
    }

    /// Returns the user's value of a variable that the environment sets to the proxy's URL.
    pub(super) fn original_proxy(&self, name: &str) -> Option<OsString> {
        let value = if self.outer_files.is_some() { self.original(name) } else { self.inherited(name) };
        value.filter(|value| !value.is_empty())
    }

    fn original(&self, name: &str) -> Option<OsString> {
        self.inherited(&original_variable(name)).filter(|original| !original.is_empty())
    }
}

/// The beginning of the names of variables that keep a value of the user.
pub(super) const ORIGINAL_PREFIX: &str = "TRACEWIRE_ORIGINAL_";

/// The variable that keeps the user's value of a variable that Tracewire replaces or unsets.
pub(super) fn original_variable(name: &str) -> String {
    format!("{ORIGINAL_PREFIX}{name}")
}

/// Removes the proxy options, which a new environment sets again, and the outer environment's trust store.
fn without_java_options(value: &OsStr, outer_files: &Path) -> OsString {
    let value = value.to_string_lossy();
    let is_outer_store = |option: &str| {
        let store = option.strip_prefix("-Djavax.net.ssl.trustStore=");
        store.is_some_and(|store| Path::new(store).starts_with(outer_files))
    };
    let unquoted = |word: &str| word.trim_matches('"').to_owned();
    let has_outer_store = words(&value).any(|word| is_outer_store(&unquoted(word)));
    let users = words(&value).filter(|word| {
        let option = unquoted(word);
        let is_proxy = JAVA_PROXY_OPTIONS.iter().any(|proxy| option.starts_with(proxy));
        let is_store = has_outer_store && option.starts_with("-Djavax.net.ssl.trustStoreType=");
        !(is_proxy || is_store || is_outer_store(&option))
    });
    users.collect::<Vec<_>>().join(" ").into()
}

/// Removes `--require` with a file of the outer environment.
fn without_node_hook(value: &OsStr, outer_files: &Path) -> OsString {
    let value = value.to_string_lossy();
    let mut users: Vec<&str> = Vec::new();
    for word in words(&value) {
        let path = word.trim_matches('"').replace("\\\"", "\"").replace(r"\\", r"\");
        if users.last() == Some(&"--require") && Path::new(&path).starts_with(outer_files) {
            users.pop();
        } else {
            users.push(word);
        }
    }
    users.join(" ").into()
}

/// Splits at spaces outside double quotes; the quotes stay.
fn words(text: &str) -> impl Iterator<Item = &str> {
    let mut is_quoted = false;
    let split = text.split(move |letter: char| {
        is_quoted ^= letter == '"';
        letter.is_whitespace() && !is_quoted
    });
    split.filter(|word| !word.is_empty())
}

const JAVA_PROXY_OPTIONS: [&str; 5] =
    ["-Dhttp.proxyHost=", "-Dhttp.proxyPort=", "-Dhttps.proxyHost=", "-Dhttps.proxyPort=", "-Dhttp.nonProxyHosts="];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_split_outside_quotes() {
        let split: Vec<_> = words(r#" -a "-b=c d"  -e"#).collect();
        assert_eq!(split, ["-a", "\"-b=c d\"", "-e"]);
    }

    #[test]
    fn options_of_the_user_are_kept() {
        let outer = Path::new("/outer files");
        let java = r#"-Xmx1g -Dhttp.proxyHost=h -Dhttp.nonProxyHosts=a|b "-Djavax.net.ssl.trustStore=/outer files/t.jks" -Djavax.net.ssl.trustStoreType=JKS -ea"#;
        assert_eq!(without_java_options(java.as_ref(), outer), "-Xmx1g -ea");
        let own = "-Djavax.net.ssl.trustStore=/mine.jks -Djavax.net.ssl.trustStoreType=PKCS12";
        assert_eq!(without_java_options(own.as_ref(), outer), own);
        let node = r#"--require ./mine.cjs --require "/outer files/node.cjs" --inspect"#;
        assert_eq!(without_node_hook(node.as_ref(), outer), "--require ./mine.cjs --inspect");
    }
}

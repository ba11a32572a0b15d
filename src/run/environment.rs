//! The environment of a traced command, and how to say it to a shell.

use super::bundle::Bundles;
use super::runtime::{Role, VARIABLES};
use clap::ValueEnum;
use std::collections::BTreeMap;
use std::ffi::OsString;

/// Variables to set and to unset.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    /// Name and value, in the table's order.
    pub set: Vec<(String, OsString)>,
    /// Names to take away.
    pub unset: Vec<String>,
    /// What people should know.
    pub notes: Vec<String>,
}

/// How to write an environment down.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum EnvFormat {
    /// POSIX shells.
    Sh,
    /// The fish shell.
    Fish,
    /// One object.
    Json,
}

/// The environment that leads to the proxy at `proxy_url`. The user's list of unproxied hosts stays; `bypass` is added.
pub fn environment(
    proxy_url: &str,
    bundles: &Bundles,
    current: &dyn Fn(&str) -> Option<OsString>,
    bypass: &[String],
) -> Environment {
    let mut environment = Environment { notes: bundles.notes.clone(), ..Environment::default() };
    let unproxied = unproxied(current, bypass);
    for variable in VARIABLES {
        let value = match variable.role {
            Role::Proxy => Some(proxy_url.into()),
            Role::AdditiveCa | Role::ReplacingCa => bundles.file(variable.name).map(|path| path.as_os_str().to_owned()),
            Role::NoProxy => (!unproxied.is_empty()).then(|| unproxied.clone().into()),
            Role::Flag(value) => Some(value.into()),
        };
        if let Some(value) = value {
            environment.set.push((variable.name.to_owned(), value));
        }
    }
    if bundles.merged_folder {
        environment.unset.push("SSL_CERT_DIR".to_owned());
    }
    environment
}

/// Both spellings together, each host once.
fn unproxied(current: &dyn Fn(&str) -> Option<OsString>, bypass: &[String]) -> String {
    let users = ["NO_PROXY", "no_proxy"].map(|name| current(name).unwrap_or_default().to_string_lossy().into_owned());
    let mut hosts: Vec<&str> = Vec::new();
    for host in users.iter().flat_map(|list| list.split(',')).chain(bypass.iter().map(String::as_str)) {
        let host = host.trim();
        if !host.is_empty() && !hosts.contains(&host) {
            hosts.push(host);
        }
    }
    hosts.join(",")
}

/// The environment as text for a shell or a program.
pub fn render(environment: &Environment, format: EnvFormat) -> String {
    let set = environment.set.iter().map(|(name, value)| (name.as_str(), value.to_string_lossy()));
    let mut text = String::new();
    match format {
        EnvFormat::Sh => {
            text.extend(set.map(|(name, value)| format!("export {name}='{}'\n", value.replace('\'', r"'\''"))));
            text.extend(environment.unset.iter().map(|name| format!("unset {name}\n")));
        }
        EnvFormat::Fish => {
            let quoted = |value: &str| value.replace('\\', r"\\").replace('\'', r"\'");
            text.extend(set.map(|(name, value)| format!("set -gx {name} '{}'\n", quoted(&value))));
            text.extend(environment.unset.iter().map(|name| format!("set -e {name}\n")));
        }
        EnvFormat::Json => {
            let set: BTreeMap<_, _> = set.collect();
            text = serde_json::json!({ "set": set, "unset": environment.unset }).to_string();
            text.push('\n');
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_users_unproxied_hosts_stay() {
        let current = |name: &str| (name == "no_proxy").then(|| "a.example, b".into());
        let environment = environment("http://p", &Bundles::default(), &current, &["127.0.0.1:4747".to_owned()]);
        for name in ["NO_PROXY", "no_proxy"] {
            let value = environment.set.iter().find(|(set, _)| set == name).map(|(_, value)| value.clone());
            assert_eq!(value, Some("a.example,b,127.0.0.1:4747".into()));
        }
    }

    #[test]
    fn any_value_survives_a_shell() {
        let hostile = "a'b\"c $(touch x) \\ `y`\n z";
        let environment = Environment { set: vec![("X".into(), hostile.into())], ..Environment::default() };
        let script = format!("{}printf %s \"$X\"", render(&environment, EnvFormat::Sh));
        let output = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), hostile);
    }
}

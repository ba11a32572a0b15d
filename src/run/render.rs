//! Prints an environment for shells, programs and containers.

use super::environment::Environment;
use clap::ValueEnum;
use std::collections::BTreeMap;
use std::path::Path;

/// A format for an environment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum EnvFormat {
    /// `export` commands for POSIX shells
    Sh,
    /// `set` commands for the fish shell
    Fish,
    /// One JSON object
    Json,
    /// Arguments for `docker run`, one per line
    Docker,
    /// A pod, as a Kubernetes manifest
    K8s,
}

impl EnvFormat {
    /// True if the environment is for a container, in which this machine has another name.
    pub(crate) fn is_for_containers(self) -> bool {
        matches!(self, Self::Docker | Self::K8s)
    }
}

/// Returns the environment as text. `folder` contains the files that the variables name; a container has it at
/// `/tracewire`.
pub(crate) fn render(environment: &Environment, format: EnvFormat, folder: &Path) -> String {
    let set = environment.set.iter().map(|(name, value)| (name.as_str(), value.to_string_lossy()));
    let inside = |value: &str| value.replace(&*folder.to_string_lossy(), CONTAINER_FOLDER);
    let mut text = String::new();
    match format {
        EnvFormat::Sh => {
            text.extend(set.map(|(name, value)| format!("export {name}={}\n", quoted(&value))));
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
        EnvFormat::Docker => {
            let volume = format!("{}:{CONTAINER_FOLDER}:ro", folder.display());
            text = format!("--add-host=host.docker.internal:host-gateway\n--volume={}\n", quoted(&volume));
            text.extend(set.map(|(name, value)| format!("--env={}\n", quoted(&format!("{name}={}", inside(&value))))));
        }
        EnvFormat::K8s => {
            // A JSON string is a YAML string.
            let text_of = |value: &str| serde_json::Value::from(value).to_string();
            text.push_str(POD_HEAD);
            text.extend(set.map(|(name, value)| {
                format!("        - name: {name}\n          value: {}\n", text_of(&inside(&value)))
            }));
            text.push_str(&format!(
                "      volumeMounts:\n        - name: tracewire\n          mountPath: {CONTAINER_FOLDER}\n          \
                 readOnly: true\n  volumes:\n    # The folder must exist on the node.\n    - name: tracewire\n      \
                 hostPath:\n        path: {}\n        type: Directory\n",
                text_of(&folder.to_string_lossy())
            ));
        }
    }
    text
}

/// A text as one word of a POSIX shell, in quotes only if it needs them.
pub(crate) fn shell_word(text: &str) -> String {
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "/._-+:@%".contains(letter);
    if !text.is_empty() && text.chars().all(is_plain) { text.to_owned() } else { quoted(text) }
}

fn quoted(value: &str) -> String {
    format!("'{}'", value.replace('\'', r"'\''"))
}

/// The pod up to the variables of its container.
const POD_HEAD: &str = "apiVersion: v1
kind: Pod
metadata:
  name: agent
spec:
  restartPolicy: Never
  containers:
    - name: agent
      # Replace image and command by those of your agent.
      image: python:3
      command: [\"python3\", \"-c\", \"import urllib.request as r; print(r.urlopen('https://example.com').status)\"]
      env:
";
/// The folder of the files in a container.
const CONTAINER_FOLDER: &str = "/tracewire";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_value_is_quoted_for_a_shell() {
        let hostile = "a'b\"c $(touch x) \\ `y`\n z";
        let environment = Environment { set: vec![("X".into(), hostile.into())], ..Environment::default() };
        let text = render(&environment, EnvFormat::Sh, Path::new("/nowhere"));
        let script = format!("{text}printf %s \"$X\"");
        let output = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), hostile);
    }

    #[test]
    fn only_words_that_need_quotes_have_them() {
        assert_eq!([shell_word("/a/b-1.db"), shell_word("a b"), shell_word("")], ["/a/b-1.db", "'a b'", "''"]);
    }

    #[test]
    fn paths_are_those_in_the_container() {
        let set = vec![("SSL_CERT_FILE".into(), "/home/x/env/bundle.pem".into())];
        let environment = Environment { set, ..Environment::default() };
        let folder = Path::new("/home/x/env");
        let docker = render(&environment, EnvFormat::Docker, folder);
        assert!(docker.contains("--env='SSL_CERT_FILE=/tracewire/bundle.pem'"), "{docker}");
        assert!(docker.contains("--volume='/home/x/env:/tracewire:ro'"), "{docker}");
        let pod = render(&environment, EnvFormat::K8s, folder);
        assert!(pod.contains("- name: SSL_CERT_FILE\n          value: \"/tracewire/bundle.pem\""), "{pod}");
    }
}

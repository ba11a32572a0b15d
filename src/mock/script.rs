//! A script of answers: turns that are played in their order, each to a request that it fits.

use serde::Deserialize;
use serde_json::Value as JsonValue;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// A script, and which of its turns were played.
#[derive(Debug)]
pub(crate) struct Script {
    turns: Vec<Turn>,
    was_played: Mutex<Vec<bool>>,
}

/// Why a script can't be played.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ScriptError {
    /// The file can't be read.
    #[error("cannot read the script {0}: {1}")]
    Unreadable(PathBuf, std::io::Error),
    /// It is no script: the place, and what is wrong there.
    #[error("the script {0} is not valid: {1}")]
    Invalid(PathBuf, String),
}

/// The content of a script file (docs/mock.md).
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ScriptFile {
    turns: Vec<Turn>,
}

/// One answer. Everything is optional; a turn without anything says nothing.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Turn {
    /// The requests that it answers; without it, any.
    pub(super) when: Condition,
    /// It may answer any number of requests.
    pub(super) repeat: bool,
    /// Thoughts in front of the answer.
    pub(super) thinking: String,
    /// The text of the answer.
    pub(super) text: String,
    /// Tools that are called, in parallel.
    pub(super) tool_calls: Vec<ScriptedCall>,
    /// The finish reason of chat completions, if it is not `stop` or `tool_calls`.
    pub(super) finish_reason: Option<String>,
    /// Delay before the answer.
    pub(super) delay_ms: u64,
    /// An error with this status, in the form of the API, in place of an answer.
    pub(super) status: Option<u16>,
}

/// What a request must be for a turn. Texts are searched for as they are.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Condition {
    /// A part of the system prompt.
    pub(super) system: Option<String>,
    /// A part of the last message.
    pub(super) last: Option<String>,
    /// A tool that the request offers.
    pub(super) tool: Option<String>,
    /// Whether the request offers tools at all.
    pub(super) tools: Option<bool>,
}

/// A call of a tool.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ScriptedCall {
    /// The tool's name.
    pub(super) name: String,
    /// The arguments that the model is to send; null for none.
    #[serde(default)]
    pub(super) arguments: JsonValue,
}

impl Script {
    /// Reads a script from a file of YAML if its name ends in `.yaml` or `.yml`, else of JSON.
    pub(crate) fn read(path: &Path) -> Result<Self, ScriptError> {
        let text = std::fs::read_to_string(path).map_err(|error| ScriptError::Unreadable(path.to_owned(), error))?;
        let is_yaml = path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml");
        let file: Result<ScriptFile, String> = if is_yaml {
            serde_saphyr::from_str(&text).map_err(|error| error.to_string())
        } else {
            serde_json::from_str(&text).map_err(|error| error.to_string())
        };
        let file = file.map_err(|problem| ScriptError::Invalid(path.to_owned(), problem))?;
        let was_played = Mutex::new(vec![false; file.turns.len()]);
        Ok(Self { turns: file.turns, was_played })
    }

    /// The first turn for a request, in the form of chat completions, that was not played or repeats. Without one, a turn that
    /// says that the script has ended.
    pub(super) fn next(&self, chat: &JsonValue) -> Turn {
        let mut was_played = self.was_played.lock().unwrap_or_else(PoisonError::into_inner);
        for (turn, was_played) in self.turns.iter().zip(was_played.iter_mut()) {
            if (!*was_played || turn.repeat) && turn.when.fits(chat) {
                *was_played = true;
                return turn.clone();
            }
        }
        Turn { text: "The script has no turn for this request.".to_owned(), ..Turn::default() }
    }
}

impl Condition {
    fn fits(&self, chat: &JsonValue) -> bool {
        let messages = chat["messages"].as_array().map_or(&[][..], Vec::as_slice);
        let tools = chat["tools"].as_array().map_or(&[][..], Vec::as_slice);
        let is_system = |message: &&JsonValue| matches!(message["role"].as_str(), Some("system" | "developer"));
        let says = |message: &JsonValue, text: &str| text_of(&message["content"]).contains(text);
        let system = |text: &String| messages.iter().filter(is_system).any(|message| says(message, text));
        let last = |text: &String| messages.last().is_some_and(|message| says(message, text));
        let tool = |name: &String| tools.iter().any(|tool| tool["function"]["name"] == name.as_str());
        self.system.as_ref().is_none_or(system)
            && self.last.as_ref().is_none_or(last)
            && self.tool.as_ref().is_none_or(tool)
            && self.tools.is_none_or(|has_tools| has_tools != tools.is_empty())
    }
}

/// The text of a message's content.
fn text_of(content: &JsonValue) -> String {
    match content {
        JsonValue::String(text) => text.clone(),
        JsonValue::Array(parts) => parts.iter().filter_map(|part| part["text"].as_str()).collect::<Vec<_>>().join("\n"),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn script(turns: JsonValue) -> Script {
        let turns: Vec<Turn> = serde_json::from_value(turns).unwrap();
        let was_played = Mutex::new(vec![false; turns.len()]);
        Script { turns, was_played }
    }

    #[test]
    fn each_turn_answers_the_first_request_that_it_fits() {
        let script = script(json!([
            {"when": {"system": "title"}, "repeat": true, "text": "a title"},
            {"when": {"tool": "Task"}, "text": "first"},
            {"when": {"last": "more", "tools": false}, "text": "second"},
            {"text": "third"},
        ]));
        let request = |system: &str, last: &str, tools: JsonValue| {
            let last = json!([{"type": "text", "text": last}]);
            let messages = json!([{"role": "system", "content": system}, {"role": "user", "content": last}]);
            json!({"messages": messages, "tools": tools})
        };
        let task = json!([{"type": "function", "function": {"name": "Task"}}]);
        for (request, expected) in [
            (request("make a title", "x", json!(null)), "a title"),
            (request("x", "more", json!([])), "second"),
            (request("make a title", "x", json!(null)), "a title"),
            (request("x", "x", task.clone()), "first"),
            (request("x", "x", task.clone()), "third"),
            (request("x", "x", task), "The script has no turn for this request."),
        ] {
            assert_eq!(script.next(&request).text, expected);
        }
    }

    #[test]
    fn a_file_that_is_no_script_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("script.json");
        assert!(matches!(Script::read(&path), Err(ScriptError::Unreadable(..))));
        for text in ["", "{}", r#"{"turns": [{"tekst": "x"}]}"#, r#"{"turns": [{"status": -1}]}"#] {
            std::fs::write(&path, text).unwrap();
            assert!(matches!(Script::read(&path), Err(ScriptError::Invalid(..))), "{text}");
        }
        std::fs::write(&path, r#"{"turns": [{"text": "x"}]}"#).unwrap();
        assert_eq!(Script::read(&path).unwrap().next(&json!({})).text, "x");
        let path = folder.path().join("script.yaml");
        std::fs::write(&path, "turns:\n  - tool_calls:\n      - { name: ls, arguments: { all: true, depth: 2 } }\n")
            .unwrap();
        let turn = Script::read(&path).unwrap().next(&json!({}));
        assert_eq!(turn.tool_calls[0].arguments, json!({ "all": true, "depth": 2 }));
        std::fs::write(&path, "turns:\n  - tekst: x\n").unwrap();
        let error = Script::read(&path).unwrap_err().to_string();
        assert!(error.contains("tekst"), "{error}");
    }
}

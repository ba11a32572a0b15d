//! Reads the rewards of a command: from its reward file, or from the last line that it printed.
//!
//! The only I/O is reading that file. Text that looks like a reward but is invalid causes a warning; nothing is guessed.

use crate::cli::emit::PRIMARY;
use serde_json::{Map, Value as JsonValue};
use std::fs;
use std::path::Path;

/// The rewards of one command.
#[derive(Debug, Default, PartialEq)]
pub(super) struct ParsedRewards {
    /// Name and value. `primary` comes first; the others keep their order.
    pub(super) rewards: Vec<(String, f64)>,
    /// Why some text is not a reward, for the user.
    pub(super) warnings: Vec<String>,
}

/// Reads the file if the command has written anything to it, otherwise the last line of `output`.
pub(super) fn find(file: &Path, output: &[u8]) -> ParsedRewards {
    let content = fs::read(file).unwrap_or_default();
    let content = String::from_utf8_lossy(&content);
    if content.trim().is_empty() { parse_output(&String::from_utf8_lossy(output)) } else { parse_file(content.trim()) }
}

/// Everything in the file is a reward: a number, or an object with or without the key `reward`.
fn parse_file(text: &str) -> ParsedRewards {
    let mut parsed = ParsedRewards::default();
    match serde_json::from_str(text) {
        Ok(JsonValue::Object(all)) if !all.contains_key("reward") && !all.contains_key("rewards") => {
            parsed.add_all(&all);
        }
        Ok(JsonValue::Object(all)) => parsed.add_reward_keys(&all),
        Ok(value) => parsed.add(PRIMARY, &value),
        Err(error) => match text.parse::<f64>() {
            Ok(number) => parsed.add_number(PRIMARY, number),
            Err(_) => parsed.warnings.push(format!("the reward file contains neither a number nor JSON: {error}")),
        },
    }
    parsed.primary_first()
}

/// The last line that is not empty is a reward only if it is a number, or an object with `reward` or `rewards`.
fn parse_output(output: &str) -> ParsedRewards {
    let mut parsed = ParsedRewards::default();
    let Some(line) = output.lines().map(str::trim).rfind(|line| !line.is_empty()) else { return parsed };
    match serde_json::from_str(line) {
        Ok(JsonValue::Object(all)) => parsed.add_reward_keys(&all),
        Ok(value @ JsonValue::Number(_)) => parsed.add(PRIMARY, &value),
        Ok(_) => {}
        Err(error) if line.starts_with('{') && line.contains("\"reward") => {
            parsed.warnings.push(format!("the last line looks like a reward but is not valid JSON: {error}"));
        }
        Err(_) => {}
    }
    parsed.primary_first()
}

impl ParsedRewards {
    /// Reads `{"reward": x, "rewards": {name: x}}`; either key may be missing.
    fn add_reward_keys(&mut self, all: &Map<String, JsonValue>) {
        if let Some(value) = all.get("reward") {
            self.add(PRIMARY, value);
        }
        match all.get("rewards") {
            None => {}
            Some(JsonValue::Object(rewards)) => self.add_all(rewards),
            Some(_) => self.warnings.push("`rewards` must be an object of names and numbers; it is ignored".to_owned()),
        }
    }

    fn add_all(&mut self, rewards: &Map<String, JsonValue>) {
        rewards.iter().for_each(|(name, value)| self.add(name, value));
    }

    fn add(&mut self, name: &str, value: &JsonValue) {
        match value.as_f64() {
            Some(number) => self.add_number(name, number),
            None if value.is_null() => {}
            None => self.warnings.push(format!("the reward {name:?} is not a number; it is ignored")),
        }
    }

    fn add_number(&mut self, name: &str, number: f64) {
        if !number.is_finite() {
            self.warnings.push(format!("the reward {name:?} is {number}, which is not finite; it is ignored"));
        } else if self.rewards.iter().all(|(known, _)| known != name) {
            self.rewards.push((name.to_owned(), number));
        }
    }

    /// Trainers use the first reward.
    fn primary_first(mut self) -> Self {
        self.rewards.sort_by_key(|(name, _)| name != PRIMARY);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewards(found: &ParsedRewards) -> Vec<(&str, f64)> {
        found.rewards.iter().map(|(name, value)| (name.as_str(), *value)).collect()
    }

    #[test]
    fn a_last_line_with_a_reward_is_parsed() {
        for (printed, expected) in [
            ("thinking\n{\"reward\": 1.0}\n\n", vec![(PRIMARY, 1.0)]),
            ("0.25", vec![(PRIMARY, 0.25)]),
            ("-3\r\n", vec![(PRIMARY, -3.0)]),
            ("{\"reward\": 1, \"rewards\": {\"a\": 2}}", vec![(PRIMARY, 1.0), ("a", 2.0)]),
            ("{\"rewards\": {\"a\": 2, \"primary\": 3}}", vec![(PRIMARY, 3.0), ("a", 2.0)]),
            ("{\"reward\": 1}\nthat was it", vec![]),
            ("{\"answer\": 42}", vec![]),
            ("\"1.0\"", vec![]),
            ("true", vec![]),
            ("{\"reward\": null}", vec![]),
            ("", vec![]),
        ] {
            let found = parse_output(printed);
            assert_eq!((rewards(&found), found.warnings.len()), (expected, 0), "{printed}");
        }
    }

    #[test]
    fn the_file_may_contain_a_number_or_named_rewards() {
        for (text, expected) in [
            ("0.5", vec![(PRIMARY, 0.5)]),
            (".5", vec![(PRIMARY, 0.5)]),
            ("{\"reward\": 2}", vec![(PRIMARY, 2.0)]),
            ("{\"b\": 1, \"primary\": 0.5, \"a\": 0}", vec![(PRIMARY, 0.5), ("a", 0.0), ("b", 1.0)]),
        ] {
            let mut found = parse_file(text);
            found.rewards[1..].sort_by(|a, b| a.0.cmp(&b.0));
            assert_eq!((rewards(&found), found.warnings.len()), (expected, 0), "{text}");
        }
    }

    #[test]
    fn an_invalid_reward_causes_a_warning() {
        for text in
            ["NaN", "inf", "good", "true", "{\"reward\": true}", "{\"reward\": \"1\"}", "{\"rewards\": 1}", "[1]"]
        {
            let found = parse_file(text);
            assert_eq!((found.rewards.len(), found.warnings.len()), (0, 1), "{text}: {found:?}");
        }
        for line in ["{\"reward\": NaN}", "{\"reward\": true}", "{\"reward\": 1e999}"] {
            let found = parse_output(line);
            assert_eq!((found.rewards.len(), found.warnings.len()), (0, 1), "{line}: {found:?}");
        }
    }

    #[test]
    fn the_file_takes_precedence_over_the_last_line() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("reward");
        assert_eq!(find(&file, b"1").rewards, [(PRIMARY.to_owned(), 1.0)]);
        fs::write(&file, " \n").unwrap();
        assert_eq!(find(&file, b"1").rewards, [(PRIMARY.to_owned(), 1.0)]);
        fs::write(&file, "2\n").unwrap();
        assert_eq!(find(&file, b"1").rewards, [(PRIMARY.to_owned(), 2.0)]);
    }
}

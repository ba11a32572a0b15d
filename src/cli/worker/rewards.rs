//! The rewards that a command leaves: in its file, or in the last line that it prints.
//!
//! Pure, but for reading that file. What looks like a reward and is none is said, never guessed at.

use crate::cli::reward::PRIMARY;
use serde_json::{Map, Value as JsonValue};
use std::fs;
use std::path::Path;

/// What was found.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Found {
    /// By name, the main one first.
    pub(super) rewards: Vec<(String, f64)>,
    /// What people should know.
    pub(super) notes: Vec<String>,
}

/// The file counts if the command has written something, else what it printed.
pub(super) fn find(file: &Path, printed: &[u8]) -> Found {
    let written = fs::read(file).unwrap_or_default();
    let written = String::from_utf8_lossy(&written);
    if written.trim().is_empty() { in_line(&String::from_utf8_lossy(printed)) } else { in_file(written.trim()) }
}

/// All that the file holds is meant as a reward.
fn in_file(text: &str) -> Found {
    let mut found = Found::default();
    match serde_json::from_str(text) {
        Ok(JsonValue::Object(all)) if !all.contains_key("reward") && !all.contains_key("rewards") => {
            found.add_all(&all);
        }
        Ok(JsonValue::Object(all)) => found.add_named(&all),
        Ok(value) => found.add(PRIMARY, &value),
        Err(error) => match text.parse::<f64>() {
            Ok(number) => found.add_number(PRIMARY, number),
            Err(_) => found.notes.push(format!("the reward file is neither a number nor JSON: {error}")),
        },
    }
    found.main_first()
}

/// A last line is a reward only if it is a number, or an object that says so.
fn in_line(printed: &str) -> Found {
    let mut found = Found::default();
    let Some(line) = printed.lines().map(str::trim).rfind(|line| !line.is_empty()) else { return found };
    match serde_json::from_str(line) {
        Ok(JsonValue::Object(all)) => found.add_named(&all),
        Ok(value @ JsonValue::Number(_)) => found.add(PRIMARY, &value),
        Ok(_) => {}
        Err(error) if line.starts_with('{') && line.contains("\"reward") => {
            found.notes.push(format!("the last line is no JSON, and no reward: {error}"));
        }
        Err(_) => {}
    }
    found.main_first()
}

impl Found {
    /// `{"reward": x, "rewards": {name: x}}`, either or both.
    fn add_named(&mut self, all: &Map<String, JsonValue>) {
        if let Some(value) = all.get("reward") {
            self.add(PRIMARY, value);
        }
        match all.get("rewards") {
            None => {}
            Some(JsonValue::Object(rewards)) => self.add_all(rewards),
            Some(_) => self.notes.push("`rewards` is no object of names and numbers".to_owned()),
        }
    }

    fn add_all(&mut self, rewards: &Map<String, JsonValue>) {
        rewards.iter().for_each(|(name, value)| self.add(name, value));
    }

    fn add(&mut self, name: &str, value: &JsonValue) {
        match value.as_f64() {
            Some(number) => self.add_number(name, number),
            None if value.is_null() => {}
            None => self.notes.push(format!("the reward {name:?} is no number")),
        }
    }

    fn add_number(&mut self, name: &str, number: f64) {
        if !number.is_finite() {
            self.notes.push(format!("the reward {name:?} is {number}, no finite number"));
        } else if self.rewards.iter().all(|(known, _)| known != name) {
            self.rewards.push((name.to_owned(), number));
        }
    }

    /// Trainers go by the first.
    fn main_first(mut self) -> Self {
        self.rewards.sort_by_key(|(name, _)| name != PRIMARY);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewards(found: &Found) -> Vec<(&str, f64)> {
        found.rewards.iter().map(|(name, value)| (name.as_str(), *value)).collect()
    }

    #[test]
    fn a_last_line_that_says_so_is_a_reward() {
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
            let found = in_line(printed);
            assert_eq!((rewards(&found), found.notes.len()), (expected, 0), "{printed}");
        }
    }

    #[test]
    fn the_file_may_be_a_number_or_have_names() {
        for (text, expected) in [
            ("0.5", vec![(PRIMARY, 0.5)]),
            (".5", vec![(PRIMARY, 0.5)]),
            ("{\"reward\": 2}", vec![(PRIMARY, 2.0)]),
            ("{\"b\": 1, \"primary\": 0.5, \"a\": 0}", vec![(PRIMARY, 0.5), ("a", 0.0), ("b", 1.0)]),
        ] {
            let mut found = in_file(text);
            found.rewards[1..].sort_by(|a, b| a.0.cmp(&b.0));
            assert_eq!((rewards(&found), found.notes.len()), (expected, 0), "{text}");
        }
    }

    #[test]
    fn what_is_no_reward_is_said() {
        for text in
            ["NaN", "inf", "good", "true", "{\"reward\": true}", "{\"reward\": \"1\"}", "{\"rewards\": 1}", "[1]"]
        {
            let found = in_file(text);
            assert_eq!((found.rewards.len(), found.notes.len()), (0, 1), "{text}: {found:?}");
        }
        for line in ["{\"reward\": NaN}", "{\"reward\": true}", "{\"reward\": 1e999}"] {
            let found = in_line(line);
            assert_eq!((found.rewards.len(), found.notes.len()), (0, 1), "{line}: {found:?}");
        }
    }

    #[test]
    fn the_file_counts_before_the_line() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("reward");
        assert_eq!(find(&file, b"1").rewards, [(PRIMARY.to_owned(), 1.0)]);
        fs::write(&file, " \n").unwrap();
        assert_eq!(find(&file, b"1").rewards, [(PRIMARY.to_owned(), 1.0)]);
        fs::write(&file, "2\n").unwrap();
        assert_eq!(find(&file, b"1").rewards, [(PRIMARY.to_owned(), 2.0)]);
    }
}

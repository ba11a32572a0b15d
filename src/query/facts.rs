//! What is known of a rollout when a query is asked about it.

use super::totals::RolloutTotals;
use crate::trace::{Rollout, RolloutId, Timestamp, Word};
use crate::util::cut::cut;
use serde_json::Value as JsonValue;
use std::collections::{HashMap, HashSet};

/// The rollouts that have each phrase of a query in their messages.
pub(crate) type FoundPhrases = HashMap<Vec<Word>, HashSet<RolloutId>>;

/// What is known of one rollout.
#[derive(Clone, Copy)]
pub(crate) struct RolloutFacts<'a> {
    pub(crate) rollout: &'a Rollout,
    pub(crate) attempts: u64,
    pub(crate) spans: u64,
    pub(crate) errors: u64,
    pub(crate) llm_calls: u64,
    pub(crate) totals: &'a RolloutTotals,
    /// The names of the reasons against training on the latest attempt: none if it is sound. `None` if it was not judged.
    pub(crate) verdict: Option<&'a [&'static str]>,
    /// What was found of the phrases of the query.
    pub(crate) phrases: &'a FoundPhrases,
    /// What the calls cost. `None` if a model has no price.
    pub(crate) cost: Option<f64>,
    /// The time at which the question is asked.
    pub(crate) now: Timestamp,
}

impl RolloutFacts<'_> {
    /// Seconds from the rollout's start to its end, or to now.
    pub(super) fn duration_secs(&self) -> f64 {
        self.rollout.end_time.unwrap_or(self.now).since(self.rollout.start_time).as_secs_f64()
    }
}

/// The task of a rollout as one short text for people; empty if it has none.
pub(crate) fn task_text(input: &JsonValue) -> String {
    let named =
        ["question", "prompt", "task", "instruction", "problem", "problem_statement", "input", "query", "name", "id"];
    let text = match input {
        JsonValue::Null => return String::new(),
        JsonValue::String(text) => text.clone(),
        JsonValue::Object(fields) if fields.is_empty() => return String::new(),
        JsonValue::Object(fields) => {
            let found = named.iter().find_map(|name| fields.get(*name).and_then(JsonValue::as_str));
            found.map_or_else(|| input.to_string(), str::to_owned)
        }
        other => other.to_string(),
    };
    cut(&text, MAX_TASK_CHARACTERS)
}

const MAX_TASK_CHARACTERS: usize = 240;

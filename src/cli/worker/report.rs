//! Formats the result of a task: one line of text for people, or one line of JSON for programs.

use super::process::TaskOutcome;
use super::task::Task;
use crate::export::text::escape_for_terminal;
use serde_json::json;
use std::time::Duration;

/// The result of one task.
pub(super) struct TaskReport<'a> {
    pub(super) task: &'a Task,
    pub(super) outcome: &'a TaskOutcome,
    /// The primary reward first.
    pub(super) rewards: &'a [(String, f64)],
    pub(super) duration: Duration,
}

impl TaskReport<'_> {
    /// One JSON object, without a line break.
    pub(super) fn json(&self) -> String {
        let line = json!({
            "rollout_id": self.task.rollout,
            "attempt_id": self.task.attempt,
            "status": self.outcome.status_word(),
            "exit_code": self.outcome.exit_code(),
            "reward": self.rewards.first().map(|(_, value)| value),
            // Rounded to milliseconds.
            "seconds": (self.duration.as_secs_f64() * 1000.0).round() / 1000.0,
        });
        line.to_string()
    }

    /// A line for people. `done` counts the tasks that have ended, this one included; `failed` those without success.
    pub(super) fn text(&self, done: usize, failed: usize) -> String {
        let (rollout, status) = (escape_for_terminal(&self.task.rollout), self.outcome.status_word());
        let problem =
            self.outcome.problem().map(|problem| format!(" ({})", escape_for_terminal(&problem))).unwrap_or_default();
        let reward = match self.rewards {
            [] => String::new(),
            [(_, value)] => format!(", reward {value}"),
            several => {
                let each: Vec<_> =
                    several.iter().map(|(name, value)| format!("{} {value}", escape_for_terminal(name))).collect();
                format!(", rewards {}", each.join(", "))
            }
        };
        let seconds = self.duration.as_secs_f64();
        format!(
            "tracewire: {rollout} {status}{problem} in {seconds:.1} s{reward}; {done} done, {failed} of them failed"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value as JsonValue;

    #[test]
    fn text_and_json_contain_the_result() {
        let task = Task {
            rollout: "ro-1".to_owned(),
            attempt: "at-1".to_owned(),
            input: JsonValue::Null,
            mode: None,
            timeout: None,
        };
        let rewards = [("primary".to_owned(), 0.5), ("style".to_owned(), 1.0)];
        let duration = Duration::from_micros(1_234_567);
        let good = TaskReport { task: &task, outcome: &TaskOutcome::Exited(0), rewards: &rewards, duration };
        let expected = json!({ "rollout_id": "ro-1", "attempt_id": "at-1", "status": "succeeded", "exit_code": 0,
            "reward": 0.5, "seconds": 1.235 });
        assert_eq!(serde_json::from_str::<JsonValue>(&good.json()).unwrap(), expected);
        assert_eq!(
            good.text(2, 1),
            "tracewire: ro-1 succeeded in 1.2 s, rewards primary 0.5, style 1; 2 done, 1 of them failed"
        );
        let bad = TaskReport { outcome: &TaskOutcome::Signaled(9), rewards: &[], ..good };
        assert_eq!(bad.text(1, 1), "tracewire: ro-1 failed (killed by signal 9) in 1.2 s; 1 done, 1 of them failed");
        let bad: JsonValue = serde_json::from_str(&bad.json()).unwrap();
        assert_eq!((&bad["exit_code"], &bad["reward"]), (&json!(137), &JsonValue::Null));
    }
}

//! Tracewire's own rows with all columns, a line for each branch.

use super::shape::Shape;
use crate::export::sample::AttemptSample;
use serde_json::Value as JsonValue;

/// `--format trajectories`: the fields of a [`TrainingRow`](crate::trajectory::TrainingRow).
pub(super) struct Trajectories;

impl Shape for Trajectories {
    fn name(&self) -> &'static str {
        "trajectories"
    }

    fn lines(&self, sample: &AttemptSample) -> Vec<JsonValue> {
        sample.rows.iter().filter_map(|row| serde_json::to_value(row).ok()).collect()
    }
}

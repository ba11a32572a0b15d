//! Tracewire's own rows with all columns, a line for each branch.

use super::shape::{Shape, encoded};
use crate::export::parquet::{Table, TrajectoryTable};
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

    /// A row is written without a JSON value for each of its tokens in between.
    fn encoded_lines(&self, sample: &AttemptSample) -> serde_json::Result<Vec<u8>> {
        encoded(&sample.rows)
    }

    fn table(&self) -> Option<Box<dyn Table>> {
        Some(Box::new(TrajectoryTable::new()))
    }
}

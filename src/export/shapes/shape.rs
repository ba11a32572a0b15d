//! The trait of all shapes, and what several of them share.

use crate::export::parquet::Table;
use crate::export::sample::AttemptSample;
use crate::trajectory::TrainingRow;
use serde::Serialize;
use serde_json::{Value as JsonValue, json};

/// A shape of training data.
pub(crate) trait Shape: Sync {
    /// The name for `--format`, and for `format` over HTTP.
    fn name(&self) -> &'static str;

    /// The JSON objects of an attempt; each becomes a line. Empty if the attempt has nothing for this shape.
    fn lines(&self, sample: &AttemptSample) -> Vec<JsonValue>;

    /// True if a line is about several attempts of a group, so that [`lines_of_group`](Self::lines_of_group) makes them.
    fn compares_attempts(&self) -> bool {
        false
    }

    /// The lines of a whole group, of what [`lines`](Self::lines) made of each of its attempts.
    fn lines_of_group(&self, attempts: Vec<JsonValue>) -> Vec<JsonValue> {
        attempts
    }

    /// What [`lines`](Self::lines) returns, as text.
    fn encoded_lines(&self, sample: &AttemptSample) -> serde_json::Result<Vec<u8>> {
        encoded(&self.lines(sample))
    }

    /// An empty table with the columns of the shape. `None` if it is JSON only.
    fn table(&self) -> Option<Box<dyn Table>> {
        None
    }
}

/// A line of JSON for each value.
pub(crate) fn encoded<T: Serialize>(values: &[T]) -> serde_json::Result<Vec<u8>> {
    let mut lines = Vec::with_capacity(values.len() * LINE_BYTES);
    for value in values {
        serde_json::to_writer(&mut lines, value)?;
        lines.push(b'\n');
    }
    Ok(lines)
}

/// A line is often longer, but not by much.
const LINE_BYTES: usize = 16 * 1024;

/// The routed experts of a row: base64, the lengths of the dimensions, and numpy's name of the type. Null if it has none.
pub(crate) fn experts(row: &TrainingRow) -> JsonValue {
    match &row.routed_experts {
        Some(data) => json!({ "data": data, "shape": row.routed_experts_shape, "dtype": row.routed_experts_dtype }),
        None => JsonValue::Null,
    }
}

/// A number made from an id: 48 bits of its digest, which every JSON reader can hold.
pub(super) fn number_of(id: &str) -> u64 {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, id.as_bytes());
    digest.as_ref().iter().take(6).fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// The columns of a row that no field of a trainer's shape has, for its `metadata`.
pub(super) fn metadata(row: &TrainingRow) -> JsonValue {
    json!({
        "rollout_id": row.rollout_id,
        "attempt_id": row.attempt_id,
        "group_id": row.group_id,
        "branch": row.branch,
        "n_branches": row.n_branches,
        "n_siblings": row.n_siblings,
        "weight": row.weight,
        "role": row.role,
        "reward_source": row.reward_source,
        "sound": row.sound,
        "reasons": row.reasons,
    })
}

/// The known versions of the weights of a row, ascending.
pub(super) fn versions(row: &TrainingRow) -> Vec<i64> {
    let mut versions: Vec<i64> = row.versions.iter().copied().filter(|version| *version >= 0).collect();
    versions.sort_unstable();
    versions.dedup();
    versions
}

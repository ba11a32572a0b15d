//! Decoding of rows, and encoding of JSON columns.

use super::error::QueryError;
use crate::store::span_row::timestamp;
use crate::store::sql::unsigned;
use crate::trace::{Attempt, Rollout};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio_postgres::Row;

/// A value for a JSON column. Rollouts, attempts, workers and resources consist of JSON, so that this can't fail.
pub(super) fn encode(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

/// A value from a JSON column. JSON that can't be read is damage, not absence.
pub(super) fn decode<T: DeserializeOwned>(json: &str) -> Result<T, QueryError> {
    serde_json::from_str(json).map_err(damaged)
}

/// The error for a row with impossible content.
pub(super) fn damaged(error: impl std::fmt::Display) -> QueryError {
    QueryError::Damaged(format!("a stored row can't be read: {error}"))
}

/// A rollout from the columns `json, start_ns`, the first of the row.
pub(super) fn rollout(row: &Row) -> Result<Rollout, QueryError> {
    Ok(Rollout { start_time: timestamp(row.get(1)), ..decode(row.get(0))? })
}

/// An attempt from the columns `json, sequence_id`, from `column` on; `None` if they are null.
pub(super) fn attempt(row: &Row, column: usize) -> Result<Option<Attempt>, QueryError> {
    let json: Option<&str> = row.get(column);
    let attempt = json.map(decode::<Attempt>).transpose()?;
    Ok(attempt.map(|attempt| Attempt { sequence_id: unsigned(row.get(column + 1)), ..attempt }))
}

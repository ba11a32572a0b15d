//! Decoding of rows, and encoding of JSON columns.

use crate::store::span_row::{StoredSpan, timestamp};
use crate::trace::{Attempt, Rollout};
use rusqlite::types::{Type, ValueRef};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A value from a JSON column. JSON that can't be read is damage, not absence.
pub(super) fn decode<T: DeserializeOwned>(json: &str) -> rusqlite::Result<T> {
    serde_json::from_str(json).map_err(|error| damaged(Type::Text, error))
}

pub(super) fn encode(value: &impl Serialize) -> rusqlite::Result<String> {
    serde_json::to_string(value).map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))
}

/// The error for a row with impossible content.
pub(super) fn damaged(column: Type, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(0, column, error.into())
}

/// A rollout from the columns `json, start_ns`, the first of the row.
pub(super) fn rollout(row: &rusqlite::Row<'_>) -> rusqlite::Result<Rollout> {
    let mut rollout: Rollout = decode(&row.get::<_, String>(0)?)?;
    rollout.start_time = timestamp(row.get(1)?);
    Ok(rollout)
}

/// An attempt from a column `json`; `None` if the column is null.
pub(super) fn attempt(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<Option<Attempt>> {
    row.get::<_, Option<String>>(column)?.map(|json| decode(&json)).transpose()
}

/// A span from the columns `record` and `json`: older programs wrote the second one.
pub(super) fn stored<'a>(record: ValueRef<'a>, json: ValueRef<'a>) -> rusqlite::Result<StoredSpan<'a>> {
    match record {
        ValueRef::Blob(record) => Ok(StoredSpan::Record(record)),
        ValueRef::Null => json.as_str().map(StoredSpan::Json).map_err(|error| damaged(Type::Text, error)),
        other => Err(damaged(other.data_type(), "a record is no blob")),
    }
}

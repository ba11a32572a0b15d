//! The columns of `trajectories`: one for each field of a [`TrainingRow`].

use super::column::Column;
use super::table::{Table, TableError};
use crate::export::sample::AttemptSample;
use crate::trajectory::{BreakCause, ROW_SCHEMA_VERSION, RewardSource, TrainingRow};
use arrow_array::{Array, RecordBatch};
use arrow_schema::{ArrowError, Field, Schema, SchemaRef};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use std::borrow::Cow;
use std::sync::Arc;

/// Names and values of the columns. Arrays that a trainer reads as a whole are bytes, in little-endian order.
fn columns() -> Vec<(&'static str, Column)> {
    vec![
        ("schema_version", Column::int(|row| row.schema_version.into())),
        ("rollout_id", Column::text(|row| Some(&row.rollout_id))),
        ("attempt_id", Column::text(|row| Some(&row.attempt_id))),
        ("group_id", Column::text(|row| Some(&row.group_id))),
        ("branch", Column::int(|row| int(row.branch))),
        ("n_branches", Column::int(|row| int(row.n_branches))),
        ("n_siblings", Column::int(|row| int(row.n_siblings))),
        ("weight", Column::float(|row| Some(row.weight))),
        ("role", Column::text(|row| Some(row.role))),
        ("model", Column::text(|row| row.model.as_deref())),
        ("token_ids", Column::token_ids(|row| &row.token_ids)),
        ("mask", Column::bytes(|row| Some(Cow::Borrowed(&row.mask)))),
        ("logprobs", Column::floats(|row| row.logprobs.as_deref())),
        ("versions", Column::ints(|row| Cow::Borrowed(&row.versions))),
        ("temperatures", Column::floats(|row| row.temperatures.as_deref())),
        ("prompt_length", Column::int(|row| int(row.prompt_length))),
        ("calls", Column::texts(|row| row.calls.iter().map(String::as_str).collect())),
        ("call_starts", Column::ints(|row| row.call_starts.iter().copied().map(int).collect())),
        ("call_lengths", Column::ints(|row| row.call_lengths.iter().copied().map(int).collect())),
        ("finish_reason", Column::text(|row| row.finish_reason.as_deref())),
        ("break_cause", Column::text(|row| row.break_cause.map(BreakCause::as_str))),
        ("reward", Column::float(|row| row.reward)),
        ("reward_source", Column::text(|row| row.reward_source.map(RewardSource::as_str))),
        ("sound", Column::flag(|row| row.sound)),
        ("reasons", Column::texts(|row| row.reasons.clone())),
        ("retokenized", Column::flag(|row| row.retokenized)),
        ("routed_experts", Column::bytes(|row| experts(row).map(Cow::Owned))),
        ("routed_experts_shape", Column::ints(|row| Cow::Borrowed(&row.routed_experts_shape))),
        ("routed_experts_dtype", Column::text(|row| row.routed_experts_dtype.as_deref())),
        ("sampling_mask_lengths", Column::bytes(|row| little_endian(row.sampling_mask_lengths.as_deref()))),
        ("sampling_mask", Column::bytes(|row| little_endian(row.sampling_mask.as_deref()))),
    ]
}

/// A number of things in memory, which is far below 2^63.
fn int(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// The bytes of the array. `None` without experts, and if what the engine sent is no base64.
fn experts(row: &TrainingRow) -> Option<Vec<u8>> {
    BASE64_STANDARD.decode(row.routed_experts.as_deref()?).ok()
}

fn little_endian(numbers: Option<&[u32]>) -> Option<Cow<'_, [u8]>> {
    Some(numbers?.iter().flat_map(|one| one.to_le_bytes()).collect())
}

/// Rows of `trajectories`.
pub(crate) struct TrajectoryTable {
    columns: Vec<Column>,
    schema: SchemaRef,
    bytes: usize,
}

impl TrajectoryTable {
    /// An empty table.
    pub(crate) fn new() -> Self {
        let (names, mut columns): (Vec<&str>, Vec<Column>) = columns().into_iter().unzip();
        let field = |(name, column): (&str, &mut Column)| Field::new(name, column.take().data_type().clone(), true);
        let fields: Vec<Field> = names.into_iter().zip(&mut columns).map(field).collect();
        Self { columns, schema: Arc::new(Schema::new(fields)), bytes: 0 }
    }
}

impl Table for TrajectoryTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn schema_version(&self) -> u32 {
        ROW_SCHEMA_VERSION
    }

    fn add(&mut self, sample: &AttemptSample) -> Result<(), TableError> {
        for row in &sample.rows {
            self.columns.iter_mut().try_for_each(|column| column.add(row))?;
            self.bytes += ROW_BYTES + row.token_ids.len() * TOKEN_BYTES;
            self.bytes += row.routed_experts.as_ref().map_or(0, String::len);
            self.bytes += row.sampling_mask.as_ref().map_or(0, |ids| ids.len() * size_of::<u32>());
        }
        Ok(())
    }

    fn bytes(&self) -> usize {
        self.bytes
    }

    fn take(&mut self) -> Result<RecordBatch, ArrowError> {
        self.bytes = 0;
        RecordBatch::try_new(self.schema(), self.columns.iter_mut().map(Column::take).collect())
    }
}

/// Texts and numbers of a row, roughly.
const ROW_BYTES: usize = 512;
/// Id, mask, logprob, version, temperature and the length of a sampling mask.
const TOKEN_BYTES: usize = 4 + 1 + 4 + 8 + 4 + 4;

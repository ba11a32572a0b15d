//! What a shape needs so that it can be written as Parquet.

use crate::export::sample::AttemptSample;
use arrow_array::RecordBatch;
use arrow_schema::{ArrowError, SchemaRef};

/// Rows in memory, as columns, until they are written.
pub(crate) trait Table: Send {
    /// Names and types of the columns.
    fn schema(&self) -> SchemaRef;

    /// The version of these columns, which the file names.
    fn schema_version(&self) -> u32;

    /// Adds the rows of an attempt.
    fn add(&mut self, sample: &AttemptSample) -> Result<(), TableError>;

    /// An estimate of the memory that the rows take.
    fn bytes(&self) -> usize;

    /// The rows so far. The table is empty afterwards.
    fn take(&mut self) -> Result<RecordBatch, ArrowError>;
}

/// Why a row is not in a table.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TableError {
    /// The column has numbers below 2^31, as the ids of all tokenizers are.
    #[error("token id {id} of rollout {rollout} is above 2147483647, which Parquet's int32 can't hold")]
    TokenId {
        /// The token id that does not fit.
        id: u32,
        /// The rollout that has it.
        rollout: String,
    },
}

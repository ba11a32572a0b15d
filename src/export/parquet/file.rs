//! A Parquet file in progress. Its memory is bounded by the size of a row group, whatever the number of rows.

use super::table::{Table, TableError};
use crate::export::sample::AttemptSample;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties};

/// The rows of a table on their way to a file.
pub(crate) struct ParquetFile {
    table: Box<dyn Table>,
    writer: ArrowWriter<Vec<u8>>,
    // Memory of the row group in progress before it was encoded.
    group_bytes: usize,
}

impl ParquetFile {
    /// A file without rows. `format` is the name of the shape, for the metadata of the file.
    pub(crate) fn new(format: &str, table: Box<dyn Table>) -> Result<Self, FileError> {
        let metadata =
            [("tracewire.format", format.to_owned()), ("tracewire.schema_version", table.schema_version().to_string())];
        let properties = WriterProperties::builder()
            .set_created_by(concat!("tracewire ", env!("CARGO_PKG_VERSION")).to_owned())
            .set_key_value_metadata(Some(metadata.map(|(key, value)| KeyValue::new(key.to_owned(), value)).into()))
            .set_compression(Compression::ZSTD(ZstdLevel::try_new(1)?))
            // Of arrays with an entry for each token, the least and the greatest value of each page are of no use.
            .set_statistics_enabled(EnabledStatistics::Chunk)
            .build();
        // All types are Parquet's own, so that no reader needs Arrow's schema.
        let options = ArrowWriterOptions::new().with_properties(properties).with_skip_arrow_metadata(true);
        let writer = ArrowWriter::try_new_with_options(Vec::new(), table.schema(), options)?;
        Ok(Self { table, writer, group_bytes: 0 })
    }

    /// Adds the rows of an attempt. Returns the bytes of the file that are finished.
    pub(crate) fn add(&mut self, sample: &AttemptSample) -> Result<Vec<u8>, FileError> {
        self.table.add(sample)?;
        if self.table.bytes() >= BATCH_BYTES {
            self.group_bytes += self.table.bytes();
            self.writer.write(&self.table.take()?)?;
        }
        if self.group_bytes >= ROW_GROUP_BYTES {
            self.group_bytes = 0;
            self.writer.flush()?;
        }
        Ok(std::mem::take(self.writer.inner_mut()))
    }

    /// The rest of the file.
    pub(crate) fn finish(mut self) -> Result<Vec<u8>, FileError> {
        self.writer.write(&self.table.take()?)?;
        Ok(self.writer.into_inner()?)
    }
}

/// Why a file can't be written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FileError {
    #[error(transparent)]
    Row(#[from] TableError),
    #[error("cannot make the columns: {0}")]
    Columns(#[from] arrow_schema::ArrowError),
    #[error("cannot encode the columns: {0}")]
    Encoding(#[from] ParquetError),
}

/// Rows are encoded once they take this much memory.
const BATCH_BYTES: usize = 4 * 1024 * 1024;
/// A row group is written once its rows took this much memory. The encoded size says too little: a column in which each token
/// has the same value takes almost no bytes, and much memory until its page is full.
const ROW_GROUP_BYTES: usize = 16 * 1024 * 1024;

//! An export in progress: samples in, bytes of the file out. Neither reads the store nor writes the file.

use super::parquet::{FileError, ParquetFile};
use super::sample::{AttemptSample, Proof};
use super::shapes::{ALL, Shape, encoded};
use crate::trace::Rollout;
use crate::trajectory::group_id;
use serde::Deserialize;
use serde_json::Value as JsonValue;

/// The type of an exported file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, clap::ValueEnum, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum FileType {
    /// JSON lines
    #[default]
    Jsonl,
    /// Parquet, compressed with zstd
    Parquet,
}

impl FileType {
    /// The media type of the file.
    pub(crate) fn media_type(self) -> &'static str {
        match self {
            Self::Jsonl => "application/x-ndjson",
            Self::Parquet => "application/vnd.apache.parquet",
        }
    }
}

/// An export of many attempts, which are added one by one.
pub(crate) struct ExportStream {
    encoder: Encoder,
    proof: Proof,
}

enum Encoder {
    Lines(&'static dyn Shape),
    Groups(GroupedLines),
    Parquet(Box<ParquetFile>),
}

impl ExportStream {
    /// An empty export. It fails if the shape has no columns, and the file must have some.
    pub(crate) fn new(shape: &'static dyn Shape, file_type: FileType) -> Result<Self, ExportError> {
        let encoder = match file_type {
            FileType::Jsonl if shape.compares_attempts() => Encoder::Groups(GroupedLines::of(shape)),
            FileType::Jsonl => Encoder::Lines(shape),
            FileType::Parquet => {
                let table = shape.table().ok_or_else(|| ExportError::no_columns(shape))?;
                Encoder::Parquet(Box::new(ParquetFile::new(shape.name(), table)?))
            }
        };
        Ok(Self { encoder, proof: Proof::default() })
    }

    /// By what the rollouts must be ordered before they are added: those of a group together, if the shape compares them.
    /// `None`: any order will do.
    pub(crate) fn order_key(&self) -> Option<fn(&Rollout) -> String> {
        match self.encoder {
            Encoder::Groups(_) => Some(group_id),
            Encoder::Lines(_) | Encoder::Parquet(_) => None,
        }
    }

    /// What is done for each attempt before it is added.
    pub(crate) fn preparation(&self) -> Preparation {
        match self.encoder {
            Encoder::Lines(shape) => Preparation { lines_of: Some(shape) },
            Encoder::Groups(_) | Encoder::Parquet(_) => Preparation { lines_of: None },
        }
    }

    /// Adds an attempt. Returns the next bytes of the file; none if they are still collected.
    pub(crate) fn add(&mut self, attempt: PreparedAttempt) -> Result<Vec<u8>, ExportError> {
        self.proof.add(&attempt.proof);
        Ok(match &mut self.encoder {
            Encoder::Lines(_) => attempt.lines?,
            Encoder::Groups(groups) => groups.add(&attempt.sample)?,
            Encoder::Parquet(file) => file.add(&attempt.sample)?,
        })
    }

    /// What was added so far.
    pub(crate) fn proof(&self) -> &Proof {
        &self.proof
    }

    /// Returns the last bytes of the file, and the proof of the whole.
    pub(crate) fn finish(self) -> Result<(Vec<u8>, Proof), ExportError> {
        let rest = match self.encoder {
            Encoder::Lines(_) => Vec::new(),
            Encoder::Groups(mut groups) => groups.end_group()?,
            Encoder::Parquet(file) => file.finish()?,
        };
        Ok((rest, self.proof))
    }
}

/// What is done for each attempt of an export, in any order and on any thread.
#[derive(Clone, Copy)]
pub(crate) struct Preparation {
    lines_of: Option<&'static dyn Shape>,
}

/// An attempt that can be added to an export.
pub(crate) struct PreparedAttempt {
    sample: AttemptSample,
    proof: Proof,
    // Empty if the export is not lines of single attempts.
    lines: serde_json::Result<Vec<u8>>,
}

impl Preparation {
    /// Prepares an attempt.
    pub(crate) fn prepare(self, sample: AttemptSample) -> PreparedAttempt {
        let lines = self.lines_of.map_or(Ok(Vec::new()), |shape| shape.encoded_lines(&sample));
        PreparedAttempt { proof: sample.proof(), lines, sample }
    }
}

/// Lines of a shape that compares the attempts of a group. Holds those of one group.
struct GroupedLines {
    shape: &'static dyn Shape,
    group: Option<String>,
    attempts: Vec<JsonValue>,
}

impl GroupedLines {
    fn of(shape: &'static dyn Shape) -> Self {
        Self { shape, group: None, attempts: Vec::new() }
    }

    /// Adds an attempt. Returns the lines of the group before, if it was its last one.
    fn add(&mut self, sample: &AttemptSample) -> Result<Vec<u8>, ExportError> {
        let group = Some(group_id(&sample.rollout));
        let ended = if self.group == group { Vec::new() } else { self.end_group()? };
        self.group = group;
        self.attempts.extend(self.shape.lines(sample));
        Ok(ended)
    }

    fn end_group(&mut self) -> Result<Vec<u8>, ExportError> {
        Ok(encoded(&self.shape.lines_of_group(std::mem::take(&mut self.attempts)))?)
    }
}

/// Why an export can't go on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ExportError {
    #[error("the format {format} is JSON lines only; as Parquet there are: {others}")]
    NoColumns {
        /// The name of the shape.
        format: &'static str,
        /// Names of the shapes that have columns.
        others: String,
    },
    #[error("cannot write JSON: {0}")]
    Json(#[from] serde_json::Error),
    #[error(transparent)]
    Parquet(#[from] FileError),
}

impl ExportError {
    fn no_columns(shape: &dyn Shape) -> Self {
        let others: Vec<&str> = ALL.iter().filter(|other| other.table().is_some()).map(|other| other.name()).collect();
        Self::NoColumns { format: shape.name(), others: others.join(", ") }
    }
}

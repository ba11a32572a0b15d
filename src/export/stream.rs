//! An export in progress: attempts in, bytes of the file out. Neither reads the store nor writes the file.

use super::format::ExportFormat;
use super::parquet::{FileError, ParquetFile};
use super::sample::{AttemptSample, Proof, SampleOptions};
use super::shapes::{ALL, Shape, encoded};
use super::spans::{RecordedRollout, SpanFile, SpanFormat};
use crate::trace::{AttemptScope, AttemptedRollout, Rollout, Span};
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
    counts: ExportCounts,
}

/// What an export holds.
#[derive(Clone, Debug, Default)]
pub(crate) struct ExportCounts {
    /// Rollouts that were read.
    pub(crate) rollouts: usize,
    /// Their spans. Training data does not count them.
    pub(crate) spans: usize,
    /// What became of the sampled tokens. `None` for formats of spans.
    pub(crate) proof: Option<Proof>,
}

enum Encoder {
    Lines(&'static dyn Shape),
    Groups(GroupedLines),
    Parquet(Box<ParquetFile>),
    Spans(SpanFile),
}

impl ExportStream {
    /// An empty export. It fails if the format has no columns, and the file must have some.
    pub(crate) fn new(format: ExportFormat, file_type: FileType) -> Result<Self, ExportError> {
        let encoder = match (format, file_type) {
            (ExportFormat::Training(shape), FileType::Jsonl) if shape.compares_attempts() => {
                Encoder::Groups(GroupedLines::of(shape))
            }
            (ExportFormat::Training(shape), FileType::Jsonl) => Encoder::Lines(shape),
            (ExportFormat::Training(shape), FileType::Parquet) => {
                let table = shape.table().ok_or_else(|| ExportError::no_columns(shape.name()))?;
                Encoder::Parquet(Box::new(ParquetFile::new(shape.name(), table)?))
            }
            (ExportFormat::Spans(format), FileType::Jsonl) => Encoder::Spans(SpanFile::of(format)),
            (ExportFormat::Spans(format), FileType::Parquet) => return Err(ExportError::no_columns(format.name())),
        };
        let proof = matches!(format, ExportFormat::Training(_)).then(Proof::default);
        Ok(Self { encoder, counts: ExportCounts { proof, ..ExportCounts::default() } })
    }

    /// The media type of the file.
    pub(crate) fn media_type(&self) -> &'static str {
        match &self.encoder {
            Encoder::Lines(_) | Encoder::Groups(_) => FileType::Jsonl.media_type(),
            Encoder::Parquet(_) => FileType::Parquet.media_type(),
            Encoder::Spans(file) => file.format().media_type(),
        }
    }

    /// Of which attempts spans have to be read.
    pub(crate) fn scope(&self) -> AttemptScope {
        match &self.encoder {
            Encoder::Lines(_) | Encoder::Groups(_) | Encoder::Parquet(_) => AttemptScope::Latest,
            Encoder::Spans(file) => file.format().scope(),
        }
    }

    /// By what the rollouts must be ordered before they are added: those of a group together, if the shape compares them.
    /// `None`: any order will do.
    pub(crate) fn order_key(&self) -> Option<fn(&Rollout) -> String> {
        match self.encoder {
            Encoder::Groups(_) => Some(group_id),
            Encoder::Lines(_) | Encoder::Parquet(_) | Encoder::Spans(_) => None,
        }
    }

    /// What is done for each attempt before it is added.
    pub(crate) fn preparation(&self) -> Preparation {
        match &self.encoder {
            Encoder::Lines(shape) => Preparation::Lines(*shape),
            Encoder::Groups(_) | Encoder::Parquet(_) => Preparation::Sample,
            Encoder::Spans(file) => Preparation::Spans(file.format()),
        }
    }

    /// Adds an attempt. Returns the next bytes of the file; none if they are still collected.
    pub(crate) fn add(&mut self, attempt: PreparedAttempt) -> Result<Vec<u8>, ExportError> {
        self.counts.rollouts += 1;
        self.counts.spans += attempt.spans;
        if let (Some(proof), Some(of_attempt)) = (&mut self.counts.proof, &attempt.proof) {
            proof.add(of_attempt);
        }
        let encoded = attempt.encoded?;
        Ok(match (&mut self.encoder, &attempt.sample) {
            (Encoder::Groups(groups), Some(sample)) => groups.add(sample)?,
            (Encoder::Parquet(file), Some(sample)) => file.add(sample)?,
            (Encoder::Spans(file), _) => file.framed(encoded)?,
            _ => encoded,
        })
    }

    /// What was added so far.
    pub(crate) fn counts(&self) -> &ExportCounts {
        &self.counts
    }

    /// Returns the last bytes of the file, and what the whole holds.
    pub(crate) fn finish(self) -> Result<(Vec<u8>, ExportCounts), ExportError> {
        let rest = match self.encoder {
            Encoder::Lines(_) => Vec::new(),
            Encoder::Groups(mut groups) => groups.end_group()?,
            Encoder::Parquet(file) => file.finish()?,
            Encoder::Spans(file) => file.end()?,
        };
        Ok((rest, self.counts))
    }
}

/// What is done for each attempt of an export, in any order and on any thread.
#[derive(Clone, Copy)]
pub(crate) enum Preparation {
    /// The lines of a shape.
    Lines(&'static dyn Shape),
    /// The sample, of which the export makes its file.
    Sample,
    /// The rollout in a format of spans.
    Spans(&'static dyn SpanFormat),
}

/// An attempt that can be added to an export.
pub(crate) struct PreparedAttempt {
    // Both are None for formats of spans.
    sample: Option<AttemptSample>,
    proof: Option<Proof>,
    spans: usize,
    // Empty if the export makes its file of samples.
    encoded: serde_json::Result<Vec<u8>>,
}

impl Preparation {
    /// Prepares an attempt.
    pub(crate) fn prepare(self, found: AttemptedRollout, spans: Vec<Span>, options: &SampleOptions) -> PreparedAttempt {
        let number = spans.len();
        let (sample, encoded) = match self {
            Self::Spans(format) => (None, format.encoded(&RecordedRollout { rollout: found, spans })),
            Self::Lines(_) | Self::Sample => {
                let sample = AttemptSample::of(found.rollout, found.attempt.as_ref(), &spans, options);
                let lines = if let Self::Lines(shape) = self { shape.encoded_lines(&sample) } else { Ok(Vec::new()) };
                (Some(sample), lines)
            }
        };
        PreparedAttempt { proof: sample.as_ref().map(AttemptSample::proof), sample, spans: number, encoded }
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
    #[error("the format {format} has no columns; as Parquet there are: {others}")]
    NoColumns {
        /// The name of the format.
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
    fn no_columns(format: &'static str) -> Self {
        let others: Vec<&str> = ALL.iter().filter(|other| other.table().is_some()).map(|other| other.name()).collect();
        Self::NoColumns { format, others: others.join(", ") }
    }
}

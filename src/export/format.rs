//! Everything that an export can be: a shape of training data, or a format of spans.

use super::shapes::{self, Shape};
use super::spans::{self, AttributeConventions, SpanFormat};

/// What an export writes.
#[derive(Clone, Copy)]
pub(crate) enum ExportFormat {
    /// Samples that trainers load.
    Training(&'static dyn Shape),
    /// What was recorded, for other programs and for people.
    Spans(&'static dyn SpanFormat),
}

/// The format has no attributes by name.
#[derive(Debug, thiserror::Error)]
#[error("only the formats otlp and otlp-json can have the attributes of OpenInference")]
pub(crate) struct NoAttributes;

impl ExportFormat {
    /// The format with this name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::all().find(|format| format.name() == name)
    }

    /// The format with the names of these conventions.
    pub(crate) fn with_attributes(self, conventions: AttributeConventions) -> Result<Self, NoAttributes> {
        match (conventions, self) {
            (AttributeConventions::GenAi, format) => Ok(format),
            (AttributeConventions::OpenInference, Self::Spans(format)) => {
                format.with_open_inference().map(Self::Spans).ok_or(NoAttributes)
            }
            (AttributeConventions::OpenInference, Self::Training(_)) => Err(NoAttributes),
        }
    }

    /// Every format: the shapes of training data first.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        let training = shapes::ALL.iter().copied().map(Self::Training);
        training.chain(spans::ALL.iter().copied().map(Self::Spans))
    }

    /// The name for `--format`, and for `format` over HTTP.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Training(shape) => shape.name(),
            Self::Spans(format) => format.name(),
        }
    }
}

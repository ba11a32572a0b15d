//! Everything that an export can be: a shape of training data, or a format of spans.

use super::shapes::{self, Shape};
use super::spans::{self, SpanFormat};

/// What an export writes.
#[derive(Clone, Copy)]
pub(crate) enum ExportFormat {
    /// Samples that trainers load.
    Training(&'static dyn Shape),
    /// What was recorded, for other programs and for people.
    Spans(&'static dyn SpanFormat),
}

impl ExportFormat {
    /// The format with this name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::all().find(|format| format.name() == name)
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

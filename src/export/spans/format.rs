//! The trait of all formats of spans.

use crate::trace::{AttemptScope, AttemptedRollout, Span};

/// A format of recorded spans.
pub(crate) trait SpanFormat: Sync {
    /// The name for `--format`, and for `format` over HTTP.
    fn name(&self) -> &'static str;

    /// The media type of the file.
    fn media_type(&self) -> &'static str;

    /// What is in the file besides the rollouts.
    fn framing(&self) -> Framing;

    /// What makes the file of the rollouts, if that is more than their framing.
    fn archive(&self) -> Option<Box<dyn Archive>> {
        None
    }

    /// The attempts that the format needs.
    fn scope(&self) -> AttemptScope {
        AttemptScope::All
    }

    /// The same format with the attributes of OpenInference. `None` if it has no attributes by name.
    fn with_open_inference(&self) -> Option<&'static dyn SpanFormat> {
        None
    }

    /// A rollout in this format. Empty if it has nothing that the format can hold.
    fn encoded(&self, rollout: &RecordedRollout) -> serde_json::Result<Vec<u8>>;
}

/// What is in a file before, between and after the rollouts.
#[derive(Clone, Copy, Default)]
pub(crate) struct Framing {
    pub(crate) start: &'static str,
    pub(crate) separator: &'static str,
    pub(crate) end: &'static str,
}

impl Framing {
    /// Nothing: each rollout is a line, or a message that can be appended to another.
    pub(super) const NONE: Self = Self { start: "", separator: "", end: "" };
}

/// Makes a file of encoded rollouts that are added one by one.
pub(crate) trait Archive: Send {
    /// Adds a rollout that is not empty. Returns the next bytes of the file.
    fn add(&mut self, rollout: &[u8]) -> serde_json::Result<Vec<u8>>;

    /// The last bytes of the file.
    fn finish(self: Box<Self>) -> serde_json::Result<Vec<u8>>;
}

/// A rollout as a format reads it.
pub(crate) struct RecordedRollout {
    /// The rollout, and its latest attempt.
    pub(crate) rollout: AttemptedRollout,
    /// By sequence id.
    pub(crate) spans: Vec<Span>,
}

/// A file in a format, of which rollouts are added one by one.
pub(crate) struct SpanFile {
    format: &'static dyn SpanFormat,
    is_started: bool,
    archive: Option<Box<dyn Archive>>,
}

impl SpanFile {
    /// An empty file.
    pub(crate) fn of(format: &'static dyn SpanFormat) -> Self {
        Self { format, is_started: false, archive: format.archive() }
    }

    /// The format of the file.
    pub(crate) fn format(&self) -> &'static dyn SpanFormat {
        self.format
    }

    /// The next bytes of the file: a rollout with what is before it.
    pub(crate) fn framed(&mut self, mut rollout: Vec<u8>) -> serde_json::Result<Vec<u8>> {
        if rollout.is_empty() {
            return Ok(rollout);
        }
        if let Some(archive) = &mut self.archive {
            return archive.add(&rollout);
        }
        let framing = self.format.framing();
        let before = if self.is_started { framing.separator } else { framing.start };
        self.is_started = true;
        rollout.splice(0..0, before.bytes());
        Ok(rollout)
    }

    /// The last bytes of the file.
    pub(crate) fn end(self) -> serde_json::Result<Vec<u8>> {
        if let Some(archive) = self.archive {
            return archive.finish();
        }
        let Framing { start, end, .. } = self.format.framing();
        let start = if self.is_started { "" } else { start };
        Ok([start, end].concat().into_bytes())
    }
}

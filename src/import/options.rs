//! How what is read becomes spans.

use crate::capture::CaptureSettings;
use crate::pipeline::SpanOptions;
use crate::wire::redact::{RedactSettings, Redactor};

/// The options of an import.
pub(crate) struct ImportOptions {
    /// How spans of exchanges are made.
    pub(super) spans: SpanOptions,
}

impl ImportOptions {
    /// All that a file has is kept, redacted.
    pub(crate) fn new(redact: RedactSettings) -> Self {
        let all = CaptureSettings { include_headers: true, include_bodies: true, ..CaptureSettings::default() };
        Self { spans: SpanOptions::new(&all, Redactor::new(redact)) }
    }
}

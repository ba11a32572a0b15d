//! What was read from a file.

use crate::trace::{Attempt, Rollout, Span, check_id};
use crate::wire::redact::Redactor;
use std::collections::BTreeMap;

/// A part of a file, or a whole one, as it can be stored.
#[derive(Debug, Default)]
pub(crate) struct Imported {
    /// Records of rollouts, each with its latest attempt. Most formats have none, and rollouts are made for their spans.
    pub(crate) rollouts: Vec<(Rollout, Option<Attempt>)>,
    /// Spans with rollout, attempt and sequence id.
    pub(crate) spans: Vec<Span>,
    /// What was left out, in words, and how often.
    pub(crate) left_out: BTreeMap<String, u64>,
}

impl Imported {
    /// The same with everything redacted, and without spans that have an id which no API takes.
    pub(super) fn checked(mut self, redactor: &Redactor) -> Self {
        let mut spans = std::mem::take(&mut self.spans);
        spans.retain(|span| {
            let ids = [span.rollout_id.as_str(), span.attempt_id.as_str(), &span.span_id];
            let invalid = ids.into_iter().find_map(|id| check_id(id).err());
            invalid.iter().for_each(|error| self.leave_out(format!("a span: {error}")));
            invalid.is_none()
        });
        spans.iter_mut().for_each(|span| redactor.span(span));
        self.spans = spans;
        self
    }

    /// Counts something that is not in the spans.
    pub(super) fn leave_out(&mut self, what: impl Into<String>) {
        *self.left_out.entry(what.into()).or_default() += 1;
    }
}

/// Why a file, or a part of it, can't be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ImportError {
    /// Damaged or cut JSON.
    #[error("it is not JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// Damaged or cut OTLP.
    #[error("it is not OTLP: {0}")]
    Otlp(String),
    /// A form that is none of those that can be read.
    #[error(
        "its form is unknown; known are Tracewire's JSON, OTLP as JSON and protobuf, Jaeger's JSON, HAR, ATIF, flows of \
         mitmproxy, and sessions of Claude Code and Codex"
    )]
    Unknown,
    /// The form is known, but a part of it is something else.
    #[error("{0}")]
    Shape(&'static str),
}

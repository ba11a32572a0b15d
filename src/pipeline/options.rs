//! What goes into spans.

use crate::capture::{Absorb, CaptureSettings};
use crate::trace::SamplerArrays;
use crate::wire::redact::Redactor;

/// What goes into spans, and how it is redacted.
#[derive(Clone, Debug, Default)]
pub struct SpanOptions {
    /// Header fields are included.
    pub include_headers: bool,
    /// Bodies are included.
    pub include_bodies: bool,
    /// Messages and token ids of calls are included.
    pub llm_content: bool,
    /// These arrays of calls are included.
    pub sampler_arrays: SamplerArrays,
    /// Maximum bytes of a decoded body.
    pub max_body_bytes: usize,
    /// Header fields to include, as patterns; empty: all.
    pub header_allow: Vec<String>,
    /// Header fields not to include, as patterns.
    pub header_deny: Vec<String>,
    /// The spans in OTLP exports of agents are included.
    pub absorbs_exports: bool,
    /// Redacts everything that becomes part of a span.
    pub redactor: Redactor,
}

impl SpanOptions {
    /// The options that the settings name.
    pub fn new(settings: &CaptureSettings, redactor: Redactor) -> Self {
        Self {
            include_headers: settings.include_headers,
            include_bodies: settings.include_bodies,
            llm_content: settings.llm_content,
            sampler_arrays: settings.sampler_arrays(),
            max_body_bytes: usize::try_from(settings.max_body_bytes).unwrap_or(usize::MAX),
            header_allow: settings.header_allow.clone(),
            header_deny: settings.header_deny.clone(),
            absorbs_exports: settings.absorb_telemetry != Absorb::Off,
            redactor,
        }
    }
}

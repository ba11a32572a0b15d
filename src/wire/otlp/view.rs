//! A span as OTLP has it, borrowed: what both encoders write.
//!
//! OTLP has no field for the rollout, the attempt and the sequence id. They are the attributes `agentlightning.*`, which
//! the decoder reads. Its ids are bytes: an id of another form becomes the start of its SHA-256, and the span has the
//! original as an attribute.

use super::message::{Code, Kind};
use super::names;
use crate::trace::span::{Link, SpanContext};
use crate::trace::{Attributes, IdBytes, Span, SpanKind, StatusCode, Timestamp, Value, semconv};
use std::collections::BTreeMap;

/// A span with its ids as bytes.
pub(super) struct SpanView<'a> {
    pub(super) span: &'a Span,
    pub(super) trace_id: IdBytes<16>,
    pub(super) span_id: IdBytes<8>,
    pub(super) parent_id: Option<IdBytes<8>>,
}

/// The value of an attribute: one that the span has, or a field of it.
#[derive(Clone, Copy)]
pub(super) enum ValueView<'a> {
    Stored(&'a Value),
    Text(&'a str),
    Int(i64),
}

impl<'a> SpanView<'a> {
    pub(super) fn of(span: &'a Span) -> Self {
        let (trace_id, span_id) = (IdBytes::of(&span.trace_id), IdBytes::of(&span.span_id));
        Self { span, trace_id, span_id, parent_id: span.parent_id.as_deref().map(IdBytes::of) }
    }

    /// The attributes of the span, and then what OTLP has no fields for.
    pub(super) fn attributes(&self) -> impl Iterator<Item = (&'a str, ValueView<'a>)> {
        let span = self.span;
        let own = span.attributes.iter().filter(|(name, _)| !names::is_identity(name));
        let sequence_id = i64::try_from(span.sequence_id).unwrap_or(i64::MAX);
        let identity = [
            (names::ROLLOUT_ID, ValueView::Text(span.rollout_id.as_str())),
            (names::ATTEMPT_ID, ValueView::Text(span.attempt_id.as_str())),
            (names::SEQUENCE_ID, ValueView::Int(sequence_id)),
        ];
        let is_parent_derived = self.parent_id.is_some_and(|id| id.is_derived);
        let originals = [
            (names::ORIGINAL_TRACE_ID, self.trace_id.is_derived, Some(span.trace_id.as_str())),
            (names::ORIGINAL_SPAN_ID, self.span_id.is_derived, Some(span.span_id.as_str())),
            (names::ORIGINAL_PARENT_ID, is_parent_derived, span.parent_id.as_deref()),
        ];
        let originals = originals.into_iter().filter(|(_, is_derived, _)| *is_derived);
        let originals = originals.filter_map(|(name, _, id)| Some((name, ValueView::Text(id?))));
        own.map(|(name, value)| (name.as_str(), ValueView::Stored(value))).chain(identity).chain(originals)
    }

    pub(super) fn trace_state(&self) -> String {
        self.span.context.as_ref().map(|context| trace_state(&context.trace_state)).unwrap_or_default()
    }

    pub(super) fn kind(&self) -> Kind {
        match self.span.kind {
            None => Kind::Unspecified,
            Some(SpanKind::Internal) => Kind::Internal,
            Some(SpanKind::Server) => Kind::Server,
            Some(SpanKind::Client) => Kind::Client,
            Some(SpanKind::Producer) => Kind::Producer,
            Some(SpanKind::Consumer) => Kind::Consumer,
        }
    }

    pub(super) fn status_code(&self) -> Code {
        match self.span.status.status_code {
            StatusCode::Unset => Code::Unset,
            StatusCode::Ok => Code::Ok,
            StatusCode::Error => Code::Error,
        }
    }

    /// Empty without a description.
    pub(super) fn status_message(&self) -> &'a str {
        self.span.status.description.as_deref().unwrap_or_default()
    }

    /// What the flags say about the parent.
    pub(super) fn flags(&self) -> u32 {
        let of_parent = |parent: &SpanContext| {
            names::FLAG_IS_REMOTE_KNOWN | if parent.is_remote { names::FLAG_IS_REMOTE } else { 0 }
        };
        self.span.parent.as_ref().map_or(0, of_parent)
    }

    pub(super) fn dropped_attributes(&self) -> u32 {
        dropped(&self.span.attributes, semconv::SPAN_DROPPED_ATTRIBUTES)
    }

    pub(super) fn dropped_events(&self) -> u32 {
        dropped(&self.span.attributes, semconv::SPAN_DROPPED_EVENTS)
    }

    pub(super) fn dropped_links(&self) -> u32 {
        dropped(&self.span.attributes, semconv::SPAN_DROPPED_LINKS)
    }
}

/// The attributes that an event or a link has lost to limits.
pub(super) fn dropped_of_part(attributes: Option<&Attributes>) -> u32 {
    attributes.map_or(0, |attributes| dropped(attributes, semconv::DROPPED_ATTRIBUTES))
}

/// The attributes of a resource, an event or a link.
pub(super) fn values(attributes: &Attributes) -> impl Iterator<Item = (&str, ValueView<'_>)> {
    attributes.iter().map(|(name, value)| (name.as_str(), ValueView::Stored(value)))
}

/// The ids that a link refers to.
pub(super) fn ids_of(link: &Link) -> ([u8; 16], [u8; 8]) {
    (IdBytes::of(&link.context.trace_id).bytes, IdBytes::of(&link.context.span_id).bytes)
}

/// A count that the limits of spans have left in an attribute.
fn dropped(attributes: &Attributes, name: &str) -> u32 {
    attributes.get(name).and_then(Value::as_int).and_then(|count| u32::try_from(count).ok()).unwrap_or_default()
}

/// Nanoseconds since the Unix epoch; OTLP writes an unknown time as 0.
pub(super) fn nanos(time: Option<Timestamp>) -> u64 {
    time.map_or(0, |time| time.unix_nanos)
}

/// A W3C `tracestate` field.
pub(super) fn trace_state(entries: &BTreeMap<String, String>) -> String {
    let entries: Vec<String> = entries.iter().map(|(name, value)| format!("{name}={value}")).collect();
    entries.join(",")
}

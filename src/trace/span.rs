//! The recorded operation, with the JSON of Agent Lightning's `Span`: every field but `kind` is present, null if unset.
//!
//! Written `trace::Span` in text, because `tracing::Span` also exists. Data only: how spans are stored is decided in
//! `crate::store`.

use super::ids::{AttemptId, RolloutId};
use super::units::Timestamp;
use super::value::{Attributes, Value};
use serde::ser::SerializeStruct;
use serde::{Deserialize, Serialize, Serializer};
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// One span. Field names and JSON follow Agent Lightning 0.3 (`agentlightning/types/tracer.py`). `kind` is an additional
/// key, which that model accepts. Ids are text because spans of other tracers may have other formats.
#[derive(Clone, Debug, PartialEq, Deserialize, ToSchema)]
pub struct Span {
    /// The rollout that it belongs to.
    pub rollout_id: RolloutId,
    /// The attempt of that rollout.
    pub attempt_id: AttemptId,
    /// Position within the rollout, assigned when the request started.
    pub sequence_id: u64,
    /// 32 lower-case hexadecimal digits if Tracewire created it.
    pub trace_id: String,
    /// 16 lower-case hexadecimal digits if Tracewire created it. Unique within the attempt.
    pub span_id: String,
    /// Span id of the parent, which may be stored later or never. `None` for a root span.
    pub parent_id: Option<String>,
    /// Low-cardinality name, as the semantic conventions require.
    pub name: String,
    /// `None` for spans of Agent Lightning: their JSON has no such key.
    #[serde(default)]
    pub kind: Option<SpanKind>,
    /// `Unset` if the operation completed normally.
    pub status: Status,
    /// Scalars and lists of scalars only.
    #[schema(value_type = BTreeMap<String, Value>)]
    pub attributes: Attributes,
    /// In the order of their recording.
    pub events: Vec<Event>,
    /// References to spans other than the parent.
    pub links: Vec<Link>,
    /// Wall-clock time. `None` if another tracer sent none.
    pub start_time: Option<Timestamp>,
    /// Wall-clock time. `None` if the operation has not ended, or another tracer sent none.
    pub end_time: Option<Timestamp>,
    /// The span's identity as propagated to other processes.
    pub context: Option<SpanContext>,
    /// The parent's identity as received. `None` for a root span.
    pub parent: Option<SpanContext>,
    /// The program that produced the span.
    pub resource: Resource,
}

/// The span kinds of OpenTelemetry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum SpanKind {
    /// An operation within one process.
    Internal,
    /// An incoming request.
    Server,
    /// An outgoing request.
    Client,
    /// Sending of a message that is processed later.
    Producer,
    /// Processing of a message that was sent earlier.
    Consumer,
}

/// The status of OpenTelemetry.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Status {
    /// `Error` if the operation failed.
    pub status_code: StatusCode,
    /// Cause of an error. `None` if the HTTP status code explains it.
    #[serde(default)]
    pub description: Option<String>,
}

/// The status codes of OpenTelemetry. Upper case in JSON, because Agent Lightning rejects lower case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum StatusCode {
    /// The default: the operation completed without an error.
    #[default]
    Unset,
    /// The instrumented program marked the operation as successful.
    Ok,
    /// The operation failed.
    Error,
}

/// An event within a span.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Event {
    /// `exception`, for example.
    pub name: String,
    /// Scalars and lists of scalars only.
    #[schema(value_type = BTreeMap<String, Value>)]
    pub attributes: Attributes,
    /// Wall-clock time. `None` if another tracer sent none.
    #[serde(default)]
    pub timestamp: Option<Timestamp>,
}

/// A reference to a span other than the parent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Link {
    /// Identity of the span that is referred to.
    pub context: SpanContext,
    /// The relation: our own links have `tracewire.link`.
    #[serde(default)]
    #[schema(value_type = Option<BTreeMap<String, Value>>)]
    pub attributes: Option<Attributes>,
}

/// A span's identity as propagated in `traceparent` and `tracestate` (W3C Trace Context).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SpanContext {
    /// 32 hexadecimal digits.
    pub trace_id: String,
    /// 16 hexadecimal digits.
    pub span_id: String,
    /// True if the identity was received from another process.
    pub is_remote: bool,
    /// The entries of `tracestate`.
    pub trace_state: BTreeMap<String, String>,
}

/// The program that produced a span.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Resource {
    /// Resource attributes, such as `service.name`.
    #[schema(value_type = BTreeMap<String, Value>)]
    pub attributes: Attributes,
    /// URL of the schema of these attributes; empty if unknown.
    pub schema_url: String,
}

impl Span {
    /// Writes the span with other attributes than its own. This is the only list of the JSON's fields besides the
    /// struct; a new field does not compile until it is added here.
    pub fn serialize_with<S: Serializer>(&self, attributes: &impl Serialize, serializer: S) -> Result<S::Ok, S::Error> {
        let Self {
            rollout_id,
            attempt_id,
            sequence_id,
            trace_id,
            span_id,
            parent_id,
            name,
            kind,
            status,
            attributes: _,
            events,
            links,
            start_time,
            end_time,
            context,
            parent,
            resource,
        } = self;
        let mut json = serializer.serialize_struct("Span", 16 + usize::from(kind.is_some()))?;
        json.serialize_field("rollout_id", rollout_id)?;
        json.serialize_field("attempt_id", attempt_id)?;
        json.serialize_field("sequence_id", sequence_id)?;
        json.serialize_field("trace_id", trace_id)?;
        json.serialize_field("span_id", span_id)?;
        json.serialize_field("parent_id", parent_id)?;
        json.serialize_field("name", name)?;
        match kind {
            Some(kind) => json.serialize_field("kind", kind)?,
            None => json.skip_field("kind")?,
        }
        json.serialize_field("status", status)?;
        json.serialize_field("attributes", attributes)?;
        json.serialize_field("events", events)?;
        json.serialize_field("links", links)?;
        json.serialize_field("start_time", start_time)?;
        json.serialize_field("end_time", end_time)?;
        json.serialize_field("context", context)?;
        json.serialize_field("parent", parent)?;
        json.serialize_field("resource", resource)?;
        json.end()
    }

    /// Adds an attribute, or replaces its value.
    pub fn set(&mut self, name: &str, value: impl Into<Value>) {
        self.attributes.insert(name.to_owned(), value.into());
    }

    /// [`Span::set`], if there is a value.
    pub fn set_some(&mut self, name: &str, value: Option<impl Into<Value>>) {
        if let Some(value) = value {
            self.set(name, value);
        }
    }

    /// True if the operation failed.
    pub fn is_error(&self) -> bool {
        self.status.status_code == StatusCode::Error
    }

    /// An estimate of its size in memory: most of a span is the content of its attributes.
    pub fn estimated_bytes(&self) -> u64 {
        let value = |value: &Value| match value {
            Value::String(text) => text.len(),
            Value::Strings(texts) => texts.iter().map(String::len).sum(),
            Value::Ints(numbers) => size_of_val(numbers.as_slice()),
            Value::Floats(numbers) => size_of_val(numbers.as_slice()),
            _ => 16,
        };
        let of = |attributes: &Attributes| -> usize {
            attributes.iter().map(|(name, content)| name.len() + value(content)).sum()
        };
        let events: usize = self.events.iter().map(|event| event.name.len() + of(&event.attributes)).sum();
        (of(&self.attributes) + events) as u64 + OVERHEAD_BYTES
    }
}

/// Estimated size of a span besides its attributes and events.
const OVERHEAD_BYTES: u64 = 512;

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.serialize_with(&self.attributes, serializer)
    }
}

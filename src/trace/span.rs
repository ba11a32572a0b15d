//! The recorded operation, in the shape of Agent Lightning's `Span`: every field present in its JSON, null where unset.
//!
//! Always written `trace::Span`, since `tracing::Span` is another thing. It must not know how spans are stored.

use super::ids::{AttemptId, RolloutId};
use super::semconv;
use super::units::Timestamp;
use super::value::{Attributes, Value};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// One span. Field names and JSON shapes follow Agent Lightning 0.3 (`agentlightning/types/tracer.py`); `kind` is an
/// extra key, which that model keeps. Ids are text because foreign spans need not be hexadecimal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Span {
    /// The rollout it belongs to.
    pub rollout_id: RolloutId,
    /// The attempt of that rollout.
    pub attempt_id: AttemptId,
    /// Order within the rollout, taken when the request started.
    pub sequence_id: u64,
    /// 32 lower-case hexadecimal digits when made here.
    pub trace_id: String,
    /// 16 lower-case hexadecimal digits when made here.
    pub span_id: String,
    /// The parent's span id. The parent may arrive later or never.
    pub parent_id: Option<String>,
    /// Low-cardinality name, as the semantic conventions say.
    pub name: String,
    /// OpenTelemetry's kind.
    #[serde(default)]
    pub kind: SpanKind,
    /// OpenTelemetry's status.
    pub status: Status,
    /// Scalars and lists only.
    pub attributes: Attributes,
    /// Timed events.
    pub events: Vec<Event>,
    /// Links to other spans.
    pub links: Vec<Link>,
    /// When it started.
    pub start_time: Option<Timestamp>,
    /// When it ended.
    pub end_time: Option<Timestamp>,
    /// Its own context.
    pub context: Option<SpanContext>,
    /// Its parent's context.
    pub parent: Option<SpanContext>,
    /// What produced it.
    pub resource: Resource,
}

/// OpenTelemetry's five kinds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum SpanKind {
    /// An operation inside one process.
    #[default]
    Internal,
    /// An incoming call.
    Server,
    /// An outgoing call.
    Client,
    /// A message sent.
    Producer,
    /// A message received.
    Consumer,
}

/// OpenTelemetry's status.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The code.
    pub status_code: StatusCode,
    /// Why, for errors that the HTTP status does not explain already.
    #[serde(default)]
    pub description: Option<String>,
}

/// OpenTelemetry's status codes. Upper case in JSON: Agent Lightning refuses lower case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum StatusCode {
    /// Nothing said: the normal end of a call.
    #[default]
    Unset,
    /// Explicitly well.
    Ok,
    /// Failed.
    Error,
}

/// A timed event of a span.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Its name.
    pub name: String,
    /// Its attributes.
    pub attributes: Attributes,
    /// When.
    #[serde(default)]
    pub timestamp: Option<Timestamp>,
}

/// A link to another span.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Link {
    /// The other span.
    pub context: SpanContext,
    /// What the link means.
    #[serde(default)]
    pub attributes: Option<Attributes>,
}

/// A span's identity as it travels.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpanContext {
    /// The trace.
    pub trace_id: String,
    /// The span.
    pub span_id: String,
    /// True when it came over the wire.
    pub is_remote: bool,
    /// W3C `tracestate`.
    pub trace_state: BTreeMap<String, String>,
}

/// What produced a span.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Resource {
    /// Resource attributes.
    pub attributes: Attributes,
    /// The schema they follow.
    pub schema_url: String,
}

/// The values of `gen_ai.operation.name` that mean generated text.
const LLM_CALL_OPERATIONS: [&str; 3] = ["chat", "generate_content", "text_completion"];

impl Span {
    /// Sets an attribute.
    pub fn set(&mut self, name: &str, value: impl Into<Value>) {
        self.attributes.insert(name.to_owned(), value.into());
    }

    /// Sets an attribute if there is a value.
    pub fn set_some(&mut self, name: &str, value: Option<impl Into<Value>>) {
        if let Some(value) = value {
            self.set(name, value);
        }
    }

    /// True when the span's status is an error.
    pub fn is_error(&self) -> bool {
        self.status.status_code == StatusCode::Error
    }

    /// True for a span of a call to a model that generates text, whether or not it was answered.
    pub fn is_llm_call(&self) -> bool {
        match self.attributes.get(semconv::GEN_AI_OPERATION_NAME).and_then(Value::as_str) {
            Some(operation) => LLM_CALL_OPERATIONS.contains(&operation),
            None => self.is_unparsed_gateway_call(),
        }
    }

    /// A call that the gateway sent although no API format could parse it, because the request was malformed.
    fn is_unparsed_gateway_call(&self) -> bool {
        let was_sent = self.attributes.contains_key(semconv::GATEWAY_BACKEND)
            && !self.attributes.contains_key(semconv::GATEWAY_JOINED);
        let path = self.attributes.get(semconv::GATEWAY_CALLED).and_then(Value::as_str).unwrap_or_default();
        was_sent && path.trim_end_matches('/').ends_with("/completions")
    }
}

//! What a span records, in the classes that people tell apart.

use crate::llm::recorded::is_llm_call;
use crate::trace::semconv as names;
use crate::trace::{Span, SpanKind, Value};
use serde::Serialize;

/// What a span records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum SpanClass {
    /// A call of a model that generates text.
    Llm,
    /// A call of a tool: over MCP, or inferred from the calls of models.
    Tool,
    /// A reward or another annotation of a trainer.
    Reward,
    /// An event that a client posted.
    Event,
    /// A connection with bytes that were relayed unread, or that was refused.
    Tunnel,
    /// A connection through which other exchanges passed.
    Connection,
    /// Any other exchange over HTTP.
    Http,
    /// An operation inside of a program: the command of a run, a span of another tracer.
    Internal,
}

impl SpanClass {
    /// The class of a span, by its short attributes.
    pub(crate) fn of(span: &Span) -> Self {
        let has = |name: &str| span.attributes.contains_key(name);
        let text = |name: &str| span.attributes.get(name).and_then(Value::as_str);
        if is_llm_call(span) {
            Self::Llm
        } else if text(names::GEN_AI_OPERATION_NAME) == Some("execute_tool") || has(names::MCP_METHOD_NAME) {
            Self::Tool
        } else if has("agentlightning.reward.0.value") || span.name == "agentlightning.annotation" {
            Self::Reward
        } else if has(names::EVENT_TYPE) {
            Self::Event
        } else if let Some(policy) = text(names::CONNECT_POLICY) {
            if policy == "intercept" { Self::Connection } else { Self::Tunnel }
        } else if has(names::HTTP_REQUEST_METHOD) || span.kind == Some(SpanKind::Client) {
            Self::Http
        } else {
            Self::Internal
        }
    }
}

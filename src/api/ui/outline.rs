//! A span in a list: what a row of a waterfall shows. Fields without a value are absent, because a list has thousands.

use crate::query::SpanClass;
use crate::store::SpanOutline;
use crate::trace::failure::failure;
use crate::trace::semconv as names;
use crate::trace::{Timestamp, Value};
use crate::util::cut::cut;
use serde::Serialize;

/// The outline of a span.
#[derive(Serialize)]
pub(super) struct Outline {
    id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    parent: Option<String>,
    attempt: String,
    seq: u64,
    name: String,
    class: SpanClass,
    #[serde(skip_serializing_if = "Option::is_none")]
    start: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    end: Option<Timestamp>,
    #[serde(skip_serializing_if = "is_false")]
    error: bool,
    /// Why it failed, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    cause: Option<String>,
    #[serde(flatten)]
    http: HttpOutline,
    #[serde(flatten)]
    call: CallOutline,
}

/// What the outline of an exchange has besides.
#[derive(Serialize)]
struct HttpOutline {
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    method: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    host: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome: Option<String>,
    /// Milliseconds from the start to the first byte of the response's body.
    #[serde(skip_serializing_if = "Option::is_none")]
    first_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    up: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    down: Option<i64>,
}

/// What the outline of a call of a model or a tool has besides.
#[derive(Serialize)]
struct CallOutline {
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    agent: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool: Option<String>,
    #[serde(rename = "in", skip_serializing_if = "Option::is_none")]
    input_tokens: Option<i64>,
    #[serde(rename = "out", skip_serializing_if = "Option::is_none")]
    output_tokens: Option<i64>,
    /// Whether the token ids are exact, partial or absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    ids: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    finish: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reward: Option<f64>,
}

impl Outline {
    pub(super) fn of(outline: &SpanOutline) -> Self {
        let span = &outline.span;
        let value = |name: &str| span.attributes.get(name);
        let text = |name: &str| value(name).and_then(Value::as_str).map(in_row);
        let int = |name: &str| value(name).and_then(Value::as_int);
        let finish = match value(names::GEN_AI_RESPONSE_FINISH_REASONS) {
            Some(Value::Strings(reasons)) => reasons.first().map(|reason| in_row(reason)),
            _ => None,
        };
        let cause = failure(span).or_else(|| span.status.description.clone().filter(|_| span.is_error()));
        Self {
            id: span.span_id.clone(),
            parent: span.parent_id.clone(),
            attempt: span.attempt_id.to_string(),
            seq: span.sequence_id,
            name: in_row(&span.name),
            class: SpanClass::of(span),
            start: span.start_time,
            end: span.end_time,
            error: span.is_error(),
            cause: cause.or_else(|| text(names::ERROR_TYPE).filter(|_| span.is_error())).map(|cause| in_row(&cause)),
            http: HttpOutline {
                status: int(names::HTTP_RESPONSE_STATUS_CODE),
                method: text(names::HTTP_REQUEST_METHOD),
                url: text(names::URL_FULL),
                host: text(names::SERVER_ADDRESS),
                outcome: text(names::OUTCOME).filter(|outcome| outcome != "complete"),
                first_ms: value(names::TIMING_FIRST_BODY_BYTE_MS).and_then(Value::as_float),
                up: int(names::HTTP_REQUEST_BODY_SIZE),
                down: int(names::HTTP_RESPONSE_BODY_SIZE),
            },
            call: CallOutline {
                model: text(names::GEN_AI_RESPONSE_MODEL).or_else(|| text(names::GEN_AI_REQUEST_MODEL)),
                role: text(names::CALL_ROLE),
                agent: text(names::GEN_AI_AGENT_NAME)
                    .or_else(|| text(names::GEN_AI_AGENT_ID))
                    .or_else(|| text(names::CLIENT_NAME)),
                tool: text(names::GEN_AI_TOOL_NAME),
                input_tokens: int(names::GEN_AI_USAGE_INPUT_TOKENS),
                output_tokens: int(names::GEN_AI_USAGE_OUTPUT_TOKENS),
                ids: text(names::TOKENS_STATUS),
                finish,
                reward: value("agentlightning.reward.0.value").and_then(Value::as_float),
            },
        }
    }
}

/// A text that is not longer than a row needs.
fn in_row(text: &str) -> String {
    cut(text, MAX_CHARACTERS)
}

const MAX_CHARACTERS: usize = 500;

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_false(value: &bool) -> bool {
    !value
}

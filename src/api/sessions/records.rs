//! An LLM call as rLLM's `TraceRecord`.

use crate::export::model_request::{floats, ints, request, response, text, token_id_doubts, usage, version};
use crate::trace::{Span, Timestamp, Value as Attribute, semconv};
use serde::Serialize;
use serde_json::{Map, Value as JsonValue, json};
use utoipa::ToSchema;

#[derive(Serialize, ToSchema)]
pub(super) struct TraceRecord {
    /// `SPAN-ROLLOUT`: it contains the session, so that a record is found without an index.
    trace_id: String,
    session_id: String,
    model: Option<String>,
    messages: JsonValue,
    prompt_token_ids: Vec<i64>,
    response_message: JsonValue,
    completion_token_ids: Vec<i64>,
    logprobs: Option<Vec<f64>>,
    /// Always null.
    routing_matrices: Option<JsonValue>,
    finish_reason: Option<JsonValue>,
    /// The version of the weights; null if unknown.
    weight_version: Option<JsonValue>,
    latency_ms: f64,
    /// `prompt` and `completion`; empty if the response has no usage.
    #[schema(value_type = Object)]
    token_counts: Map<String, JsonValue>,
    /// The end of the call.
    timestamp: Option<Timestamp>,
    /// `token_ids_status` and `token_ids_reasons` of token ids that are not proved to be complete and right; else empty.
    metadata: Map<String, JsonValue>,
    raw_request: JsonValue,
    raw_response: JsonValue,
}

impl TraceRecord {
    pub(super) fn of(span: &Span) -> Self {
        let (request, response) = (request(span), response(span));
        let number = |name: &str| span.attributes.get(name).and_then(Attribute::as_int);
        let mut token_counts = Map::new();
        if usage(span).is_some() {
            token_counts.insert("prompt".to_owned(), json!(number(semconv::GEN_AI_USAGE_INPUT_TOKENS)));
            token_counts.insert("completion".to_owned(), json!(number(semconv::GEN_AI_USAGE_OUTPUT_TOKENS)));
        }
        let latency_ms = match (span.start_time, span.end_time) {
            (Some(start), Some(end)) => end.since(start).as_secs_f64() * 1000.0,
            _ => 0.0,
        };
        Self {
            trace_id: format!("{}-{}", span.span_id, span.rollout_id),
            session_id: span.rollout_id.to_string(),
            model: text(span, semconv::GEN_AI_REQUEST_MODEL),
            messages: request.get("messages").cloned().unwrap_or_else(|| json!([])),
            prompt_token_ids: ints(span, semconv::PROMPT_TOKEN_IDS, 0),
            response_message: response.pointer("/choices/0/message").cloned().unwrap_or_else(|| json!({})),
            completion_token_ids: ints(span, semconv::RESPONSE_TOKEN_IDS, 0),
            logprobs: floats(span, semconv::RESPONSE_LOGPROBS, 0),
            routing_matrices: None,
            finish_reason: response.pointer("/choices/0/finish_reason").cloned(),
            weight_version: span.attributes.contains_key(semconv::POLICY_VERSION).then(|| version(span)),
            latency_ms,
            token_counts,
            timestamp: span.end_time,
            metadata: token_id_doubts(span),
            raw_request: request,
            raw_response: response,
        }
    }
}

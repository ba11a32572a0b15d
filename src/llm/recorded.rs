//! Recognises the recorded spans of LLM calls.

use super::api::{ApiCall, OPENAI_CHAT, OPENAI_COMPLETIONS};
use super::operation::Operation;
use crate::trace::{Span, Value, semconv};

/// True for the span of a call to a model that generates text, with or without a response. One that the gateway refused
/// reached no model.
pub(crate) fn is_llm_call(span: &Span) -> bool {
    let has = |name: &str| span.attributes.contains_key(name);
    if has(semconv::GATEWAY_CALLED) && !has(semconv::GATEWAY_BACKEND) && !has(semconv::GATEWAY_JOINED) {
        return false;
    }
    match span.attributes.get(semconv::GEN_AI_OPERATION_NAME).and_then(Value::as_str) {
        Some(name) => SAMPLING_OPERATIONS.iter().any(|operation| operation.as_str() == name),
        None => is_unparsed_call(span),
    }
}

const SAMPLING_OPERATIONS: [Operation; 3] = [Operation::Chat, Operation::GenerateContent, Operation::TextCompletion];

/// True for a call that the gateway sent and that no API format could parse.
fn is_unparsed_call(span: &Span) -> bool {
    let was_sent = span.attributes.contains_key(semconv::GATEWAY_BACKEND)
        && !span.attributes.contains_key(semconv::GATEWAY_JOINED);
    let path = span.attributes.get(semconv::GATEWAY_CALLED).and_then(Value::as_str).unwrap_or_default();
    let api = ApiCall::of_path(path).map(|call| call.api);
    was_sent && api.is_some_and(|api| [&OPENAI_CHAT, &OPENAI_COMPLETIONS].contains(&api))
}

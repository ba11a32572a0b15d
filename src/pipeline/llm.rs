//! A call of a model or tool becomes attributes of its span: GenAI conventions v1.41.1, and the proof of its token ids.
//!
//! Content is redacted here, like everything else, before anybody can store it.

use super::gateway;
use super::span::SpanOptions;
use crate::error::Side;
use crate::llm::call::{LlmCall, Parameters, Usage};
use crate::llm::formats::{Read, gaps};
use crate::llm::operation::Operation;
use crate::llm::token_ids::{TokenIdIssue, Tokens, validate};
use crate::trace::exchange::{Arrival, Exchange, Outcome};
use crate::trace::semconv as names;
use crate::trace::{Span, SpanKind, StatusCode, Value};
use serde::Serialize;
use std::collections::BTreeSet;
use std::time::Duration;

/// Writes a call onto the span of its exchange; gives it back with what speaks against its token ids. `offsets_hold`: indexes into the decoded body are those of the kept one.
pub(super) fn describe(
    span: &mut Span,
    read: Read,
    exchange: &Exchange,
    offsets_hold: bool,
    options: &SpanOptions,
) -> (LlmCall, BTreeSet<TokenIdIssue>) {
    let Read { mut call, progress, counts } = read;
    let arrivals = &exchange.response_body.arrivals;
    let times = if offsets_hold { times_of(&progress, arrivals) } else { arrivals.iter().map(|one| one.at).collect() };
    call.request.wants_token_ids |= !exchange.injection.fields.is_empty();
    call.request.wants_logprobs |= exchange.injection.fields.iter().any(|name| matches!(*name, "logprobs" | "n_probs"));
    let proof = validate(&mut call, faults_of(exchange));
    name(span, &call);
    parameters(span, &call.request);
    usage(span, call.usage);
    answer(span, &call);
    if call.streamed {
        span.set(names::RESPONSE_CHUNKS, call.chunks);
        timing(span, &times);
    }
    if options.llm_content {
        content(span, &call, exchange, options);
    }
    if let Some(facts) = &exchange.gateway {
        let progress = if offsets_hold { progress.as_slice() } else { &[] };
        gateway::versions(span, facts, &call, (progress, &counts));
    }
    let mut unproved = BTreeSet::new();
    if !exchange.injection.fields.is_empty() {
        let added = exchange.injection.fields.iter().map(|name| (*name).to_owned());
        span.set(names::TOKENS_INJECTED, added.collect::<Vec<_>>());
        span.set(names::TOKENS_STRIPPED, exchange.injection.strips);
    }
    if let Some(proof) = proof {
        span.set(names::TOKENS_STATUS, proof.status);
        if !proof.faults.is_empty() {
            let reasons: Vec<String> = proof.faults.iter().map(|fault| fault.as_str().to_owned()).collect();
            span.set(names::TOKENS_REASONS, reasons);
        }
        unproved = proof.faults;
    }
    status(span, &call, exchange, options);
    redact_words(span, options);
    (call, unproved)
}

/// Whatever an agent or an endpoint may have put into a name or parameter.
fn redact_words(span: &mut Span, options: &SpanOptions) {
    let redactor = &options.redactor;
    let plain = |name: &str| {
        let prefixes = ["gen_ai.", "mcp.", "openai.", "jsonrpc.", "tracewire.policy."];
        prefixes.iter().any(|prefix| name.starts_with(prefix)) && !CONTENT.contains(&name)
    };
    for (name, value) in span.attributes.iter_mut().filter(|(name, _)| plain(name)) {
        let clean = |text: &mut String| {
            let redacted = if name.ends_with(".uri") { redactor.url(text) } else { redactor.text(text) };
            if let std::borrow::Cow::Owned(redacted) = redacted {
                *text = redacted;
            }
        };
        match value {
            Value::String(text) => clean(text),
            Value::Strings(texts) => texts.iter_mut().for_each(clean),
            _ => {}
        }
    }
    span.name = redactor.text(&span.name).into_owned();
}

/// What is redacted as a body.
const CONTENT: [&str; 6] = [
    names::GEN_AI_INPUT_MESSAGES,
    names::GEN_AI_OUTPUT_MESSAGES,
    names::GEN_AI_SYSTEM_INSTRUCTIONS,
    names::GEN_AI_TOOL_DEFINITIONS,
    names::GEN_AI_TOOL_CALL_ARGUMENTS,
    names::GEN_AI_TOOL_CALL_RESULT,
];

/// What the exchange itself says of the record's completeness.
fn faults_of(exchange: &Exchange) -> BTreeSet<TokenIdIssue> {
    let mut faults = BTreeSet::new();
    match exchange.outcome {
        Outcome::Aborted { by: Side::Downstream } => drop(faults.insert(TokenIdIssue::AbortedByAgent)),
        Outcome::Aborted { .. } | Outcome::Failed { .. } => drop(faults.insert(TokenIdIssue::AbortedByEndpoint)),
        Outcome::Complete => {}
    }
    if exchange.request_body.truncated.is_some() || exchange.response_body.truncated.is_some() {
        faults.insert(TokenIdIssue::Truncated);
    }
    faults
}

fn name(span: &mut Span, call: &LlmCall) {
    span.set(names::DIALECT, call.api);
    if !call.provider.is_empty() {
        span.set(names::GEN_AI_PROVIDER_NAME, call.provider.as_ref());
    }
    let operation = call.operation.as_str();
    if !operation.is_empty() {
        span.set(names::GEN_AI_OPERATION_NAME, operation);
    }
    if let Some(tool) = &call.tool {
        let subject = tool.name.as_ref().map_or_else(String::new, |name| format!(" {name}"));
        span.name = format!("{}{subject}", tool.method);
        span.set(names::MCP_METHOD_NAME, tool.method.clone());
        span.set_some(names::JSONRPC_REQUEST_ID, tool.id.clone());
        if call.operation == Operation::ExecuteTool {
            span.set_some(names::GEN_AI_TOOL_NAME, tool.name.clone());
        }
    } else {
        let model = call.request.model.as_ref().or(call.response_model.as_ref());
        let what = if operation.is_empty() { call.api.rsplit('.').next().unwrap_or_default() } else { operation };
        span.name = model.map_or_else(|| what.to_owned(), |model| format!("{what} {model}"));
        span.kind = SpanKind::Client;
    }
    for (name, value) in &call.extras {
        span.set(name, value.clone());
    }
}

fn parameters(span: &mut Span, asked: &Parameters) {
    span.set_some(names::GEN_AI_REQUEST_MODEL, asked.model.clone());
    span.set_some(names::GEN_AI_REQUEST_STREAM, asked.stream.then_some(true));
    for (name, value) in [
        (names::GEN_AI_REQUEST_TEMPERATURE, asked.temperature),
        (names::GEN_AI_REQUEST_TOP_P, asked.top_p),
        (names::GEN_AI_REQUEST_TOP_K, asked.top_k),
        (names::GEN_AI_REQUEST_FREQUENCY_PENALTY, asked.frequency_penalty),
        (names::GEN_AI_REQUEST_PRESENCE_PENALTY, asked.presence_penalty),
    ] {
        span.set_some(name, value.filter(|value| value.is_finite()));
    }
    for (name, value) in [
        (names::GEN_AI_REQUEST_SEED, asked.seed),
        (names::GEN_AI_REQUEST_MAX_TOKENS, asked.max_tokens),
        (names::GEN_AI_REQUEST_CHOICE_COUNT, asked.choice_count),
        (names::GEN_AI_EMBEDDINGS_DIMENSION_COUNT, asked.dimensions),
    ] {
        span.set_some(name, value);
    }
    for (name, value) in [
        (names::GEN_AI_REQUEST_STOP_SEQUENCES, &asked.stop),
        (names::GEN_AI_REQUEST_ENCODING_FORMATS, &asked.encoding_formats),
    ] {
        span.set_some(name, Some(value.clone()).filter(|list| !list.is_empty()));
    }
    for (name, value) in [
        (names::GEN_AI_REQUEST_REASONING_LEVEL, &asked.reasoning_level),
        (names::GEN_AI_REQUEST_PREVIOUS_RESPONSE_ID, &asked.previous_response_id),
        (names::GEN_AI_CONVERSATION_ID, &asked.conversation_id),
    ] {
        span.set_some(name, value.clone());
    }
    span.set_some(names::GEN_AI_OUTPUT_TYPE, asked.output_type);
}

fn usage(span: &mut Span, usage: Usage) {
    for (name, value) in [
        (names::GEN_AI_USAGE_INPUT_TOKENS, usage.input),
        (names::GEN_AI_USAGE_OUTPUT_TOKENS, usage.output),
        (names::GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS, usage.cache_read),
        // The old name and the new one.
        (names::GEN_AI_USAGE_CACHE_CREATION_INPUT_TOKENS, usage.cache_write),
        (names::GEN_AI_USAGE_CACHE_WRITE_INPUT_TOKENS, usage.cache_write),
        (names::GEN_AI_USAGE_REASONING_OUTPUT_TOKENS, usage.reasoning),
    ] {
        span.set_some(name, value);
    }
}

fn answer(span: &mut Span, call: &LlmCall) {
    span.set_some(names::GEN_AI_RESPONSE_ID, call.response_id.clone());
    span.set_some(names::GEN_AI_RESPONSE_MODEL, call.response_model.clone());
    let ended = call.choices.iter().any(|choice| choice.finish_reason.is_some());
    let reasons = call.choices.iter().map(|choice| choice.finish_reason.clone().unwrap_or_else(|| "error".to_owned()));
    span.set_some(names::GEN_AI_RESPONSE_FINISH_REASONS, ended.then(|| reasons.collect::<Vec<_>>()));
    span.set_some(names::POLICY_VERSION, call.weight_versions.last().cloned());
    if call.weight_versions.len() > 1 {
        span.set(names::POLICY_VERSIONS, call.weight_versions.clone());
    }
    if !call.unread.is_empty() {
        span.set(names::LLM_UNREAD, call.unread.iter().map(|what| (*what).to_owned()).collect::<Vec<_>>());
    }
}

fn timing(span: &mut Span, times: &[Duration]) {
    let millis = |duration: &Duration| duration.as_secs_f64() * 1000.0;
    span.set_some(names::GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK, times.first().map(Duration::as_secs_f64));
    let mut gaps = gaps(times);
    gaps.sort_unstable();
    span.set_some(names::CHUNK_GAP_P50_MS, gaps.get(gaps.len() / 2).map(millis));
    span.set_some(names::CHUNK_GAP_MAX_MS, gaps.last().map(millis));
}

/// When the frame came that ended at or behind each of these indexes.
fn times_of(progress: &[usize], arrivals: &[Arrival]) -> Vec<Duration> {
    let arrived = |end: &usize| {
        let at = arrivals.partition_point(|arrival| arrival.end < *end);
        arrivals.get(at).or(arrivals.last()).map(|arrival| arrival.at)
    };
    progress.iter().filter_map(arrived).collect()
}

fn content(span: &mut Span, call: &LlmCall, exchange: &Exchange, options: &SpanOptions) {
    let target = &exchange.request.target;
    let redact = |json: String| match options.redactor.body(Some("application/json"), target, &json) {
        std::borrow::Cow::Owned(redacted) => redacted,
        std::borrow::Cow::Borrowed(_) => json,
    };
    let mut set = |name: &str, json: Option<String>| span.set_some(name, json.map(&redact));
    set(names::GEN_AI_SYSTEM_INSTRUCTIONS, written(&call.system));
    set(names::GEN_AI_INPUT_MESSAGES, written(&call.input));
    let output: Vec<_> = call.choices.iter().map(crate::llm::call::Choice::message).collect();
    set(names::GEN_AI_OUTPUT_MESSAGES, written(&output));
    if let Some(tool) = call.tool.as_ref().filter(|_| call.operation == Operation::ExecuteTool) {
        set(names::GEN_AI_TOOL_CALL_ARGUMENTS, Some(&tool.arguments).filter(|json| !json.is_null()).and_then(json_of));
        set(names::GEN_AI_TOOL_CALL_RESULT, Some(&tool.result).filter(|json| !json.is_null()).and_then(json_of));
    }
    // A schema names its secrets without having any: of a function only what looks like one by its own shape goes. Other
    // tools, such as servers to ask, may have credentials under their names.
    let tools = call.tools.iter().filter_map(|tool| {
        let json = json_of(tool)?;
        let is_function = tool.get("type").text() == Some("function");
        Some(if is_function { options.redactor.text(&json).into_owned() } else { redact(json) })
    });
    let tools = tools.collect::<Vec<_>>().join(",");
    span.set_some(names::GEN_AI_TOOL_DEFINITIONS, (!tools.is_empty()).then(|| format!("[{tools}]")));
    token_attributes(span, call);
}

/// Ids and logprobs: those of the first choice under the names that Agent Lightning reads, others with their index.
fn token_attributes(span: &mut Span, call: &LlmCall) {
    let mut set = |name: &str, index: i64, value: Option<Value>| {
        let Some(value) = value else { return };
        match index {
            0 => span.set(name, value),
            _ => span.set(&format!("{name}.{index}"), value),
        }
    };
    let ids = |tokens: &Tokens| {
        let ids = tokens.ids.as_ref().filter(|ids| !ids.is_empty())?;
        Some(Value::Ints(ids.iter().copied().map(i64::from).collect()))
    };
    set(names::PROMPT_TOKEN_IDS, 0, ids(&call.prompt_ids));
    for choice in &call.choices {
        set(names::PROMPT_TOKEN_IDS, choice.index, ids(&choice.prompt_ids));
        set(names::RESPONSE_TOKEN_IDS, choice.index, ids(&choice.tokens));
        let logprobs = choice.tokens.logprobs.as_ref().filter(|logprobs| !logprobs.is_empty());
        let logprobs = logprobs.map(|all| Value::Floats(all.iter().copied().map(f64::from).collect()));
        set(names::RESPONSE_LOGPROBS, choice.index, logprobs);
    }
}

fn written<T: Serialize>(list: &[T]) -> Option<String> {
    if list.is_empty() { None } else { json_of(list) }
}

fn json_of<T: Serialize + ?Sized>(value: &T) -> Option<String> {
    serde_json::to_string(value).ok()
}

/// An error within a stream, or a stream without its end, is an error whatever the status said; an agent that left is
/// none.
fn status(span: &mut Span, call: &LlmCall, exchange: &Exchange, options: &SpanOptions) {
    if let Some((kind, message)) = &call.error {
        span.status.status_code = StatusCode::Error;
        let kind = if kind.is_empty() { None } else { Some(options.redactor.text(kind).into_owned()) };
        if let Some(kind) = kind {
            span.set(names::ERROR_TYPE, kind);
        } else if !span.attributes.contains_key(names::ERROR_TYPE) {
            span.set(names::ERROR_TYPE, "_OTHER");
        }
        if !message.is_empty() {
            span.status.description = Some(options.redactor.text(message).into_owned());
        }
    } else if call.streamed && !call.ended && !span.is_error() && matches!(exchange.outcome, Outcome::Complete) {
        span.status.status_code = StatusCode::Error;
        span.set(names::ERROR_TYPE, "incomplete_stream");
    }
}

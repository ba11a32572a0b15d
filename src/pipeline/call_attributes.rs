//! The attributes of a call of a model or tool: GenAI conventions v1.41.1, and whether its token ids are complete.
//!
//! Everything is redacted here, content included.

use super::gateway_attributes;
use super::options::SpanOptions;
use crate::error::Side;
use crate::llm::call::{LlmCall, Parameters};
use crate::llm::formats::{ReadCall, gaps};
use crate::llm::operation::Operation;
use crate::llm::token_ids::{TokenIdIssue, Tokens, validate};
use crate::llm::usage::Usage;
use crate::trace::exchange::{Arrival, Exchange, Outcome, Withheld};
use crate::trace::semconv as names;
use crate::trace::{Span, SpanKind, StatusCode, Value};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header;
use serde::Serialize;
use std::collections::BTreeSet;
use std::time::Duration;

/// Writes a call onto the span of its exchange. Returns it with the issues of its token ids.
pub(super) fn describe(
    span: &mut Span,
    read: ReadCall,
    exchange: &Exchange,
    options: &SpanOptions,
) -> (LlmCall, BTreeSet<TokenIdIssue>) {
    let ReadCall { mut call, event_ends: progress, token_counts: counts } = read;
    let arrivals = &exchange.response_body.arrivals;
    // Indexes into the decoded body are those of the recorded one only if that was not compressed.
    let response = exchange.response.as_ref();
    let offsets_hold = !response.is_some_and(|response| response.headers.contains_key(header::CONTENT_ENCODING));
    // The times of a long stream's late frames are not kept.
    let is_cut = (arrivals.len() as u64) < exchange.response_body.frames;
    let is_timed = |end: &usize| !is_cut || arrivals.last().is_some_and(|last| *end <= last.end);
    let timed = &progress[..progress.partition_point(is_timed)];
    let times = if offsets_hold { times_of(timed, arrivals) } else { arrivals.iter().map(|one| one.at).collect() };
    if matches!(exchange.outcome, Outcome::Complete) {
        call.end_with_body();
    }
    let withheld = withheld(exchange);
    call.request.wants_token_ids |= !exchange.injection.fields.is_empty() || withheld.is_some();
    call.request.wants_logprobs |= exchange.injection.fields.iter().any(|name| matches!(*name, "logprobs" | "n_probs"));
    call.request.is_warmup |= exchange.gateway.as_ref().is_some_and(|facts| facts.is_warmup);
    let issues = capture_issues(exchange).into_iter().chain(withheld).collect();
    let check = validate(&mut call, issues, (options.sampler_arrays, exchange.injection.arrays));
    name(span, &call);
    parameters(span, &call.request);
    usage(span, call.usage);
    answer(span, &call);
    if call.streamed {
        span.set(names::RESPONSE_CHUNKS, call.chunks);
        timing(span, &times);
        span.set_some(
            names::CHUNK_COUNTS,
            counts_over_time(&times).filter(|_| offsets_hold && !is_cut).map(Value::Ints),
        );
    }
    if options.llm_content {
        content(span, &call, exchange, options);
    }
    if let Some(facts) = &exchange.gateway {
        let progress = if offsets_hold { progress.as_slice() } else { &[] };
        gateway_attributes::versions(span, facts, &call, (progress, &counts));
    }
    let mut issues = BTreeSet::new();
    if !exchange.injection.fields.is_empty() {
        let added = exchange.injection.fields.iter().map(|name| (*name).to_owned());
        span.set(names::TOKENS_INJECTED, added.collect::<Vec<_>>());
        span.set(names::TOKENS_STRIPPED, exchange.injection.strips);
    }
    if let Some(check) = check {
        span.set(names::TOKENS_STATUS, check.status.as_str());
        if !check.issues.is_empty() {
            let reasons: Vec<String> = check.issues.iter().map(|issue| issue.as_str().to_owned()).collect();
            span.set(names::TOKENS_REASONS, reasons);
        }
        issues = check.issues;
    }
    status(span, &call, exchange, options);
    redact_parameters(span, options);
    (call, issues)
}

/// Redacts the span's name and the attributes that are not content: an agent or an endpoint may put anything there.
fn redact_parameters(span: &mut Span, options: &SpanOptions) {
    let redactor = &options.redactor;
    let is_parameter = |name: &str| {
        let prefixes = ["gen_ai.", "mcp.", "openai.", "jsonrpc.", "tracewire.policy."];
        prefixes.iter().any(|prefix| name.starts_with(prefix)) && !CONTENT.contains(&name)
    };
    for (name, value) in span.attributes.iter_mut().filter(|(name, _)| is_parameter(name)) {
        let redact = |text: &mut String| {
            let redacted = if name.ends_with(".uri") { redactor.url(text) } else { redactor.text(text) };
            if let std::borrow::Cow::Owned(redacted) = redacted {
                *text = redacted;
            }
        };
        match value {
            Value::String(text) => redact(text),
            Value::Strings(texts) => texts.iter_mut().for_each(redact),
            _ => {}
        }
    }
    span.name = redactor.text(&span.name).into_owned();
}

/// Attributes that are redacted as bodies are.
const CONTENT: [&str; 6] = [
    names::GEN_AI_INPUT_MESSAGES,
    names::GEN_AI_OUTPUT_MESSAGES,
    names::GEN_AI_SYSTEM_INSTRUCTIONS,
    names::GEN_AI_TOOL_DEFINITIONS,
    names::GEN_AI_TOOL_CALL_ARGUMENTS,
    names::GEN_AI_TOOL_CALL_RESULT,
];

/// The issues that capture itself knows of: an end that did not come, a body that was recorded in part.
fn capture_issues(exchange: &Exchange) -> BTreeSet<TokenIdIssue> {
    let mut issues = BTreeSet::new();
    match exchange.outcome {
        Outcome::Aborted { by: Side::Downstream } => drop(issues.insert(TokenIdIssue::AbortedByAgent)),
        Outcome::Aborted { .. } | Outcome::Failed { .. } => drop(issues.insert(TokenIdIssue::AbortedByEndpoint)),
        Outcome::Complete => {}
    }
    if exchange.request_body.truncated.is_some() || exchange.response_body.truncated.is_some() {
        issues.insert(TokenIdIssue::Truncated);
    }
    issues
}

/// Why the ids of a call were not requested. `None` also if it failed: it would have none anyway.
fn withheld(exchange: &Exchange) -> Option<TokenIdIssue> {
    exchange.response.as_ref().filter(|response| response.status.is_success())?;
    Some(match exchange.injection.withheld? {
        Withheld::Combination => TokenIdIssue::NotRequested,
        Withheld::Rejected => TokenIdIssue::RequestRejected,
    })
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
        let label = if operation.is_empty() { call.api.rsplit('.').next().unwrap_or_default() } else { operation };
        span.name = model.map_or_else(|| label.to_owned(), |model| format!("{label} {model}"));
        span.kind = Some(SpanKind::Client);
    }
    for (name, value) in &call.extras {
        span.set(name, value.clone());
    }
}

fn parameters(span: &mut Span, request: &Parameters) {
    span.set_some(names::GEN_AI_REQUEST_MODEL, request.model.clone());
    span.set_some(names::GEN_AI_REQUEST_STREAM, request.stream.then_some(true));
    for (name, value) in [
        (names::GEN_AI_REQUEST_TEMPERATURE, request.temperature),
        (names::GEN_AI_REQUEST_TOP_P, request.top_p),
        (names::GEN_AI_REQUEST_TOP_K, request.top_k),
        (names::GEN_AI_REQUEST_FREQUENCY_PENALTY, request.frequency_penalty),
        (names::GEN_AI_REQUEST_PRESENCE_PENALTY, request.presence_penalty),
    ] {
        span.set_some(name, value.filter(|value| value.is_finite()));
    }
    for (name, value) in [
        (names::GEN_AI_REQUEST_SEED, request.seed),
        (names::GEN_AI_REQUEST_MAX_TOKENS, request.max_tokens),
        (names::GEN_AI_REQUEST_CHOICE_COUNT, request.choice_count),
        (names::GEN_AI_EMBEDDINGS_DIMENSION_COUNT, request.dimensions),
    ] {
        span.set_some(name, value);
    }
    for (name, value) in [
        (names::GEN_AI_REQUEST_STOP_SEQUENCES, &request.stop),
        (names::GEN_AI_REQUEST_ENCODING_FORMATS, &request.encoding_formats),
    ] {
        span.set_some(name, Some(value.clone()).filter(|list| !list.is_empty()));
    }
    for (name, value) in [
        (names::GEN_AI_REQUEST_REASONING_LEVEL, &request.reasoning_level),
        (names::GEN_AI_REQUEST_PREVIOUS_RESPONSE_ID, &request.previous_response_id),
        (names::GEN_AI_CONVERSATION_ID, &request.conversation_id),
    ] {
        span.set_some(name, value.clone());
    }
    span.set_some(names::GEN_AI_OUTPUT_TYPE, request.output_type);
    let sampling = Some(&request.sampling).filter(|sampling| !sampling.is_empty());
    span.set_some(names::SAMPLING, sampling.and_then(|sampling| serde_json::to_string(sampling).ok()));
}

fn usage(span: &mut Span, usage: Usage) {
    for (name, value) in [
        (names::GEN_AI_USAGE_INPUT_TOKENS, usage.input),
        (names::GEN_AI_USAGE_OUTPUT_TOKENS, usage.output),
        (names::GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS, usage.cache_read),
        // The conventions renamed it; both names are in use.
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
        if call.weight_version_starts.len() == call.weight_versions.len() {
            let starts = Value::Ints(call.weight_version_starts.clone());
            span.attributes.insert(names::POLICY_VERSION_STARTS.to_owned(), starts);
        }
    }
    if !call.unread.is_empty() {
        span.set(names::LLM_UNREAD, call.unread.iter().map(|part| part.as_str().to_owned()).collect::<Vec<_>>());
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

/// How many chunks came in each of [`CHUNK_PARTS`] equal parts of the time from the first chunk to the last. `None` for few chunks,
/// which the median and the longest gap describe.
fn counts_over_time(times: &[Duration]) -> Option<Vec<i64>> {
    let (first, last) = (times.first()?, times.last()?);
    let length = last.saturating_sub(*first).as_secs_f64();
    if times.len() < CHUNK_PARTS || length <= 0.0 {
        return None;
    }
    let mut counts = vec![0; CHUNK_PARTS];
    for time in times {
        let share = time.saturating_sub(*first).as_secs_f64() / length;
        let part = (share * CHUNK_PARTS as f64) as usize;
        if let Some(count) = counts.get_mut(part.min(CHUNK_PARTS - 1)) {
            *count += 1;
        }
    }
    Some(counts)
}

/// What a small picture of a stream shows: 16 small numbers.
const CHUNK_PARTS: usize = 16;

/// When the frame arrived that ended at or behind each of these indexes.
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
    set(names::GEN_AI_SYSTEM_INSTRUCTIONS, list_json(&call.system));
    set(names::GEN_AI_INPUT_MESSAGES, list_json(&call.input));
    let output: Vec<_> = call.choices.iter().map(crate::llm::call::Choice::message).collect();
    set(names::GEN_AI_OUTPUT_MESSAGES, list_json(&output));
    if let Some(tool) = call.tool.as_ref().filter(|_| call.operation == Operation::ExecuteTool) {
        set(names::GEN_AI_TOOL_CALL_ARGUMENTS, Some(&tool.arguments).filter(|json| !json.is_null()).and_then(json_of));
        set(names::GEN_AI_TOOL_CALL_RESULT, Some(&tool.result).filter(|json| !json.is_null()).and_then(json_of));
    }
    // A function's schema has names of secrets without their values, so names are not redacted. Other tools, such as MCP
    // servers, may have credentials under their names.
    let tools = call.tools.iter().filter_map(|tool| {
        let json = json_of(tool)?;
        let is_function = tool.get("type").text() == Some("function");
        Some(if is_function { options.redactor.text(&json).into_owned() } else { redact(json) })
    });
    let tools = tools.collect::<Vec<_>>().join(",");
    span.set_some(names::GEN_AI_TOOL_DEFINITIONS, (!tools.is_empty()).then(|| format!("[{tools}]")));
    token_attributes(span, call);
}

/// Token ids and logprobs: those of the first choice under the names that Agent Lightning reads, others with their index.
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
        if let Some(experts) = &choice.tokens.routed_experts {
            let lengths = experts.dimensions().unwrap_or_default().iter();
            let shape = lengths.map(|length| i64::try_from(*length).unwrap_or(i64::MAX)).collect();
            set(names::ROUTED_EXPERTS, choice.index, Some(STANDARD.encode(experts.to_bytes()).into()));
            set(names::ROUTED_EXPERTS_SHAPE, choice.index, Some(Value::Ints(shape)));
            set(names::ROUTED_EXPERTS_DTYPE, choice.index, Some(experts.dtype().into()));
        }
        if let Some(mask) = &choice.tokens.sampling_mask {
            let lengths = mask.lengths().unwrap_or_default().iter().copied().map(i64::from).collect();
            set(names::SAMPLING_MASK, choice.index, Some(Value::Ints(mask.numbers().collect())));
            set(names::SAMPLING_MASK_LENGTHS, choice.index, Some(Value::Ints(lengths)));
        }
    }
}

fn list_json<T: Serialize>(list: &[T]) -> Option<String> {
    if list.is_empty() { None } else { json_of(list) }
}

fn json_of<T: Serialize + ?Sized>(value: &T) -> Option<String> {
    serde_json::to_string(value).ok()
}

/// An error within a stream, or a stream without its end, is an error whatever the status said. An agent that went away
/// is none.
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

//! Reads the LLM calls and the rewards of an attempt from its spans.

use super::call::{Call, CallContent, Exclusion, VersionStart, is_side_call};
use super::rewards::Reward;
use crate::llm::clients::CallRole;
use crate::llm::recorded::is_llm_call;
use crate::trace::semconv as names;
use crate::trace::{Span, Value};
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

/// The calls and rewards of an attempt.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AttemptRecord {
    /// Every answer of every LLM call, by sequence id.
    pub calls: Vec<Call>,
    /// Rewards in the order in which they were given. Those that are no finite number are left out.
    pub rewards: Vec<Reward>,
    /// The number of rewards that were left out.
    pub invalid_rewards: usize,
}

/// Reads the spans of one attempt, in any order.
pub fn read(spans: &[Span]) -> AttemptRecord {
    let mut record = AttemptRecord::default();
    let mut calls: Vec<&Span> = spans.iter().filter(|span| is_llm_call(span)).collect();
    calls.sort_by(|a, b| (a.sequence_id, &a.span_id).cmp(&(b.sequence_id, &b.span_id)));
    let known = responses(&calls);
    for span in calls {
        let first = text(span, names::GEN_AI_RESPONSE_ID).and_then(|id| known.get(id));
        match first.filter(|first| first.span_id != span.span_id) {
            // The agent's own tracer recorded the same call, which may have been given its ids.
            Some(first) if !has_ids(span) && (has_ids(first) || !is_exchange(span)) => {}
            Some(first) if is_exchange(first) && !is_exchange(span) && has_same(first, span, TOKEN_IDS) => {}
            Some(first) => record.calls.extend(answers(span, is_same_response(first, span))),
            None => record.calls.extend(answers(span, false)),
        }
    }
    for span in spans {
        read_rewards(span, &mut record);
    }
    record.rewards.sort_by_key(|reward| (reward.time, reward.sequence_id));
    record
}

/// Which span has each response: the first with token ids, else the first; of an exchange rather than of an agent's tracer.
fn responses<'a>(calls: &[&'a Span]) -> HashMap<&'a str, &'a Span> {
    let mut known = HashMap::new();
    let mut calls = calls.to_vec();
    calls.sort_by_key(|span| (!has_ids(span), !is_exchange(span)));
    for span in calls {
        if let Some(id) = text(span, names::GEN_AI_RESPONSE_ID) {
            known.entry(id).or_insert(span);
        }
    }
    known
}

fn has_ids(span: &Span) -> bool {
    span.attributes.contains_key(names::RESPONSE_TOKEN_IDS)
}

/// Whether the span is of an exchange that passed Tracewire.
fn is_exchange(span: &Span) -> bool {
    span.attributes.contains_key(names::OUTCOME)
}

/// Whether two calls with one response id are one response, given twice. Some servers give every response the same id.
fn is_same_response(first: &Span, second: &Span) -> bool {
    has_same(first, second, TOKEN_IDS) && has_same(first, second, &[names::GEN_AI_OUTPUT_MESSAGES])
}

fn has_same(first: &Span, second: &Span, names: &[&str]) -> bool {
    names.iter().all(|name| first.attributes.get(*name) == second.attributes.get(*name))
}

const TOKEN_IDS: &[&str] = &[names::PROMPT_TOKEN_IDS, names::RESPONSE_TOKEN_IDS];

/// The answers of one call.
fn answers(span: &Span, is_repeated: bool) -> Vec<Call> {
    let shared = |name| text(span, name).map(Arc::from).unwrap_or_default();
    let content = CallContent {
        system: shared(names::GEN_AI_SYSTEM_INSTRUCTIONS),
        input: shared(names::GEN_AI_INPUT_MESSAGES),
        output: shared(names::GEN_AI_OUTPUT_MESSAGES),
        tools: shared(names::GEN_AI_TOOL_DEFINITIONS),
    };
    let reasons: &[String] = match span.attributes.get(names::GEN_AI_RESPONSE_FINISH_REASONS) {
        Some(Value::Strings(reasons)) => reasons,
        _ => &[],
    };
    let count =
        |index: &usize| *index == 0 || span.attributes.contains_key(&indexed(names::RESPONSE_TOKEN_IDS, *index));
    let choices = (0..).take_while(|index| *index < reasons.len().max(1) || count(index));
    let prompt: Arc<[u32]> = ids(span, names::PROMPT_TOKEN_IDS, 0);
    let role = text(span, names::CALL_ROLE).and_then(CallRole::named).unwrap_or(CallRole::Main);
    let call = |choice: usize| {
        let own_prompt = (choice > 0).then(|| ids::<Arc<[u32]>>(span, names::PROMPT_TOKEN_IDS, choice));
        let sampled: Vec<u32> = ids(span, names::RESPONSE_TOKEN_IDS, choice);
        let mut call = Call {
            span_id: span.span_id.clone(),
            response_id: text(span, names::GEN_AI_RESPONSE_ID).map(str::to_owned),
            sequence_id: span.sequence_id,
            choice,
            role,
            tools: digest(&content.tools),
            prompt: own_prompt.filter(|own| !own.is_empty()).unwrap_or_else(|| Arc::clone(&prompt)),
            logprobs: logprobs(span, choice, sampled.len()),
            versions: versions(span),
            temperature: span.attributes.get(names::GEN_AI_REQUEST_TEMPERATURE).and_then(Value::as_float),
            routed_experts: None,
            routed_experts_shape: Vec::new(),
            routed_experts_dtype: None,
            sampling_mask: sampling_mask(span, choice, sampled.len()),
            exclusion: None,
            is_retokenized: false,
            token_issue: None,
            finish_reason: reasons.get(choice).cloned(),
            model: text(span, names::GEN_AI_REQUEST_MODEL).map(str::to_owned),
            content: content.clone(),
            start_time: span.start_time,
            end_time: span.end_time,
            parent_span: span.parent_id.clone(),
            sampled,
        };
        call.exclusion = exclusion(span, &call, is_repeated);
        read_experts(span, &mut call);
        call
    };
    choices.map(call).collect()
}

/// Reads the routed experts, if there is a row of them for each token but the last.
fn read_experts(span: &Span, call: &mut Call) {
    let shape = ints(span, &indexed(names::ROUTED_EXPERTS_SHAPE, call.choice));
    let tokens = shape.first().and_then(|tokens| usize::try_from(*tokens).ok());
    if tokens.is_some_and(|tokens| tokens + 1 == call.len()) {
        let owned = |name| text(span, &indexed(name, call.choice)).map(str::to_owned);
        let (experts, data_type) = (owned(names::ROUTED_EXPERTS), owned(names::ROUTED_EXPERTS_DTYPE));
        (call.routed_experts, call.routed_experts_dtype) = (experts, data_type);
        call.routed_experts_shape = shape.to_vec();
    }
}

fn exclusion(span: &Span, call: &Call, is_repeated: bool) -> Option<Exclusion> {
    let outcome = text(span, names::OUTCOME).unwrap_or("complete");
    let doubts = match span.attributes.get(names::TOKENS_REASONS) {
        Some(Value::Strings(reasons)) => reasons.iter().any(|reason| !HARMLESS.contains(&reason.as_str())),
        _ => false,
    };
    if outcome == "aborted" || call.finish_reason.as_deref() == Some("abort") {
        Some(Exclusion::Aborted)
    } else if span.is_error() || outcome == "failed" {
        Some(Exclusion::Failed)
    } else if is_repeated || span.attributes.contains_key(names::GATEWAY_JOINED) {
        Some(Exclusion::Retry)
    } else if is_side_call(call.role) {
        Some(Exclusion::SideCall)
    } else if !call.has_tokens() {
        Some(Exclusion::NoTokenIds)
    } else {
        doubts.then_some(Exclusion::Unproved)
    }
}

/// Issues that do not affect the token ids themselves.
const HARMLESS: [&str; 8] = [
    "weights_changed",
    "logprobs_absent",
    "logprobs_count",
    "logprob_not_finite",
    "experts_absent",
    "experts_malformed",
    "masks_absent",
    "masks_malformed",
];

fn read_rewards(span: &Span, record: &mut AttemptRecord) {
    let call = linked_span(span);
    let mut index = 0;
    let mut values = Vec::new();
    while let Some(value) = span.attributes.get(&format!("agentlightning.reward.{index}.value")) {
        let name = text(span, &format!("agentlightning.reward.{index}.name")).unwrap_or("primary");
        values.push((name, value));
        index += 1;
    }
    if let Some(value) =
        span.attributes.get("reward").filter(|_| span.name == "agentlightning.annotation" && index == 0)
    {
        values.push(("primary", value));
    }
    for (name, value) in values {
        match value.as_float().filter(|value| value.is_finite()) {
            Some(value) => record.rewards.push(Reward {
                name: name.to_owned(),
                value,
                sequence_id: span.sequence_id,
                time: span.start_time,
                parent_span: span.parent_id.clone(),
                call: call.clone(),
            }),
            None => record.invalid_rewards += 1,
        }
    }
}

/// The span that an annotation is about: a link of the span, or one as Agent Lightning writes it.
fn linked_span(span: &Span) -> Option<String> {
    let key = text(span, "agentlightning.link.0.key_match");
    let named = text(span, "agentlightning.link.0.value_match").filter(|_| key == Some("span_id"));
    named.or(span.links.first().map(|link| link.context.span_id.as_str())).map(str::to_owned)
}

fn versions(span: &Span) -> Vec<VersionStart> {
    let starts = ints(span, names::POLICY_VERSION_STARTS);
    match span.attributes.get(names::POLICY_VERSIONS) {
        Some(Value::Strings(versions)) if versions.len() == starts.len() => {
            let start = |(version, at): (&String, &i64)| VersionStart {
                at: usize::try_from(*at).unwrap_or_default(),
                version: version.clone(),
            };
            versions.iter().zip(starts).map(start).collect()
        }
        // Without their starts, which tokens are of which version is unknown.
        Some(_) => Vec::new(),
        None => {
            let version =
                text(span, names::POLICY_VERSION).map(|version| VersionStart { at: 0, version: version.to_owned() });
            version.into_iter().collect()
        }
    }
}

fn logprobs(span: &Span, choice: usize, tokens: usize) -> Option<Vec<f32>> {
    match span.attributes.get(&indexed(names::RESPONSE_LOGPROBS, choice)) {
        Some(Value::Floats(logprobs)) if logprobs.len() == tokens => {
            Some(logprobs.iter().map(|one| *one as f32).collect())
        }
        _ => None,
    }
}

fn sampling_mask(span: &Span, choice: usize, tokens: usize) -> Option<(Vec<u32>, Vec<u32>)> {
    let numbers = |name| -> Option<Vec<u32>> {
        ints(span, &indexed(name, choice)).iter().map(|one| u32::try_from(*one).ok()).collect()
    };
    let (lengths, ids) = (numbers(names::SAMPLING_MASK_LENGTHS)?, numbers(names::SAMPLING_MASK)?);
    let total: u64 = lengths.iter().copied().map(u64::from).sum();
    (tokens > 0 && lengths.len() == tokens && usize::try_from(total) == Ok(ids.len())).then_some((lengths, ids))
}

/// The ids of an attribute. Empty if one of them is no id, because the others would not match any more.
fn ids<T: FromIterator<u32>>(span: &Span, name: &str, choice: usize) -> T {
    let ids = ints(span, &indexed(name, choice));
    let is_id = |id: &i64| u32::try_from(*id).is_ok();
    // The length is known before they are collected, so that they are not copied as the list grows.
    let ids = if ids.iter().all(is_id) { ids } else { &[] };
    ids.iter().map(|id| *id as u32).collect()
}

fn ints<'a>(span: &'a Span, name: &str) -> &'a [i64] {
    match span.attributes.get(name) {
        Some(Value::Ints(numbers)) => numbers,
        _ => &[],
    }
}

fn indexed(name: &str, choice: usize) -> String {
    if choice == 0 { name.to_owned() } else { format!("{name}.{choice}") }
}

fn text<'a>(span: &'a Span, name: &str) -> Option<&'a str> {
    span.attributes.get(name).and_then(Value::as_str)
}

fn digest(tools: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    tools.hash(&mut hasher);
    if tools.is_empty() { 0 } else { hasher.finish() }
}

//! Events of version 1.0: what happened in an attempt, in the order in which it was over.
//!
//! A call of a model is an event, and so is every reward, whoever recorded them; an event that is posted is a span.

use super::rollouts::{known, last_attempt, text};
use crate::api::access::Access;
use crate::api::agent_lightning::{Answer, Refusal, ok, read};
use crate::api::state::ApiState;
use crate::export::model_request::{event_data, triplet};
use crate::llm::recorded::is_llm_call;
use crate::trace::semconv as names;
use crate::trace::span::{Resource, SpanContext};
use crate::trace::{AttemptId, RolloutId, Span, SpanId, SpanKind, Status, StatusCode, Timestamp, TraceId, Value};
use axum::Extension;
use axum::extract::{Path, RawQuery, State};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value as JsonValue, json};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::SystemTime;

#[derive(Deserialize)]
struct New {
    event_type: String,
    #[serde(default = "nothing")]
    data: serde_json::Map<String, JsonValue>,
}

fn nothing() -> serde_json::Map<String, JsonValue> {
    serde_json::Map::new()
}

/// `POST /api/rollouts/{rollout}/attempt/{attempt}/events`
pub(super) async fn add(
    State(state): State<ApiState>,
    access: Extension<Access>,
    Path((rollout, attempt)): Path<(String, String)>,
    body: Bytes,
) -> Answer {
    access.check(&rollout)?;
    let New { event_type, data } = read(&body)?;
    let data = JsonValue::Object(data);
    let rollout = known(&state, &rollout).await?.rollout_id;
    let now = Timestamp::from(SystemTime::now());
    let sequence_id = state.sequences.next(&rollout).await;
    let mut span = span_of(&rollout, &attempt.as_str().into(), (&event_type, &data), sequence_id, now);
    state.adopt(&mut span);
    state.rollouts.append(vec![Arc::new(span)]).await?;
    ok(shown(&rollout, &attempt, &event_type, now, &data))
}

/// An event as a span; a reward is one that every adapter reads.
fn span_of(
    rollout: &RolloutId,
    attempt: &AttemptId,
    (event_type, data): (&str, &JsonValue),
    sequence_id: u64,
    now: Timestamp,
) -> Span {
    let (trace_id, root) = (TraceId::of_attempt(rollout, attempt), SpanId::of_attempt_root(rollout, attempt));
    let context = |id: SpanId| SpanContext {
        trace_id: trace_id.to_string(),
        span_id: id.to_string(),
        is_remote: false,
        trace_state: BTreeMap::new(),
    };
    let own = SpanId::from_random(fastrand::u64(..));
    let mut span = Span {
        rollout_id: rollout.clone(),
        attempt_id: attempt.clone(),
        sequence_id,
        trace_id: trace_id.to_string(),
        span_id: own.to_string(),
        parent_id: Some(root.to_string()),
        name: "agentlightning.annotation".to_owned(),
        kind: SpanKind::Internal,
        status: Status { status_code: StatusCode::Ok, description: None },
        attributes: BTreeMap::new(),
        events: Vec::new(),
        links: Vec::new(),
        start_time: Some(now),
        end_time: Some(now),
        context: Some(context(own)),
        parent: Some(context(root)),
        resource: Resource { schema_url: names::SCHEMA_URL.to_owned(), ..Resource::default() },
    };
    span.set(names::EVENT_TYPE, event_type);
    span.set(names::EVENT_DATA, data.to_string());
    if event_type == "reward"
        && let Some(value) = data.get("value").and_then(JsonValue::as_f64)
    {
        let name = data.get("name").and_then(JsonValue::as_str).unwrap_or("primary");
        span.set("agentlightning.reward.0.name", name);
        span.set(REWARD, value);
    }
    span
}

/// `GET /api/rollouts/{rollout}/events`
pub(super) async fn list(
    State(state): State<ApiState>,
    access: Extension<Access>,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
) -> Answer {
    access.check(&id)?;
    let rollout = known(&state, &id).await?;
    let attempt = match last_attempt(&rollout) {
        Some(attempt) => attempt,
        None => unnamed_attempt(&state, &rollout.rollout_id).await?,
    };
    let spans = state.rollouts.store().spans(rollout.rollout_id.clone(), Some(attempt.as_str().into())).await?;
    let query = query.unwrap_or_default();
    let wanted = text(&query, "event_type");
    let as_triplets = text(&query, "format").as_deref() == Some("triplet");
    let mut events: Vec<(Timestamp, String, JsonValue)> = spans.iter().filter_map(event_of).collect();
    events.retain(|(_, event_type, _)| wanted.as_ref().is_none_or(|wanted| wanted == event_type));
    events.sort_by_key(|(at, _, _)| *at);
    if as_triplets {
        events.iter_mut().for_each(|(_, event_type, data)| *data = triplet(event_type, data));
        if text(&query, "dedup").as_deref() == Some("last") {
            keep_last_of_each_prompt(&mut events);
        }
    }
    let shown = events.iter().map(|(at, event_type, data)| shown(&rollout.rollout_id, &attempt, event_type, *at, data));
    ok(shown.collect::<Vec<_>>())
}

/// Agent Lightning keeps one call of each prompt. We keep all, since samples of one prompt are samples; who wants its way
/// asks for it with `dedup=last`.
fn keep_last_of_each_prompt(events: &mut Vec<(Timestamp, String, JsonValue)>) {
    let mut last: HashMap<String, usize> = HashMap::new();
    let prompt = |event_type: &str, data: &JsonValue| {
        (event_type == "model_request").then(|| data["prompt_token_ids"].to_string())
    };
    for (at, (_, event_type, data)) in events.iter().enumerate() {
        last.extend(prompt(event_type, data).map(|prompt| (prompt, at)));
    }
    let mut at = 0;
    events.retain(|(_, event_type, data)| {
        at += 1;
        prompt(event_type, data).is_none_or(|prompt| last.get(&prompt) == Some(&(at - 1)))
    });
}

/// Where no controller has named an attempt: "0", unless a runner of the other API has started one.
async fn unnamed_attempt(state: &ApiState, rollout: &RolloutId) -> Result<String, Refusal> {
    let attempts = state.rollouts.store().attempts(rollout.clone()).await?;
    // That one leaves its metadata empty; an attempt that a call has named has an object there.
    let latest = attempts.iter().rev().find(|attempt| attempt.metadata.is_null());
    Ok(latest.map_or_else(|| DEFAULT_ATTEMPT.to_owned(), |latest| latest.attempt_id.to_string()))
}

/// The event that a span is, if it is one.
fn event_of(span: &Span) -> Option<(Timestamp, String, JsonValue)> {
    let at = span.end_time?;
    if let Some(event_type) = span.attributes.get(names::EVENT_TYPE).and_then(Value::as_str) {
        let data = span.attributes.get(names::EVENT_DATA).and_then(Value::as_str).unwrap_or("{}");
        return Some((at, event_type.to_owned(), serde_json::from_str(data).unwrap_or_default()));
    }
    if is_llm_call(span) {
        return Some((at, "model_request".to_owned(), event_data(span)));
    }
    let value = span.attributes.get(REWARD).and_then(Value::as_float)?;
    Some((at, "reward".to_owned(), json!({ "value": value, "source": "agent" })))
}

fn shown(rollout: &RolloutId, attempt: &str, event_type: &str, at: Timestamp, data: &JsonValue) -> JsonValue {
    json!({ "event_type": event_type, "rollout_id": rollout, "attempt_id": attempt, "timestamp": at, "data": data })
}

const DEFAULT_ATTEMPT: &str = "0";
const REWARD: &str = "agentlightning.reward.0.value";

//! Events of version 1.0: what happened in an attempt, by end time.
//!
//! LLM calls and rewards are events, whichever API recorded them. A posted event is stored as a span.

use super::event_list::{EventData, EventFormat, EventList, EventView, REWARD};
use super::query::text;
use super::rollouts::{last_attempt, registered};
use crate::api::request_json::read;
use crate::api::respond::{ApiError, ApiResult, ok};
use crate::api::settings::TripletCalls;
use crate::api::state::ApiState;
use crate::api::streamed::streamed;
use crate::trace::semconv as names;
use crate::trace::span::{Resource, SpanContext};
use crate::trace::{AttemptId, RolloutId, Span, SpanId, SpanKind, Status, StatusCode, Timestamp, TraceId};
use axum::extract::{Path, RawQuery, State};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Map, Value as JsonValue};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;
use utoipa::{IntoParams, ToSchema};

#[derive(Deserialize, ToSchema)]
pub(super) struct NewEvent {
    /// `reward`, or any other name.
    event_type: String,
    /// Of a reward: `value`, and optionally `name`.
    #[serde(default)]
    #[schema(value_type = Object)]
    data: Map<String, JsonValue>,
}

/// `POST /api/rollouts/{rollout}/attempt/{attempt}/events`
pub(super) async fn add(
    State(state): State<ApiState>,
    Path((rollout, attempt)): Path<(String, String)>,
    body: Bytes,
) -> ApiResult {
    let NewEvent { event_type, data } = read(&body)?;
    // Python writes them where JSON has no number, and they are read as texts. No trainer can learn from such a reward.
    let value = data.get("value").filter(|_| event_type == "reward");
    if let Some(value) = value.and_then(JsonValue::as_str).filter(|value| NO_NUMBERS.contains(value)) {
        return Err(ApiError::of_value(&["body", "data", "value"], "a reward must be a finite number", value));
    }
    let data = JsonValue::Object(data);
    let rollout = registered(&state, &rollout).await?.rollout_id;
    let now = Timestamp::from(SystemTime::now());
    let sequence_id = state.sequences.next(&rollout).await;
    let mut span = span_of(&rollout, &attempt.as_str().into(), sequence_id, now);
    set_event(&mut span, &event_type, &data);
    state.adopt(&mut span);
    state.rollouts.append(vec![Arc::new(span)]).await?;
    let (rollout_id, data) = (rollout.to_string(), EventData::Json(data));
    ok(EventView { event_type, rollout_id, attempt_id: attempt, timestamp: now, data })
}

/// What is written where a number is not finite.
const NO_NUMBERS: [&str; 3] = ["NaN", "Infinity", "-Infinity"];

/// A span without duration, below the attempt's root.
fn span_of(rollout: &RolloutId, attempt: &AttemptId, sequence_id: u64, now: Timestamp) -> Span {
    let (trace_id, root) = (TraceId::of_attempt(rollout, attempt), SpanId::of_attempt_root(rollout, attempt));
    let context = |id: SpanId| SpanContext {
        trace_id: trace_id.to_string(),
        span_id: id.to_string(),
        is_remote: false,
        trace_state: BTreeMap::new(),
    };
    let id = SpanId::from_random(fastrand::u64(..));
    Span {
        rollout_id: rollout.clone(),
        attempt_id: attempt.clone(),
        sequence_id,
        trace_id: trace_id.to_string(),
        span_id: id.to_string(),
        parent_id: Some(root.to_string()),
        name: "agentlightning.annotation".to_owned(),
        kind: Some(SpanKind::Internal),
        status: Status { status_code: StatusCode::Ok, description: None },
        attributes: BTreeMap::new(),
        events: Vec::new(),
        links: Vec::new(),
        start_time: Some(now),
        end_time: Some(now),
        context: Some(context(id)),
        parent: Some(context(root)),
        resource: Resource { schema_url: names::SCHEMA_URL.to_owned(), ..Resource::default() },
    }
}

/// Makes a span the event. Of a reward it gets the attributes that the adapters of all versions read, too.
fn set_event(span: &mut Span, event_type: &str, data: &JsonValue) {
    span.set(names::EVENT_TYPE, event_type);
    span.set(names::EVENT_DATA, data.to_string());
    if event_type == "reward"
        && let Some(value) = data.get("value").and_then(JsonValue::as_f64)
    {
        let name = data.get("name").and_then(JsonValue::as_str).unwrap_or("primary");
        span.set("agentlightning.reward.0.name", name);
        span.set(REWARD, value);
    }
}

/// The query of a listing of events.
#[derive(IntoParams)]
#[expect(dead_code, reason = "describes what `list` reads from the query by hand")]
pub(super) struct EventQuery {
    /// Only events of this type.
    event_type: Option<String>,
    /// `triplet`: data of LLM calls as prompt, response and reward.
    format: Option<String>,
    /// With `format=triplet`, of the calls with one prompt: `last` or `all`; absent: as `server.triplets` says.
    dedup: Option<String>,
}

/// `GET /api/rollouts/{rollout}/events`
pub(super) async fn list(
    State(state): State<ApiState>,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
) -> ApiResult {
    let rollout = registered(&state, &id).await?;
    let attempt = match last_attempt(&rollout) {
        Some(attempt) => attempt,
        None => default_attempt(&state, &rollout.rollout_id).await?,
    };
    let query = query.unwrap_or_default();
    let calls = match text(&query, "dedup").as_deref() {
        Some("last") => TripletCalls::Last,
        Some("all") => TripletCalls::All,
        _ => state.triplets,
    };
    let format = match text(&query, "format").as_deref() {
        Some("triplet") => EventFormat::Triplets(calls),
        _ => EventFormat::Whole,
    };
    let store = state.rollouts.store();
    let events =
        EventList::find(store, rollout.rollout_id, attempt.as_str().into(), text(&query, "event_type"), format).await?;
    streamed("application/json", events).await
}

/// The attempt of a rollout for which no controller has named one: the latest that a runner of version 0.3 has started,
/// else "0".
async fn default_attempt(state: &ApiState, rollout: &RolloutId) -> ApiResult<String> {
    let attempts = state.rollouts.store().attempts(rollout.clone()).await?;
    // A runner leaves the metadata null; an attempt that a call has named has an object there.
    let latest = attempts.iter().rev().find(|attempt| attempt.metadata.is_null());
    Ok(latest.map_or_else(|| DEFAULT_ATTEMPT.to_owned(), |latest| latest.attempt_id.to_string()))
}

const DEFAULT_ATTEMPT: &str = "0";

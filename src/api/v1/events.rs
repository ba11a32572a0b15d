//! Events of version 1.0: what happened in an attempt, by end time.
//!
//! LLM calls and rewards are events, whichever API recorded them. A posted event is stored as a span.

use super::event_list::{EventData, EventFormat, EventList, EventView, REWARD};
use super::query::text;
use super::rollouts::{last_attempt, registered};
use crate::api::posted_span::{self, PostedSpanPlace};
use crate::api::request_json::read;
use crate::api::respond::{ApiError, ApiResult, ok};
use crate::api::settings::TripletCalls;
use crate::api::state::ApiState;
use crate::api::streamed::streamed;
use crate::trace::semconv as names;
use crate::trace::{RolloutId, Span, SpanId, Timestamp, TraceId};
use axum::extract::{Path, RawQuery, State};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Map, Value as JsonValue};
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
    let attempt_id = attempt.as_str().into();
    let place = PostedSpanPlace {
        rollout: &rollout,
        attempt: &attempt_id,
        trace_id: TraceId::of_attempt(&rollout, &attempt_id).to_string(),
        parent_id: SpanId::of_attempt_root(&rollout, &attempt_id).to_string(),
    };
    let mut span = place.annotation(&state, now).await;
    set_event(&mut span, &event_type, &data);
    posted_span::store(&state, span).await?;
    let (rollout_id, data) = (rollout.to_string(), EventData::Json(data));
    ok(EventView { event_type, rollout_id, attempt_id: attempt, timestamp: now, data })
}

/// What is written where a number is not finite.
const NO_NUMBERS: [&str; 3] = ["NaN", "Infinity", "-Infinity"];

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

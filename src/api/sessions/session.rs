//! Sessions: created by request or by their first call, listed with the number of their calls, deleted with them.

use crate::api::request_json::read_query;
use crate::api::respond::{ApiError, ApiResult, ok};
use crate::api::state::ApiState;
use crate::api::streamed::{BodySource, JsonList, streamed};
use crate::rollout::RolloutError;
use crate::store::{Records, RolloutFilter, RolloutOrder, SelectedRollouts, SharedStore};
use crate::trace::{Rollout, RolloutId, Timestamp, check_id};
use axum::extract::{Path, RawQuery, State};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as JsonValue, json};
use utoipa::{IntoParams, ToSchema};

/// The fields of a body. As in rLLM, a body that is not a JSON object counts as empty.
pub(super) fn lenient_fields(body: &Bytes) -> Map<String, JsonValue> {
    serde_json::from_slice(body).unwrap_or_default()
}

/// The `session_ids` of a body; empty if there are none.
pub(super) fn session_ids(body: &Bytes) -> Vec<String> {
    let ids = lenient_fields(body).remove("session_ids").unwrap_or_default();
    serde_json::from_value(ids).unwrap_or_default()
}

/// The page of a listing.
#[derive(Default, Deserialize, IntoParams, ToSchema)]
pub(super) struct SessionPage {
    /// Only items of this time or later.
    #[serde(default)]
    pub(super) since: Option<f64>,
    /// The most items to return; absent: all.
    #[serde(default)]
    pub(super) limit: Option<usize>,
}

impl SessionPage {
    pub(super) fn since(&self) -> Option<Timestamp> {
        self.since.map(Timestamp::from_unix_secs)
    }

    pub(super) fn limit(&self) -> usize {
        self.limit.unwrap_or(usize::MAX)
    }
}

#[derive(Serialize, ToSchema)]
pub(super) struct CreatedSession {
    session_id: String,
    /// The base URL of its LLM calls, relative to the server.
    url: String,
}

/// `POST /sessions`, with the optional fields `session_id`, `metadata` and `sampling_params`.
pub(super) async fn create(State(state): State<ApiState>, body: Bytes) -> ApiResult {
    let mut fields = lenient_fields(&body);
    let requested = fields.get("session_id").and_then(JsonValue::as_str).filter(|id| !id.is_empty());
    if let Some(error) = requested.and_then(|id| check_id(id).err()) {
        return Err(ApiError::InvalidRllm(format!("session_id: {error}")));
    }
    let session_id = requested.map_or_else(|| format!("{:032x}", fastrand::u128(..)), str::to_owned);
    let mut metadata = Map::new();
    for name in ["metadata", "sampling_params"] {
        metadata.extend(fields.remove(name).filter(JsonValue::is_object).map(|value| (name.to_owned(), value)));
    }
    let rollout = RolloutId::from(session_id.as_str());
    let put = move |records: &mut dyn Records, now| {
        let existing = records.rollout(&rollout)?;
        let mut session = existing.unwrap_or_else(|| Rollout::running(rollout.clone(), now));
        if let JsonValue::Object(all) = &mut session.metadata {
            all.extend(metadata.clone());
        }
        Ok::<(), RolloutError>(records.upsert_rollout(&session)?)
    };
    state.rollouts.transact(put).await?;
    ok(CreatedSession { url: format!("/sessions/{session_id}/v1"), session_id })
}

#[derive(Serialize, ToSchema)]
pub(super) struct SessionView {
    session_id: String,
    /// The number of LLM calls.
    trace_count: u64,
    created_at: Timestamp,
    metadata: JsonValue,
}

impl SessionView {
    fn of(rollout: &Rollout, trace_count: u64) -> Self {
        let metadata = rollout.metadata.get("metadata").cloned().unwrap_or_else(|| json!({}));
        let session_id = rollout.rollout_id.to_string();
        Self { session_id, trace_count, created_at: rollout.start_time, metadata }
    }
}

/// `GET /sessions`, newest first.
pub(super) async fn list(State(state): State<ApiState>, RawQuery(query): RawQuery) -> ApiResult {
    let page: SessionPage = read_query(query.as_deref())?;
    let store = SharedStore::clone(state.rollouts.store());
    let newest_first = RolloutFilter { order: RolloutOrder::NewestFirst, ..RolloutFilter::default() };
    let rollouts = SelectedRollouts::by_start(&store, newest_first, |_| true);
    let (since, left, list) = (page.since(), page.limit(), JsonList::default());
    streamed("application/json", Sessions { store, rollouts, since, left: Some(left), list }).await
}

/// A list of sessions.
struct Sessions {
    store: SharedStore,
    rollouts: SelectedRollouts,
    since: Option<Timestamp>,
    /// How many more there may be; `None` after the end.
    left: Option<usize>,
    list: JsonList,
}

impl BodySource for Sessions {
    async fn next(&mut self) -> ApiResult<Option<Vec<u8>>> {
        let Some(left) = self.left else { return Ok(None) };
        let mut sessions = Vec::new();
        while sessions.len() < left.min(SESSIONS_AT_ONCE)
            && let Some(found) = self.rollouts.next().await?
            && self.since.is_none_or(|since| found.rollout.start_time >= since)
        {
            sessions.push(found.rollout);
        }
        if sessions.is_empty() {
            self.left = None;
            return Ok(Some(self.list.finish("")));
        }
        self.left = Some(left - sessions.len());
        let counts = self.store.llm_calls(sessions.iter().map(|rollout| rollout.rollout_id.clone()).collect()).await?;
        for rollout in &sessions {
            self.list.add(&SessionView::of(rollout, counts.get(&rollout.rollout_id).copied().unwrap_or_default()))?;
        }
        Ok(Some(self.list.take()))
    }
}

/// Sessions of which the calls are counted together.
const SESSIONS_AT_ONCE: usize = 256;

/// `GET /sessions/{session}`
pub(super) async fn one(State(state): State<ApiState>, Path(id): Path<String>) -> ApiResult {
    let Some(rollout) = state.rollouts.store().rollout(id.as_str().into()).await? else {
        return Err(ApiError::NotFoundRllm(format!("Session {id} not found")));
    };
    let count = trace_count(&state, &rollout.rollout_id).await?;
    ok(SessionView::of(&rollout, count))
}

async fn trace_count(state: &ApiState, rollout: &RolloutId) -> ApiResult<u64> {
    let counts = state.rollouts.store().llm_calls(vec![rollout.clone()]).await?;
    Ok(counts.get(rollout).copied().unwrap_or_default())
}

/// The number of traces that a request deleted.
#[derive(Serialize, ToSchema)]
pub(super) struct DeletedTraces {
    deleted: u64,
}

/// `DELETE /sessions/{session}`
pub(super) async fn remove(State(state): State<ApiState>, Path(id): Path<String>) -> ApiResult {
    ok(DeletedTraces { deleted: remove_session(&state, &id).await? })
}

async fn remove_session(state: &ApiState, id: &str) -> ApiResult<u64> {
    let id = RolloutId::from(id);
    let traces = trace_count(state, &id).await?;
    state.rollouts.remove(id).await?;
    Ok(traces)
}

/// `POST /sessions/batch_delete`, with the field `session_ids`.
pub(super) async fn remove_many(State(state): State<ApiState>, body: Bytes) -> ApiResult {
    let mut deleted = 0;
    for id in session_ids(&body) {
        deleted += remove_session(&state, &id).await?;
    }
    ok(DeletedTraces { deleted })
}

//! Lists of rollouts with counts, and single ones.

use crate::api::access::CallerAccess;
use crate::api::request_json::read_query;
use crate::api::respond::{ApiError, ApiResult, ok};
use crate::api::state::ApiState;
use crate::query::{Cost, Prices, Query, RolloutTotals, task_text};
use crate::rollout::{FoundRollout, MAX_SPANS_READ, RolloutSearch, SearchPageRequest};
use crate::store::{RolloutCounts, RolloutFilter, RolloutPlace};
use crate::trace::{AttemptedRollout, RolloutId, Timestamp};
use crate::trajectory::group_id;
use axum::Extension;
use axum::extract::{Path, RawQuery, State};
use serde::{Deserialize, Serialize};
use std::time::SystemTime;
use utoipa::{IntoParams, ToSchema};

/// The query of a page of rollouts.
#[derive(Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RolloutPageQuery {
    /// Conditions, such as `model:qwen* status:failed tokens>4k`. All rollouts match an empty text.
    q: String,
    /// The most rollouts to return, at most 500.
    limit: usize,
    /// The `next` of the page before.
    after: String,
}

impl Default for RolloutPageQuery {
    fn default() -> Self {
        Self { q: String::new(), limit: 100, after: String::new() }
    }
}

/// A page of rollouts.
#[derive(Serialize, ToSchema)]
pub(super) struct RolloutPage {
    rollouts: Vec<RolloutRow>,
    /// Where the next page starts; absent after the last one. A page may have few rollouts, or none, and still a next one: a
    /// request looks at a limited number of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
    /// The start time of the last rollout that was looked at; absent for callers that may not read all.
    #[serde(skip_serializing_if = "Option::is_none")]
    searched_to: Option<Timestamp>,
    /// Whether there are spans with messages that `text:` has not searched yet; absent if not. The same request finds more later.
    #[serde(skip_serializing_if = "is_false")]
    is_searching: bool,
    /// How many these are, about; absent if there are none, and for callers that may not read all rollouts.
    #[serde(skip_serializing_if = "Option::is_none")]
    unsearched_spans: Option<u64>,
    /// Whether a text is in so many spans that only the newest of them count; absent if not.
    #[serde(skip_serializing_if = "is_false")]
    is_cut: bool,
    /// How many rollouts the store has; absent for callers that may not read all.
    #[serde(skip_serializing_if = "Option::is_none")]
    total: Option<u64>,
}

/// A rollout in a list.
#[derive(Serialize, ToSchema)]
pub(super) struct RolloutRow {
    rollout_id: String,
    status: String,
    /// The argument of `tracewire run --name`.
    name: Option<String>,
    /// The task in short.
    task: String,
    /// The task's id: rollouts of one group are tries of one task.
    group: String,
    mode: Option<String>,
    start_time: Timestamp,
    end_time: Option<Timestamp>,
    /// The latest attempt.
    attempt_id: Option<String>,
    attempt_status: Option<String>,
    #[serde(flatten)]
    #[schema(value_type = Object)]
    counts: RolloutCounts,
    /// What the spans add up to. Null if there were too many to read in this request: another one continues.
    #[schema(value_type = Option<Object>)]
    totals: Option<RolloutTotals>,
    /// What the calls cost; absent if no model has a price.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    cost: Option<Cost>,
}

impl RolloutRow {
    fn of(FoundRollout { found, counts, totals }: FoundRollout, prices: &Prices) -> Self {
        let cost = totals.as_ref().and_then(|totals| prices.cost(&totals.tokens_by_model));
        let AttemptedRollout { rollout, attempt } = &found;
        Self {
            rollout_id: rollout.rollout_id.to_string(),
            status: rollout.status.as_str().to_owned(),
            name: rollout.name().map(str::to_owned),
            task: task_text(&rollout.input),
            group: if rollout.input.is_null() { String::new() } else { short(&group_id(rollout)) },
            mode: rollout.mode.clone(),
            start_time: rollout.start_time,
            end_time: rollout.end_time,
            attempt_id: attempt.as_ref().map(|attempt| attempt.attempt_id.to_string()),
            attempt_status: attempt.as_ref().map(|attempt| attempt.status.as_str().to_owned()),
            counts,
            totals,
            cost,
        }
    }
}

/// The id of a group, which may be a whole task.
fn short(group: &str) -> String {
    group.chars().take(MAX_GROUP_CHARACTERS).collect()
}

const MAX_GROUP_CHARACTERS: usize = 200;

/// `GET /v1/tracewire/rollouts`
pub(super) async fn list(
    State(state): State<ApiState>,
    Extension(caller): Extension<CallerAccess>,
    RawQuery(query): RawQuery,
) -> ApiResult {
    let request: RolloutPageQuery = read_query(query.as_deref())?;
    let now = Timestamp::from(SystemTime::now());
    let query = Query::parse(&request.q, now).map_err(|error| ApiError::of_invalid_query(&request.q, &error))?;
    let after = match request.after.as_str() {
        "" => None,
        cursor => Some(place_of(cursor).ok_or_else(|| {
            ApiError::of_value(&["query", "after"], "Input should be the `next` of another page", cursor)
        })?),
    };
    let store = state.rollouts.store();
    let only = caller.only_rollout().map(RolloutId::from);
    let search = RolloutSearch { store, cache: &state.search, query: &query, now, only };
    let request = SearchPageRequest { after, limit: request.limit.clamp(1, MAX_PAGE) };
    let found = search.page(request, |rollout| caller.includes(rollout.rollout_id.as_str())).await?;
    // The place of the last rollout that was looked at would tell its id to a caller that may not read it.
    let next = match found.next {
        Some(next) if caller.includes_all() => Some(next),
        Some(_) => found.rollouts.last().map(|last| RolloutPlace::of(&last.found.rollout)),
        None => None,
    };
    let total = match caller.includes_all() {
        true => Some(store.count_rollouts(RolloutFilter::default()).await?),
        false => None,
    };
    ok(RolloutPage {
        rollouts: found.rollouts.into_iter().map(|one| RolloutRow::of(one, &state.search.prices)).collect(),
        next: next.as_ref().map(cursor_of),
        searched_to: found.searched_to.filter(|_| caller.includes_all()),
        is_searching: found.unsearched_spans > 0,
        // The number is that of the whole store.
        unsearched_spans: Some(found.unsearched_spans).filter(|spans| *spans > 0 && caller.includes_all()),
        is_cut: found.is_cut,
        total,
    })
}

/// `GET /v1/tracewire/rollouts/{rollout}`
pub(super) async fn one_rollout(State(state): State<ApiState>, Path(id): Path<String>) -> ApiResult {
    let (store, id) = (state.rollouts.store(), RolloutId::from(id.as_str()));
    let found = store.attempted_rollouts(RolloutFilter::of_ids(vec![id.clone()])).await?.into_iter().next();
    let found = found.ok_or_else(|| ApiError::NotFoundPlain(format!("Rollout {id} not found")))?;
    let counts = store.rollout_counts(vec![id.clone()]).await?.remove(&id).unwrap_or_default();
    let totals = state.search.totals.of(store, &id, &counts, &mut { MAX_SPANS_READ }).await?;
    ok(RolloutRow::of(FoundRollout { found, counts, totals }, &state.search.prices))
}

fn cursor_of(place: &RolloutPlace) -> String {
    format!("{}~{}", place.start_time.unix_nanos, place.rollout_id)
}

fn place_of(cursor: &str) -> Option<RolloutPlace> {
    let (nanos, id) = cursor.split_once('~')?;
    Some(RolloutPlace { start_time: Timestamp::from_unix_nanos(nanos.parse().ok()?), rollout_id: id.into() })
}

const MAX_PAGE: usize = 500;

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_false(value: &bool) -> bool {
    !value
}

//! Lists of rollouts with counts, and single ones.

use crate::api::access::CallerAccess;
use crate::api::request_json::read_query;
use crate::api::respond::{ApiError, ApiResult, ok};
use crate::api::state::ApiState;
use crate::query::{Query, QueryError, RolloutFacts, RolloutTotals, task_text};
use crate::store::{RolloutCounts, RolloutFilter, RolloutOrder, RolloutPlace};
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
    /// The start time of the last rollout that was looked at.
    #[serde(skip_serializing_if = "Option::is_none")]
    searched_to: Option<Timestamp>,
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
}

impl RolloutRow {
    fn of(found: &AttemptedRollout, counts: RolloutCounts, totals: Option<RolloutTotals>) -> Self {
        let AttemptedRollout { rollout, attempt } = found;
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
    let query = Query::parse(&request.q, now).map_err(|error| invalid_query(&request.q, &error))?;
    let after = match request.after.as_str() {
        "" => None,
        cursor => Some(place_of(cursor).ok_or_else(|| {
            ApiError::of_value(&["query", "after"], "Input should be the `next` of another page", cursor)
        })?),
    };
    let limit = request.limit.clamp(1, MAX_PAGE);
    let mut search = Search { state: &state, query: &query, now, budget: MAX_SPANS_READ };
    let mut page = RolloutPage { rollouts: Vec::new(), next: None, searched_to: None, total: None };
    let mut filter = RolloutFilter {
        statuses: query.statuses(),
        order: RolloutOrder::NewestFirst,
        after,
        // A caller with some rollouts may have none among the newest.
        limit: Some(if request.q.is_empty() && caller.includes_all() { limit } else { SCAN_ROLLOUTS }),
        ..RolloutFilter::default()
    };
    if let Some(only) = caller.only_rollout() {
        filter.ids = Some(vec![only.into()]);
    }
    let mut looked_at = 0;
    'pages: while looked_at < MAX_ROLLOUTS_READ && search.budget > 0 {
        let found = state.rollouts.store().attempted_rollouts(filter.clone()).await?;
        let is_last = found.len() < filter.limit.unwrap_or(0);
        for rollout in search.rows(&found, &caller).await? {
            filter.after = Some(rollout.place);
            looked_at += 1;
            if query.earliest().is_some_and(|earliest| rollout.start_time < earliest) {
                return finish(page, &state, &caller, None).await;
            }
            page.searched_to = Some(rollout.start_time);
            page.rollouts.extend(rollout.row);
            if page.rollouts.len() == limit {
                break 'pages;
            }
        }
        if is_last {
            return finish(page, &state, &caller, None).await;
        }
    }
    finish(page, &state, &caller, filter.after).await
}

async fn finish(
    mut page: RolloutPage,
    state: &ApiState,
    caller: &CallerAccess,
    next: Option<RolloutPlace>,
) -> ApiResult {
    if caller.includes_all() {
        page.total = Some(state.rollouts.store().count_rollouts(RolloutFilter::default()).await?);
        page.next = next.map(|place| cursor_of(&place));
    } else {
        // The place of the last rollout that was looked at would tell its id to a caller that may not read it.
        let last = page.rollouts.last().filter(|_| next.is_some());
        page.next = last.map(|row| format!("{}~{}", row.start_time.unix_nanos, row.rollout_id));
    }
    ok(page)
}

/// Looks at rollouts, and reads at most a number of spans for that.
struct Search<'a> {
    state: &'a ApiState,
    query: &'a Query,
    now: Timestamp,
    budget: usize,
}

/// A rollout that was looked at.
struct Looked {
    place: RolloutPlace,
    start_time: Timestamp,
    /// `None` if it does not match, or the caller may not read it.
    row: Option<RolloutRow>,
}

impl Search<'_> {
    /// The rows of these rollouts. Ends early when too many spans were read to know whether the next one matches.
    async fn rows(&mut self, found: &[AttemptedRollout], caller: &CallerAccess) -> ApiResult<Vec<Looked>> {
        let store = self.state.rollouts.store();
        let visible = found.iter().filter(|found| caller.includes(found.rollout.rollout_id.as_str()));
        let ids: Vec<RolloutId> = visible.map(|found| found.rollout.rollout_id.clone()).collect();
        let counts = store.rollout_counts(ids).await?;
        let mut looked = Vec::with_capacity(found.len());
        for one in found {
            let rollout = &one.rollout;
            let mut row = None;
            if let Some(counts) = counts.get(&rollout.rollout_id) {
                let totals = &self.state.totals;
                let totals = totals.of(store, &rollout.rollout_id, counts, &mut self.budget).await?;
                if totals.is_none() && self.query.needs_totals() {
                    break;
                }
                if self.matches(one, counts, totals.as_ref()) {
                    row = Some(RolloutRow::of(one, *counts, totals));
                }
            }
            looked.push(Looked { place: RolloutPlace::of(rollout), start_time: rollout.start_time, row });
        }
        Ok(looked)
    }

    fn matches(&self, found: &AttemptedRollout, counts: &RolloutCounts, totals: Option<&RolloutTotals>) -> bool {
        let unknown = RolloutTotals::default();
        self.query.matches(&RolloutFacts {
            rollout: &found.rollout,
            attempts: counts.attempts,
            spans: counts.spans,
            errors: counts.errors,
            llm_calls: counts.llm_calls,
            totals: totals.unwrap_or(&unknown),
            now: self.now,
        })
    }
}

/// `GET /v1/tracewire/rollouts/{rollout}`
pub(super) async fn one_rollout(State(state): State<ApiState>, Path(id): Path<String>) -> ApiResult {
    let (store, id) = (state.rollouts.store(), RolloutId::from(id.as_str()));
    let found = store.attempted_rollouts(RolloutFilter::of_ids(vec![id.clone()])).await?.into_iter().next();
    let found = found.ok_or_else(|| ApiError::NotFoundPlain(format!("Rollout {id} not found")))?;
    let counts = store.rollout_counts(vec![id.clone()]).await?.remove(&id).unwrap_or_default();
    let totals = state.totals.of(store, &id, &counts, &mut { MAX_SPANS_READ }).await?;
    ok(RolloutRow::of(&found, counts, totals))
}

/// 422 with the place of the error in the query, in UTF-16 units as JavaScript counts them.
fn invalid_query(text: &str, error: &QueryError) -> ApiError {
    let units = |end: usize| text[..end].encode_utf16().count();
    let place = [units(error.place.start), units(error.place.end)];
    ApiError::of_part(&["query", "q"], place, error.message.clone(), text)
}

fn cursor_of(place: &RolloutPlace) -> String {
    format!("{}~{}", place.start_time.unix_nanos, place.rollout_id)
}

fn place_of(cursor: &str) -> Option<RolloutPlace> {
    let (nanos, id) = cursor.split_once('~')?;
    Some(RolloutPlace { start_time: Timestamp::from_unix_nanos(nanos.parse().ok()?), rollout_id: id.into() })
}

const MAX_PAGE: usize = 500;
/// Rollouts that a search reads at once.
const SCAN_ROLLOUTS: usize = 200;
/// Rollouts that one request looks at.
const MAX_ROLLOUTS_READ: usize = 5000;
/// Spans that one request reads for their totals.
const MAX_SPANS_READ: usize = 20_000;

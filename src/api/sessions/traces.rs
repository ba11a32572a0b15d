//! Traces: the LLM calls of sessions.

use super::records::TraceRecord;
use super::session::{SessionPage, lenient_fields, session_ids};
use crate::api::request_json::{read_query, typed};
use crate::api::respond::{ApiError, ApiResult, ok};
use crate::api::state::ApiState;
use crate::api::streamed::{BodySource, JsonList, streamed};
use crate::llm::recorded::is_llm_call;
use crate::store::{SharedStore, SpanContent, SpanPages, SpanQuery};
use crate::trace::{RolloutId, Span, Timestamp};
use axum::extract::{Path, RawQuery, State};
use bytes::Bytes;

/// `GET /sessions/{session}/traces`
pub(super) async fn list(
    State(state): State<ApiState>,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
) -> ApiResult {
    let page: SessionPage = read_query(query.as_deref())?;
    streamed("application/json", Traces::new(&state, vec![id], &page)).await
}

/// `POST /traces/query`, with the fields `session_ids`, `since` and `limit`.
pub(super) async fn query(State(state): State<ApiState>, body: Bytes) -> ApiResult {
    let page: SessionPage = typed("body", &lenient_fields(&body).into()).unwrap_or_default();
    streamed("application/json", Traces::new(&state, session_ids(&body), &page)).await
}

/// The records of sessions, one session after the other; the limit holds for each.
struct Traces {
    store: SharedStore,
    sessions: std::vec::IntoIter<String>,
    since: Option<Timestamp>,
    limit: usize,
    /// The session that is read, and how many of its records are left.
    current: Option<(SpanPages, usize)>,
    list: JsonList,
    is_finished: bool,
}

impl Traces {
    fn new(state: &ApiState, sessions: Vec<String>, page: &SessionPage) -> Self {
        Self {
            store: SharedStore::clone(state.rollouts.store()),
            sessions: sessions.into_iter(),
            since: page.since(),
            limit: page.limit(),
            current: None,
            list: JsonList::default(),
            is_finished: false,
        }
    }
}

impl BodySource for Traces {
    async fn next(&mut self) -> ApiResult<Option<Vec<u8>>> {
        if self.is_finished {
            return Ok(None);
        }
        let Some((pages, left)) = &mut self.current else {
            let Some(session) = self.sessions.next() else {
                self.is_finished = true;
                return Ok(Some(self.list.finish("")));
            };
            let query = SpanQuery::of_rollout(RolloutId::from(session.as_str()));
            self.current = Some((SpanPages::new(&self.store, query), self.limit));
            return Ok(Some(Vec::new()));
        };
        let page = if *left > 0 { pages.next().await? } else { None };
        let Some(page) = page else {
            self.current = None;
            return Ok(Some(Vec::new()));
        };
        let is_wanted = |span: &&Span| is_llm_call(span) && self.since.is_none_or(|since| span.end_time >= Some(since));
        tokio::task::block_in_place(|| {
            for span in page.iter().map(|(_, span)| span).filter(is_wanted).take(*left) {
                *left -= 1;
                self.list.add(&TraceRecord::of(span))?;
            }
            Ok(Some(self.list.take()))
        })
    }
}

/// `GET /traces/{trace}`
pub(super) async fn one(State(state): State<ApiState>, Path(id): Path<String>) -> ApiResult {
    let not_found = || ApiError::NotFoundRllm(format!("Trace {id} not found"));
    let (span_id, rollout) = id.split_once('-').ok_or_else(not_found)?;
    let (store, rollout) = (state.rollouts.store(), RolloutId::from(rollout));
    let query = SpanQuery { content: SpanContent::Outline(&[]), ..SpanQuery::of_rollout(rollout.clone()) };
    let mut outlines = SpanPages::new(store, query);
    while let Some(page) = outlines.next().await? {
        let is_it = |span: &Span| span.span_id == span_id && is_llm_call(span);
        if let Some((place, _)) = page.into_iter().find(|(_, span)| is_it(span)) {
            let found = SpanPages::at(store, rollout, vec![place], SpanContent::Whole).next().await?;
            let (_, span) = found.into_iter().flatten().next().ok_or_else(not_found)?;
            return ok(TraceRecord::of(&span));
        }
    }
    Err(not_found())
}

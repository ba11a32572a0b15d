//! How sound the newest rollouts are, by what decides it: token ids by client, model and engine; breaks by their cause; reasons against
//! training.

use super::handlers::sample_options;
use crate::api::request_json::read_query;
use crate::api::respond::{ApiResult, ok};
use crate::api::state::ApiState;
use crate::export::sample::AttemptSample;
use crate::llm::recorded::is_llm_call;
use crate::store::{RolloutFilter, RolloutOrder, StoreExt};
use crate::trace::semconv as names;
use crate::trace::{AttemptedRollout, RolloutStatus, Span, Timestamp, Value};
use axum::extract::{RawQuery, State};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::{IntoParams, ToSchema};

/// The query of the quality of rollouts.
#[derive(Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
pub(super) struct QualityQuery {
    /// The most rollouts to read, newest first, at most 200. At most 5000 of their spans are read.
    limit: usize,
}

impl Default for QualityQuery {
    fn default() -> Self {
        Self { limit: 50 }
    }
}

/// The quality of the newest rollouts that have ended.
#[derive(Default, Serialize, ToSchema)]
pub(super) struct Quality {
    /// How many were read.
    rollouts: usize,
    /// The start of the first of them.
    since: Option<Timestamp>,
    /// Calls by client, model and engine, with the most first.
    calls: Vec<CallQuality>,
    /// Calls that do not continue an earlier one, by cause.
    breaks: Vec<Finding>,
    /// Reasons against training, by name: how many rollouts have each.
    reasons: Vec<Finding>,
}

/// Calls of one client to one model on one engine: how many have which token ids.
#[derive(Serialize, ToSchema)]
struct CallQuality {
    client: String,
    model: String,
    engine: String,
    exact: u64,
    partial: u64,
    none: u64,
}

/// Something that was found several times.
#[derive(Serialize, ToSchema)]
struct Finding {
    name: &'static str,
    count: u64,
    /// A rollout that has it.
    rollout_id: String,
    /// A span that has it, if it is about one.
    span_id: Option<String>,
}

/// `GET /v1/tracewire/quality`
pub(super) async fn quality(State(state): State<ApiState>, RawQuery(query): RawQuery) -> ApiResult {
    let QualityQuery { limit } = read_query(query.as_deref())?;
    let store = state.rollouts.store();
    let filter = RolloutFilter {
        order: RolloutOrder::NewestFirst,
        limit: Some(limit.clamp(1, MAX_ROLLOUTS)),
        ..RolloutFilter::of_statuses(RolloutStatus::ALL.into_iter().filter(|status| status.is_final()).collect())
    };
    let found = store.attempted_rollouts(filter).await?;
    let counts = store.rollout_counts(found.iter().map(|one| one.rollout.rollout_id.clone()).collect()).await?;
    let (mut quality, mut left, options) = (Gathered::default(), MAX_SPANS, sample_options(&state));
    for AttemptedRollout { rollout, attempt } in found {
        let of_rollout = counts.get(&rollout.rollout_id).copied().unwrap_or_default();
        // A rollout without calls has nothing to train on.
        let Some(rest) = left.checked_sub(of_rollout.spans).filter(|_| of_rollout.llm_calls > 0) else { continue };
        left = rest;
        let attempt_id = attempt.as_ref().map(|attempt| attempt.attempt_id.clone());
        let spans = store.spans(rollout.rollout_id.clone(), attempt_id).await?;
        tokio::task::block_in_place(|| {
            let sample = AttemptSample::of(rollout, attempt.as_ref(), &spans, &options);
            quality.add(&sample, &spans);
        });
    }
    ok(quality.into_quality())
}

/// What was counted so far.
#[derive(Default)]
struct Gathered {
    rollouts: usize,
    since: Option<Timestamp>,
    /// Exact, partial, none, by client, model and engine.
    calls: BTreeMap<[String; 3], [u64; 3]>,
    breaks: BTreeMap<&'static str, Finding>,
    reasons: BTreeMap<&'static str, Finding>,
}

impl Gathered {
    fn add(&mut self, sample: &AttemptSample, spans: &[Span]) {
        self.rollouts += 1;
        self.since = Some(sample.rollout.start_time);
        for span in spans.iter().filter(|span| is_llm_call(span)) {
            let text = |name: &str| span.attributes.get(name).and_then(Value::as_str).map(cut);
            let model = text(names::GEN_AI_RESPONSE_MODEL).or_else(|| text(names::GEN_AI_REQUEST_MODEL));
            let of_call = [text(names::CLIENT_NAME), model, text(names::GEN_AI_PROVIDER_NAME)];
            let of_call = of_call.map(Option::unwrap_or_default);
            if self.calls.len() < MAX_GROUPS || self.calls.contains_key(&of_call) {
                let at = match span.attributes.get(names::TOKENS_STATUS).and_then(Value::as_str) {
                    Some("exact") => 0,
                    Some("partial") => 1,
                    _ => 2,
                };
                self.calls.entry(of_call).or_default()[at] += 1;
            }
        }
        let rollout = sample.rollout.rollout_id.as_str();
        for (call, node) in sample.tree.calls.iter().zip(&sample.tree.nodes) {
            if let Some(found) = &node.diagnosis {
                note(&mut self.breaks, found.cause.as_str(), rollout, Some(&call.span_id));
            }
        }
        for name in sample.verdict.names() {
            let reason = sample.verdict.reasons.iter().find(|reason| reason.name == name);
            note(&mut self.reasons, name, rollout, reason.and_then(|reason| reason.span_id.as_deref()));
        }
    }

    fn into_quality(self) -> Quality {
        let calls = self.calls.into_iter().map(|([client, model, engine], [exact, partial, none])| CallQuality {
            client,
            model,
            engine,
            exact,
            partial,
            none,
        });
        let mut calls: Vec<_> = calls.collect();
        calls.sort_by_key(|group| std::cmp::Reverse(group.exact + group.partial + group.none));
        let by_count = |found: BTreeMap<_, Finding>| {
            let mut found: Vec<_> = found.into_values().collect();
            found.sort_by_key(|finding| std::cmp::Reverse(finding.count));
            found
        };
        let (rollouts, since) = (self.rollouts, self.since);
        Quality { rollouts, since, calls, breaks: by_count(self.breaks), reasons: by_count(self.reasons) }
    }
}

fn note(all: &mut BTreeMap<&'static str, Finding>, name: &'static str, rollout: &str, span: Option<&str>) {
    let (rollout_id, span_id) = (rollout.to_owned(), span.map(str::to_owned));
    all.entry(name).or_insert(Finding { name, count: 0, rollout_id, span_id }).count += 1;
}

fn cut(text: &str) -> String {
    crate::util::cut::cut(text, MAX_NAME_CHARACTERS)
}

const MAX_ROLLOUTS: usize = 200;
const MAX_SPANS: u64 = 5000;
/// Combinations of client, model and engine that are counted.
const MAX_GROUPS: usize = 64;
const MAX_NAME_CHARACTERS: usize = 120;

//! Assigns the spans of an OTLP request to rollouts, numbers them and stores them.
//!
//! The rollout comes from, first match wins: the span's attributes, its resource's, the rollout that its trace belongs
//! to, the caller's `x-rollout-id`, a token for exactly one rollout. Spans without any are stored under the rollout
//! `unassigned` and counted. Spans that break the protocol are rejected with the reason, and the others stay.

use crate::api::access::CallerAccess;
use crate::api::state::ApiState;
use crate::rollout::RolloutError;
use crate::store::UNASSIGNED;
use crate::trace::{AttemptId, RolloutId, Span};
use crate::wire::otlp::{self, Attribution};
use http::HeaderMap;
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// The caller of a request: its `x-rollout-id` and `x-attempt-id` fields, and what its token allows.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    rollout: Option<String>,
    attempt: Option<String>,
    access: CallerAccess,
}

impl Caller {
    pub(super) fn of(headers: &HeaderMap, access: CallerAccess) -> Self {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        Self { rollout: text("x-rollout-id"), attempt: text("x-attempt-id"), access }
    }
}

/// Stores the spans of a request. The response counts the rejected ones and names the reasons.
pub(super) async fn ingest(
    state: &ApiState,
    request: ExportTraceServiceRequest,
    caller: &Caller,
) -> Result<ExportTraceServiceResponse, RolloutError> {
    let (mut spans, mut rejected, mut reasons) = (Vec::new(), 0_i64, BTreeSet::new());
    for span in otlp::spans(request) {
        match span {
            Ok(decoded) => spans.push(decoded),
            Err(defect) => {
                rejected += 1;
                reasons.insert(defect.to_string());
            }
        }
    }
    let owners = owners(state, &spans, caller).await?;
    let mut ready = Vec::with_capacity(spans.len());
    for (mut span, attribution) in spans {
        assign(&mut span, &attribution, caller, &owners);
        if !caller.access.includes(span.rollout_id.as_str()) {
            rejected += 1;
            reasons.insert("the token is not for this rollout".to_owned());
            continue;
        }
        number(state, &mut span, attribution.sequence_id).await;
        state.adopt(&mut span);
        ready.push(Arc::new(span));
    }
    let counters = &state.ingest;
    counters.rejected.fetch_add(rejected.unsigned_abs(), Ordering::Relaxed);
    if !ready.is_empty() {
        let accepted = ready.len() as u64;
        state.rollouts.append(ready).await?;
        counters.accepted.fetch_add(accepted, Ordering::Relaxed);
    }
    let partial_success = (rejected > 0).then(|| ExportTracePartialSuccess {
        rejected_spans: rejected,
        error_message: reasons.into_iter().collect::<Vec<_>>().join("; "),
    });
    Ok(ExportTraceServiceResponse { partial_success })
}

/// The attempts that the traces of unattributed spans belong to. A trace without a stored span is absent.
async fn owners(
    state: &ApiState,
    spans: &[(Span, Attribution)],
    caller: &Caller,
) -> Result<HashMap<String, (RolloutId, AttemptId)>, RolloutError> {
    let traces =
        spans.iter().filter(|(_, attribution)| attribution.rollout.is_none()).map(|(span, _)| span.trace_id.clone());
    let traces: BTreeSet<String> = traces.collect();
    if traces.is_empty() {
        return Ok(HashMap::new());
    }
    let traces: Vec<String> = traces.into_iter().collect();
    let mut owners = state.rollouts.store().trace_owners(traces.clone()).await?;
    // The span that the proxy recorded of the same trace may not be stored yet.
    for _ in 0..LOOKUP_RETRIES {
        if owners.len() == traces.len() || caller.rollout.is_some() {
            break;
        }
        tokio::time::sleep(LOOKUP_INTERVAL).await;
        owners = state.rollouts.store().trace_owners(traces.clone()).await?;
    }
    Ok(owners)
}

const LOOKUP_RETRIES: u32 = 4;
const LOOKUP_INTERVAL: Duration = Duration::from_millis(50);

fn assign(
    span: &mut Span,
    attribution: &Attribution,
    caller: &Caller,
    owners: &HashMap<String, (RolloutId, AttemptId)>,
) {
    let owner_of = |rollout: &str, attempt: Option<&String>| {
        let rollout = RolloutId::from(rollout);
        let attempt = attempt.map_or_else(|| AttemptId::default_of(&rollout), |attempt| attempt.as_str().into());
        (rollout, attempt)
    };
    let owner = match (&attribution.rollout, owners.get(&span.trace_id), &caller.rollout) {
        (Some(rollout), _, _) => owner_of(rollout, attribution.attempt.as_ref().or(caller.attempt.as_ref())),
        (None, Some(owner), _) => owner.clone(),
        (None, None, Some(rollout)) => owner_of(rollout, attribution.attempt.as_ref().or(caller.attempt.as_ref())),
        (None, None, None) => match caller.access.only_rollout() {
            Some(rollout) => owner_of(rollout, attribution.attempt.as_ref()),
            None => (UNASSIGNED.into(), span.trace_id.as_str().into()),
        },
    };
    (span.rollout_id, span.attempt_id) = owner;
}

async fn number(state: &ApiState, span: &mut Span, requested: Option<u64>) {
    if span.rollout_id.as_str() == UNASSIGNED {
        state.ingest.unassigned.fetch_add(1, Ordering::Relaxed);
    }
    span.sequence_id = match requested {
        Some(requested) => {
            state.sequences.raise(&span.rollout_id, requested).await;
            requested
        }
        None => state.sequences.next(&span.rollout_id).await,
    };
}

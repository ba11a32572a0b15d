//! OTLP ingest: spans of other tracers, over HTTP (protobuf and JSON) and gRPC.
//!
//! Whose a span is: by its own attributes, its resource's, the caller's header fields, the trace it belongs to. One of
//! nobody is kept under a rollout of its own and counted; what is no span is refused with the reason, and the others stay.

mod grpc;
mod http;

use super::ApiState;
use super::access::Access;
use crate::rollout::RolloutError;
use crate::store::UNASSIGNED;
use crate::trace::{AttemptId, RolloutId, Span};
use crate::wire::otlp::{self, Named};
use ::http::HeaderMap;
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

pub(super) use grpc::service as grpc_service;
pub(super) use http::router;

/// What ingest counts.
#[derive(Debug, Default)]
pub struct IngestCounters {
    /// Spans taken.
    pub taken: AtomicU64,
    /// Spans refused.
    pub rejected: AtomicU64,
    /// Spans of nobody's rollout.
    pub unassigned: AtomicU64,
}

/// Whom a caller speaks for.
#[derive(Clone, Debug)]
struct Caller {
    rollout: Option<String>,
    attempt: Option<String>,
    access: Access,
}

impl Caller {
    fn of(headers: &HeaderMap, access: Access) -> Self {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        Self { rollout: text("x-rollout-id"), attempt: text("x-attempt-id"), access }
    }
}

/// Stores what a request brings.
async fn take(
    state: &ApiState,
    request: ExportTraceServiceRequest,
    caller: &Caller,
) -> Result<ExportTraceServiceResponse, RolloutError> {
    let (mut spans, mut rejected, mut reasons) = (Vec::new(), 0_i64, BTreeSet::new());
    for span in otlp::spans(request) {
        match span {
            Ok(decoded) => spans.push(decoded),
            Err(reason) => {
                rejected += 1;
                reasons.insert(reason);
            }
        }
    }
    let owners = owners(state, &spans, caller).await?;
    let mut ready = Vec::with_capacity(spans.len());
    for (mut span, named) in spans {
        assign(&mut span, &named, caller, &owners);
        if !caller.access.may(span.rollout_id.as_str()) {
            rejected += 1;
            reasons.insert("the token is not for this rollout");
            continue;
        }
        number(state, &mut span, named.sequence_id).await;
        state.adopt(&mut span);
        ready.push(Arc::new(span));
    }
    let counters = &state.ingest;
    counters.rejected.fetch_add(rejected.unsigned_abs(), Ordering::Relaxed);
    if !ready.is_empty() {
        let taken = ready.len() as u64;
        state.rollouts.append(ready).await?;
        counters.taken.fetch_add(taken, Ordering::Relaxed);
    }
    let partial_success = (rejected > 0).then(|| ExportTracePartialSuccess {
        rejected_spans: rejected,
        error_message: reasons.into_iter().collect::<Vec<_>>().join("; "),
    });
    Ok(ExportTraceServiceResponse { partial_success })
}

/// The attempts that the traces of spans without a rollout belong to, as far as one of their spans is known.
async fn owners(
    state: &ApiState,
    spans: &[(Span, Named)],
    caller: &Caller,
) -> Result<HashMap<String, (RolloutId, AttemptId)>, RolloutError> {
    let traces = spans.iter().filter(|(_, named)| named.rollout.is_none()).map(|(span, _)| span.trace_id.clone());
    let traces: BTreeSet<String> = traces.collect();
    if traces.is_empty() {
        return Ok(HashMap::new());
    }
    let traces: Vec<String> = traces.into_iter().collect();
    let mut owners = state.rollouts.store().trace_owners(traces.clone()).await?;
    // A span of the proxy's may be on its way into the store.
    for _ in 0..LOOKS {
        if owners.len() == traces.len() || caller.rollout.is_some() {
            break;
        }
        tokio::time::sleep(BETWEEN_LOOKS).await;
        owners = state.rollouts.store().trace_owners(traces.clone()).await?;
    }
    Ok(owners)
}

const LOOKS: u32 = 4;
const BETWEEN_LOOKS: Duration = Duration::from_millis(50);

/// Says whose a span is.
fn assign(span: &mut Span, named: &Named, caller: &Caller, owners: &HashMap<String, (RolloutId, AttemptId)>) {
    let given = |rollout: &String, attempt: Option<&String>| {
        let rollout = RolloutId::from(rollout.as_str());
        let attempt = attempt.map_or_else(|| AttemptId::default_of(&rollout), |attempt| attempt.as_str().into());
        (rollout, attempt)
    };
    let owner = match (&named.rollout, owners.get(&span.trace_id), &caller.rollout) {
        (Some(rollout), _, _) => given(rollout, named.attempt.as_ref().or(caller.attempt.as_ref())),
        (None, Some(owner), _) => owner.clone(),
        (None, None, Some(rollout)) => given(rollout, named.attempt.as_ref().or(caller.attempt.as_ref())),
        (None, None, None) => match caller.access.only() {
            Some(rollout) => given(rollout, named.attempt.as_ref()),
            None => (UNASSIGNED.into(), span.trace_id.as_str().into()),
        },
    };
    (span.rollout_id, span.attempt_id) = owner;
}

async fn number(state: &ApiState, span: &mut Span, given: Option<u64>) {
    if span.rollout_id.as_str() == UNASSIGNED {
        state.ingest.unassigned.fetch_add(1, Ordering::Relaxed);
    }
    span.sequence_id = match given {
        Some(given) => {
            state.sequences.raise(&span.rollout_id, given).await;
            given
        }
        None => state.sequences.next(&span.rollout_id).await,
    };
}

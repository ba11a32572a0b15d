//! Assigns the spans of an OTLP request to rollouts, numbers them and stores them.
//!
//! The rollout comes from, first match wins: the span's attributes, its resource's, the rollout that its trace belongs
//! to, the caller's `x-rollout-id`, a token for exactly one rollout. Spans without any are stored under the rollout
//! `unassigned` and counted. Spans that break the protocol are rejected with the reason, and the others stay.

use crate::api::access::CallerAccess;
use crate::api::state::ApiState;
use crate::rollout::RolloutError;
use crate::store::UNASSIGNED;
use crate::trace::{AttemptId, RolloutId, Span, check_id};
use crate::wire::otlp::{Attribution, DecodedSpan, PartialSuccess, TraceResponse};
use http::HeaderMap;
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
    /// An error, in words, if a field has an invalid id.
    pub(super) fn of(headers: &HeaderMap, access: CallerAccess) -> Result<Self, String> {
        let id = |name: &str| {
            let Some(value) = headers.get(name) else { return Ok(None) };
            let text = std::str::from_utf8(value.as_bytes()).map_err(|_| format!("{name}: an id must be UTF-8"))?;
            check_id(text).map_err(|error| format!("{name}: {error}"))?;
            Ok::<_, String>(Some(text.to_owned()))
        };
        Ok(Self { rollout: id("x-rollout-id")?, attempt: id("x-attempt-id")?, access })
    }
}

/// Stores the spans of a request. The response counts the rejected ones and names the reasons.
pub(super) async fn ingest(
    state: &ApiState,
    decoded: Vec<DecodedSpan>,
    caller: &Caller,
) -> Result<TraceResponse, RolloutError> {
    let (mut spans, mut rejected, mut reasons) = (Vec::new(), 0_i64, BTreeSet::new());
    for span in decoded {
        match span {
            Ok(span) => spans.push(span),
            Err(defect) => {
                rejected += 1;
                reasons.insert(defect.to_string());
            }
        }
    }
    let owners = owners(state, &spans, caller).await?;
    let mut accepted = Vec::with_capacity(spans.len());
    for (mut span, attribution) in spans {
        (span.rollout_id, span.attempt_id) = owner(&span.trace_id, &attribution, caller, &owners);
        let (rollout, attempt) = (span.rollout_id.as_str(), span.attempt_id.as_str());
        if let Some(error) = [rollout, attempt].into_iter().find_map(|id| check_id(id).err()) {
            rejected += 1;
            reasons.insert(error.to_string());
            continue;
        }
        if !caller.access.includes(rollout) || !caller.access.includes_attempt(attempt) {
            rejected += 1;
            reasons.insert("the token is not for this rollout or attempt".to_owned());
            continue;
        }
        state.adopt(&mut span);
        accepted.push((span, attribution.sequence_id));
    }
    number(state, &mut accepted).await;
    let ready: Vec<_> = accepted.into_iter().map(|(span, _)| Arc::new(span)).collect();
    let counters = &state.ingest;
    counters.rejected.fetch_add(rejected.unsigned_abs(), Ordering::Relaxed);
    if !ready.is_empty() {
        let accepted = ready.len() as u64;
        let unassigned = ready.iter().filter(|span| span.rollout_id.as_str() == UNASSIGNED).count() as u64;
        state.rollouts.append(ready).await?;
        counters.accepted.fetch_add(accepted, Ordering::Relaxed);
        counters.unassigned.fetch_add(unassigned, Ordering::Relaxed);
    }
    let partial_success = (rejected > 0).then(|| PartialSuccess {
        rejected_spans: rejected,
        error_message: reasons.into_iter().collect::<Vec<_>>().join("; "),
    });
    Ok(TraceResponse { partial_success })
}

/// Numbers spans: each as it requests, or else with the next id of its rollout. A store that assigns the ids does so once for all
/// spans of a rollout up to one that requests an id.
async fn number(state: &ApiState, spans: &mut [(Span, Option<u64>)]) {
    let mut runs: HashMap<RolloutId, Vec<usize>> = HashMap::new();
    for at in 0..spans.len() {
        let (span, requested) = &spans[at];
        let rollout = span.rollout_id.clone();
        let Some(requested) = *requested else {
            runs.entry(rollout).or_default().push(at);
            continue;
        };
        if let Some(run) = runs.remove(&rollout) {
            number_run(state, &rollout, &run, spans).await;
        }
        spans[at].0.sequence_id = state.sequences.claim(&rollout, requested).await;
    }
    for (rollout, run) in runs {
        number_run(state, &rollout, &run, spans).await;
    }
}

/// Numbers the spans at some places with the next ids of their rollout.
async fn number_run(state: &ApiState, rollout: &RolloutId, run: &[usize], spans: &mut [(Span, Option<u64>)]) {
    let ids = state.sequences.next_run(rollout, run.len() as u64).await;
    for (at, id) in run.iter().zip(ids) {
        spans[*at].0.sequence_id = id;
    }
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

/// The rollout and attempt that a span is stored under.
fn owner(
    trace_id: &str,
    attribution: &Attribution,
    caller: &Caller,
    owners: &HashMap<String, (RolloutId, AttemptId)>,
) -> (RolloutId, AttemptId) {
    let access = &caller.access;
    let attempt_of = |rollout: RolloutId, attempt: Option<&String>| {
        let of_key = access.only_attempt().filter(|_| access.only_rollout() == Some(rollout.as_str()));
        let named = attempt.map(String::as_str).or(of_key);
        let attempt = named.map_or_else(|| AttemptId::default_of(&rollout), AttemptId::from);
        (rollout, attempt)
    };
    // The caller's attempt is not one of another rollout.
    let callers_attempt = |rollout: &String| {
        let is_same = caller.rollout.as_ref().is_none_or(|named| named == rollout);
        caller.attempt.as_ref().filter(|_| is_same)
    };
    let attempt = attribution.attempt.as_ref();
    match (&attribution.rollout, owners.get(trace_id), &caller.rollout) {
        (Some(rollout), _, _) | (None, None, Some(rollout)) => {
            attempt_of(rollout.as_str().into(), attempt.or_else(|| callers_attempt(rollout)))
        }
        (None, Some(owner), _) => owner.clone(),
        (None, None, None) => match access.only_rollout() {
            Some(rollout) => attempt_of(rollout.into(), attempt),
            None => (UNASSIGNED.into(), trace_id.into()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_names_the_attempt_of_spans_that_name_only_its_rollout() {
        let access = CallerAccess::Key { rollout: "ro-1".to_owned(), attempt: Some("at-key".to_owned()) };
        let caller = Caller { rollout: None, attempt: None, access };
        for (rollout, attempt, expected) in [
            (None, None, "at-key"),
            (Some("ro-1"), None, "at-key"),
            (Some("ro-1"), Some("at-1"), "at-1"),
            (Some("ro-2"), None, AttemptId::default_of(&"ro-2".into()).as_str()),
        ] {
            let attribution = Attribution {
                rollout: rollout.map(str::to_owned),
                attempt: attempt.map(str::to_owned),
                sequence_id: None,
            };
            let (_, found) = owner("trace", &attribution, &caller, &HashMap::new());
            assert_eq!(found.as_str(), expected, "{rollout:?} {attempt:?}");
        }
    }

    #[test]
    fn the_callers_attempt_is_only_used_for_the_callers_rollout() {
        let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let owner = |rollout: &str, attempt: &str, callers_rollout: &str| {
            let attribution = Attribution { rollout: text(rollout), attempt: text(attempt), sequence_id: None };
            let access = CallerAccess::full();
            let caller = Caller { rollout: text(callers_rollout), attempt: text("at-caller"), access };
            let (rollout, attempt) = owner("trace", &attribution, &caller, &HashMap::new());
            (rollout.to_string(), attempt.to_string())
        };
        let default = AttemptId::default_of(&"ro-2".into()).to_string();
        for (rollout, attempt, callers_rollout, expected) in [
            ("", "", "ro-1", ("ro-1", "at-caller")),
            ("", "at-1", "ro-1", ("ro-1", "at-1")),
            ("ro-1", "", "ro-1", ("ro-1", "at-caller")),
            ("ro-2", "", "ro-1", ("ro-2", default.as_str())),
            ("ro-2", "at-2", "ro-1", ("ro-2", "at-2")),
            ("ro-2", "", "", ("ro-2", "at-caller")),
            ("", "", "", (UNASSIGNED, "trace")),
        ] {
            let expected = (expected.0.to_owned(), expected.1.to_owned());
            assert_eq!(owner(rollout, attempt, callers_rollout), expected, "{rollout} {attempt} {callers_rollout}");
        }
    }
}

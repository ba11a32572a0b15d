//! What the program counts, gathered from its parts for `/metrics`.

use crate::api::metrics::{Counts, Metric};
use crate::api::otlp::IngestCounters;
use crate::capture::Recorder;
use crate::gateway::Gateway;
use crate::llm::token_ids::TokenIdIssue;
use crate::pipeline::Pipeline;
use crate::proxy::CertificateRejections;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Reads the counters of all parts.
pub(super) fn counts(
    recorder: Recorder,
    pipeline: &Pipeline,
    distrust: Arc<CertificateRejections>,
    ingest: Arc<IngestCounters>,
    gateway: Gateway,
) -> Counts {
    let stored = Arc::clone(pipeline.counters());
    Arc::new(move || {
        let captured = recorder.counters();
        let counter = |name, help, value: &std::sync::atomic::AtomicU64| Metric {
            name,
            help,
            kind: "counter",
            reason: None,
            value: value.load(Ordering::Relaxed),
        };
        let unproved = TokenIdIssue::ALL.iter().zip(&stored.unproved).map(|(fault, count)| Metric {
            reason: Some(fault.as_str()),
            ..counter("token_ids_unproved_total", "Calls whose token ids are not proved, by reason.", count)
        });
        let gauge = |name, help, value: usize| Metric { name, help, kind: "gauge", reason: None, value: value as u64 };
        let (state, backends) = (gateway.gate().state(), gateway.backends().all());
        let healthy = backends.iter().filter(|backend| backend.is_healthy()).count();
        let mut all: Vec<Metric> = unproved.collect();
        all.extend([
            counter("exchanges_total", "Exchanges that are recorded.", &captured.begun),
            counter("exchanges_dropped_total", "Exchanges unrecorded because the queue was full.", &captured.dropped),
            counter("exchanges_filtered_total", "Exchanges unrecorded because a setting says so.", &captured.filtered),
            counter("bodies_truncated_total", "Bodies cut short in the record.", &captured.truncated),
            counter("commits_missed_total", "Answers delivered before their commit.", &captured.commit_missed),
            counter("identity_conflicts_total", "Exchanges named by two carriers.", &captured.identity_conflicts),
            counter("spans_stored_total", "Spans stored.", &stored.stored),
            counter("store_errors_total", "Appends the store refused, tried again.", &stored.store_errors),
            counter("spans_lost_total", "Spans lost.", &stored.lost),
            counter("spans_inferred_total", "Spans of tools, inferred from calls.", &stored.inferred),
            counter("otlp_spans_total", "Spans taken by OTLP.", &ingest.taken),
            counter("otlp_spans_rejected_total", "Spans refused by OTLP.", &ingest.rejected),
            counter("otlp_spans_unassigned_total", "Spans by OTLP of nobody's rollout.", &ingest.unassigned),
            counter("gateway_calls_total", "Calls of models at the gateway.", &gateway.counters().calls),
            counter(
                "gateway_refused_total",
                "Calls that the gateway itself answered with an error.",
                &gateway.counters().refused,
            ),
            counter(
                "gateway_failed_tries_total",
                "Tries of calls that were followed by another.",
                &gateway.counters().failed_tries,
            ),
            counter(
                "gateway_joined_total",
                "Agents' retries that got their first try's answer.",
                &gateway.counters().joined,
            ),
            counter(
                "gateway_rollouts_forgotten_total",
                "Idle rollouts that the gateway forgot because there were too many; their budgets start anew.",
                gateway.rollouts().forgotten(),
            ),
            gauge("gateway_in_flight", "Calls in flight.", state.inflight),
            gauge("gateway_paused", "1 while the gateway is paused.", usize::from(state.paused)),
            gauge("gateway_backends", "Model servers that are registered.", backends.len()),
            gauge("gateway_backends_healthy", "Those that are asked before others.", healthy),
            Metric {
                name: "certificates_refused_total",
                help: "Connections whose client refused our certificate.",
                kind: "counter",
                reason: None,
                value: distrust.refused(),
            },
            Metric {
                name: "capture_memory_left_bytes",
                help: "Left of capture.memory_budget_bytes.",
                kind: "gauge",
                reason: None,
                value: recorder.budget().left_bytes(),
            },
        ]);
        all
    })
}

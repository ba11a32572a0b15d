//! The metrics of all parts, for `GET /metrics`.

use crate::api::{IngestCounters, METRICS_PREFIX as PREFIX, MetricsSource, WarningsSource};
use crate::capture::{Memory, MemoryUse, Recorder};
use crate::filter::SpanFilter;
use crate::gateway::Gateway;
use crate::live_export::ExportCounters;
use crate::llm::token_ids::TokenIdIssue;
use crate::pipeline::{Pipeline, PipelineCounters};
use crate::proxy::CertificateRejections;
use crate::trace::metric::{Histogram, MetricLabel};
use crate::util::panics;
use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::registry::Registry;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The parts that count.
pub(super) struct Counted {
    pub(super) recorder: Recorder,
    pub(super) rejections: Arc<CertificateRejections>,
    pub(super) ingest: Arc<IngestCounters>,
    pub(super) gateway: Gateway,
    pub(super) exports: Vec<Arc<ExportCounters>>,
    pub(super) filter: SpanFilter,
}

impl Counted {
    /// Reads all parts each time it is called.
    pub(super) fn source(self, pipeline: &Pipeline) -> MetricsSource {
        let stored = Arc::clone(pipeline.counters());
        Arc::new(move |root| {
            // The names of OpenTelemetry's conventions have no prefix.
            for histogram in stored.gen_ai.snapshot() {
                let kind = histogram.kind;
                let unit = if kind.unit == "s" { "_seconds" } else { "" };
                let name = format!("{}{unit}", kind.name.replace('.', "_"));
                root.register(name, kind.description, ExportedHistogram(histogram));
            }
            let registry = root.sub_registry_with_prefix(PREFIX);
            let captured = self.recorder.counters();
            counter(registry, "exchanges", "Exchanges recorded", &captured.started);
            counter(registry, "exchanges_dropped", "Exchanges not recorded: the queue was full", &captured.dropped);
            counter(registry, "exchanges_waited", "Exchanges that waited for room in the queue", &captured.waited);
            // Read in this order: an exchange that ends meanwhile is in one of both.
            let help = "Exchanges that have not ended, without CONNECTs";
            gauge(registry, "exchanges_in_flight", help, captured.in_flight.count() as u64);
            let help = "Exchanges that have ended and of which spans are not stored yet";
            gauge(registry, "exchanges_unstored", help, captured.unstored.count() as u64);
            let help = "Exchanges that wait for room in the queue";
            gauge(registry, "exchanges_waiting", help, captured.waiting.load(Ordering::Relaxed));
            counter(
                registry,
                "exchanges_filtered",
                "Exchanges not recorded: a setting excludes them",
                &captured.filtered,
            );
            counter(registry, "bodies_truncated", "Bodies recorded in part", &captured.truncated);
            counter(registry, "commits_missed", "Responses delivered before their commit", &captured.commit_missed);
            let help = "Exchanges with two sources of identity that disagree";
            counter(registry, "identity_conflicts", help, &captured.identity_conflicts);
            memory(registry, self.recorder.memory());

            let help = "Panics, each a defect of Tracewire; the log has their places";
            registry.register("panics", help, ConstCounter::<u64>::new(panics::total()));

            counter(registry, "spans_stored", "Spans stored", &stored.stored);
            counter(registry, "store_errors", "Failed appends to the store; each is retried", &stored.store_errors);
            let help = "Spans that wait because the store fails";
            gauge(registry, "spans_unstored", help, stored.unstored.load(Ordering::Relaxed));
            counter(registry, "spans_lost", "Spans lost", &stored.lost);
            counter(registry, "spans_inferred", "Tool spans inferred from LLM calls", &stored.inferred);
            registry.register(
                "token_ids_unproved",
                "LLM calls with incomplete token ids, by reason",
                by_reason(&stored.token_id_issues),
            );
            let help = "Endpoints and backends that rejected a field that requests token ids; it is not added again";
            counter(registry, "token_ids_rejected", help, self.gateway.forwarder().engines().rejections());
            let latencies = &stored.latencies;
            for (name, help, histogram) in [
                (
                    "exchange_duration_seconds",
                    "From the request's head to the end of the response",
                    &latencies.exchange,
                ),
                (
                    "first_chunk_seconds",
                    "From the request's head to the response's first body byte",
                    &latencies.first_chunk,
                ),
                ("queue_wait_seconds", "From the end of an exchange until the pipeline takes it", &latencies.queue),
                ("store_append_seconds", "One append of spans to the store", &latencies.store),
            ] {
                registry.register(name, help, histogram.clone());
            }

            counter(registry, "otlp_spans", "Spans received by OTLP", &self.ingest.accepted);
            counter(registry, "otlp_spans_rejected", "Spans rejected by OTLP ingest", &self.ingest.rejected);
            let help = "Spans received by OTLP that belong to no rollout";
            counter(registry, "otlp_spans_unassigned", help, &self.ingest.unassigned);

            let calls = self.gateway.counters();
            counter(registry, "gateway_calls", "LLM calls at the gateway", &calls.calls);
            counter(
                registry,
                "gateway_refused",
                "Calls that the gateway itself responded to with an error",
                &calls.refused,
            );
            counter(registry, "gateway_failed_tries", "Requests to backends that were retried", &calls.failed_tries);
            let help = "Calls of which a translation left something out that has no effect on the response";
            counter(registry, "gateway_reduced", help, &calls.reduced);
            counter(registry, "gateway_joined", "Retries by agents that got the first try's response", &calls.joined);
            let help = "Calls sent without coalescing because too many responses are cached";
            counter(registry, "gateway_uncoalesced", help, self.gateway.uncoalesced());
            let help = "Stored responses that can no longer be continued";
            counter(registry, "gateway_responses_forgotten", help, self.gateway.forgotten_responses());
            let help = "Idle rollouts evicted from the gateway's table; their budgets start anew";
            counter(registry, "gateway_rollouts_forgotten", help, self.gateway.rollouts().forgotten());
            let (state, backends) = (self.gateway.gate().state(), self.gateway.backends().all());
            let healthy = backends.iter().filter(|backend| backend.is_healthy()).count();
            gauge(registry, "gateway_in_flight", "Calls in flight", state.inflight as u64);
            gauge(registry, "gateway_paused", "1 while the gateway is paused", u64::from(state.paused));
            gauge(registry, "gateway_backends", "Registered backends", backends.len() as u64);
            gauge(registry, "gateway_backends_healthy", "Healthy backends", healthy as u64);

            filtered(registry, &self.filter);
            exported(registry, &self.exports);

            let help = "Connections closed by clients that rejected Tracewire's certificate";
            registry.register("certificates_refused", help, ConstCounter::<u64>::new(self.rejections.count()));
        })
    }
}

/// A histogram in Prometheus' format.
#[derive(Debug)]
struct ExportedHistogram(Histogram);

impl EncodeMetric for ExportedHistogram {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), std::fmt::Error> {
        for (labels, values) in &self.0.points {
            let labels: Vec<(String, String)> = labels
                .iter()
                .map(|(name, label)| {
                    let text = match label {
                        MetricLabel::Text(text) => text.clone(),
                        MetricLabel::Int(number) => number.to_string(),
                    };
                    (name.replace('.', "_"), text)
                })
                .collect();
            let bounds = self.0.kind.bounds.iter().copied().chain([f64::INFINITY]);
            let buckets: Vec<(f64, u64)> = bounds.zip(values.buckets.iter().copied()).collect();
            let mut point = encoder.encode_family(&labels)?;
            point.encode_histogram::<NoLabelSet>(values.sum, values.count, &buckets, None)?;
        }
        Ok(())
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Histogram
    }
}

/// What is wrong with the recorder, and with this program, for `GET /readyz`.
pub(super) fn warnings(
    recorder: Recorder,
    stored: Arc<PipelineCounters>,
    gateway: Gateway,
    exports: Vec<Arc<ExportCounters>>,
) -> WarningsSource {
    Arc::new(move || {
        let unstored = stored.unstored.load(Ordering::Relaxed);
        let unstored = (unstored > 0).then(|| {
            format!("the store accepts no spans: {unstored} wait in memory and are retried; the log has the cause")
        });
        let panics = panics::places().into_iter().map(|place| place.to_string());
        let backends = gateway.backends().all();
        // `/readyz` needs no token, so that it names no backend.
        let (failing, all) = (backends.iter().filter(|backend| !backend.is_healthy()).count(), backends.len());
        let failing = (failing > 0).then(|| format!("calls to {failing} of {all} backends fail; the log names them"));
        let full = recorder.is_full().then(|| {
            let waiting = recorder.counters().waiting.load(Ordering::Relaxed);
            format!("the capture queue is full: {waiting} requests wait for room, and others pass unrecorded")
        });
        let failed: Vec<_> = exports.iter().filter(|export| export.is_failing()).collect();
        let waiting: u64 = failed.iter().map(|export| export.waiting.load(Ordering::Relaxed)).sum();
        let unexported = (!failed.is_empty()).then(|| {
            let (failed, all) = (failed.len(), exports.len());
            format!("{failed} of {all} exports fail, {waiting} spans wait in the store; the log names them")
        });
        let spilled = recorder.memory().spill().failure();
        unstored.into_iter().chain(spilled).chain(full).chain(panics).chain(failing).chain(unexported).collect()
    })
}

/// What the live exports have done, with the label `export`.
fn exported(registry: &mut Registry, exports: &[Arc<ExportCounters>]) {
    if exports.is_empty() {
        return;
    }
    let [sent, retried] = [(); 2].map(|()| Family::<[(&'static str, String); 1], Counter>::default());
    let waiting = Family::<[(&'static str, String); 1], Gauge>::default();
    let dropped = Family::<[(&'static str, String); 2], Counter>::default();
    for export in exports {
        let name = ("export", export.name.clone());
        let labels = [name.clone()];
        sent.get_or_create(&labels).inc_by(export.sent.load(Ordering::Relaxed));
        retried.get_or_create(&labels).inc_by(export.retried.load(Ordering::Relaxed));
        let left = i64::try_from(export.waiting.load(Ordering::Relaxed)).unwrap_or(i64::MAX);
        waiting.get_or_create(&labels).set(left);
        for (reason, spans) in export.dropped() {
            dropped.get_or_create(&[name.clone(), ("reason", reason)]).inc_by(spans);
        }
    }
    registry.register("export_sent", "What receivers of live exports have accepted", sent);
    registry.register("export_retried", "Requests of live exports that were sent again", retried);
    registry.register("export_waiting", "What is stored and waits for its live export", waiting);
    registry.register("export_dropped", "What a live export never sends, by reason", dropped);
}

/// What the limits of spans and rollouts left out.
fn filtered(registry: &mut Registry, filter: &SpanFilter) {
    let Some(counters) = filter.counters() else { return };
    let cut = Family::<[(&'static str, &'static str); 1], Counter>::default();
    for (part, count) in counters.cut() {
        cut.get_or_create(&[("part", part)]).inc_by(count);
    }
    registry.register("span_parts_cut", "Parts of spans that the span limits left out or shortened", cut);
    let not_stored = Family::<[(&'static str, String); 2], Counter>::default();
    for (cause, count) in counters.not_stored() {
        let labels = [("reason", cause.reason().to_owned()), ("rule", cause.rule().to_owned())];
        not_stored.get_or_create(&labels).inc_by(count);
    }
    registry.register("spans_not_stored", "Spans that are counted in their rollout instead of stored", not_stored);
}

/// The memory of everything in flight, and what was spilled to the disk.
fn memory(registry: &mut Registry, memory: &Memory) {
    let budget = memory.budget();
    let used = Family::<[(&'static str, &'static str); 1], Gauge>::default();
    for memory_use in MemoryUse::ALL {
        let bytes = i64::try_from(budget.used_for(memory_use)).unwrap_or(i64::MAX);
        used.get_or_create(&[("use", memory_use.as_str())]).set(bytes);
    }
    registry.register("memory_bytes", "Memory of exchanges in flight, by use", used);
    gauge(registry, "memory_peak_bytes", "Most memory of exchanges in flight at once", budget.peak_bytes());
    let help = "Unused part of capture.memory_budget_bytes";
    gauge(registry, "capture_memory_left_bytes", help, budget.left_bytes());
    let spill = memory.spill();
    gauge(registry, "spill_bytes", "Size of the spill file's blocks in use", spill.spilled_bytes());
    let total = ConstCounter::<u64>::new(spill.spilled_total());
    registry.register("spilled_bytes", "Bytes written to the spill file", total);
    let errors = ConstCounter::<u64>::new(spill.errors());
    registry.register("spill_errors", "Failed writes and reads of the spill file", errors);
}

fn counter(registry: &mut Registry, name: &str, help: &str, value: &AtomicU64) {
    registry.register(name, help, ConstCounter::<u64>::new(value.load(Ordering::Relaxed)));
}

fn gauge(registry: &mut Registry, name: &str, help: &str, value: u64) {
    registry.register(name, help, ConstGauge::<u64>::new(value));
}

/// One counter with the label `reason`; the numbers are in the order of [`TokenIdIssue::ALL`].
fn by_reason(counts: &[AtomicU64]) -> Family<[(&'static str, &'static str); 1], Counter> {
    let family = Family::<[(&'static str, &'static str); 1], Counter>::default();
    for (issue, count) in TokenIdIssue::ALL.iter().zip(counts) {
        family.get_or_create(&[("reason", issue.as_str())]).inc_by(count.load(Ordering::Relaxed));
    }
    family
}

//! `/metrics`: the counters of every part, in Prometheus' text format (version 0.0.4).

use super::ApiState;
use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use std::fmt::Write as _;
use std::sync::Arc;

/// One number with its name and meaning.
pub struct Metric {
    /// Without the `tracewire_` prefix.
    pub name: &'static str,
    /// One line for people.
    pub help: &'static str,
    /// `counter` or `gauge`.
    pub kind: &'static str,
    /// Its `reason` label, where one name has several numbers, which follow each other.
    pub reason: Option<&'static str>,
    /// Its value now.
    pub value: u64,
}

/// Reads all numbers now. `app` passes it in, so that this door need not know the other parts.
pub type Counts = Arc<dyn Fn() -> Vec<Metric> + Send + Sync>;

/// Answers with every metric.
pub async fn serve(State(state): State<ApiState>) -> impl IntoResponse {
    let mut metrics = (state.counts)();
    if let Ok(statistics) = state.rollouts.store().statistics().await {
        let gauge = |name, help, value| Metric { name, help, kind: "gauge", reason: None, value };
        metrics.push(gauge("store_spans", "Spans in the store.", statistics.spans));
        metrics.push(gauge("store_rollouts", "Rollouts in the store.", statistics.rollouts));
        metrics.push(gauge("store_waiting_spans", "Spans that wait for the store's server.", statistics.waiting));
        metrics.push(Metric {
            kind: "counter",
            ..gauge("store_refused_spans_total", "Spans lost that the store's server did not take.", statistics.refused)
        });
        metrics.push(gauge("store_size_bytes", "Bytes the store uses.", statistics.size_bytes));
    }
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text(&metrics))
}

fn text(metrics: &[Metric]) -> String {
    let (mut text, mut last) = (String::new(), "");
    for Metric { name, help, kind, reason, value } in metrics {
        // Writing to a String can't fail.
        if *name != last {
            let _ = writeln!(text, "# HELP tracewire_{name} {help}\n# TYPE tracewire_{name} {kind}");
        }
        let label = reason.map_or_else(String::new, |reason| format!("{{reason=\"{reason}\"}}"));
        let _ = writeln!(text, "tracewire_{name}{label} {value}");
        last = name;
    }
    text
}

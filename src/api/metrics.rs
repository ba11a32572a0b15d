//! `GET /metrics`: every counter, gauge and histogram of the process, in Prometheus' text format (version 0.0.4).

use super::state::ApiState;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use prometheus_client::encoding::prometheus_text::{CONTENT_TYPE, encode};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

/// Responds with every metric. The numbers of the store are absent while the store does not respond.
pub(super) async fn serve(State(state): State<ApiState>) -> Response {
    let mut root = Registry::default();
    (state.metrics)(&mut root);
    let registry = root.sub_registry_with_prefix(METRICS_PREFIX);
    if let Ok(statistics) = state.rollouts.store().statistics().await {
        let mut gauge = |name, help, value| registry.register(name, help, ConstGauge::<u64>::new(value));
        gauge("store_spans", "Spans in the store", statistics.spans);
        gauge("store_rollouts", "Rollouts in the store", statistics.rollouts);
        gauge("store_waiting_spans", "Spans in the spool until the store's server responds", statistics.waiting);
        gauge("store_size_bytes", "Bytes that the store uses", statistics.size_bytes);
        let help = "Spans lost because the store's server rejected them";
        registry.register("store_refused_spans", help, ConstCounter::<u64>::new(statistics.refused));
        let help = "Times that the store's file was found removed or replaced";
        registry.register("store_lost_files", help, ConstCounter::<u64>::new(statistics.lost_files));
        let help = "Spans that limits and prunes have removed from the store";
        registry.register("store_pruned_spans", help, ConstCounter::<u64>::new(statistics.pruned_spans));
        let help = "Rollouts that limits and prunes have removed from the store";
        registry.register("store_pruned_rollouts", help, ConstCounter::<u64>::new(statistics.pruned_rollouts));
        let help = "Reads of records that are damaged";
        registry.register("store_damaged_reads", help, ConstCounter::<u64>::new(statistics.damaged_reads));
    }
    let mut text = String::new();
    match encode(&mut text, &root) {
        Ok(()) => ([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

/// Of the names of all metrics that no convention names.
pub(crate) const METRICS_PREFIX: &str = "tracewire";

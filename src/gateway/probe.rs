//! Probes: asks each backend at intervals whether it is reachable, and which engine it is.
//!
//! A probe is `GET {base}/models`, which every supported engine has.

use super::backends::{Backend, ProbeResult};
use super::service::Gateway;
use super::settings::BackendEngine;
use crate::forward::{ModelList, model_list};
use crate::llm::api::models_path;
use crate::llm::engine::Engine;
use crate::upstream::PoolKey;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;

impl Gateway {
    /// Probes all backends every `probe_interval_ms`, and when one is registered, for as long as it runs. Returns at once
    /// if the interval is 0.
    pub(crate) async fn run_probes(self) {
        let interval = self.settings().probe_interval;
        if interval.is_zero() {
            return;
        }
        loop {
            let mut probes = JoinSet::new();
            for backend in self.backends().all().iter() {
                let (gateway, backend) = (self.clone(), Arc::clone(backend));
                probes.spawn(async move {
                    let result = tokio::time::timeout(PROBE_TIMEOUT, gateway.probe(&backend)).await;
                    backend.on_probe(result.unwrap_or(ProbeResult::Missed));
                });
            }
            probes.join_all().await;
            tokio::select! {
                () = tokio::time::sleep(interval) => {}
                () = self.registered().notified() => {}
            }
        }
    }

    /// Waits until a backend of unknown engine was asked for its list of models, for [`FIRST_PROBE_TIMEOUT`] at most.
    pub(super) async fn first_probe(&self, backend: &Backend) {
        if backend.engine() != BackendEngine::Auto || self.settings().probe_interval.is_zero() {
            return;
        }
        // Few calls wait here: the others do not carry the size of it.
        let probing = async { drop(tokio::time::timeout(FIRST_PROBE_TIMEOUT, Box::pin(self.probe(backend))).await) };
        Box::pin(backend.first_probe().get_or_init(|| probing)).await;
    }

    async fn probe(&self, backend: &Backend) -> ProbeResult {
        let path = format!("{}{}", backend.base_path, models_path());
        let upstream = self.forwarder().upstream();
        let list = model_list(upstream, &PoolKey::Gateway, &backend.origin, &path, backend.credential()).await;
        let Some(ModelList { status, body: models }) = list else { return ProbeResult::Missed };
        if let Some(engine) = Engine::of_models(&models) {
            backend.set_detected_engine(engine);
        }
        if let Some(tokens) = context_tokens(&models, &backend.model) {
            backend.set_context_tokens(tokens);
        }
        if status.is_server_error() { ProbeResult::Missed } else { ProbeResult::Answered }
    }
}

/// The context of a model in tokens (`max_model_len`), from a list of models: of the model with this name, or of the only one.
fn context_tokens(models: &[u8], model: &str) -> Option<u64> {
    let models: serde_json::Value = serde_json::from_slice(models).ok()?;
    let all = models.get("data")?.as_array()?;
    let named = all.iter().find(|one| one.get("id").and_then(serde_json::Value::as_str) == Some(model));
    named.or_else(|| all.first().filter(|_| all.len() == 1))?.get("max_model_len")?.as_u64()
}

const PROBE_TIMEOUT: Duration = Duration::from_secs(3);
/// How long the first calls to a backend wait at most.
const FIRST_PROBE_TIMEOUT: Duration = Duration::from_millis(500);

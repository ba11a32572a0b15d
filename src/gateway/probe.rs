//! Probes: asks each backend at intervals whether it is reachable, and which engine it is.
//!
//! A probe is `GET {base}/models`, which every supported engine has.

use super::backends::{Backend, ProbeResult};
use super::service::Gateway;
use crate::llm::api::models_path;
use crate::llm::engine::Engine;
use crate::tls::Offer;
use crate::upstream::{Body, PoolKey, body};
use http::{Method, Request};
use http_body_util::{BodyExt, Limited};
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

    async fn probe(&self, backend: &Backend) -> ProbeResult {
        let Some(request) = probe_request(backend) else { return ProbeResult::Missed };
        let origin = &backend.origin;
        let offer = if origin.tls { Offer::Http2OrHttp1 } else { Offer::Http1 };
        let sent = self.forwarder().upstream().send(request, &PoolKey::Gateway, origin, offer).await;
        let Ok(sent) = sent else { return ProbeResult::Missed };
        let status = sent.response.status();
        let models = Limited::new(sent.response.into_body(), MAX_RESPONSE_BYTES).collect().await;
        let models = models.map(|models| models.to_bytes()).unwrap_or_default();
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

/// `None` if the base URL and the path make no valid URL.
fn probe_request(backend: &Backend) -> Option<Request<Body>> {
    let origin = &backend.origin;
    let scheme = if origin.tls { "https" } else { "http" };
    let uri = format!("{scheme}://{}{}{}", origin.url_authority(), backend.base_path, models_path());
    let mut request = Request::new(body::empty());
    *request.method_mut() = Method::GET;
    *request.uri_mut() = uri.parse().ok()?;
    request.headers_mut().extend(backend.credential());
    Some(request)
}

const PROBE_TIMEOUT: Duration = Duration::from_secs(3);
/// A longer list of models counts as an empty one: the engine stays unknown.
const MAX_RESPONSE_BYTES: usize = 1 << 20;

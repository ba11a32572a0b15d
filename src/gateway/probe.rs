//! Asks backends now and then whether they are there, and what they are.
//!
//! `GET {base}/models` is what every one of them answers; vLLM, SGLang and llama.cpp name themselves in it.

use super::Gateway;
use super::backends::Backend;
use crate::llm::api::models_path;
use crate::llm::engine::Engine;
use crate::tls::Offer;
use crate::upstream::{PoolKey, body};
use http::{HeaderValue, Method, Request, header};
use http_body_util::{BodyExt, Limited};
use std::sync::Arc;
use std::time::Duration;

impl Gateway {
    /// Asks for as long as it runs; at once when somebody was registered.
    pub async fn probe(self) {
        let every = self.settings().probe_interval;
        if every.is_zero() {
            return;
        }
        loop {
            let mut asking = tokio::task::JoinSet::new();
            for backend in self.backends().all().iter() {
                let (gateway, backend) = (self.clone(), Arc::clone(backend));
                asking.spawn(async move {
                    let answer = tokio::time::timeout(PROBE_TIMEOUT, gateway.ask(&backend)).await;
                    backend.probed(answer.is_ok_and(|there| there));
                });
            }
            asking.join_all().await;
            tokio::select! {
                () = tokio::time::sleep(every) => {}
                () = self.registered().notified() => {}
            }
        }
    }

    /// True when it answers.
    async fn ask(&self, backend: &Arc<Backend>) -> bool {
        let origin = &backend.origin;
        let scheme = if origin.tls { "https" } else { "http" };
        let uri = format!("{scheme}://{}{}{}", super::shown(origin), backend.base_path, models_path());
        let mut request = Request::new(body::empty());
        *request.method_mut() = Method::GET;
        let Ok(uri) = uri.parse() else { return false };
        *request.uri_mut() = uri;
        let key = backend.key();
        if !key.is_empty()
            && let Ok(mut value) = HeaderValue::from_str(&format!("Bearer {}", key.expose()))
        {
            value.set_sensitive(true);
            request.headers_mut().insert(header::AUTHORIZATION, value);
        }
        let offer = if origin.tls { Offer::Http2OrHttp1 } else { Offer::Http1 };
        let sent = self.forwarder().upstream().send(request, &PoolKey::Gateway, origin, offer).await;
        let Ok(sent) = sent else { return false };
        let status = sent.response.status();
        let answer = Limited::new(sent.response.into_body(), MAX_ANSWER_BYTES).collect().await;
        let answer = answer.map(|answer| answer.to_bytes()).unwrap_or_default();
        if let Some(engine) = Engine::of_models(&answer) {
            backend.learned(engine);
        }
        !status.is_server_error()
    }
}

const PROBE_TIMEOUT: Duration = Duration::from_secs(3);
const MAX_ANSWER_BYTES: usize = 1 << 20;

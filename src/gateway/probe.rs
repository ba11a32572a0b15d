//! Asks backends now and then whether they are there, and what they are.
//!
//! `GET {base}/models` is what every one of them answers; vLLM, SGLang and llama.cpp name themselves in it.

use super::Gateway;
use super::backends::Backend;
use super::settings::BackendEngine;
use crate::tls::Offer;
use crate::upstream::{PoolKey, body};
use http::{HeaderValue, Method, Request, header};
use http_body_util::{BodyExt, Limited};
use serde_json::Value as JsonValue;
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
        let uri = format!("{scheme}://{}{}/models", super::shown(origin), backend.base_path);
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
        if let Some(engine) = engine_of(&answer) {
            backend.learned(engine);
        }
        !status.is_server_error()
    }
}

/// What a list of models says of its server.
fn engine_of(answer: &[u8]) -> Option<BackendEngine> {
    let list: JsonValue = serde_json::from_slice(answer).ok()?;
    match list.get("data")?.get(0)?.get("owned_by")?.as_str()? {
        "vllm" => Some(BackendEngine::Vllm),
        "sglang" => Some(BackendEngine::Sglang),
        "llamacpp" => Some(BackendEngine::LlamaCpp),
        "openai" | "system" => Some(BackendEngine::OpenAi),
        _ => None,
    }
}

const PROBE_TIMEOUT: Duration = Duration::from_secs(3);
const MAX_ANSWER_BYTES: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn engines_name_themselves() {
        for (owner, expected) in
            [("vllm", Some(BackendEngine::Vllm)), ("sglang", Some(BackendEngine::Sglang)), ("me", None)]
        {
            let answer = serde_json::json!({ "data": [{ "id": "m", "owned_by": owner }] }).to_string();
            assert_eq!(engine_of(answer.as_bytes()), expected);
        }
        assert_eq!(engine_of(b"<html>"), None);
    }
}

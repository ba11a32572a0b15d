//! The first look at an endpoint: which engine serves there, so that it is asked for token ids from its second call on.
//!
//! The first call of a model passes as it is, and beside it the endpoint is asked for its list of models, once. Later calls
//! wait until that has ended, for [`LOOK_TIMEOUT`] at most. An engine that its list does not show is detected from its
//! responses.

use super::forwarder::Forwarder;
use super::model_list::model_list;
use crate::llm::api::models_path_beside;
use crate::llm::engine::Engine;
use crate::llm::provider::is_model_service;
use crate::net::task::spawn;
use crate::shared_state::FirstLook;
use crate::upstream::{Origin, PoolKey};
use http::header;
use http::request::Parts;
use std::time::Duration;

impl Forwarder {
    /// Begins the first look at the endpoint of a call, or waits until it has ended.
    pub(super) async fn look_at(&self, origin: &Origin, request: &Parts) {
        let path = request.uri.path();
        if is_model_service(&origin.host) || !self.tokens.depends_on_engine(origin, request) {
            return;
        }
        match self.engines.first_look(&origin.host, origin.port) {
            FirstLook::Done => {}
            FirstLook::Others(ended) => ended.cancelled().await,
            FirstLook::Ours(ends) => {
                let Some(path) = models_path_beside(path) else { return };
                // It goes where the call goes.
                let credential = request.headers.get(header::AUTHORIZATION).cloned();
                let credential = credential.map(|credential| (header::AUTHORIZATION, credential));
                let (forwarder, origin) = (self.clone(), origin.clone());
                drop(spawn(async move {
                    let (upstream, key) = (&forwarder.upstream, PoolKey::unpooled());
                    let list = model_list(upstream, &key, &origin, &path, credential);
                    let list = tokio::time::timeout(LOOK_TIMEOUT, list).await.ok().flatten();
                    let engine = list.and_then(|list| Engine::of_models(&list.body));
                    // Of any other, a response may show more: what lists the models need not be what serves them.
                    if let Some(engine) = engine.filter(|engine| engine.gives_token_ids()) {
                        forwarder.engines.detected(&origin.host, origin.port, engine);
                    }
                    drop(ends);
                }));
            }
        }
    }
}

/// How long the second call of an endpoint waits at most.
const LOOK_TIMEOUT: Duration = Duration::from_millis(500);

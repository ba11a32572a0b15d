//! Which engine serves at which endpoint, as detected from its responses: later requests ask it for token ids.
//!
//! An endpoint that rejects the added fields is never asked again while the process runs. Bounded: further endpoints are
//! not noted, so nothing is added to their requests.

use crate::llm::engine::Engine;
use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

/// Engines by host and port.
#[derive(Clone, Debug, Default)]
pub(crate) struct DetectedEngines(Arc<RwLock<HashMap<(String, u16), Engine>>>);

impl DetectedEngines {
    /// The engine at an endpoint. None if it was not detected.
    pub(crate) fn at(&self, host: &str, port: u16) -> Option<Engine> {
        let engines = self.0.read().unwrap_or_else(PoisonError::into_inner);
        if engines.is_empty() { None } else { engines.get(&(host.to_owned(), port)).copied() }
    }

    /// Notes the engine of a response. The first one that was detected at an endpoint stays.
    pub(crate) fn detected(&self, host: &str, port: u16, engine: Engine) {
        if self.at(host, port).is_some() {
            return;
        }
        let mut engines = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if engines.len() < MAX_ENDPOINTS {
            engines.insert((host.to_owned(), port), engine);
            tracing::info!(host, port, ?engine, "engine detected; its token ids are requested from now on");
        }
    }

    /// Notes that the endpoint rejected the fields that were added to a request: none are added from now on, unless
    /// `tokens.engines` names the host.
    pub(crate) fn rejected_token_ids(&self, host: &str, port: u16) {
        let mut engines = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(engine) = engines.get_mut(&(host.to_owned(), port))
            && *engine != Engine::OTHER
        {
            tracing::warn!(host, port, ?engine, "the endpoint rejected a request for token ids; no more are requested");
            *engine = Engine::OTHER;
        }
    }
}

const MAX_ENDPOINTS: usize = 4096;

//! Which engine serves which endpoint, as its answers gave away.
//!
//! What is written here decides what later requests ask for, so one refusal ends it for as long as the program runs.

use crate::llm::engine::Engine;
use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

/// What is known of endpoints; copies share it.
#[derive(Clone, Debug, Default)]
pub struct Engines(Arc<RwLock<HashMap<(String, u16), Engine>>>);

impl Engines {
    /// The engine at an endpoint, if it is known.
    pub fn at(&self, host: &str, port: u16) -> Option<Engine> {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        if known.is_empty() { None } else { known.get(&(host.to_owned(), port)).copied() }
    }

    /// An answer showed what serves there.
    pub fn saw(&self, host: &str, port: u16, engine: Engine) {
        if self.at(host, port).is_some() {
            return;
        }
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if known.len() < MAX_ENDPOINTS {
            known.insert((host.to_owned(), port), engine);
            tracing::info!(host, port, ?engine, "token ids are asked for here from now on");
        }
    }

    /// A request to which something was added was refused there: nothing is asked for any more, unless settings say so.
    pub fn refused(&self, host: &str, port: u16) {
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(engine) = known.get_mut(&(host.to_owned(), port))
            && *engine != Engine::OTHER
        {
            tracing::warn!(
                host,
                port,
                ?engine,
                "a request with token ids asked for was refused; no more are asked for"
            );
            *engine = Engine::OTHER;
        }
    }
}

/// Endpoints beyond it are not remembered.
const MAX_ENDPOINTS: usize = 4096;

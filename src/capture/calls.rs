//! Which span recorded which answer of a model, by the answer's id: an agent's own tracer may record the same call.
//!
//! The newest are remembered, in a bounded number; what is not remembered is not linked.

use crate::trace::RolloutId;
use crate::trace::span::SpanContext;
use crate::util::lru::{LruCache, lru};
use std::sync::{Arc, Mutex, PoisonError};

/// What is remembered; copies share it.
#[derive(Clone, Debug)]
pub struct Calls(Arc<Mutex<LruCache<(RolloutId, String), SpanContext>>>);

impl Default for Calls {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(lru(MAX_REMEMBERED))))
    }
}

impl Calls {
    /// A call was recorded by this span.
    pub fn saw(&self, rollout: &RolloutId, response_id: &str, span: &SpanContext) {
        let key = (rollout.clone(), response_id.to_owned());
        self.0.lock().unwrap_or_else(PoisonError::into_inner).put(key, span.clone());
    }

    /// The span that recorded the call with this answer.
    pub fn of(&self, rollout: &RolloutId, response_id: &str) -> Option<SpanContext> {
        let key = (rollout.clone(), response_id.to_owned());
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned()
    }
}

const MAX_REMEMBERED: usize = 16 * 1024;

//! Which span recorded which response of a model, by the response's id: an agent's own tracer may export the same call.
//!
//! Bounded: the least recently used responses are forgotten, and their calls are not linked.

use crate::trace::RolloutId;
use crate::trace::span::SpanContext;
use crate::util::lru::{LruCache, lru};
use std::sync::{Arc, Mutex, PoisonError};

/// Spans by rollout and response id.
#[derive(Clone, Debug)]
pub(crate) struct RecordedCalls(Arc<Mutex<LruCache<(RolloutId, String), SpanContext>>>);

impl Default for RecordedCalls {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(lru(MAX_RESPONSES))))
    }
}

impl RecordedCalls {
    /// Notes that `span` recorded the response with this id.
    pub(crate) fn insert(&self, rollout: &RolloutId, response_id: &str, span: &SpanContext) {
        let key = (rollout.clone(), response_id.to_owned());
        self.0.lock().unwrap_or_else(PoisonError::into_inner).put(key, span.clone());
    }

    /// The span that recorded the response with this id. None if there is none, or it was forgotten.
    pub(crate) fn span_of(&self, rollout: &RolloutId, response_id: &str) -> Option<SpanContext> {
        let key = (rollout.clone(), response_id.to_owned());
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned()
    }
}

const MAX_RESPONSES: usize = 16 * 1024;

//! Which span recorded which answer of a model, by the answer's id: an agent's own tracer may record the same call.
//!
//! The newest are remembered, in a bounded number; what is not remembered is not linked.

use crate::trace::RolloutId;
use crate::trace::span::SpanContext;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

/// What is remembered; copies share it.
#[derive(Clone, Debug, Default)]
pub struct Calls(Arc<Mutex<Recent>>);

#[derive(Debug, Default)]
struct Recent {
    spans: HashMap<(RolloutId, String), SpanContext>,
    order: VecDeque<(RolloutId, String)>,
}

impl Calls {
    /// A call was recorded by this span.
    pub fn saw(&self, rollout: &RolloutId, response_id: &str, span: &SpanContext) {
        let key = (rollout.clone(), response_id.to_owned());
        let mut recent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if recent.spans.insert(key.clone(), span.clone()).is_none() {
            recent.order.push_back(key);
        }
        if recent.order.len() > MOST_REMEMBERED
            && let Some(oldest) = recent.order.pop_front()
        {
            recent.spans.remove(&oldest);
        }
    }

    /// The span that recorded the call with this answer.
    pub fn of(&self, rollout: &RolloutId, response_id: &str) -> Option<SpanContext> {
        let recent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        recent.spans.get(&(rollout.clone(), response_id.to_owned())).cloned()
    }
}

const MOST_REMEMBERED: usize = 16 * 1024;

//! What all routes of the mock share: its options and the requests it received.

use super::options::MockOptions;
use serde_json::Value as JsonValue;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

/// Clones share the requests.
#[derive(Clone)]
pub(super) struct MockState {
    pub(super) options: MockOptions,
    /// The last [`MAX_RECORDED`] requests, oldest first.
    requests: Arc<Mutex<VecDeque<JsonValue>>>,
}

impl MockState {
    pub(super) fn new(options: MockOptions) -> Self {
        Self { options, requests: Arc::default() }
    }

    /// Adds a request; at the bound the oldest one is dropped.
    pub(super) fn record(&self, request: JsonValue) {
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        if requests.len() == MAX_RECORDED {
            requests.pop_front();
        }
        requests.push_back(request);
    }

    pub(super) fn requests(&self) -> Vec<JsonValue> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    pub(super) fn clear_requests(&self) {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

const MAX_RECORDED: usize = 1000;

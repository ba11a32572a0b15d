//! What the mock answered in the responses API, for requests that refer to its items. The least recently used of
//! [`MAX_RESPONSES`] is forgotten.

use crate::llm::translate::{answered_response, find_item, input_items, output_items, response_of_item, with_input};
use crate::util::lru::{LruCache, lru};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Responses as JSON, by their id. Clones are the same responses.
#[derive(Clone)]
pub(super) struct AnsweredResponses(Arc<Mutex<LruCache<String, String>>>);

impl Default for AnsweredResponses {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(lru(MAX_RESPONSES))))
    }
}

impl AnsweredResponses {
    /// Keeps a response: its body, or the last events of a streamed one.
    pub(super) fn add(&self, answer: &[u8]) {
        if let Some(answer) = answered_response(answer) {
            self.lock().put(answer.id, answer.json);
        }
    }

    /// The request with the items that it refers to; an error if one is not known.
    pub(super) fn complete(&self, body: &[u8]) -> Result<Vec<u8>, String> {
        let items = input_items(body, |item| self.item(item)).map_err(|error| error.to_string())?;
        Ok(if items.is_empty() { body.to_vec() } else { with_input(body, &items) })
    }

    fn item(&self, id: &str) -> Option<String> {
        let response = self.lock().get(response_of_item(id)?).cloned()?;
        find_item(output_items(&response), id)
    }

    fn lock(&self) -> MutexGuard<'_, LruCache<String, String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const MAX_RESPONSES: usize = 1024;

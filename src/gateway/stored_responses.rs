//! Responses that the gateway gave in OpenAI's responses API, for requests that continue one by its id
//! (`previous_response_id`) or refer to an item of one. A backend that has only chat completions stores none.
//!
//! A response is known to its own rollout only. Bound: `stored_responses` of them, and `stored_response_bytes` of all their
//! items; the least recently used is forgotten, and a request that continues it is refused. Turns that several responses
//! have in common are held once.

use super::settings::GatewaySettings;
use crate::error::{ErrorKind, ProxyError};
use crate::llm::translate::{NOT_REMEMBERED, answered_items, find_item, input_items, response_of_item};
use crate::trace::RolloutId;
use crate::util::lru::{LruCache, lru};
use crate::wire::json_edit::{Object, edited};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The stored responses. Cheap to clone; clones are the same store.
#[derive(Clone)]
pub(super) struct StoredResponses(Arc<Shared>);

struct Shared {
    /// By rollout and response id.
    responses: Mutex<LruCache<(RolloutId, String), StoredResponse>>,
    /// Bytes of the turns that are alive.
    bytes: Arc<AtomicUsize>,
    max_bytes: usize,
    forgotten: AtomicU64,
}

/// The turns up to and with a response.
type Turns = Vec<Arc<Turn>>;

enum StoredResponse {
    Turns(Turns),
    /// The backend gave several responses this id.
    Ambiguous,
}

/// The items of a request and its response, with commas between them.
struct Turn {
    items: String,
    bytes: Arc<AtomicUsize>,
}

impl Turn {
    fn new(items: String, bytes: &Arc<AtomicUsize>) -> Self {
        bytes.fetch_add(items.len(), Ordering::Relaxed);
        Self { items, bytes: Arc::clone(bytes) }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.bytes.fetch_sub(self.items.len(), Ordering::Relaxed);
    }
}

/// A request that waits for its response. Both are stored when the response is complete.
pub(super) struct UnansweredRequest {
    store: StoredResponses,
    rollout: RolloutId,
    before: Turns,
    items: String,
}

/// A request with everything that it refers to.
pub(super) struct SelfContained {
    /// The body, if it is not the client's.
    pub(super) body: Option<Vec<u8>>,
    /// `None`: its response is not stored.
    pub(super) request: Option<UnansweredRequest>,
}

impl StoredResponses {
    pub(super) fn new(settings: &GatewaySettings) -> Self {
        let (max_bytes, max_entries) = (settings.stored_response_bytes, settings.stored_responses);
        Self(Arc::new(Shared {
            responses: Mutex::new(lru(max_entries)),
            bytes: Arc::default(),
            max_bytes: if max_entries == 0 { 0 } else { max_bytes },
            forgotten: AtomicU64::new(0),
        }))
    }

    /// Responses that were forgotten because of the bounds.
    pub(super) fn forgotten(&self) -> &AtomicU64 {
        &self.0.forgotten
    }

    /// Puts what a request refers to into its body: the conversation before it, and items.
    pub(super) fn complete(&self, rollout: &RolloutId, body: &[u8]) -> Result<SelfContained, ProxyError> {
        let Some(object) = Object::find(body) else { return Ok(SelfContained { body: None, request: None }) };
        let field = |name: &str| object.value(name).filter(|value| *value != b"null");
        if field("input").is_some_and(|input| !input.starts_with(b"\"") && !input.starts_with(b"[")) {
            // It is refused where it is read.
            return Ok(SelfContained { body: None, request: None });
        }
        let previous = field("previous_response_id").map(serde_json::from_slice::<String>);
        let before = match previous {
            None => Vec::new(),
            Some(Ok(id)) => self.turns(rollout, &id)?,
            Some(Err(_)) => return Err(refused("previous_response_id must be a text")),
        };
        let items = input_items(body, |item| self.item(rollout, item)).map_err(|error| refused(&error.to_string()))?;
        let refers = !before.is_empty() || memchr::memmem::find(body, b"\"id\"").is_some();
        let new_body = refers.then(|| {
            let turns = before.iter().map(|turn| turn.items.as_str()).chain([items.as_str()]);
            let input: Vec<&str> = turns.filter(|items| !items.is_empty()).collect();
            edited(body, &object.set(&[("input".to_owned(), format!("[{}]", input.join(",")))]))
        });
        let is_stored = self.0.max_bytes > 0 && field("store") != Some(b"false");
        let request =
            is_stored.then(|| UnansweredRequest { store: self.clone(), rollout: rollout.clone(), before, items });
        Ok(SelfContained { body: new_body, request })
    }

    fn turns(&self, rollout: &RolloutId, id: &str) -> Result<Turns, ProxyError> {
        match self.responses().get(&(rollout.clone(), id.to_owned())) {
            Some(StoredResponse::Turns(turns)) => Ok(turns.clone()),
            Some(StoredResponse::Ambiguous) => {
                Err(refused(&format!("the backend gave several responses the id {id} (previous_response_id)")))
            }
            None => Err(refused(&format!("the response {id} (previous_response_id) {NOT_REMEMBERED}"))),
        }
    }

    fn item(&self, rollout: &RolloutId, item: &str) -> Option<String> {
        let turns = self.turns(rollout, response_of_item(item)?).ok()?;
        find_item(&turns.last()?.items, item)
    }

    fn insert(&self, rollout: RolloutId, id: String, turns: Turns) {
        let mut responses = self.responses();
        let key = (rollout, id);
        let response = if responses.contains(&key) { StoredResponse::Ambiguous } else { StoredResponse::Turns(turns) };
        let mut forgotten = u64::from(responses.push(key.clone(), response).is_some_and(|(evicted, _)| evicted != key));
        while self.0.bytes.load(Ordering::Relaxed) > self.0.max_bytes && responses.pop_lru().is_some() {
            forgotten += 1;
        }
        self.0.forgotten.fetch_add(forgotten, Ordering::Relaxed);
    }

    fn responses(&self) -> MutexGuard<'_, LruCache<(RolloutId, String), StoredResponse>> {
        self.0.responses.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl UnansweredRequest {
    /// Stores the response, if these bytes end one: a whole body, or the last events of a stream.
    pub(super) fn answered(self, response: &[u8]) {
        let Some(answer) = answered_items(response) else { return };
        let mut items = self.items;
        if !items.is_empty() && !answer.items.is_empty() {
            items.push(',');
        }
        items.push_str(&answer.items);
        let mut turns = self.before;
        turns.push(Arc::new(Turn::new(items, &self.store.0.bytes)));
        self.store.insert(self.rollout, answer.id, turns);
    }
}

fn refused(cause: &str) -> ProxyError {
    ProxyError::new(ErrorKind::PreviousResponseNotFound, "", cause)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store(stored_responses: usize, stored_response_bytes: usize) -> StoredResponses {
        StoredResponses::new(&GatewaySettings { stored_responses, stored_response_bytes, ..GatewaySettings::default() })
    }

    /// Sends a request, which gets a response with this id. Returns the input of the request.
    fn turn(store: &StoredResponses, rollout: &str, body: &str, id: &str) -> Result<String, String> {
        let complete = store.complete(&rollout.into(), body.as_bytes()).map_err(|error| error.cause)?;
        let response = format!(r#"{{"id":"{id}","output":[{{"id":"msg_{id}_0","text":"{id}"}}]}}"#);
        if let Some(request) = complete.request {
            request.answered(response.as_bytes());
        }
        let sent = String::from_utf8(complete.body.unwrap_or_else(|| body.as_bytes().to_vec())).unwrap();
        let json: serde_json::Value = serde_json::from_str(&sent).unwrap();
        Ok(json["input"].to_string())
    }

    #[test]
    fn a_conversation_is_continued_within_its_rollout() {
        let store = store(9, 9999);
        assert_eq!(turn(&store, "ro", r#"{"input":"a"}"#, "1").unwrap(), r#""a""#);
        let second = r#"{"input":"b","previous_response_id":"1"}"#;
        let history = r#"{"role":"user","content":"a"},{"id":"msg_1_0","text":"1"}"#;
        let input = format!(r#"[{history},{{"role":"user","content":"b"}}]"#);
        assert_eq!(turn(&store, "ro", second, "2").unwrap(), input);
        // The same response may be continued again.
        assert_eq!(turn(&store, "ro", second, "3").unwrap(), input);
        let referring = r#"{"input":[{"type":"item_reference","id":"msg_2_0"}]}"#;
        assert_eq!(turn(&store, "ro", referring, "4").unwrap(), r#"[{"id":"msg_2_0","text":"2"}]"#);
        for (rollout, body) in [("other", second), ("other", referring), ("ro", r#"{"previous_response_id":"5"}"#)] {
            assert!(turn(&store, rollout, body, "x").unwrap_err().contains(NOT_REMEMBERED));
        }
        assert!(turn(&store, "ro", r#"{"previous_response_id":1}"#, "x").unwrap_err().contains("must be a text"));
        turn(&store, "ro", r#"{"input":"another"}"#, "1").unwrap();
        assert!(turn(&store, "ro", second, "x").unwrap_err().contains("several responses"));
        turn(&store, "ro", r#"{"input":"a","store":false}"#, "unstored").unwrap();
        assert!(turn(&store, "ro", r#"{"previous_response_id":"unstored"}"#, "x").is_err());
    }

    #[test]
    fn it_is_bounded_in_responses_and_bytes() {
        for (store, kept) in [(store(3, 9999), 3), (store(999, 500), 8), (store(0, 999), 0), (store(9, 0), 0)] {
            let mut forgotten = 0;
            for id in 0..100 {
                turn(&store, "ro", r#"{"input":"a"}"#, &format!("{id:02}")).unwrap();
                assert!(store.0.bytes.load(Ordering::Relaxed) <= 500);
                forgotten = store.forgotten().load(Ordering::Relaxed);
            }
            assert_eq!(store.responses().len(), kept);
            assert_eq!(forgotten, if kept == 0 { 0 } else { 100 - kept as u64 });
            store.responses().clear();
            assert_eq!(store.0.bytes.load(Ordering::Relaxed), 0);
        }
        // One that is larger than the bound is not kept.
        let store = store(9, 100);
        turn(&store, "ro", &format!(r#"{{"input":"{}"}}"#, "x".repeat(200)), "1").unwrap();
        assert_eq!((store.responses().len(), store.0.bytes.load(Ordering::Relaxed)), (0, 0));
    }
}

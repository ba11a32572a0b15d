//! Responses that the gateway gave in OpenAI's responses API, for requests that continue one by its id
//! (`previous_response_id`), refer to an item of one, or read one. A backend that has only chat completions stores none.
//!
//! A response is known to its own rollout only. Bound: `stored_responses` of them, and `stored_response_bytes` of them and
//! their requests, those in flight included; the least recently used is forgotten, and a request that continues it is refused.
//! If those in flight alone exceed the bound, their responses are not stored. Turns that several responses have in common are
//! held once.

use super::settings::GatewaySettings;
use crate::error::{ErrorKind, ProxyError};
use crate::llm::translate::{
    NOT_REMEMBERED, answered_response, find_item, input_items, output_items, response_of_item, with_input,
};
use crate::trace::RolloutId;
use crate::util::lru::{LruCache, lru};
use crate::wire::json_edit::Object;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The stored responses. Cheap to clone; clones are the same store.
#[derive(Clone)]
pub(super) struct StoredResponses(Arc<Shared>);

struct Shared {
    /// By rollout and response id.
    responses: Mutex<LruCache<(RolloutId, String), StoredResponse>>,
    /// Bytes of the texts that are alive.
    bytes: Arc<AtomicUsize>,
    max_bytes: usize,
    forgotten: AtomicU64,
}

enum StoredResponse {
    Turn(Arc<Turn>),
    /// The backend gave several responses this id.
    Ambiguous,
}

/// A request and its response.
struct Turn {
    /// The turn that the request continues.
    before: Option<Arc<Self>>,
    /// The items of the request, with commas between them.
    items: CountedText,
    /// The response as JSON.
    response: CountedText,
}

/// One after the other: a conversation may be too long for a recursion.
impl Drop for Turn {
    fn drop(&mut self) {
        let mut before = self.before.take();
        while let Some(mut turn) = before.and_then(Arc::into_inner) {
            before = turn.before.take();
        }
    }
}

/// A text that is counted as long as it is held.
struct CountedText {
    text: String,
    bytes: Arc<AtomicUsize>,
}

impl CountedText {
    fn new(text: String, bytes: &Arc<AtomicUsize>) -> Self {
        bytes.fetch_add(text.len(), Ordering::Relaxed);
        Self { text, bytes: Arc::clone(bytes) }
    }
}

impl Drop for CountedText {
    fn drop(&mut self) {
        self.bytes.fetch_sub(self.text.len(), Ordering::Relaxed);
    }
}

/// A request that waits for its response. Both are stored when the response is complete.
pub(super) struct UnansweredRequest {
    store: StoredResponses,
    rollout: RolloutId,
    before: Option<Arc<Turn>>,
    items: CountedText,
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

    /// Responses that were forgotten, or not stored, because of the bounds.
    pub(super) fn forgotten(&self) -> &AtomicU64 {
        &self.0.forgotten
    }

    /// A response as JSON, as its client got it. `None`: it is not known to this rollout, or several have this id.
    pub(super) fn read(&self, rollout: &RolloutId, id: &str) -> Option<String> {
        Some(self.turn(rollout, id).ok()?.response.text.clone())
    }

    /// Forgets a response. False if it is not known to this rollout.
    pub(super) fn delete(&self, rollout: &RolloutId, id: &str) -> bool {
        // It is dropped after the lock is released.
        let deleted = self.responses().pop(&(rollout.clone(), id.to_owned()));
        deleted.is_some()
    }

    /// Puts what a request refers to into its body: the conversation before it, and items.
    pub(super) fn complete(&self, rollout: &RolloutId, body: &[u8]) -> Result<SelfContained, ProxyError> {
        let Some(object) = Object::find(body) else { return Ok(SelfContained { body: None, request: None }) };
        let field = |name: &str| object.value(name).filter(|value| *value != b"null");
        if field("input").is_some_and(|input| !input.starts_with(b"\"") && !input.starts_with(b"[")) {
            // It is refused where it is read.
            return Ok(SelfContained { body: None, request: None });
        }
        let before = match field("previous_response_id").map(serde_json::from_slice::<String>) {
            None => None,
            Some(Ok(id)) => Some(self.turn(rollout, &id)?),
            Some(Err(_)) => {
                return Err(ProxyError::new(ErrorKind::CallMalformed, "", "previous_response_id must be a text"));
            }
        };
        let items = input_items(body, |item| self.item(rollout, item)).map_err(|error| refused(&error.to_string()))?;
        let refers = before.is_some() || memchr::memmem::find(body, b"\"id\"").is_some();
        let new_body = refers.then(|| {
            let mut input = history(before.as_deref());
            push_items(&mut input, &items);
            with_input(body, &input)
        });
        let is_stored = self.0.max_bytes > 0 && field("store") != Some(b"false");
        let request = is_stored.then(|| UnansweredRequest {
            store: self.clone(),
            rollout: rollout.clone(),
            before,
            items: CountedText::new(items, &self.0.bytes),
        });
        Ok(SelfContained { body: new_body, request: request.filter(|_| self.make_room()) })
    }

    fn turn(&self, rollout: &RolloutId, id: &str) -> Result<Arc<Turn>, ProxyError> {
        match self.responses().get(&(rollout.clone(), id.to_owned())) {
            Some(StoredResponse::Turn(turn)) => Ok(Arc::clone(turn)),
            Some(StoredResponse::Ambiguous) => {
                Err(refused(&format!("the backend gave several responses the id {id} (previous_response_id)")))
            }
            None => Err(refused(&format!("the response {id} (previous_response_id) {NOT_REMEMBERED}"))),
        }
    }

    fn item(&self, rollout: &RolloutId, item: &str) -> Option<String> {
        let turn = self.turn(rollout, response_of_item(item)?).ok()?;
        find_item(output_items(&turn.response.text), item)
    }

    fn insert(&self, rollout: RolloutId, id: String, turn: Turn) {
        let key = (rollout, id);
        {
            let mut responses = self.responses();
            let is_known = responses.contains(&key);
            let response = if is_known { StoredResponse::Ambiguous } else { StoredResponse::Turn(Arc::new(turn)) };
            let evicted = responses.push(key.clone(), response).is_some_and(|(evicted, _)| evicted != key);
            self.0.forgotten.fetch_add(u64::from(evicted), Ordering::Relaxed);
        }
        self.make_room();
    }

    /// Forgets responses until the bound holds. False if it does not: the rest is in flight.
    fn make_room(&self) -> bool {
        let is_full = || self.0.bytes.load(Ordering::Relaxed) > self.0.max_bytes;
        let mut responses = self.responses();
        while is_full() && responses.pop_lru().is_some() {
            self.0.forgotten.fetch_add(1, Ordering::Relaxed);
        }
        let has_room = !is_full();
        self.0.forgotten.fetch_add(u64::from(!has_room), Ordering::Relaxed);
        has_room
    }

    fn responses(&self) -> MutexGuard<'_, LruCache<(RolloutId, String), StoredResponse>> {
        self.0.responses.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl UnansweredRequest {
    /// Stores the response, if these bytes end one: a whole body, or the last events of a stream.
    pub(super) fn answered(self, response: &[u8]) {
        let Some(answer) = answered_response(response) else { return };
        let response = CountedText::new(answer.json, &self.store.0.bytes);
        let turn = Turn { before: self.before, items: self.items, response };
        self.store.insert(self.rollout, answer.id, turn);
    }
}

/// The items of a conversation up to this turn, with commas between them.
fn history(last: Option<&Turn>) -> String {
    let mut turns: Vec<&Turn> = std::iter::successors(last, |turn| turn.before.as_deref()).collect();
    turns.reverse();
    let mut items = String::new();
    for turn in turns {
        push_items(&mut items, &turn.items.text);
        push_items(&mut items, output_items(&turn.response.text));
    }
    items
}

fn push_items(list: &mut String, items: &str) {
    if !list.is_empty() && !items.is_empty() {
        list.push(',');
    }
    list.push_str(items);
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
    fn a_response_is_read_and_deleted_within_its_rollout() {
        let store = store(9, 9999);
        turn(&store, "ro", r#"{"input":"a"}"#, "1").unwrap();
        turn(&store, "ro", r#"{"input":"b","previous_response_id":"1"}"#, "2").unwrap();
        let first = r#"{"id":"1","output":[{"id":"msg_1_0","text":"1"}]}"#;
        assert_eq!(store.read(&"ro".into(), "1").as_deref(), Some(first));
        assert_eq!(store.read(&"other".into(), "1"), None);
        assert!(!store.delete(&"other".into(), "1") && store.delete(&"ro".into(), "1"));
        assert!(!store.delete(&"ro".into(), "1") && store.read(&"ro".into(), "1").is_none());
        // What continues it keeps it.
        let third = turn(&store, "ro", r#"{"input":"c","previous_response_id":"2"}"#, "3").unwrap();
        assert!(third.contains("msg_1_0"), "{third}");
    }

    #[test]
    fn requests_in_flight_are_counted() {
        let store = store(9, 200);
        turn(&store, "ro", r#"{"input":"a"}"#, "1").unwrap();
        let long = format!(r#"{{"input":"{}"}}"#, "x".repeat(120));
        let first = store.complete(&"ro".into(), long.as_bytes()).unwrap();
        assert!(first.request.is_some() && store.read(&"ro".into(), "1").is_none());
        // There is no room for the next one, as long as the first has no answer.
        let next = || store.complete(&"ro".into(), long.as_bytes()).unwrap().request;
        assert!(next().is_none());
        drop(first);
        assert!(next().is_some());
        assert_eq!((store.forgotten().load(Ordering::Relaxed), store.0.bytes.load(Ordering::Relaxed)), (2, 0));
    }

    #[test]
    fn a_long_conversation_is_forgotten_at_once() {
        let store = store(1, 1 << 30);
        for id in 0..100_000_u32 {
            let before = id.checked_sub(1).and_then(|before| store.turn(&"ro".into(), &before.to_string()).ok());
            let items = CountedText::new(String::new(), &store.0.bytes);
            let request = UnansweredRequest { store: store.clone(), rollout: "ro".into(), before, items };
            request.answered(format!(r#"{{"id":"{id}"}}"#).as_bytes());
        }
        assert!(store.delete(&"ro".into(), "99999"));
        assert_eq!(store.0.bytes.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn it_is_bounded_in_responses_and_bytes() {
        for (store, kept) in [(store(3, 9999), 3), (store(999, 500), 6), (store(0, 999), 0), (store(9, 0), 0)] {
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

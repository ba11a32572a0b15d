//! Requests that clients send again because no answer reached them: done once.
//!
//! Agent Lightning's client repeats what is not idempotent (a rollout is enqueued, an id is given out) with the same
//! body. What was asked by somebody who left before the answer is finished all the same, and its answer waits a while for
//! the same question. With an `Idempotency-Key` (draft-ietf-httpapi-idempotency-key-header) it waits in any case.

use aws_lc_rs::digest::{Context, SHA256};
use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// Answers that wait for their question to be asked again. Copies share them.
#[derive(Clone, Default)]
pub(super) struct Waiting(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    // The same question may be asked by several at once: each has an entry of its own.
    entries: HashMap<Key, Vec<Entry>>,
    last_number: u64,
    swept: Option<Instant>,
}

type Key = [u8; 32];

struct Entry {
    number: u64,
    since: Instant,
    // By an `Idempotency-Key`.
    is_named: bool,
    // The next who asks takes this one: the question is named, or whoever asked has left without an answer.
    takes: bool,
    answer: watch::Receiver<Option<Kept>>,
}

/// An answer, kept.
#[derive(Clone)]
struct Kept {
    status: StatusCode,
    kind: Option<HeaderValue>,
    body: Bytes,
}

impl Waiting {
    /// Runs a request, or gives the answer to the same one from before.
    pub(super) async fn run(self, request: Request, next: Next) -> Response {
        if request.method() != Method::POST || !is_repeated(request.uri().path()) {
            return next.run(request).await;
        }
        let (parts, body) = request.into_parts();
        let Ok(body) = to_bytes(body, super::settings::MAX_BODY_BYTES).await else {
            return (StatusCode::PAYLOAD_TOO_LARGE, "the body is too large\n").into_response();
        };
        let key = key_of(parts.uri.path(), &parts.headers, &body);
        if let Some((mut answer, gone)) = self.take(&key) {
            let kept = answer.wait_for(Option::is_some).await.ok().and_then(|kept| kept.clone());
            gone.delivered(kept.as_ref());
            if let Some(kept) = kept {
                return kept.into_response();
            }
        }
        let (sender, answer) = watch::channel(None);
        let gone = self.put(key, parts.headers.contains_key("idempotency-key"), answer);
        // In a task of its own: it is finished whether or not the one who asks waits for it.
        let running = tokio::spawn(async move {
            let kept = Kept::of(next.run(Request::from_parts(parts, Body::from(body))).await).await;
            let _ = sender.send(Some(kept.clone()));
            kept
        });
        let kept = running.await;
        gone.delivered(kept.as_ref().ok());
        match kept {
            Ok(kept) => kept.into_response(),
            Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        }
    }

    /// The answer to a question that was asked before, if nobody else takes it.
    fn take(&self, key: &Key) -> Option<(watch::Receiver<Option<Kept>>, Gone)> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = |entry: &&mut Entry| entry.takes && entry.since.elapsed() < KEPT_FOR;
        let entry = state.entries.get_mut(key)?.iter_mut().find(fresh)?;
        entry.takes = entry.is_named;
        let gone =
            Gone { waiting: self.clone(), key: *key, number: entry.number, is_named: entry.is_named, delivered: false };
        Some((entry.answer.clone(), gone))
    }

    fn put(&self, key: Key, is_named: bool, answer: watch::Receiver<Option<Kept>>) -> Gone {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.swept.is_none_or(|swept| swept.elapsed() > BETWEEN_SWEEPS) {
            state.swept = Some(Instant::now());
            state.entries.retain(|_, entries| {
                entries.retain(|entry| entry.since.elapsed() < KEPT_FOR);
                !entries.is_empty()
            });
        }
        state.last_number += 1;
        let number = state.last_number;
        if state.entries.len() < MAX_KEPT {
            let entry = Entry { number, since: Instant::now(), is_named, takes: is_named, answer };
            state.entries.entry(key).or_default().push(entry);
        }
        Gone { waiting: self.clone(), key, number, is_named, delivered: false }
    }
}

/// Marks an answer as one that nobody got, unless somebody did.
struct Gone {
    waiting: Waiting,
    key: Key,
    number: u64,
    is_named: bool,
    delivered: bool,
}

impl Gone {
    /// Somebody has the answer: without a name it waits for nobody else, and neither does one that may be better next time.
    fn delivered(mut self, kept: Option<&Kept>) {
        self.delivered = true;
        if self.is_named && kept.is_some_and(|kept| !kept.status.is_server_error()) {
            return;
        }
        let mut state = self.waiting.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entries) = state.entries.get_mut(&self.key) {
            entries.retain(|entry| entry.number != self.number);
            if entries.is_empty() {
                state.entries.remove(&self.key);
            }
        }
    }
}

impl Drop for Gone {
    fn drop(&mut self) {
        if self.delivered {
            return;
        }
        let mut state = self.waiting.0.lock().unwrap_or_else(PoisonError::into_inner);
        let entries = state.entries.get_mut(&self.key).into_iter().flatten();
        entries.filter(|entry| entry.number == self.number).for_each(|entry| entry.takes = true);
    }
}

impl Kept {
    async fn of(response: Response) -> Self {
        let (parts, body) = response.into_parts();
        let body = to_bytes(body, usize::MAX).await.unwrap_or_default();
        Self { status: parts.status, kind: parts.headers.get(header::CONTENT_TYPE).cloned(), body }
    }
}

impl IntoResponse for Kept {
    fn into_response(self) -> Response {
        let mut response = (self.status, self.body).into_response();
        if let Some(kind) = self.kind {
            response.headers_mut().insert(header::CONTENT_TYPE, kind);
        }
        response
    }
}

/// What Agent Lightning's client sends again though it is not idempotent.
fn is_repeated(path: &str) -> bool {
    let Some(path) = path.strip_prefix("/v1/agl") else { return false };
    matches!(path, "/queues/rollouts/enqueue" | "/rollouts" | "/spans/next" | "/resources")
        || (path.starts_with("/rollouts/") && path.ends_with("/attempts"))
}

fn key_of(path: &str, headers: &HeaderMap, body: &[u8]) -> Key {
    let mut context = Context::new(&SHA256);
    for name in ["idempotency-key", "authorization", "x-api-key"] {
        context.update(headers.get(name).map_or(b"", HeaderValue::as_bytes));
        context.update(b"\n");
    }
    context.update(path.as_bytes());
    context.update(b"\n");
    context.update(body);
    let mut key = [0; 32];
    key.copy_from_slice(context.finish().as_ref());
    key
}

/// Clients try again after 1, 2 and 5 seconds, and after timeouts of 30.
const KEPT_FOR: Duration = Duration::from_secs(90);
const BETWEEN_SWEEPS: Duration = Duration::from_secs(5);
const MAX_KEPT: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;
    use axum::Router;
    use axum::middleware::from_fn;
    use axum::routing::post;
    use std::sync::atomic::{AtomicU64, Ordering};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::sync::Semaphore;

    #[tokio::test]
    async fn what_nobody_got_the_answer_of_is_not_done_again() {
        let (begun, go_on, done) =
            (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)), Arc::new(AtomicU64::new(0)));
        let (began, released, counted) = (Arc::clone(&begun), Arc::clone(&go_on), Arc::clone(&done));
        let handler = move || async move {
            began.add_permits(1);
            released.acquire().await.unwrap().forget();
            format!("answer {}", counted.fetch_add(1, Ordering::Relaxed) + 1)
        };
        let waiting = Waiting::default();
        let router = Router::new()
            .route("/v1/agl/rollouts", post(handler))
            .layer(from_fn(move |request, next| waiting.clone().run(request, next)));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, router).await });
        let ask = async || {
            let mut stream = TcpStream::connect(address).await.unwrap();
            let request =
                b"POST /v1/agl/rollouts HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}";
            stream.write_all(request).await.unwrap();
            stream
        };
        let answer = async |mut stream: TcpStream| {
            let mut text = String::new();
            stream.read_to_string(&mut text).await.unwrap();
            text.split("\r\n\r\n").nth(1).unwrap().to_owned()
        };
        let leaves = ask().await;
        begun.acquire().await.unwrap().forget();
        drop(leaves);
        // Nobody waits for the first any more once a second one is not run.
        let again = loop {
            let again = ask().await;
            tokio::select! {
                // It was run: the server has not noticed yet that the first has left. This one leaves too.
                begun = begun.acquire() => begun.unwrap().forget(),
                () = tokio::time::sleep(Duration::from_millis(200)) => break again,
            }
        };
        go_on.add_permits(10);
        let first = answer(again).await;
        assert!(first.starts_with("answer "), "{first}");
        let runs = done.load(Ordering::Relaxed);
        let other = answer(ask().await).await;
        assert_eq!(
            (done.load(Ordering::Relaxed), other),
            (runs + 1, format!("answer {}", runs + 1)),
            "it was taken once"
        );
    }
}

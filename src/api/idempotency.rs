//! Retried requests without an idempotent method: executed once.
//!
//! Agent Lightning's client repeats such requests (one that enqueues a rollout, or allocates an id) with the same body. A
//! request continues when its client disconnects, and its response is kept for the retry. With an `Idempotency-Key`
//! (draft-ietf-httpapi-idempotency-key-header) the response is kept in any case, and every retry gets it.

use super::respond::ApiError;
use super::settings::MAX_BODY_BYTES;
use crate::llm::api::api_key;
use crate::net::task::spawn;
use aws_lc_rs::digest::{Context, SHA256};
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// Responses that wait for a retry. Clones share them.
///
/// Holds at most [`MAX_ENTRIES`] different requests, each for [`RETENTION`]. Above that, requests are executed without an
/// entry, so that a retry is executed again.
#[derive(Clone, Default)]
pub(super) struct IdempotencyCache(Arc<Mutex<Entries>>);

#[derive(Default)]
struct Entries {
    // Several clients may send equal requests without a key at once: each has an entry of its own.
    by_request: HashMap<RequestDigest, Vec<Entry>>,
    last_number: u64,
    swept: Option<Instant>,
}

/// SHA-256 over the idempotency key, the caller's token, the path and the body.
type RequestDigest = [u8; 32];

struct Entry {
    number: u64,
    since: Instant,
    retries: Retries,
    // True when the next equal request gets this response instead of being executed.
    is_claimable: bool,
    response: watch::Receiver<Option<CachedResponse>>,
}

/// The requests that count as retries of a request.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Retries {
    /// All with the same `Idempotency-Key`.
    ByKey,
    /// One equal request, if the client of the first disconnected before its response.
    AfterDisconnect,
}

#[derive(Clone)]
struct CachedResponse {
    status: StatusCode,
    content_type: Option<HeaderValue>,
    body: Bytes,
}

/// Middleware: executes a request, or returns the response of the request that it repeats.
pub(super) async fn deduplicate(State(cache): State<IdempotencyCache>, request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    let Ok(body) = to_bytes(body, MAX_BODY_BYTES).await else {
        return (StatusCode::PAYLOAD_TOO_LARGE, "the body is too large\n").into_response();
    };
    let digest = digest_of(parts.uri.path(), &parts.headers, &body);
    if let Some((mut response, delivery)) = cache.claim(&digest) {
        let cached = response.wait_for(Option::is_some).await.ok().and_then(|cached| cached.clone());
        delivery.complete(cached.as_ref());
        if let Some(cached) = cached {
            return cached.into_response();
        }
    }
    let (sender, response) = watch::channel(None);
    let has_key = parts.headers.contains_key(IDEMPOTENCY_KEY);
    let retries = if has_key { Retries::ByKey } else { Retries::AfterDisconnect };
    let delivery = cache.insert(digest, retries, response);
    // A task of its own continues when the client disconnects.
    let execution = spawn(async move {
        let response = next.run(Request::from_parts(parts, Body::from(body))).await;
        let cached = CachedResponse::of(response).await;
        let _ = sender.send(Some(cached.clone()));
        cached
    });
    let cached = execution.await.ok().and_then(Result::ok);
    delivery.complete(cached.as_ref());
    cached.map_or_else(|| ApiError::Internal.into_response(), IntoResponse::into_response)
}

impl IdempotencyCache {
    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The response of an earlier request that this one repeats.
    fn claim(&self, digest: &RequestDigest) -> Option<(watch::Receiver<Option<CachedResponse>>, Delivery)> {
        let mut entries = self.entries();
        let is_usable = |entry: &&mut Entry| entry.is_claimable && entry.since.elapsed() < RETENTION;
        let entry = entries.by_request.get_mut(digest)?.iter_mut().find(is_usable)?;
        entry.is_claimable = entry.retries == Retries::ByKey;
        let (number, retries) = (entry.number, entry.retries);
        let delivery = Delivery { cache: self.clone(), digest: *digest, number, retries, is_complete: false };
        Some((entry.response.clone(), delivery))
    }

    fn insert(
        &self,
        digest: RequestDigest,
        retries: Retries,
        response: watch::Receiver<Option<CachedResponse>>,
    ) -> Delivery {
        let mut entries = self.entries();
        if entries.swept.is_none_or(|swept| swept.elapsed() > SWEEP_INTERVAL) {
            entries.swept = Some(Instant::now());
            entries.by_request.retain(|_, equal| {
                equal.retain(|entry| entry.since.elapsed() < RETENTION);
                !equal.is_empty()
            });
        }
        entries.last_number += 1;
        let number = entries.last_number;
        if entries.by_request.len() < MAX_ENTRIES {
            let is_claimable = retries == Retries::ByKey;
            let entry = Entry { number, since: Instant::now(), retries, is_claimable, response };
            entries.by_request.entry(digest).or_default().push(entry);
        }
        Delivery { cache: self.clone(), digest, number, retries, is_complete: false }
    }
}

/// The delivery of a response to the client. Dropped before [`Self::complete`], because the client disconnected, it
/// leaves the response to a retry.
struct Delivery {
    cache: IdempotencyCache,
    digest: RequestDigest,
    number: u64,
    retries: Retries,
    is_complete: bool,
}

impl Delivery {
    /// The client has the response. Without a key it is not kept for others; neither is a server error, because the next
    /// execution may succeed.
    fn complete(mut self, response: Option<&CachedResponse>) {
        self.is_complete = true;
        if self.retries == Retries::ByKey && response.is_some_and(|response| !response.status.is_server_error()) {
            return;
        }
        let mut entries = self.cache.entries();
        if let Some(equal) = entries.by_request.get_mut(&self.digest) {
            equal.retain(|entry| entry.number != self.number);
            if equal.is_empty() {
                entries.by_request.remove(&self.digest);
            }
        }
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        if self.is_complete {
            return;
        }
        let mut entries = self.cache.entries();
        let equal = entries.by_request.get_mut(&self.digest).into_iter().flatten();
        equal.filter(|entry| entry.number == self.number).for_each(|entry| entry.is_claimable = true);
    }
}

impl CachedResponse {
    async fn of(response: Response) -> Self {
        let (parts, body) = response.into_parts();
        // A handler's response is in memory already.
        let body = to_bytes(body, usize::MAX).await.unwrap_or_default();
        Self { status: parts.status, content_type: parts.headers.get(header::CONTENT_TYPE).cloned(), body }
    }
}

impl IntoResponse for CachedResponse {
    fn into_response(self) -> Response {
        let mut response = (self.status, self.body).into_response();
        if let Some(content_type) = self.content_type {
            response.headers_mut().insert(header::CONTENT_TYPE, content_type);
        }
        response
    }
}

fn digest_of(path: &str, headers: &HeaderMap, body: &[u8]) -> RequestDigest {
    let mut context = Context::new(&SHA256);
    let idempotency_key = headers.get(IDEMPOTENCY_KEY).map_or(b"".as_slice(), HeaderValue::as_bytes);
    for line in [idempotency_key, api_key(headers).unwrap_or_default().as_bytes(), path.as_bytes()] {
        context.update(line);
        context.update(b"\n");
    }
    context.update(body);
    let mut digest = [0; 32];
    digest.copy_from_slice(context.finish().as_ref());
    digest
}

const IDEMPOTENCY_KEY: &str = "idempotency-key";
/// Agent Lightning's client retries after 1, 2 and 5 seconds, and its requests time out after 30.
const RETENTION: Duration = Duration::from_secs(90);
const SWEEP_INTERVAL: Duration = Duration::from_secs(5);
const MAX_ENTRIES: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;
    use axum::Router;
    use axum::middleware::from_fn_with_state;
    use axum::routing::post;
    use hyper::service::Service;
    use hyper_util::service::TowerToHyperService;
    use std::sync::atomic::{AtomicU64, Ordering};
    use tokio::sync::Semaphore;

    #[test]
    fn requests_of_different_callers_are_different() {
        let digest = |name: &'static str, value: &'static str| {
            digest_of("/", &HeaderMap::from_iter([(name.parse().unwrap(), HeaderValue::from_static(value))]), b"{}")
        };
        for name in ["x-api-key", "api-key", "x-goog-api-key", IDEMPOTENCY_KEY] {
            assert_ne!(digest(name, "a"), digest(name, "b"), "{name}");
        }
        assert_ne!(digest("authorization", "Bearer a"), digest("authorization", "Bearer b"));
    }

    #[tokio::test]
    async fn a_request_with_an_undelivered_response_is_not_executed_again() {
        let (started, released) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
        let executions = Arc::new(AtomicU64::new(0));
        let (start, release, count) = (Arc::clone(&started), Arc::clone(&released), Arc::clone(&executions));
        let handler = move || async move {
            start.add_permits(1);
            release.acquire().await.unwrap().forget();
            format!("response {}", count.fetch_add(1, Ordering::Relaxed) + 1)
        };
        let deduplicated = from_fn_with_state(IdempotencyCache::default(), deduplicate);
        let router = TowerToHyperService::new(Router::new().route("/", post(handler)).layer(deduplicated));
        let call = || router.call(Request::post("/").body(Body::from("{}")).unwrap());
        let text = async |response: Response| {
            let body = to_bytes(response.into_body(), 100).await.unwrap();
            String::from_utf8(body.to_vec()).unwrap()
        };
        // The first client disconnects while its request is executed.
        let first = tokio::spawn(call());
        started.acquire().await.unwrap().forget();
        first.abort();
        assert!(first.await.unwrap_err().is_cancelled());
        // Its retry gets the response of that execution.
        let retry = tokio::spawn(call());
        released.add_permits(10);
        assert_eq!(text(retry.await.unwrap().unwrap()).await, "response 1");
        // An equal request after that is another one.
        assert_eq!(text(call().await.unwrap()).await, "response 2");
        assert_eq!(executions.load(Ordering::Relaxed), 2);
    }
}

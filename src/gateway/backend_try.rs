//! One request to one backend: sent, recorded, and judged by whether another try may succeed.

use super::backend_request::{BackendRequest, ResponseHandling};
use super::backend_response::{BackendResponse, ResponseReading, is_event_stream};
use super::backends::Backend;
use super::call::GatewayCall;
use super::deliver::MAX_TRANSLATED_BYTES;
use super::response_bodies::BackendBody;
use super::routing::ApiSurface;
use super::service::{Gateway, increment};
use crate::capture::{Recording, TeeBody, VersionChange};
use crate::error::{ErrorKind, ProxyError, Side};
use crate::forward::{record_response, response_error};
use crate::llm::token_ids::rejected_fields;
use crate::net::within;
use crate::tls::Offer;
use crate::trace::exchange::{Direction, RequestHead};
use crate::upstream::{IdleLimited, PoolKey, Sent, body};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri, Version, header};
use http_body_util::{BodyExt, Collected, Limited};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

/// One request to one backend.
pub(super) struct BackendTry<'a> {
    pub(super) call: &'a GatewayCall,
    pub(super) backend: Arc<Backend>,
    pub(super) request: BackendRequest,
    /// The number of earlier tries of the call.
    pub(super) number: u32,
    /// Those of them that reached no backend.
    pub(super) unreached: u32,
    /// True if another backend of the model was not tried yet, since all were.
    pub(super) leaves_untried: bool,
    /// The version of the backend's weights when the request is sent.
    pub(super) version: i64,
    pub(super) started: Instant,
}

/// Why there is no response to deliver.
pub(super) enum TryFailure {
    /// Another try may succeed. `retry_after` is the wait that the backend asked for.
    Retryable { retry_after: Option<Duration> },
    /// No connection to the backend could be made. Another try may succeed.
    Unreachable,
    /// The backend rejected the request, and named these of the fields that only Tracewire asks for.
    InjectionRefused(Vec<&'static str>),
    /// No try is left, or none can succeed.
    Final(ProxyError),
}

impl Gateway {
    /// Sends a request, and waits for the beginning of the response for up to `try_timeout_ms`.
    pub(super) async fn try_backend(&self, one_try: &BackendTry<'_>) -> Result<BackendResponse, TryFailure> {
        one_try.record_request();
        let timeout = self.settings().try_timeout;
        match within(timeout, Box::pin(self.request_beginning(one_try))).await {
            Some(result) => result,
            None => {
                let timeout_ms = timeout.as_millis();
                let cause = format!("no response began within {timeout_ms} ms (gateway.try_timeout_ms)");
                let host = one_try.backend.origin.url_authority();
                self.fail_try(one_try, ProxyError::new(ErrorKind::HttpResponseTimeout, host, cause))
            }
        }
    }

    async fn request_beginning(&self, one_try: &BackendTry<'_>) -> Result<BackendResponse, TryFailure> {
        let sent = match self.send_request(one_try).await {
            Ok(sent) => sent,
            Err(error) => return self.fail_try(one_try, error),
        };
        let sent = self.check_status(one_try, sent).await?;
        let recording = &one_try.call.exchange.recording;
        let (response, lease) = record_response(recording, sent);
        let (parts, body) = response.into_parts();
        let body = BackendBody {
            inner: IdleLimited::new(body, lease, self.settings().idle_timeout),
            backend: Arc::clone(&one_try.backend),
            version: one_try.version,
            is_stream: is_event_stream(&parts.headers),
            has_begun: false,
            recording: recording.clone(),
            must_end: one_try.call.must_end(),
        };
        let response = match BackendResponse::read(parts, body, self.reading(one_try)).await {
            Ok(response) => response,
            Err(error) => return self.fail_try(one_try, error),
        };
        let rejected = one_try.rejected_fields(&response);
        if !rejected.is_empty() {
            recording.discard_response();
            let cause = "the backend rejected the fields that request token ids";
            self.record_failed_try(one_try).fail(&ProxyError::new(ErrorKind::BackendAnswerUnread, "", cause));
            return Err(TryFailure::InjectionRefused(rejected));
        }
        // On the routes of Agent Lightning 1.0 the agent gets such a response.
        if response.is_meaningless_success() && one_try.call.route.surface != ApiSurface::V1 {
            let cause = format!("the backend responded {} with neither JSON nor events", response.status());
            let host = one_try.backend.origin.url_authority();
            return self.fail_try(one_try, ProxyError::new(ErrorKind::BackendAnswerUnread, host, cause));
        }
        Ok(response)
    }

    fn reading(&self, one_try: &BackendTry<'_>) -> ResponseReading<'_> {
        let is_passed_on = matches!(one_try.request.handling, ResponseHandling::PassOn);
        ResponseReading {
            memory: self.forwarder().memory(),
            changes: one_try.request.changes(),
            always_bytes: if is_passed_on { 0 } else { MAX_TRANSLATED_BYTES },
        }
    }

    async fn send_request(&self, one_try: &BackendTry<'_>) -> Result<Sent, ProxyError> {
        let origin = &one_try.backend.origin;
        let (head, host) = (one_try.head(), origin.url_authority());
        let uri = Uri::builder()
            .scheme(head.scheme)
            .authority(host.as_str())
            .path_and_query(head.target.as_str())
            .build()
            .map_err(|error| ProxyError::from_source(ErrorKind::ProxyInternalError, host, &error))?;
        let sent = one_try.request.sent_body();
        let mut request = Request::new(body::boxed(sent.body()));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = uri;
        *request.headers_mut() = one_try.request.headers.clone();
        request.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(sent.len()));
        let offer = if origin.tls { Offer::Http2OrHttp1 } else { Offer::Http1 };
        self.forwarder().upstream().send(request, &PoolKey::Gateway, origin, offer).await
    }

    /// Returns the response, unless its status is temporary and there is another try.
    async fn check_status(&self, one_try: &BackendTry<'_>, sent: Sent) -> Result<Sent, TryFailure> {
        one_try.backend.on_response();
        let status = sent.response.status();
        if !is_temporary(status) || one_try.number - one_try.unreached >= self.settings().retries {
            return Ok(sent);
        }
        if status.is_server_error() {
            one_try.backend.on_failure(&status);
        }
        let retry_after = self.retry_after(sent.response.headers());
        let recording = self.record_failed_try(one_try);
        let (response, lease) = record_response(&recording, sent);
        let limited = IdleLimited::new(response.into_body(), lease, self.forwarder().upstream().body_idle_timeout());
        let tee = TeeBody::new(limited, recording, Direction::Response, response_error, |_| false);
        let read = tokio::time::timeout(ERROR_BODY_TIMEOUT, Limited::new(tee, MAX_ERROR_BYTES).collect()).await;
        let body = read.ok().and_then(Result::ok).map(Collected::to_bytes).unwrap_or_default();
        tracing::info!(url = one_try.backend.url, %status, response = beginning_of(&body), "an LLM call is tried again");
        Err(TryFailure::Retryable { retry_after })
    }

    /// Ends a try without a response. If there is another, it is recorded as a span below that of the call; the error of the
    /// last is that of the call.
    fn fail_try(&self, one_try: &BackendTry<'_>, error: ProxyError) -> Result<BackendResponse, TryFailure> {
        one_try.call.exchange.recording.discard_response();
        if error.side() != Side::Upstream {
            return Err(TryFailure::Final(error));
        }
        one_try.backend.on_failure(&error);
        if error.kind.is_unreachable() {
            one_try.backend.on_unreachable();
        }
        if self.is_last(one_try, &error) {
            return Err(TryFailure::Final(with_time(error, &one_try.backend)));
        }
        tracing::info!(url = one_try.backend.url, %error, "an LLM call is tried again");
        self.record_failed_try(one_try).fail(&error);
        let is_unreachable = error.kind.is_unreachable();
        Err(if is_unreachable { TryFailure::Unreachable } else { TryFailure::Retryable { retry_after: None } })
    }

    /// True if there is no further try after one with this error.
    fn is_last(&self, one_try: &BackendTry<'_>, error: &ProxyError) -> bool {
        let (retries, is_unreachable) = (self.settings().retries, error.kind.is_unreachable());
        let are_spent = one_try.number - one_try.unreached >= retries;
        if retries == 0 || (are_spent && !is_unreachable) {
            return true;
        }
        if one_try.leaves_untried {
            return false;
        }
        let may_answer = |backend: &Arc<Backend>| match backend.unreachable_for() {
            Some(time) => time < self.settings().unreachable_wait,
            None => self.has_retries(one_try, backend),
        };
        if is_unreachable {
            // Each backend of the model is in question: the next try may go to another.
            !self.backends().of(&one_try.call.model).iter().any(may_answer)
        } else {
            !self.has_retries(one_try, &one_try.backend)
        }
    }

    /// True if a call has retries left for this backend. One that never responded is not one that restarts: its calls fail
    /// early.
    fn has_retries(&self, one_try: &BackendTry<'_>, backend: &Backend) -> bool {
        let retries = self.settings().retries;
        if backend.has_answered() {
            one_try.number - one_try.unreached < retries
        } else {
            one_try.number < retries.min(MAX_RETRIES_UNANSWERED)
        }
    }

    fn record_failed_try(&self, one_try: &BackendTry<'_>) -> Recording {
        increment(&self.counters().failed_tries);
        let recording = self.forwarder().start_try(&one_try.call.exchange, one_try.head(), one_try.started);
        recording.gateway(|facts| {
            facts.backend = Some(one_try.backend.url.clone());
            facts.resend_count = one_try.number;
            facts.is_failed_try = true;
        });
        recording
    }

    /// The wait that a backend asks for (RFC 9110 §10.2.3, and `retry-after-ms` of OpenAI), up to [`MAX_RETRY_AFTER_FACTOR`]
    /// times our own longest wait. Up to a tenth is added, so that not all clients return at the same moment.
    fn retry_after(&self, headers: &HeaderMap) -> Option<Duration> {
        let text = |name: &str| headers.get(name)?.to_str().ok().map(str::trim);
        let number = |name: &str| text(name)?.parse::<f64>().ok();
        let seconds = number("retry-after-ms").map(|ms| ms / 1000.0).or_else(|| number(header::RETRY_AFTER.as_str()));
        let date = || httpdate::parse_http_date(text(header::RETRY_AFTER.as_str())?).ok();
        let until_date = || date().map(|date| date.duration_since(SystemTime::now()).unwrap_or_default());
        let wait = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()).or_else(until_date)?;
        let max_wait = self.settings().retry_wait_max * MAX_RETRY_AFTER_FACTOR;
        Some(wait.min(max_wait).mul_f64(1.0 + 0.1 * fastrand::f64()))
    }
}

impl BackendTry<'_> {
    /// Records the backend and the request of this try in the span of the call.
    fn record_request(&self) {
        let recording = &self.call.exchange.recording;
        let head = self.head();
        recording.request(|request| {
            (request.method, request.scheme, request.host, request.port, request.target) =
                (head.method, head.scheme, head.host, head.port, head.target);
        });
        let is_passed_on = matches!(self.request.handling, ResponseHandling::PassOn);
        recording.gateway(|facts| {
            facts.backend = Some(self.backend.url.clone());
            facts.resend_count = self.number;
            facts.versions.clear();
            facts.translated_from = (!is_passed_on).then_some(self.call.route.api.api.name);
            facts.dropped.clone_from(&self.request.dropped);
            facts.billing_line.clone_from(&self.request.billing_line);
            facts.is_warmup = self.request.is_warmup;
        });
        recording.policy_version(self.version, VersionChange::Replaces);
        recording.request_body(&self.request.body);
        recording.injected(self.request.injection());
    }

    /// The fields that the agent did not send, and that a backend names as it rejects the request.
    fn rejected_fields(&self, response: &BackendResponse) -> Vec<&'static str> {
        let added = self.request.injected.as_ref().map_or(&[][..], |injected| &injected.injection.fields);
        rejected_fields(response.status().as_u16(), &response.beginning, added)
    }

    fn head(&self) -> RequestHead {
        let origin = &self.backend.origin;
        RequestHead {
            method: Method::POST,
            scheme: if origin.tls { "https" } else { "http" },
            host: origin.host.clone(),
            port: origin.port,
            target: self.request.target.clone(),
            version: Version::HTTP_11,
            headers: HeaderMap::new(),
        }
    }
}

/// Statuses after which the same request may succeed; those that Agent Lightning retries.
fn is_temporary(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 409 | 429) || status.is_server_error()
}

/// The error, with the time for which the backend can't be reached.
fn with_time(mut error: ProxyError, backend: &Backend) -> ProxyError {
    if let Some(time) = backend.unreachable_for() {
        let seconds = time.as_secs_f32();
        error.cause.push_str(&format!("; unreachable for {seconds:.1} s (gateway.unreachable_wait_ms)"));
    }
    error
}

/// The first characters of a body, for the log.
fn beginning_of(body: &[u8]) -> String {
    String::from_utf8_lossy(body).chars().take(200).collect()
}

/// The most retries for a backend that has not responded yet: 1.5 s with the default waits.
const MAX_RETRIES_UNANSWERED: u32 = 2;
/// The longest wait that a backend may ask for, in multiples of `retry_wait_max`.
const MAX_RETRY_AFTER_FACTOR: u32 = 10;
const ERROR_BODY_TIMEOUT: Duration = Duration::from_secs(2);
const MAX_ERROR_BYTES: usize = 64 * 1024;

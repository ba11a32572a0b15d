//! A call on its way to backends: one is chosen, and another, or the same again, as long as nothing of an answer has
//! reached the agent.

use super::Gateway;
use super::answer::{Answered, Fetched, Guards, fetch};
use super::backends::Backend;
use super::handle::{Call, Passed, Stopped};
use super::prepare::{Prepared, ResponseHandling};
use super::routing::ApiSurface;
use super::select::select;
use super::settings::BackendEngine;
use crate::capture::{Direction, Recording, TeeBody, VersionChange};
use crate::error::{ErrorKind, ProxyError, Side};
use crate::forward::{note, response_error};
use crate::llm::engine::Engine;
use crate::net::within;
use crate::tls::Offer;
use crate::trace::exchange::RequestHead;
use crate::upstream::{Body, PoolKey, Sent};
use crate::upstream::{IdleLimited, body};
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri, Version, header};
use http_body_util::{BodyExt, Limited};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

/// One try.
struct Try<'a> {
    call: &'a Call,
    backend: Arc<Backend>,
    prepared: Prepared,
    number: u32,
    version: i64,
    started: Instant,
}

/// What came of a try that is not the last.
enum Failed {
    /// The backend said so, or could not be reached: there may be another try.
    Try { wait: Option<Duration> },
    /// It refused what was only asked for on the agent's behalf.
    RolloutLookupFuture,
    /// There is none left, or another would be no use.
    Call(ProxyError),
}

impl Gateway {
    /// Sends a call, and gives its answer's beginning.
    pub(super) async fn send(&self, call: &Arc<Call>, passed: Passed) -> Result<Response<Body>, ProxyError> {
        let Passed { mut inside } = passed;
        let (mut tried, mut number, mut asks) = (Vec::new(), 0, true);
        loop {
            let backend = self.choose(call, &mut tried)?;
            self.check_staleness(call, &backend)?;
            let prepared = Prepared::of(call, &backend, self.settings())?;
            let prepared = if asks { prepared } else { prepared.without_asking() };
            let version = backend.version();
            let one = Try { call, backend, prepared, number, version, started: Instant::now() };
            self.begin(&one);
            let in_flight = one.backend.enter();
            let begun = self.within_time(&one).await;
            let failed = match begun {
                Ok(fetched) => {
                    if !fetched.status().is_server_error() {
                        one.backend.answered();
                    }
                    if !asks && fetched.status().is_success() {
                        tracing::warn!(url = one.backend.url, "this backend takes no call that asks for token ids");
                        one.backend.learned(Engine::OPENAI);
                    }
                    let Try { backend, prepared, version, .. } = one;
                    let Prepared { turn, asked, .. } = prepared;
                    let answered = Answered { backend, version, turn, asked };
                    let guards = Guards { _inside: inside, _in_flight: in_flight };
                    return Ok(self.deliver(call, answered, fetched, guards).await);
                }
                Err(failed) => failed,
            };
            let Try { backend, .. } = one;
            match failed {
                Failed::RolloutLookupFuture => {
                    asks = false;
                    continue;
                }
                Failed::Call(error) => return Err(error),
                Failed::Try { wait } => {
                    tried.push(backend);
                    if !self.has_another(call, &tried) {
                        tokio::time::sleep(wait.unwrap_or_else(|| self.back_off(number))).await;
                    }
                }
            }
            number += 1;
            if self.gate().holds() {
                // Whoever waits for the gateway to be empty must not wait for this one.
                drop(inside);
                inside = match self.enter(call).await {
                    Ok(inside) => inside,
                    Err(Stopped::Paused(response)) => return Ok(response),
                    Err(Stopped::Error(error)) => return Err(error),
                };
            }
        }
    }

    /// True when a backend that was not tried may answer.
    fn has_another(&self, call: &Call, tried: &[Arc<Backend>]) -> bool {
        let is_new = |backend: &Arc<Backend>| !tried.iter().any(|tried| Arc::ptr_eq(tried, backend));
        self.backends().of(&call.model).iter().any(|backend| backend.is_healthy() && is_new(backend))
    }

    /// The backend for the next try. When all were tried, all may be tried again.
    fn choose(&self, call: &Call, tried: &mut Vec<Arc<Backend>>) -> Result<Arc<Backend>, ProxyError> {
        let backends = self.backends().of(&call.model);
        let key = call.begun.identity.rollout_id.as_str();
        if let Some(backend) = select(key, &backends, tried) {
            return Ok(backend);
        }
        tried.clear();
        select(key, &backends, tried).ok_or_else(|| self.no_backend(&call.model))
    }

    /// Writes down where the call goes.
    fn begin(&self, one: &Try<'_>) {
        let recording = &one.call.begun.recording;
        let head = one.head();
        recording.request(|request| {
            (request.method, request.scheme, request.host, request.port, request.target) =
                (head.method, head.scheme, head.host, head.port, head.target);
        });
        recording.gateway(|facts| {
            facts.backend = Some(one.backend.url.clone());
            facts.resend_count = one.number;
            facts.versions.clear();
            facts.translated_from =
                (!matches!(one.prepared.turn, ResponseHandling::AsItIs)).then_some(one.call.route.api.api.name);
        });
        recording.policy_version(one.version, VersionChange::Replaces);
        recording.request_body(&one.prepared.body);
        recording.injected(one.prepared.asked.as_ref().map(|asked| asked.injection.clone()).unwrap_or_default());
    }

    /// As `attempt`, for no longer than a try may take.
    async fn within_time(&self, one: &Try<'_>) -> Result<Fetched, Failed> {
        let limit = self.settings().try_timeout;
        match within(limit, Box::pin(self.attempt(one))).await {
            Some(tried) => tried,
            None => {
                let cause = format!("no answer began within {} ms (gateway.try_timeout_ms)", limit.as_millis());
                let shown = super::shown(&one.backend.origin);
                self.failed(one, ProxyError::new(ErrorKind::HttpResponseTimeout, shown, cause))
            }
        }
    }

    /// Sends the call, and takes its answer's beginning.
    async fn attempt(&self, one: &Try<'_>) -> Result<Fetched, Failed> {
        let sent = match self.reach(one).await {
            Ok(sent) => sent,
            Err(error) => return self.failed(one, error),
        };
        let sent = self.judge(one, sent).await?;
        let recording = &one.call.begun.recording;
        let (response, lease) = note(recording, sent);
        let fetched = match fetch(response, lease, self.settings().idle_timeout).await {
            Ok(fetched) => fetched,
            Err(error) => return self.failed(one, error),
        };
        if one.is_refused_for_asking(&fetched) {
            recording.discard_response();
            let cause = "the backend refused what was asked for on the agent's behalf";
            self.try_of(one).fail(&ProxyError::new(ErrorKind::BackendAnswerUnread, "", cause));
            return Err(Failed::RolloutLookupFuture);
        }
        // Agent Lightning's routes tell the agent of such a one.
        if fetched.is_no_answer() && one.call.route.contract != ApiSurface::V1 {
            let cause = format!("the backend answered {} without JSON or events", fetched.status());
            return self.failed(
                one,
                ProxyError::new(ErrorKind::BackendAnswerUnread, super::shown(&one.backend.origin), cause),
            );
        }
        Ok(fetched)
    }

    /// A try without an answer. It is recorded below its call if there may be another; the call itself says the last.
    fn failed(&self, one: &Try<'_>, error: ProxyError) -> Result<Fetched, Failed> {
        one.call.begun.recording.discard_response();
        if error.side() != Side::Upstream {
            return Err(Failed::Call(error));
        }
        one.backend.failed();
        if one.number >= self.settings().retries {
            return Err(Failed::Call(error));
        }
        tracing::info!(url = one.backend.url, %error, "a call is tried again");
        self.try_of(one).fail(&error);
        Err(Failed::Try { wait: None })
    }

    async fn reach(&self, one: &Try<'_>) -> Result<Sent, ProxyError> {
        let origin = &one.backend.origin;
        let head = one.head();
        let scheme = head.scheme;
        let uri = Uri::builder()
            .scheme(scheme)
            .authority(super::shown(origin))
            .path_and_query(head.target.as_str())
            .build()
            .map_err(|error| ProxyError::from_source(ErrorKind::ProxyInternalError, super::shown(origin), &error))?;
        let mut request = Request::new(body::full(one.prepared.sent()));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = uri;
        *request.headers_mut() = one.prepared.headers.clone();
        let offer = if origin.tls { Offer::Http2OrHttp1 } else { Offer::Http1 };
        self.forwarder().upstream().send(request, &PoolKey::Gateway, origin, offer).await
    }

    /// Whether a response is the call's answer.
    async fn judge(&self, one: &Try<'_>, sent: Sent) -> Result<Sent, Failed> {
        let status = sent.response.status();
        if !is_temporary(status) || one.number >= self.settings().retries {
            return Ok(sent);
        }
        if status.is_server_error() {
            one.backend.failed();
        }
        let wait = self.wait_of(sent.response.headers());
        let recording = self.try_of(one);
        let (response, lease) = note(&recording, sent);
        let limited = IdleLimited::new(response.into_body(), lease, self.forwarder().upstream().body_idle_timeout());
        let tee = TeeBody::new(limited, recording, Direction::Response, response_error, |_| false);
        let read = tokio::time::timeout(ERROR_BODY_TIMEOUT, Limited::new(tee, MAX_ERROR_BYTES).collect()).await;
        let text = read.ok().and_then(Result::ok).map(http_body_util::Collected::to_bytes).unwrap_or_default();
        tracing::info!(url = one.backend.url, %status, answer = shortened(&text), "a call is tried again");
        Err(Failed::Try { wait })
    }

    fn try_of(&self, one: &Try<'_>) -> Recording {
        super::count(&self.counters().failed_tries);
        let recording = self.forwarder().record_try(&one.call.begun, one.head(), one.started);
        recording.gateway(|facts| {
            facts.backend = Some(one.backend.url.clone());
            facts.resend_count = one.number;
            facts.is_failed_try = true;
        });
        recording
    }

    /// What a backend says that the next try should wait (RFC 9110 §10.2.3), within our limit, and a little more: not all
    /// shall come at once.
    fn wait_of(&self, headers: &HeaderMap) -> Option<Duration> {
        let text = |name: &str| headers.get(name)?.to_str().ok().map(str::trim);
        let number = |name: &str| text(name)?.parse::<f64>().ok();
        let seconds = number("retry-after-ms").map(|ms| ms / 1000.0).or_else(|| number(header::RETRY_AFTER.as_str()));
        let at = || httpdate::parse_http_date(text(header::RETRY_AFTER.as_str())?).ok();
        let until = || at().map(|at| at.duration_since(SystemTime::now()).unwrap_or_default());
        let wait = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()).or_else(until)?;
        Some(wait.min(self.settings().retry_wait_max * MAX_RETRY_AFTER).mul_f64(1.0 + 0.1 * fastrand::f64()))
    }

    /// The wait before the try after this one: it doubles, and varies by a quarter so that callers don't come at once.
    fn back_off(&self, number: u32) -> Duration {
        let settings = self.settings();
        let wait = settings.retry_wait.saturating_mul(2u32.saturating_pow(number.min(16)));
        wait.min(settings.retry_wait_max).mul_f64(0.75 + 0.5 * fastrand::f64())
    }
}

impl Try<'_> {
    /// True for a refusal that names a field which the agent did not send.
    fn is_refused_for_asking(&self, fetched: &Fetched) -> bool {
        let Some(asked) = &self.prepared.asked else { return false };
        let names = |name: &&str| memchr::memmem::find(fetched.beginning(), name.as_bytes()).is_some();
        matches!(fetched.status().as_u16(), 400 | 422)
            && self.backend.engine() == BackendEngine::Auto
            && asked.injection.fields.iter().any(names)
    }

    fn head(&self) -> RequestHead {
        let origin = &self.backend.origin;
        RequestHead {
            method: Method::POST,
            scheme: if origin.tls { "https" } else { "http" },
            host: origin.host.clone(),
            port: origin.port,
            target: self.prepared.target.clone(),
            version: Version::HTTP_11,
            headers: HeaderMap::new(),
        }
    }
}

/// Statuses after which the same call may be answered: those that Agent Lightning tries again.
fn is_temporary(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 409 | 429) || status.is_server_error()
}

fn shortened(text: &[u8]) -> String {
    String::from_utf8_lossy(text).chars().take(200).collect()
}

/// How many of our own longest waits a backend may ask for.
const MAX_RETRY_AFTER: u32 = 10;
const ERROR_BODY_TIMEOUT: Duration = Duration::from_secs(2);
const MAX_ERROR_BYTES: usize = 64 * 1024;

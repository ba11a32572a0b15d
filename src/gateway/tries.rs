//! A call on its way to backends: one is chosen, and another, or the same again, as long as nothing of an answer has
//! reached the agent.

use super::Gateway;
use super::answer::{Fetched, Guards, fetch};
use super::backends::{Backend, InFlight};
use super::call::{Call, Passed, Stopped};
use super::prepare::{Prepared, Turn, dialect_of};
use super::select::select;
use super::settings::BackendEngine;
use crate::capture::{Direction, Recording, TeeBody};
use crate::error::{ErrorKind, ProxyError, Side};
use crate::forward::{note, response_error};
use crate::tls::Offer;
use crate::trace::exchange::RequestHead;
use crate::upstream::body::{self, IdleLimited};
use crate::upstream::{Body, Isolation, Sent};
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri, Version, header};
use http_body_util::{BodyExt, Limited};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// One try.
struct Try<'a> {
    call: &'a Call,
    backend: Arc<Backend>,
    prepared: Prepared,
    number: u32,
    started: Instant,
}

/// What came of a try that is not the last.
enum Failed {
    /// The backend said so, or could not be reached: there may be another try.
    Try { error: Option<ProxyError>, wait: Option<Duration> },
    /// It refused what was only asked for on the agent's behalf.
    Asking,
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
            let one = Try { call, backend, prepared, number, started: Instant::now() };
            self.begin(&one);
            let in_flight = one.backend.enter();
            let failed = match self.reach(&one).await {
                Ok(sent) => match self.judge(&one, sent, in_flight).await {
                    Ok((sent, in_flight)) => {
                        let recording = &call.begun.recording;
                        let (response, lease) = note(recording, sent);
                        match fetch(response, lease, self.forwarder().upstream().body_idle_timeout()).await {
                            Ok(fetched) if one.is_refused_for_asking(&fetched) => {
                                self.refused_asking(&one, recording);
                                Failed::Asking
                            }
                            Ok(fetched) => {
                                one.backend.answered();
                                let guards = Guards { _inside: inside, _in_flight: in_flight };
                                return Ok(self
                                    .deliver(call, one.backend, one.prepared.turn, one.prepared.asked, fetched, guards)
                                    .await);
                            }
                            Err(error) => {
                                recording.unanswered();
                                one.backend.failed();
                                self.fail_try(&one, &error);
                                Failed::Try { error: Some(error), wait: None }
                            }
                        }
                    }
                    Err(failed) => failed,
                },
                Err(error) if error.side() == Side::Upstream => {
                    one.backend.failed();
                    if number < self.settings().retries {
                        self.fail_try(&one, &error);
                    }
                    Failed::Try { error: Some(error), wait: None }
                }
                Err(error) => return Err(error),
            };
            let Try { backend, .. } = one;
            match failed {
                Failed::Asking => {
                    backend.learned(BackendEngine::OpenAi);
                    asks = false;
                    continue;
                }
                Failed::Try { error: Some(error), .. } if number >= self.settings().retries => return Err(error),
                Failed::Try { wait, .. } => {
                    tried.push(backend);
                    let others = self.backends().of(&call.model);
                    let is_left = others
                        .iter()
                        .any(|other| other.is_healthy() && !tried.iter().any(|tried| Arc::ptr_eq(tried, other)));
                    if !is_left {
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
                (!matches!(one.prepared.turn, Turn::AsItIs)).then(|| dialect_of(&one.call.route.api));
        });
        recording.policy_version(one.backend.version());
        recording.request_body(&one.prepared.body);
        recording.injected(one.prepared.asked.as_ref().map(|asked| asked.injection.clone()).unwrap_or_default());
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
        self.forwarder().upstream().send(request, &Isolation::shared(), origin, offer).await
    }

    /// Whether a response is the call's answer.
    async fn judge(&self, one: &Try<'_>, sent: Sent, in_flight: InFlight) -> Result<(Sent, InFlight), Failed> {
        let status = sent.response.status();
        if !is_temporary(status) || one.number >= self.settings().retries {
            return Ok((sent, in_flight));
        }
        if status.is_server_error() {
            one.backend.failed();
        }
        let wait = self.wait_of(sent.response.headers());
        let recording = self.try_of(one);
        let (response, lease) = note(&recording, sent);
        let limited = IdleLimited::new(response.into_body(), lease, self.forwarder().upstream().body_idle_timeout());
        let tee = TeeBody::new(limited, recording, Direction::Response, response_error, |_| false);
        let read = tokio::time::timeout(ERROR_BODY_TIMEOUT, Limited::new(tee, MOST_ERROR_BYTES).collect()).await;
        let text = read.ok().and_then(Result::ok).map(http_body_util::Collected::to_bytes).unwrap_or_default();
        tracing::info!(url = one.backend.url, %status, answer = shortened(&text), "a call is tried again");
        Err(Failed::Try { error: None, wait })
    }

    /// A backend that nobody has named refuses what other APIs don't know: it will not be asked again.
    fn refused_asking(&self, one: &Try<'_>, recording: &Recording) {
        recording.unanswered();
        tracing::info!(url = one.backend.url, "this backend gives no token ids; it is not asked for them any more");
        let cause = "the backend refused what was asked for on the agent's behalf";
        self.try_of(one).fail(&ProxyError::new(ErrorKind::BackendAnswerUnread, "", cause));
    }

    /// A try that failed without a response is recorded below its call.
    fn fail_try(&self, one: &Try<'_>, error: &ProxyError) {
        tracing::info!(url = one.backend.url, %error, "a call is tried again");
        self.try_of(one).fail(error);
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

    /// What a backend says that the next try should wait, within our limit.
    fn wait_of(&self, headers: &HeaderMap) -> Option<Duration> {
        let number = |name: &str| headers.get(name)?.to_str().ok()?.trim().parse::<f64>().ok();
        let seconds =
            number("retry-after-ms").map(|ms| ms / 1000.0).or_else(|| number(header::RETRY_AFTER.as_str()))?;
        Duration::try_from_secs_f64(seconds).ok().map(|wait| wait.min(self.settings().retry_wait_max))
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

const ERROR_BODY_TIMEOUT: Duration = Duration::from_secs(2);
const MOST_ERROR_BYTES: usize = 64 * 1024;

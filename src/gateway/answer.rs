//! A backend's answer on its way to the agent: watched, recorded, without what the agent did not ask for, and in the
//! agent's dialect.

use super::Gateway;
use super::backends::{Backend, InFlight};
use super::call::{Call, refuse};
use super::gate::Inside;
use super::prepare::Turn;
use super::refusal::{Shape, kind_of};
use super::route::Contract;
use super::translate::{Answer, AnswerStream, Client, error_body};
use crate::capture::{Direction, Recording, TeeBody};
use crate::error::{ErrorKind, ProxyError};
use crate::forward::terminal::ends_answer;
use crate::forward::tokens::{Asked, stripped};
use crate::forward::{response_error, rewrite};
use crate::trace::exchange::Outcome;
use crate::upstream::body::{self, IdleLimited};
use crate::upstream::{Body, BodyError, Lease};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode, Version, header, response};
use http_body_util::BodyExt;
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use serde_json::Value as Json;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

/// Held until an answer's end.
pub(super) struct Guards {
    pub(super) _inside: Inside,
    pub(super) _in_flight: InFlight,
}

/// The beginning of an answer, and whatever follows.
pub(super) struct Fetched {
    parts: response::Parts,
    first: Option<Frame<Bytes>>,
    rest: IdleLimited,
}

impl Fetched {
    /// The status.
    pub(super) fn status(&self) -> StatusCode {
        self.parts.status
    }

    /// What has come of the body.
    pub(super) fn beginning(&self) -> &[u8] {
        self.first.as_ref().and_then(Frame::data_ref).map_or(&[], |data| data.as_ref())
    }
}

/// Waits for the first byte of a stream, or for a whole answer: until then there may be another try.
pub(super) async fn fetch(response: Response<Incoming>, lease: Lease, limit: Duration) -> Result<Fetched, ProxyError> {
    let (parts, body) = response.into_parts();
    let mut rest = IdleLimited::new(body, lease, limit);
    if is_events(&parts.headers) {
        let first = rest.frame().await.transpose().map_err(|error| response_error(&error))?;
        return Ok(Fetched { parts, first, rest });
    }
    let mut whole = bytes::BytesMut::new();
    while let Some(frame) = rest.frame().await {
        let frame = frame.map_err(|error| response_error(&error))?;
        if let Ok(data) = frame.into_data() {
            whole.extend_from_slice(&data);
        }
        if whole.len() > MOST_AHEAD_BYTES {
            break;
        }
    }
    let first = (!whole.is_empty()).then(|| Frame::data(whole.freeze()));
    Ok(Fetched { parts, first, rest })
}

impl Gateway {
    /// The answer as the agent gets it.
    pub(super) async fn deliver(
        &self,
        call: &Arc<Call>,
        backend: Arc<Backend>,
        turn: Turn,
        asked: Option<Asked>,
        fetched: Fetched,
        guards: Guards,
    ) -> Response<Body> {
        let recording = &call.begun.recording;
        let Fetched { mut parts, first, rest } = fetched;
        rewrite::response(&mut parts.headers, false);
        parts.version = Version::HTTP_11;
        let is_events = is_events(&parts.headers);
        if first.is_none() && rest.is_end_stream() {
            recording.outcome(Outcome::Complete);
            recording.finish_now().await;
            drop(guards);
            return Response::from_parts(parts, body::empty());
        }
        let over = {
            let call = Arc::clone(call);
            Box::pin(async move { call.page.over(&call.budget).await })
        };
        let version = backend.version();
        let watched = Watched { first, rest, backend, version, recording: recording.clone(), over, _guards: guards };
        let tee = TeeBody::new(watched, recording.clone(), Direction::Response, response_error, ends_answer);
        match turn {
            Turn::Translated(client, answer) => translated(call, parts, tee, (client, &answer)).await,
            Turn::Count => counted(call, parts, tee).await,
            Turn::AsItIs => {
                if call.route.contract == Contract::V1 && !is_json(&parts.headers) && !is_events {
                    // Agent Lightning's answer where there is no JSON.
                    drop(tee.collect().await);
                    return json_response(parts.status, b"{}".to_vec());
                }
                let changes = asked.map(|asked| asked.changes).filter(|changes| *changes != Default::default());
                let body = match changes {
                    Some(changes) => stripped(tee, changes, &mut parts.headers, recording).await,
                    None => tee.boxed_unsync(),
                };
                let body = if is_events { Ending::of(body, call.shape).boxed_unsync() } else { body };
                Response::from_parts(parts, body)
            }
        }
    }
}

/// An answer in the agent's dialect.
async fn translated(
    call: &Call,
    mut parts: response::Parts,
    tee: TeeBody<Watched>,
    (client, answer): (Client, &Answer),
) -> Response<Body> {
    if is_events(&parts.headers) && parts.status.is_success() && answer.streams() {
        parts.headers.remove(header::CONTENT_LENGTH);
        parts.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(answer.content_type()));
        let stream = Translating { inner: tee, stream: Some(answer.stream()) };
        return Response::from_parts(parts, stream.boxed_unsync());
    }
    let whole = match tee.collect().await {
        Ok(whole) => whole.to_bytes(),
        Err(error) => return refuse(&call.begun, call.shape, &response_error(&error)),
    };
    if !parts.status.is_success() {
        let text = error_body(client, parts.status.as_u16(), kind_of(parts.status), &said(&whole));
        return with_body(parts, text);
    }
    let unread = |cause: String| {
        let error = ProxyError::new(ErrorKind::BackendAnswerUnread, "", cause);
        tracing::warn!(rollout_id = %call.begun.identity.rollout_id, %error, "an answer can't be translated");
        call.shape.response(&error)
    };
    if answer.streams() {
        let kind = parts.headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or("nothing");
        return unread(format!("a stream was asked for, the backend answered with {kind}"));
    }
    match answer.whole(&whole) {
        Ok(text) => with_body(parts, text),
        Err(fault) => unread(fault.to_string()),
    }
}

/// The number of a prompt's tokens as Anthropic's API says it.
async fn counted(call: &Call, parts: response::Parts, tee: TeeBody<Watched>) -> Response<Body> {
    let whole = match tee.collect().await {
        Ok(whole) => whole.to_bytes(),
        Err(error) => return refuse(&call.begun, call.shape, &response_error(&error)),
    };
    let count = serde_json::from_slice::<Json>(&whole).ok().and_then(|answer| answer.get("count")?.as_u64());
    match count.filter(|_| parts.status.is_success()) {
        Some(count) => with_body(parts, serde_json::json!({ "input_tokens": count }).to_string().into_bytes()),
        None => {
            let cause = format!("the backend can't count tokens ({}): {}", parts.status, said(&whole));
            call.shape.response(&ProxyError::new(ErrorKind::BackendAnswerUnread, "", cause))
        }
    }
}

/// What an error's body says, in whatever shape.
pub(super) fn said(body: &[u8]) -> String {
    let json = serde_json::from_slice::<Json>(body).unwrap_or_default();
    let error = json.get("error").unwrap_or(&json);
    let message = error.get("message").or_else(|| error.get("detail")).unwrap_or(error);
    match message.as_str() {
        Some(message) => message.to_owned(),
        None => String::from_utf8_lossy(body).chars().take(500).collect(),
    }
}

fn with_body(mut parts: response::Parts, text: Vec<u8>) -> Response<Body> {
    parts.headers.remove(header::TRANSFER_ENCODING);
    parts.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(text.len()));
    parts.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Response::from_parts(parts, body::full(text))
}

fn json_response(status: StatusCode, text: Vec<u8>) -> Response<Body> {
    let mut response = Response::new(body::full(text));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn is_events(headers: &HeaderMap) -> bool {
    has_type(headers, "text/event-stream")
}

fn is_json(headers: &HeaderMap) -> bool {
    has_type(headers, "application/json")
}

fn has_type(headers: &HeaderMap, name: &str) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    kind.trim_start().to_ascii_lowercase().starts_with(name)
}

/// A backend's body: what came first, then the rest. It notes when the weights change, and ends when the rollout does.
struct Watched {
    first: Option<Frame<Bytes>>,
    rest: IdleLimited,
    backend: Arc<Backend>,
    version: i64,
    recording: Recording,
    over: Pin<Box<dyn Future<Output = ProxyError> + Send>>,
    _guards: Guards,
}

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let polled = match self.first.take() {
            Some(first) => Poll::Ready(Some(Ok(first))),
            None => Pin::new(&mut self.rest).poll_frame(cx),
        };
        if polled.is_pending() {
            let error = ready!(self.over.as_mut().poll(cx));
            return Poll::Ready(Some(Err(error.into())));
        }
        let version = self.backend.version();
        if version != self.version {
            self.version = version;
            self.recording.policy_version(version);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_none() && self.rest.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let ahead = self.first.as_ref().and_then(Frame::data_ref).map_or(0, |data| data.len() as u64);
        let rest = self.rest.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower() + ahead);
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper + ahead);
        }
        hint
    }
}

/// A stream whose end by our own hand is an event of its dialect, not a broken connection.
struct Ending {
    inner: Body,
    shape: Shape,
    is_over: bool,
}

impl Ending {
    fn of(inner: Body, shape: Shape) -> Self {
        Self { inner, shape, is_over: false }
    }
}

impl HttpBody for Ending {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.is_over {
            return Poll::Ready(None);
        }
        match ready!(Pin::new(&mut self.inner).poll_frame(cx)) {
            Some(Err(BodyError::Proxy(error))) => {
                self.is_over = true;
                let event = self.shape.event(error.status(), &super::refusal::message(&error));
                Poll::Ready(Some(Ok(Frame::data(event))))
            }
            other => Poll::Ready(other),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.is_over || self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        // What an error adds is not known before.
        SizeHint::default()
    }
}

/// A stream in the agent's dialect.
struct Translating {
    inner: TeeBody<Watched>,
    stream: Option<AnswerStream>,
}

impl HttpBody for Translating {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        loop {
            let this = &mut *self;
            let Some(stream) = &mut this.stream else { return Poll::Ready(None) };
            let out = match ready!(Pin::new(&mut this.inner).poll_frame(cx)) {
                Some(Ok(frame)) => frame.data_ref().map(|data| stream.push(data)).unwrap_or_default(),
                Some(Err(BodyError::Proxy(error))) => {
                    let out = stream.fail(kind_of(error.status()), &super::refusal::message(&error));
                    this.stream = None;
                    out
                }
                // What broke off is told as such.
                Some(Err(BodyError::Http(_))) | None => {
                    let out = stream.finish();
                    this.stream = None;
                    out
                }
            };
            if !out.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(out.into()))));
            }
        }
    }
}

/// The most of a whole answer that is awaited before it is passed on.
const MOST_AHEAD_BYTES: usize = 4 << 20;

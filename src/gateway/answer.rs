//! A backend's answer on its way to the agent: watched, recorded, without what the agent did not ask for, and in the
//! agent's dialect.

use super::Gateway;
use super::backends::{Backend, InFlight};
use super::handle::{Call, Over, ResponseState};
use super::pause::InFlightPermit;
use super::prepare::ResponseHandling;
use super::routing::ApiSurface;
use crate::capture::{Direction, Recording, TeeBody, VersionChange};
use crate::error::{ErrorKind, ProxyError};
use crate::forward::tokens::{MAX_WHOLE_BYTES, stripped};
use crate::forward::{response_error, rewrite};
use crate::llm::api::{ApiErrorKind, ErrorShape, ends_stream, error_message};
use crate::llm::engine::Tokenizer;
use crate::llm::token_ids::InjectedRequest;
use crate::llm::translate::{Answer, AnswerStream};
use crate::trace::exchange::Outcome;
use crate::upstream::{Body, BodyError, Lease};
use crate::upstream::{IdleLimited, body};
use crate::wire::json_edit::{Changes, change};
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Response, StatusCode, Version, header, response};
use http_body_util::BodyExt;
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use serde_json::Value as JsonValue;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

/// Held until an answer's end.
pub(super) struct Guards {
    pub(super) _inside: InFlightPermit,
    pub(super) _in_flight: InFlight,
}

/// The beginning of an answer, and whatever follows. Of a stream the first event, of anything else all of it.
pub(super) struct Fetched {
    parts: response::Parts,
    first: Bytes,
    rest: IdleLimited,
    is_whole: bool,
}

impl Fetched {
    /// The status.
    pub(super) fn status(&self) -> StatusCode {
        self.parts.status
    }

    /// What has come of the body.
    pub(super) fn beginning(&self) -> &[u8] {
        &self.first
    }

    /// True for a success that no API of models can have: empty, or neither JSON nor events.
    pub(super) fn is_no_answer(&self) -> bool {
        let begins = self.first.trim_ascii_start().first();
        let reads = is_events(&self.parts.headers) || matches!(begins, Some(b'{' | b'['));
        self.parts.status.is_success() && (begins.is_none() || !reads)
    }
}

/// Waits for the first event of a stream, or for a whole answer: until then there may be another try.
pub(super) async fn fetch(response: Response<Incoming>, lease: Lease, idle: Duration) -> Result<Fetched, ProxyError> {
    let (parts, body) = response.into_parts();
    let mut rest = IdleLimited::new(body, lease, idle);
    let is_events = is_events(&parts.headers);
    let mut first = BytesMut::new();
    let mut is_whole = false;
    while first.is_empty() || !is_events && first.len() <= MAX_WHOLE_BYTES {
        let Some(frame) = rest.frame().await else {
            is_whole = true;
            break;
        };
        if let Ok(data) = frame.map_err(|error| response_error(&error))?.into_data() {
            first.extend_from_slice(&data);
        }
    }
    Ok(Fetched { parts, first: first.freeze(), rest, is_whole })
}

/// What is known of the try whose answer is delivered.
pub(super) struct Answered {
    pub(super) backend: Arc<Backend>,
    /// The version of its weights when it was asked.
    pub(super) version: i64,
    pub(super) turn: ResponseHandling,
    pub(super) asked: Option<InjectedRequest>,
}

impl Gateway {
    /// The answer as the agent gets it.
    pub(super) async fn deliver(
        &self,
        call: &Arc<Call>,
        answered: Answered,
        fetched: Fetched,
        guards: Guards,
    ) -> Response<Body> {
        let recording = &call.begun.recording;
        let Answered { backend, version, turn, asked } = answered;
        let Fetched { mut parts, first, rest, is_whole } = fetched;
        rewrite::response(&mut parts.headers, false);
        parts.version = Version::HTTP_11;
        let is_events = is_events(&parts.headers);
        if is_whole && first.is_empty() {
            recording.outcome(Outcome::Complete);
            recording.finish_and_wait().await;
            return Response::from_parts(parts, body::empty());
        }
        let over = call.over();
        let watched = Watched {
            first: Some(first.clone()),
            rest: (!is_whole).then_some(rest),
            backend,
            version,
            is_events,
            recording: recording.clone(),
            over,
            _guards: guards,
        };
        let tee = TeeBody::new(watched, recording.clone(), Direction::Response, response_error, ends_stream);
        let changes = asked.map(|asked| asked.changes).filter(|changes| *changes != Changes::default());
        if is_events {
            return match turn {
                ResponseHandling::Translated(_, answer) if parts.status.is_success() && answer.streams() => {
                    translating(call, parts, tee, &answer)
                }
                ResponseHandling::AsItIs => {
                    let body = match changes {
                        Some(changes) => stripped(tee, changes, &mut parts.headers, recording).await,
                        None => tee.boxed_unsync(),
                    };
                    Response::from_parts(
                        parts,
                        Ending { inner: body, told: Arc::clone(&call.told), is_over: false }.boxed_unsync(),
                    )
                }
                _ => unread(call, tee, "it sent a stream that nobody asked for".to_owned()).await,
            };
        }
        if !is_whole {
            recording.not_stripped();
            return match turn {
                ResponseHandling::AsItIs => Response::from_parts(parts, tee.boxed_unsync()),
                _ => unread(call, tee, format!("its answer is longer than {MAX_WHOLE_BYTES} bytes")).await,
            };
        }
        let text = match (turn, changes) {
            (ResponseHandling::Translated(shape, answer), _) => match translated(shape, &parts, &answer, &first) {
                Ok(text) => text.into(),
                Err(cause) => return unread(call, tee, cause).await,
            },
            (ResponseHandling::Count(tokenizer), _) => match counted(tokenizer, &parts, &first) {
                Ok(text) => text.into(),
                Err(cause) => return unread(call, tee, cause).await,
            },
            // Agent Lightning's answer where there is no JSON.
            (ResponseHandling::AsItIs, _) if call.route.contract == ApiSurface::V1 && !is_json(&parts.headers) => {
                Bytes::from_static(b"{}")
            }
            (ResponseHandling::AsItIs, Some(changes)) if !parts.headers.contains_key(header::CONTENT_ENCODING) => {
                change(&first, &changes).map_or(first, Bytes::from)
            }
            (ResponseHandling::AsItIs, changes) => {
                if changes.is_some() {
                    recording.not_stripped();
                }
                return Response::from_parts(parts, tee.boxed_unsync());
            }
        };
        // The type is the backend's where the text is.
        if !is_json(&parts.headers) {
            parts.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        parts.headers.remove(header::CONTENT_ENCODING);
        parts.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(text.len()));
        Response::from_parts(parts, Swapped { tee, text: Some(text) }.boxed_unsync())
    }
}

/// A whole answer in the agent's dialect, or why there is none.
fn translated(shape: ErrorShape, parts: &response::Parts, answer: &Answer, whole: &[u8]) -> Result<Vec<u8>, String> {
    if !parts.status.is_success() {
        let status = parts.status.as_u16();
        return Ok(shape.body(status, ApiErrorKind::of_status(status), &error_message(whole)));
    }
    if answer.streams() {
        return Err("a stream was asked for, and the backend answered without one".to_owned());
    }
    answer.whole(whole).map_err(|fault| fault.to_string())
}

/// The number of a prompt's tokens as Anthropic's API says it.
fn counted(tokenizer: Tokenizer, parts: &response::Parts, whole: &[u8]) -> Result<Vec<u8>, String> {
    let answer = serde_json::from_slice::<JsonValue>(whole).ok();
    let count = answer.and_then(|answer| answer.get(tokenizer.count)?.as_u64());
    let count = count.filter(|_| parts.status.is_success());
    let count =
        count.ok_or_else(|| format!("the backend can't count tokens ({}): {}", parts.status, error_message(whole)))?;
    Ok(serde_json::json!({ "input_tokens": count }).to_string().into_bytes())
}

/// An answer that can't be told to the agent: nobody gets it, and its span says so.
async fn unread(call: &Call, tee: TeeBody<Watched>, cause: String) -> Response<Body> {
    let error = ProxyError::new(ErrorKind::BackendAnswerUnread, "", cause);
    tracing::warn!(rollout_id = %call.begun.identity.rollout_id, %error, "an answer can't be told");
    call.begun.recording.set_final_outcome(Outcome::Failed { error: error.clone() });
    drop(tee.collect().await);
    call.shape.response(&error)
}

/// A streamed answer in the agent's dialect.
fn translating(call: &Arc<Call>, mut parts: response::Parts, tee: TeeBody<Watched>, answer: &Answer) -> Response<Body> {
    parts.headers.remove(header::CONTENT_LENGTH);
    parts.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(answer.content_type()));
    let stream = Translating { inner: tee, stream: Some(answer.stream()), told: Arc::clone(&call.told) };
    Response::from_parts(parts, stream.boxed_unsync())
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
    first: Option<Bytes>,
    // None: what came first was all.
    rest: Option<IdleLimited>,
    backend: Arc<Backend>,
    version: i64,
    is_events: bool,
    recording: Recording,
    over: Over,
    _guards: Guards,
}

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        let (polled, is_first) = match (this.first.take(), &mut this.rest) {
            (Some(first), _) => (Poll::Ready(Some(Ok(Frame::data(first)))), true),
            (None, Some(rest)) => (Pin::new(rest).poll_frame(cx), false),
            (None, None) => return Poll::Ready(None),
        };
        if polled.is_pending() {
            let error = ready!(this.over.as_mut().poll(cx));
            return Poll::Ready(Some(Err(error.into())));
        }
        let version = this.backend.version();
        if version != this.version {
            this.version = version;
            // A stream that begins now is the new weights'; which token of a whole answer is whose, nobody knows.
            let change = if is_first && this.is_events { VersionChange::Replaces } else { VersionChange::Follows };
            this.recording.policy_version(version, change);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_none() && self.rest.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let ahead = self.first.as_ref().map_or(0, |data| data.len() as u64);
        let rest = self.rest.as_ref().map_or_else(|| SizeHint::with_exact(0), HttpBody::size_hint);
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower() + ahead);
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper + ahead);
        }
        hint
    }
}

/// A text in place of a body, which is recorded when the text is asked for.
struct Swapped {
    tee: TeeBody<Watched>,
    text: Option<Bytes>,
}

impl HttpBody for Swapped {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.text.is_none() {
            return Poll::Ready(None);
        }
        while let Some(frame) = ready!(Pin::new(&mut self.tee).poll_frame(cx)) {
            frame?;
        }
        Poll::Ready(self.text.take().map(|text| Ok(Frame::data(text))))
    }

    fn is_end_stream(&self) -> bool {
        self.text.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.text.as_ref().map_or(0, |text| text.len() as u64))
    }
}

/// A stream whose end by our own hand is an event of its dialect, not a broken connection.
struct Ending {
    inner: Body,
    told: Arc<ResponseState>,
    is_over: bool,
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
                self.told.mark_incomplete();
                let event = self.told.shape.event(error.status(), &super::refusal::message(&error));
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
    told: Arc<ResponseState>,
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
                    this.told.mark_incomplete();
                    let out =
                        stream.fail(ApiErrorKind::of_status(error.status().as_u16()), &super::refusal::message(&error));
                    this.stream = None;
                    out
                }
                // What broke off is told as such.
                ended @ (Some(Err(BodyError::Http(_))) | None) => {
                    if ended.is_some() {
                        this.told.mark_incomplete();
                    }
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

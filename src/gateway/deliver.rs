//! Delivers the response of a backend to the agent: recorded, without the fields that only Tracewire asked for, and translated
//! if the agent called another API.

use super::backend_request::{BackendRequest, ResponseHandling};
use super::backend_response::{BackendResponse, ReadBody, is_event_stream, is_json};
use super::call::GatewayCall;
use super::response_bodies::{CallPermits, EventStreamBody, PermittedBody, TranslatedBody};
use super::routing::ApiSurface;
use super::stored_responses::UnansweredRequest;
use crate::capture::{EditedBytes, HeldBytes, Memory, MemoryUse, SpillError, TeeBody};
use crate::error::{ErrorKind, ProxyError};
use crate::forward::replay::Replay;
use crate::forward::tokens::stripped;
use crate::forward::{response_error, rewrite};
use crate::llm::api::{ApiErrorKind, ErrorShape, ends_stream, error_message};
use crate::llm::engine::Tokenizer;
use crate::llm::translate::{ResponseTranslator, Untranslatable};
use crate::trace::exchange::Outcome;
use crate::upstream::{Body, body};
use crate::wire::json_strip::Changes;
use http::{HeaderValue, Response, StatusCode, Version, header, response};
use http_body_util::BodyExt;
use serde_json::Value as JsonValue;
use std::sync::Arc;

/// Why a response of a backend can't be delivered.
#[derive(Debug, thiserror::Error)]
enum UndeliverableResponse {
    #[error("the backend sent a stream, which the request did not ask for")]
    UnexpectedStream,
    #[error("the response is longer than {MAX_TRANSLATED_BYTES} bytes, too long to translate")]
    TooLong,
    #[error(transparent)]
    Unreadable(#[from] SpillError),
    #[error("the backend did not count the tokens ({status}): {message}")]
    NoCount { status: StatusCode, message: String },
    #[error(transparent)]
    Untranslatable(#[from] Untranslatable),
}

/// Makes the response to the agent from that of a backend. `permits` are held until the end of its body.
pub(super) async fn deliver(
    call: &GatewayCall,
    request: BackendRequest,
    response: BackendResponse,
    memory: &Memory,
    permits: CallPermits,
) -> Response<Body> {
    let recording = &call.exchange.recording;
    let BackendResponse { mut parts, body, .. } = response;
    rewrite::response(&mut parts.headers, rewrite::UpgradeFields::Remove);
    parts.version = Version::HTTP_11;
    let mut changes = request.changes();
    if changes.is_some() && parts.headers.contains_key(header::CONTENT_ENCODING) {
        recording.not_stripped();
        changes = None;
    }
    let (handling, unanswered) = (request.handling, request.unanswered);
    let response = match body {
        ReadBody::Whole(bytes) if bytes.len() == 0 => {
            recording.outcome(Outcome::Complete);
            recording.finish_and_wait().await;
            return Response::from_parts(parts, body::empty());
        }
        ReadBody::Whole(bytes) => deliver_whole(call, parts, bytes, (handling, unanswered), memory).await,
        ReadBody::Begun(body) if is_event_stream(&parts.headers) => {
            deliver_stream(call, parts, body, (handling, unanswered, changes), memory).await
        }
        ReadBody::Begun(body) => match handling {
            ResponseHandling::PassOn => {
                if changes.is_some() {
                    parts.headers.remove(header::CONTENT_LENGTH);
                }
                Response::from_parts(parts, ending(call, body).boxed_unsync())
            }
            _ => undeliverable(call, body, UndeliverableResponse::TooLong).await,
        },
    };
    response.map(|inner| PermittedBody { inner, _permits: permits }.boxed_unsync())
}

/// A body that was recorded before. Its end, or its drop, finishes the record.
fn ending(call: &GatewayCall, body: Replay<Body>) -> TeeBody<Replay<Body>> {
    TeeBody::of_recorded(body, call.exchange.recording.clone(), response_error, ends_stream)
}

/// Delivers a response of which the whole body was read.
async fn deliver_whole(
    call: &GatewayCall,
    mut parts: response::Parts,
    mut bytes: EditedBytes,
    (handling, unanswered): (ResponseHandling, Option<UnansweredRequest>),
    memory: &Memory,
) -> Response<Body> {
    match other_text(call, &parts, &bytes, handling) {
        Ok(Some(OtherText { text, content_type })) => {
            if let Some(unanswered) = unanswered.filter(|_| parts.status.is_success()) {
                unanswered.answered(&text);
            }
            bytes = HeldBytes::of(memory, MemoryUse::GatewayResponse, &text).into();
            if content_type != JSON || !is_json(&parts.headers) {
                parts.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
            }
            parts.headers.remove(header::CONTENT_ENCODING);
        }
        Ok(None) => {}
        Err(error) => return undeliverable(call, Replay::whole(EditedBytes::default(), None), error).await,
    }
    parts.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(bytes.len()));
    Response::from_parts(parts, ending(call, Replay::whole(bytes, None)).boxed_unsync())
}

/// A body that the agent gets in place of the backend's.
struct OtherText {
    text: Vec<u8>,
    content_type: &'static str,
}

impl OtherText {
    fn json(text: Vec<u8>) -> Self {
        Self { text, content_type: JSON }
    }
}

const JSON: &str = "application/json";

/// The body that the agent gets in place of the backend's; `None`: it gets the backend's.
fn other_text(
    call: &GatewayCall,
    parts: &response::Parts,
    bytes: &EditedBytes,
    handling: ResponseHandling,
) -> Result<Option<OtherText>, UndeliverableResponse> {
    let whole = || {
        if bytes.len() > MAX_TRANSLATED_BYTES {
            return Err(UndeliverableResponse::TooLong);
        }
        Ok(bytes.to_vec()?)
    };
    match handling {
        ResponseHandling::Translate(shape, translator) => {
            translated_body(shape, parts, &translator, &whole()?).map(Some)
        }
        ResponseHandling::CountTokens(tokenizer) => {
            token_count(tokenizer, parts.status, &whole()?).map(OtherText::json).map(Some)
        }
        // As Agent Lightning 1.0 does.
        ResponseHandling::PassOn if call.route.surface == ApiSurface::V1 && !is_json(&parts.headers) => {
            Ok(Some(OtherText::json(b"{}".to_vec())))
        }
        ResponseHandling::PassOn => Ok(None),
    }
}

async fn deliver_stream(
    call: &GatewayCall,
    mut parts: response::Parts,
    body: Replay<Body>,
    (handling, unanswered, changes): (ResponseHandling, Option<UnansweredRequest>, Option<Changes>),
    memory: &Memory,
) -> Response<Body> {
    match handling {
        ResponseHandling::Translate(_, translator) if parts.status.is_success() && translator.streams() => {
            translated_stream(call, parts, ending(call, body), (&translator, unanswered))
        }
        ResponseHandling::PassOn => {
            let (tee, recording) = (ending(call, body), &call.exchange.recording);
            let body = match changes {
                Some(changes) => stripped(tee, changes, &mut parts.headers, recording, memory).await,
                None => tee.boxed_unsync(),
            };
            let body = EventStreamBody::new(body, Arc::clone(&call.response_state));
            Response::from_parts(parts, body.boxed_unsync())
        }
        _ => undeliverable(call, body, UndeliverableResponse::UnexpectedStream).await,
    }
}

/// Translates a whole body, or an error, into the agent's API.
fn translated_body(
    shape: ErrorShape,
    parts: &response::Parts,
    translator: &ResponseTranslator,
    body: &[u8],
) -> Result<OtherText, UndeliverableResponse> {
    if !parts.status.is_success() {
        let status = parts.status.as_u16();
        return Ok(OtherText::json(shape.body(status, ApiErrorKind::of_status(status), &error_message(body))));
    }
    if translator.streams() {
        // Some backends do not stream. The agent gets the events of its API all the same.
        return Ok(OtherText { text: translator.whole_as_stream(body)?, content_type: translator.content_type() });
    }
    Ok(OtherText::json(translator.whole(body)?))
}

/// A tokenizer's response as that of Anthropic's `count_tokens`.
fn token_count(tokenizer: Tokenizer, status: StatusCode, body: &[u8]) -> Result<Vec<u8>, UndeliverableResponse> {
    let response = serde_json::from_slice::<JsonValue>(body).ok().filter(|_| status.is_success());
    let count = response.and_then(|response| response.get(tokenizer.count)?.as_u64());
    let no_count = || UndeliverableResponse::NoCount { status, message: error_message(body) };
    let count = count.ok_or_else(no_count)?;
    Ok(serde_json::json!({ "input_tokens": count }).to_string().into_bytes())
}

/// Records a backend's response to its end, and responds with an error instead.
async fn undeliverable(call: &GatewayCall, rest: Replay<Body>, error: UndeliverableResponse) -> Response<Body> {
    let error = ProxyError::new(ErrorKind::BackendAnswerUnread, "", error.to_string());
    tracing::warn!(rollout_id = %call.exchange.identity.rollout_id, %error, "a backend's response can't be delivered");
    call.exchange.recording.set_final_outcome(Outcome::Failed { error: error.clone() });
    let mut rest = ending(call, rest);
    while rest.frame().await.is_some_and(|frame| frame.is_ok()) {}
    call.error_format.response(&error)
}

/// Translates a stream of events into the agent's API, event by event.
fn translated_stream(
    call: &GatewayCall,
    mut parts: response::Parts,
    tee: TeeBody<Replay<Body>>,
    (translator, unanswered): (&ResponseTranslator, Option<UnansweredRequest>),
) -> Response<Body> {
    parts.headers.remove(header::CONTENT_LENGTH);
    parts.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(translator.content_type()));
    let state = Arc::clone(&call.response_state);
    let body = TranslatedBody::new(tee, translator.stream(), unanswered, state);
    Response::from_parts(parts, body.boxed_unsync())
}

/// The longest response that is translated, since its whole text is then in memory.
pub(super) const MAX_TRANSLATED_BYTES: u64 = 64 << 20;

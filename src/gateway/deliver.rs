//! Delivers the response of a backend to the agent: recorded, without the fields that only Tracewire asked for, and translated
//! if the agent called another API.

use super::backend_request::ResponseHandling;
use super::backend_response::{BackendResponse, is_event_stream, is_json};
use super::backends::Backend;
use super::call::GatewayCall;
use super::response_bodies::{BackendBody, CallPermits, EventStreamBody, ReplacedBody, TranslatedBody};
use super::routing::ApiSurface;
use crate::capture::{Memory, TeeBody};
use crate::error::{ErrorKind, ProxyError};
use crate::forward::tokens::{MAX_BUFFERED_BYTES, stripped};
use crate::forward::{response_error, rewrite};
use crate::llm::api::{ApiErrorKind, ErrorShape, ends_stream, error_message};
use crate::llm::engine::Tokenizer;
use crate::llm::token_ids::InjectedRequest;
use crate::llm::translate::{ResponseTranslator, Untranslatable};
use crate::trace::exchange::{Direction, Outcome};
use crate::upstream::{Body, body};
use crate::wire::json_strip::{Changes, change};
use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, Version, header, response};
use http_body_util::BodyExt;
use serde_json::Value as JsonValue;
use std::sync::Arc;

/// How the request was made that led to a response.
pub(super) struct SentRequest {
    pub(super) backend: Arc<Backend>,
    /// The version of the backend's weights when the request was sent.
    pub(super) version: i64,
    pub(super) handling: ResponseHandling,
    pub(super) injected: Option<InjectedRequest>,
}

/// Why a response of a backend can't be delivered.
#[derive(Debug, thiserror::Error)]
enum UndeliverableResponse {
    #[error("the backend sent a stream, which the request did not ask for")]
    UnexpectedStream,
    #[error("the request asked for a stream, and the backend responded without one")]
    MissingStream,
    #[error("the response is longer than {MAX_BUFFERED_BYTES} bytes, too long to translate")]
    TooLong,
    #[error("the backend did not count the tokens ({status}): {message}")]
    NoCount { status: StatusCode, message: String },
    #[error(transparent)]
    Untranslatable(#[from] Untranslatable),
}

/// The response to the agent.
pub(super) async fn deliver(
    call: &GatewayCall,
    request: SentRequest,
    response: BackendResponse,
    permits: CallPermits,
    memory: &Memory,
) -> Response<Body> {
    let recording = &call.exchange.recording;
    let SentRequest { backend, version, handling, injected } = request;
    let BackendResponse { mut parts, beginning, rest } = response;
    rewrite::response(&mut parts.headers, rewrite::UpgradeFields::Remove);
    parts.version = Version::HTTP_11;
    let is_stream = is_event_stream(&parts.headers);
    let is_whole = rest.is_none();
    if is_whole && beginning.is_empty() {
        recording.outcome(Outcome::Complete);
        recording.finish_and_wait().await;
        return Response::from_parts(parts, body::empty());
    }
    let body = BackendBody {
        beginning: Some(beginning.clone()),
        rest,
        backend,
        version,
        is_stream,
        recording: recording.clone(),
        must_end: call.must_end(),
        _permits: permits,
    };
    let tee = TeeBody::new(body, recording.clone(), Direction::Response, response_error, ends_stream);
    let changes = injected.map(|injected| injected.changes).filter(|changes| *changes != Changes::default());
    if is_stream {
        return match handling {
            ResponseHandling::Translate(_, translator) if parts.status.is_success() && translator.streams() => {
                translated_stream(call, parts, tee, &translator)
            }
            ResponseHandling::PassOn => {
                let body = match changes {
                    Some(changes) => stripped(tee, changes, &mut parts.headers, recording, memory).await,
                    None => tee.boxed_unsync(),
                };
                let body = EventStreamBody::new(body, Arc::clone(&call.response_state));
                Response::from_parts(parts, body.boxed_unsync())
            }
            _ => undeliverable(call, tee, UndeliverableResponse::UnexpectedStream).await,
        };
    }
    if !is_whole {
        recording.not_stripped();
        return match handling {
            ResponseHandling::PassOn => Response::from_parts(parts, tee.boxed_unsync()),
            _ => undeliverable(call, tee, UndeliverableResponse::TooLong).await,
        };
    }
    let text = match (handling, changes) {
        (ResponseHandling::Translate(shape, translator), _) => {
            translated_body(shape, &parts, &translator, &beginning).map(Bytes::from)
        }
        (ResponseHandling::CountTokens(tokenizer), _) => {
            token_count(tokenizer, parts.status, &beginning).map(Bytes::from)
        }
        // As Agent Lightning 1.0 does.
        (ResponseHandling::PassOn, _) if call.route.surface == ApiSurface::V1 && !is_json(&parts.headers) => {
            Ok(Bytes::from_static(b"{}"))
        }
        (ResponseHandling::PassOn, Some(changes)) if !parts.headers.contains_key(header::CONTENT_ENCODING) => {
            Ok(change(&beginning, &changes).map_or(beginning, Bytes::from))
        }
        (ResponseHandling::PassOn, changes) => {
            if changes.is_some() {
                recording.not_stripped();
            }
            return Response::from_parts(parts, tee.boxed_unsync());
        }
    };
    let text = match text {
        Ok(text) => text,
        Err(error) => return undeliverable(call, tee, error).await,
    };
    if !is_json(&parts.headers) {
        parts.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    parts.headers.remove(header::CONTENT_ENCODING);
    parts.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(text.len()));
    Response::from_parts(parts, ReplacedBody { original: tee, text: Some(text) }.boxed_unsync())
}

/// A whole body in the agent's API.
fn translated_body(
    shape: ErrorShape,
    parts: &response::Parts,
    translator: &ResponseTranslator,
    body: &[u8],
) -> Result<Vec<u8>, UndeliverableResponse> {
    if !parts.status.is_success() {
        let status = parts.status.as_u16();
        return Ok(shape.body(status, ApiErrorKind::of_status(status), &error_message(body)));
    }
    if translator.streams() {
        return Err(UndeliverableResponse::MissingStream);
    }
    Ok(translator.whole(body)?)
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
async fn undeliverable(call: &GatewayCall, tee: TeeBody<BackendBody>, error: UndeliverableResponse) -> Response<Body> {
    let error = ProxyError::new(ErrorKind::BackendAnswerUnread, "", error.to_string());
    tracing::warn!(rollout_id = %call.exchange.identity.rollout_id, %error, "a backend's response can't be delivered");
    call.exchange.recording.set_final_outcome(Outcome::Failed { error: error.clone() });
    drop(tee.collect().await);
    call.error_format.response(&error)
}

/// A stream of events in the agent's API.
fn translated_stream(
    call: &GatewayCall,
    mut parts: response::Parts,
    tee: TeeBody<BackendBody>,
    translator: &ResponseTranslator,
) -> Response<Body> {
    parts.headers.remove(header::CONTENT_LENGTH);
    parts.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(translator.content_type()));
    let state = Arc::clone(&call.response_state);
    let body = TranslatedBody { original: tee, translation: Some(translator.stream()), state };
    Response::from_parts(parts, body.boxed_unsync())
}

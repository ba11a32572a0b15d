//! The response of a backend, as much of it as is needed to decide whether there is another try: the first bytes of a stream, or
//! the whole body of any other response, if memory or disk has room for it.
//!
//! The bytes are recorded as they arrive. Those that the agent gets are held, without the fields that only Tracewire asked for.
//! If there is another try, the record is discarded.

use super::response_bodies::BackendBody;
use crate::capture::{EditedBytes, HeldBytes, Memory, MemoryUse, RecordedFrames};
use crate::error::ProxyError;
use crate::forward::replay::{Buffered, Replay, buffer};
use crate::forward::response_error;
use crate::forward::tokens::StrippedBody;
use crate::llm::token_ids::ResponseStripper;
use crate::upstream::Body;
use crate::wire::json_strip::Changes;
use crate::wire::sse::looks_like_events;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header, response};
use http_body_util::BodyExt;

/// A response of which enough was read to decide whether it is delivered.
pub(super) struct BackendResponse {
    pub(super) parts: response::Parts,
    /// The first bytes of the body; empty only if the body is.
    pub(super) beginning: Bytes,
    pub(super) body: ReadBody,
}

/// The body of a response, without what the agent does not get.
pub(super) enum ReadBody {
    /// The whole body.
    Whole(EditedBytes),
    /// What was read of a stream, or of a body that neither memory nor disk has room for; the rest is still to come.
    Begun(Replay<Body>),
}

/// How a response is read.
pub(super) struct ResponseReading<'a> {
    pub(super) memory: &'a Memory,
    /// The fields that the body loses. A stream loses them later, event by event.
    pub(super) changes: Option<Changes>,
    /// A body up to this length, in bytes, is read whole even if memory and disk have no room.
    pub(super) always_bytes: u64,
}

impl BackendResponse {
    /// Reads the beginning. An error if the response breaks off before that.
    pub(super) async fn read(
        mut parts: response::Parts,
        body: BackendBody,
        reading: ResponseReading<'_>,
    ) -> Result<Self, ProxyError> {
        let recording = body.recording.clone();
        let mut body = RecordedFrames::new(body, recording);
        let mut first = Bytes::new();
        while let Some(frame) = body.frame().await {
            first = frame.map_err(|error| response_error(&error))?.into_data().unwrap_or_default();
            if !first.is_empty() {
                break;
            }
        }
        if first.is_empty() {
            return Ok(Self { parts, beginning: first, body: ReadBody::Whole(EditedBytes::default()) });
        }
        // Some servers send streams under another content type. Clients read them as what they are.
        if parts.status.is_success()
            && looks_like_events(&first)
            && !parts.headers.contains_key(header::CONTENT_ENCODING)
        {
            parts.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
        }
        let beginning = first.clone();
        let body = Replay::begun(EditedBytes::default(), first, body.boxed_unsync());
        if is_event_stream(&parts.headers) {
            return Ok(Self { parts, beginning, body: ReadBody::Begun(body) });
        }
        let changes = reading.changes.filter(|_| !parts.headers.contains_key(header::CONTENT_ENCODING));
        let body: Body = match changes {
            Some(changes) => StrippedBody::new(body, ResponseStripper::json(changes)).boxed_unsync(),
            None => body.boxed_unsync(),
        };
        let held = HeldBytes::new(reading.memory, MemoryUse::GatewayResponse);
        match buffer(body, held, reading.always_bytes).await {
            Buffered::Whole(held, _) => {
                let bytes = EditedBytes::from(held);
                Ok(Self { parts, beginning: bytes.beginning()?, body: ReadBody::Whole(bytes) })
            }
            Buffered::NoRoom(held, next, rest) => {
                let bytes = EditedBytes::from(held);
                let beginning = if bytes.len() == 0 { next.clone() } else { bytes.beginning()? };
                Ok(Self { parts, beginning, body: ReadBody::Begun(Replay::begun(bytes, next, rest)) })
            }
            Buffered::Failed(_, error) => Err(response_error(&error)),
        }
    }

    pub(super) fn status(&self) -> StatusCode {
        self.parts.status
    }

    /// True for a success without a body, or with one that is neither JSON nor events: no LLM API has such a response.
    pub(super) fn is_meaningless_success(&self) -> bool {
        let first = self.beginning.trim_ascii_start().first();
        let is_readable = is_event_stream(&self.parts.headers) || matches!(first, Some(b'{' | b'['));
        self.parts.status.is_success() && (first.is_none() || !is_readable)
    }
}

pub(super) fn is_event_stream(headers: &HeaderMap) -> bool {
    has_content_type(headers, "text/event-stream")
}

pub(super) fn is_json(headers: &HeaderMap) -> bool {
    has_content_type(headers, "application/json")
}

fn has_content_type(headers: &HeaderMap, name: &str) -> bool {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.trim_start().to_ascii_lowercase().starts_with(name)
}

//! The response of a backend, as much of it as is needed to decide whether there is another try: the first bytes of a stream,
//! the whole body of any other response, up to [`MAX_BUFFERED_BYTES`].

use crate::error::ProxyError;
use crate::forward::response_error;
use crate::forward::tokens::MAX_BUFFERED_BYTES;
use crate::upstream::{IdleLimited, Lease};
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Response, StatusCode, header, response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use std::time::Duration;

/// The beginning of a response, and its rest.
pub(super) struct BackendResponse {
    pub(super) parts: response::Parts,
    /// What has arrived of the body; empty only if the body is.
    pub(super) beginning: Bytes,
    /// What follows; `None` if that was the whole body.
    pub(super) rest: Option<IdleLimited>,
}

impl BackendResponse {
    /// Reads the beginning. An error if the response breaks off before that.
    pub(super) async fn read(
        response: Response<Incoming>,
        lease: Lease,
        idle_timeout: Duration,
    ) -> Result<Self, ProxyError> {
        let (parts, body) = response.into_parts();
        let mut rest = IdleLimited::new(body, lease, idle_timeout);
        let is_stream = is_event_stream(&parts.headers);
        let mut beginning = BytesMut::new();
        while beginning.is_empty() || !is_stream && beginning.len() <= MAX_BUFFERED_BYTES {
            let Some(frame) = rest.frame().await else {
                return Ok(Self { parts, beginning: beginning.freeze(), rest: None });
            };
            if let Ok(data) = frame.map_err(|error| response_error(&error))?.into_data() {
                beginning.extend_from_slice(&data);
            }
        }
        Ok(Self { parts, beginning: beginning.freeze(), rest: Some(rest) })
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

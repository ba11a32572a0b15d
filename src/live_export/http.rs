//! Posts the requests of exports. They pass neither the proxy nor the recorder.

use super::retry::retry_after;
use crate::tls::Offer;
use crate::upstream::{Origin, PoolKey, Upstream, body};
use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Limited};
use std::time::{Duration, SystemTime};

/// A receiver, and how it is reached.
pub(super) struct Poster {
    pub(super) upstream: Upstream,
    pub(super) origin: Origin,
    pub(super) uri: Uri,
    /// Of every request.
    pub(super) headers: HeaderMap,
    /// For a request with its response.
    pub(super) timeout: Duration,
}

/// What came back.
pub(super) enum Reply {
    /// The receiver responded, with any status.
    Response(Response),
    /// No response, and why.
    Failed(String),
}

/// A response of a receiver.
pub(super) struct Response {
    pub(super) status: StatusCode,
    /// The pause that it asks for.
    pub(super) retry_after: Option<Duration>,
    /// Empty if it has none.
    pub(super) content_type: String,
    /// At most [`MAX_RESPONSE_BYTES`]; empty if it was longer, or broke off.
    pub(super) body: Bytes,
}

impl Response {
    /// The status, and the beginning of a body that is text, for a message.
    pub(super) fn cause(&self) -> String {
        let text = std::str::from_utf8(&self.body).unwrap_or_default();
        let line = text.lines().next().unwrap_or_default();
        let words: String = line.chars().filter(|letter| !letter.is_control()).take(MAX_WORDS).collect();
        let divider = if words.is_empty() { "" } else { ": " };
        format!("it responds {}{divider}{words}", self.status)
    }
}

impl Poster {
    /// Sends a body, with further header fields.
    pub(super) async fn post(&self, body: Bytes, headers: HeaderMap) -> Reply {
        let mut request = Request::new(body::full(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.uri.clone();
        request.headers_mut().insert(header::USER_AGENT, header::HeaderValue::from_static(USER_AGENT));
        request.headers_mut().insert(OWN_TRAFFIC, header::HeaderValue::from_static("true"));
        request.headers_mut().extend(headers);
        request.headers_mut().extend(self.headers.clone());
        let sending = async {
            let sent = self.upstream.send(request, &PoolKey::Gateway, &self.origin, Offer::Http1).await;
            let sent = sent.map_err(|error| error.to_string())?;
            let (head, body) = sent.response.into_parts();
            let body = Limited::new(body, MAX_RESPONSE_BYTES).collect().await;
            let content_type = head.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
            Ok::<_, String>(Response {
                status: head.status,
                retry_after: retry_after(&head.headers, SystemTime::now()),
                content_type: content_type.unwrap_or_default().to_owned(),
                body: body.map(|body| body.to_bytes()).unwrap_or_default(),
            })
        };
        match tokio::time::timeout(self.timeout, sending).await {
            Ok(Ok(response)) => Reply::Response(response),
            Ok(Err(cause)) => Reply::Failed(cause),
            Err(_) => Reply::Failed(format!("no response within {} ms", self.timeout.as_millis())),
        }
    }
}

/// Proxies of other Tracewires forward such requests without recording them.
const OWN_TRAFFIC: &str = "x-agentlightning-client";
const USER_AGENT: &str = concat!("tracewire/", env!("CARGO_PKG_VERSION"));
/// What is read of a response. Those of OTLP have some bytes.
const MAX_RESPONSE_BYTES: usize = 64 * 1024;
/// Characters of a response in a message.
const MAX_WORDS: usize = 200;

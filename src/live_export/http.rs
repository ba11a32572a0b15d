//! Posts the requests of exports. They pass neither the proxy nor the recorder.

use super::retry::retry_after;
use crate::error::{ErrorKind, ProxyError};
use crate::tls::Offer;
use crate::upstream::{Origin, PoolKey, Upstream, body};
use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode, Uri, Version, header};
use http_body_util::BodyExt;
use hyper::body::Body;
use std::time::{Duration, SystemTime};

/// A receiver, and how it is reached.
pub(super) struct Poster {
    pub(super) upstream: Upstream,
    pub(super) origin: Origin,
    pub(super) uri: Uri,
    /// The version of HTTP: 1.1, or 2 for gRPC.
    pub(super) offer: Offer,
    /// Of every request.
    pub(super) headers: HeaderMap,
    /// For a request with its response.
    pub(super) timeout: Duration,
}

/// What came back.
pub(super) enum Reply {
    /// The receiver responded, with any status.
    Response(Box<Response>),
    /// No response, and why.
    Failed(String),
}

/// A response of a receiver.
pub(super) struct Response {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    /// At most [`MAX_RESPONSE_BYTES`]; empty if it was longer, or broke off.
    pub(super) body: Bytes,
    /// `None` if it has none, or the body broke off.
    pub(super) trailers: Option<HeaderMap>,
}

impl Response {
    /// The status, and the beginning of a body that is text, for a message.
    pub(super) fn cause(&self) -> String {
        let text = std::str::from_utf8(&self.body).unwrap_or_default();
        let words = quoted(text.lines().next().unwrap_or_default());
        let divider = if words.is_empty() { "" } else { ": " };
        format!("it responds {}{divider}{words}", self.status)
    }

    /// The pause that it asks for.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        retry_after(&self.headers, SystemTime::now())
    }

    /// Empty if it has none.
    pub(super) fn content_type(&self) -> &str {
        self.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

/// The beginning of what a receiver says, for a message.
pub(super) fn quoted(text: &str) -> String {
    text.chars().filter(|letter| !letter.is_control()).take(MAX_WORDS).collect()
}

impl Poster {
    /// Sends a body, with further header fields.
    pub(super) async fn post(&self, body: Bytes, headers: HeaderMap) -> Reply {
        let mut request = Request::new(body::full(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.uri.clone();
        request.headers_mut().insert(header::USER_AGENT, header::HeaderValue::from_static(USER_AGENT));
        request.headers_mut().insert(OWN_TRAFFIC, header::HeaderValue::from_static("true"));
        request.headers_mut().extend(self.headers.clone());
        // Those of the protocol are what a receiver needs to read the body.
        request.headers_mut().extend(headers);
        let sending = async {
            let sent = self.upstream.send(request, &PoolKey::Gateway, &self.origin, self.offer).await;
            let (head, body) = sent.map_err(|error| self.explain(&error))?.response.into_parts();
            if self.offer == Offer::Http2 && head.version != Version::HTTP_2 {
                return Err(format!("it speaks {:?}; {HTTP2_FIX}", head.version));
            }
            let (body, trailers) = read_response(body).await;
            Ok(Response { status: head.status, headers: head.headers, trailers, body })
        };
        match tokio::time::timeout(self.timeout, sending).await {
            Ok(Ok(response)) => Reply::Response(Box::new(response)),
            Ok(Err(cause)) => Reply::Failed(cause),
            Err(_) => Reply::Failed(format!("no response within {} ms", self.timeout.as_millis())),
        }
    }

    /// Why there is no response, and what to do about it.
    fn explain(&self, error: &ProxyError) -> String {
        use ErrorKind::{ConnectionTerminated, HttpProtocolError, TlsAlertReceived, TlsProtocolError};
        let is_other_protocol =
            matches!(error.kind, HttpProtocolError | ConnectionTerminated | TlsAlertReceived | TlsProtocolError);
        let fix = if self.offer == Offer::Http2 && is_other_protocol { HTTP2_FIX } else { error.fix() };
        format!("{error}; {fix}")
    }
}

/// A body, which is empty if it is too long or breaks off, and its trailers: they say whether the receiver has the spans, whatever
/// is before them.
async fn read_response<B: Body<Data = Bytes>>(body: B) -> (Bytes, Option<HeaderMap>) {
    let mut body = std::pin::pin!(body);
    let (mut data, mut is_whole) = (Vec::new(), true);
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else { return (Bytes::new(), None) };
        match frame.into_data() {
            Ok(part) if data.len() + part.len() <= MAX_RESPONSE_BYTES => data.extend_from_slice(&part),
            Ok(_) => is_whole = false,
            Err(frame) => {
                let data = if is_whole { data.into() } else { Bytes::new() };
                return (data, frame.into_trailers().ok());
            }
        }
    }
    (if is_whole { data.into() } else { Bytes::new() }, None)
}

/// For a receiver that does not respond in HTTP/2.
const HTTP2_FIX: &str =
    "gRPC needs a port that speaks HTTP/2, often 4317: check the endpoint, its http:// or https://, and `protocol`";
/// Proxies of other Tracewires forward such requests without recording them.
const OWN_TRAFFIC: &str = "x-agentlightning-client";
const USER_AGENT: &str = concat!("tracewire/", env!("CARGO_PKG_VERSION"));
/// What is read of a response. Those of OTLP have some bytes.
const MAX_RESPONSE_BYTES: usize = 64 * 1024;
/// Characters of a response in a message.
const MAX_WORDS: usize = 200;

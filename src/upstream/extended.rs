//! WebSocket over HTTP/2 (RFC 8441): recognized, and converted into an HTTP/1.1 upgrade for endpoints without support.
//!
//! It must not send anything.

use super::body::Body;
use super::connection::Http2Sender;
use crate::error::{ErrorKind, ProxyError};
use crate::wire::framing::head::is_taken;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::ext::Protocol;
use std::time::{Duration, Instant};

/// True for a CONNECT with `:protocol`.
pub(super) fn is_extended(request: &Request<Body>) -> bool {
    request.method() == Method::CONNECT && request.extensions().get::<Protocol>().is_some()
}

/// True when the endpoint supports extended CONNECT. On a new connection this waits up to a second for its SETTINGS.
pub(super) async fn is_supported(sender: &Http2Sender) -> bool {
    let mut enabled = sender.extended_connect.clone();
    let deadline = sender.made + SETTINGS_GRACE;
    loop {
        if *enabled.borrow() {
            return true;
        }
        // hyper does not report the arrival of SETTINGS, so the connection's task must look. If the channel is full, it
        // is already about to.
        let _ = sender.refresh.try_send(());
        let seen = tokio::time::timeout(REFRESH_INTERVAL, enabled.wait_for(|enabled| *enabled)).await;
        if matches!(seen, Ok(Ok(_))) || Instant::now() >= deadline {
            return *sender.extended_connect.borrow();
        }
    }
}

/// Converts an extended CONNECT into an upgrade request (RFC 6455 §4.1), and returns its `Sec-WebSocket-Key`.
pub(super) fn into_upgrade(request: &mut Request<Body>) -> Result<HeaderValue, ProxyError> {
    let protocol = request.extensions_mut().remove::<Protocol>();
    let protocol = protocol.and_then(|protocol| HeaderValue::from_bytes(protocol.as_ref()).ok());
    let protocol = protocol.filter(|protocol| is_taken(protocol.as_bytes())).ok_or_else(|| {
        let cause =
            "the endpoint has no extended CONNECT, and HTTP/1.1 has no upgrade to its :protocol that is relayed";
        ProxyError::new(ErrorKind::HttpRequestError, request.uri().to_string(), cause)
    })?;
    let mut nonce = [0; 16];
    let failed = || {
        ProxyError::new(
            ErrorKind::ProxyInternalError,
            "",
            "the random key of a WebSocket handshake could not be generated",
        )
    };
    aws_lc_rs::rand::fill(&mut nonce).map_err(|_| failed())?;
    let key = HeaderValue::try_from(STANDARD.encode(nonce)).map_err(|_| failed())?;
    *request.method_mut() = Method::GET;
    let headers = request.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, protocol);
    headers.insert(header::SEC_WEBSOCKET_KEY, key.clone());
    Ok(key)
}

/// Checks that a 101 response was made for `key`. Refusals pass; a success without 101 would be read as consent.
pub(super) fn check_accept<B>(response: &Response<B>, key: &HeaderValue, endpoint: &str) -> Result<(), ProxyError> {
    if response.status().is_success() {
        let cause = format!("the endpoint answered an upgrade with {}, not with 101", response.status().as_u16());
        return Err(ProxyError::new(ErrorKind::HttpProtocolError, endpoint, cause));
    }
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Ok(());
    }
    let text = [key.as_bytes(), WEBSOCKET_GUID].concat();
    let expected = STANDARD.encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY, &text));
    if response.headers().get(header::SEC_WEBSOCKET_ACCEPT).is_some_and(|accept| accept == expected.as_str()) {
        return Ok(());
    }
    Err(ProxyError::new(
        ErrorKind::HttpProtocolError,
        endpoint,
        "Sec-WebSocket-Accept does not match the Sec-WebSocket-Key",
    ))
}

const REFRESH_INTERVAL: Duration = Duration::from_millis(5);
const SETTINGS_GRACE: Duration = Duration::from_secs(1);
/// RFC 6455 §1.3.
const WEBSOCKET_GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

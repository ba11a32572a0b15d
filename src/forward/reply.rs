//! The response for an error of the proxy.

use crate::error::ProxyError;
use crate::upstream::{Body, body};
use crate::wire::redact::Redactor;
use http::{HeaderValue, Response, StatusCode, header};

/// The response for an error: JSON with cause and fix, and `Proxy-Status` (RFC 9209), which shows that the proxy answered
/// and not the endpoint.
pub(crate) fn error(error: &ProxyError) -> Response<Body> {
    let message = format!("tracewire: {error}. {}", capitalised(error.fix()));
    let text = serde_json::json!({
        "error": {
            "type": error.kind.as_str(),
            "message": Redactor::of_messages().text(&message),
            "side": error.side().as_str(),
        }
    });
    let mut response = Response::new(body::full(text.to_string()));
    *response.status_mut() = error.status();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Ok(status) = HeaderValue::from_str(&format!("tracewire; error={}", error.kind.as_str())) {
        headers.insert("proxy-status", status);
    }
    if error.status() == StatusCode::PROXY_AUTHENTICATION_REQUIRED {
        headers.insert(header::PROXY_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"tracewire\""));
    }
    response
}

fn capitalised(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

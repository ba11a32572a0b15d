//! A request in the form that the protocol of its connection demands.

use super::body::Body;
use super::connection::Sender;
use crate::net::raw_target::RawTargets;
use crate::net::trailers::is_chunked;
use crate::wire::framing::target::RawTarget;
use http::{HeaderMap, HeaderValue, Request, Uri, Version, header};
use hyper::body::Body as _;

/// Sets target form and version as the connection's protocol demands: origin-form and `Host` in HTTP/1.1 (absolute-form to
/// an upstream proxy), pseudo-header fields in HTTP/2.
pub(super) fn adapt_to_protocol(request: &mut Request<Body>, sender: &Sender) {
    let Sender::Http1(sender) = sender else {
        *request.version_mut() = Version::HTTP_2;
        request.headers_mut().remove(header::HOST);
        return;
    };
    if request.version() == Version::HTTP_2 {
        join_cookies(request.headers_mut());
    }
    *request.version_mut() = Version::HTTP_11;
    declare_chunked(request);
    if !request.headers().contains_key(header::HOST)
        && let Some(host) = request.uri().authority().map(|authority| authority.as_str().to_owned())
        && let Ok(value) = host.parse()
    {
        request.headers_mut().insert(header::HOST, value);
    }
    if let Some(proxy) = &sender.forward_proxy {
        if let Some(authorization) = &proxy.authorization {
            request.headers_mut().insert(header::PROXY_AUTHORIZATION, authorization.clone());
        }
        return;
    }
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    // Copied unchanged: a signature may cover it.
    if let Ok(uri) = path.parse::<Uri>() {
        *request.uri_mut() = uri;
    }
}

/// Has the target written as it came, unless it was replaced since.
pub(super) fn restore_target(request: &Request<Body>, targets: &RawTargets) {
    let Some(RawTarget { encoded, raw }) = request.extensions().get::<RawTarget>() else { return };
    let (method, uri) = (request.method(), request.uri().to_string());
    if let Some(before) = uri.strip_suffix(encoded.as_str())
        && request.uri().path_and_query().is_some_and(|path| path.as_str() == encoded)
    {
        // RFC 9112 §3.2.4: to a proxy, a target without a path stands for the whole server.
        let raw = if raw == "*" && !before.is_empty() { &b""[..] } else { raw };
        let wanted = [method.as_str().as_bytes(), b" ", before.as_bytes(), raw, b" "].concat();
        targets.substitute(format!("{method} {uri} "), wanted);
    }
}

/// Frames a body of unknown length. Without the field the HTTP library drops the body of a GET or HEAD request.
fn declare_chunked(request: &mut Request<Body>) {
    let has_body = !request.body().is_end_stream() && !request.headers().contains_key(header::UPGRADE);
    if has_body && is_chunked(request.headers(), request.body()) {
        request.headers_mut().insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
}

/// Joins the cookie fields of an HTTP/2 request into the one field of HTTP/1.1 (RFC 9113 §8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let pieces: Vec<&[u8]> = headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if pieces.len() > 1
        && let Ok(joined) = HeaderValue::from_bytes(&pieces.join(&b"; "[..]))
    {
        headers.insert(header::COOKIE, joined);
    }
}

//! Responses to requests that address the proxy as if it were a web server.

use crate::error::{ErrorKind, ProxyError};
use crate::forward::reply;
use crate::upstream::{Body, body};
use http::{HeaderValue, Method, Request, Response, header};
use hyper::body::Incoming;

/// Returns the help page for `/`, the public CA certificate for `/ca.pem`, and an explained 400 for anything else.
pub(super) fn answer(request: &Request<Incoming>, ca_pem: &str) -> Response<Body> {
    if let Some(scheme) = request.uri().scheme_str() {
        let cause = format!("the scheme {scheme} is not supported; only http and https are forwarded");
        return reply::error(&ProxyError::new(ErrorKind::HttpRequestError, "", cause));
    }
    let (text, content_type) = match (request.method(), request.uri().path()) {
        (&Method::GET, "/") => (HELP.to_owned(), "text/plain; charset=utf-8"),
        (&Method::GET, "/ca.pem") => (ca_pem.to_owned(), "application/x-pem-file"),
        (method, path) => {
            let cause = format!("{method} {path} is not a request to a proxy");
            return reply::error(&ProxyError::new(ErrorKind::HttpRequestError, "", cause));
        }
    };
    let mut response = Response::new(body::full(text));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

const HELP: &str = "This is the Tracewire proxy.

To use it, set HTTPS_PROXY and HTTP_PROXY to this address, and make the client trust the certificate at /ca.pem.
`tracewire env` prints these settings for a shell. `tracewire run -- CMD` applies them to one command.
";

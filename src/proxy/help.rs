//! What the door says to somebody who talks to it as if it were a web server.

use super::refuse;
use crate::error::{ErrorKind, ProxyError};
use crate::upstream::{Body, body};
use http::{HeaderValue, Method, Request, Response, header};
use hyper::body::Incoming;

/// The help page at `/`, the public CA certificate at `/ca.pem`, and an explained 400 for the rest.
pub(super) fn answer(request: &Request<Incoming>, ca_pem: &str) -> Response<Body> {
    if let Some(scheme) = request.uri().scheme_str() {
        let cause = format!("the scheme {scheme} can't be forwarded, only http and https");
        return refuse(&ProxyError::new(ErrorKind::HttpRequestError, "", cause));
    }
    let (text, content_type) = match (request.method(), request.uri().path()) {
        (&Method::GET, "/") => (HELP.to_owned(), "text/plain; charset=utf-8"),
        (&Method::GET, "/ca.pem") => (ca_pem.to_owned(), "application/x-pem-file"),
        (method, path) => {
            let cause = format!("{method} {path} is not a request to a proxy");
            return refuse(&ProxyError::new(ErrorKind::HttpRequestError, "", cause));
        }
    };
    let mut response = Response::new(body::full(text));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

const HELP: &str = "This is the proxy door of Tracewire.

Set HTTPS_PROXY and HTTP_PROXY to this address and let the client trust /ca.pem:
`tracewire env` prints the variables for a shell, `tracewire run -- CMD` does it all for one command.
";

//! What errors of TLS and HTTP libraries mean toward an endpoint.

use super::body::Body;
use crate::error::{ErrorKind, FramingFault, ProxyError};
use crate::tls::client::{is_alert, is_certificate_error};
use http::{Request, Uri};
use hyper::client::conn::TrySendError;
use std::error::Error;
use std::io;

/// Why a request was not answered; the request itself, with its `absolute` target, if it was never written.
pub(super) fn send_error(
    mut failed: TrySendError<Request<Body>>,
    shown: &str,
    absolute: Uri,
) -> (ProxyError, Option<Request<Body>>) {
    let unsent = failed.take_message().map(|mut request| {
        *request.uri_mut() = absolute;
        request
    });
    let error = failed.into_error();
    if let Some(fault) = FramingFault::behind(&error) {
        // A fault in what the agent sends breaks our request off, one in the answer is the endpoint's.
        let faulty = if error.is_user() { fault.of_request() } else { fault.of_response() };
        return (ProxyError { host: shown.to_owned(), ..faulty }, None);
    }
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    let io = io_behind(&error);
    let reset =
        io.is_some_and(|io| matches!(io.kind(), ConnectionReset | ConnectionAborted | BrokenPipe | UnexpectedEof));
    let kind = if error.is_user() {
        // The request body failed: the agent went away while it was sending.
        ErrorKind::HttpRequestIncomplete
    } else if io.is_some_and(is_alert) {
        // Under TLS 1.3 a client certificate is judged after the handshake.
        ErrorKind::TlsAlertReceived
    } else if error.is_incomplete_message() || error.is_canceled() || reset {
        ErrorKind::ConnectionTerminated
    } else if error.is_timeout() {
        ErrorKind::HttpResponseTimeout
    } else {
        ErrorKind::HttpProtocolError
    };
    (ProxyError::from_source(kind, shown, &error), unsent)
}

/// Why there is no TLS with an endpoint.
pub(super) fn tls_error(shown: &str, error: &io::Error) -> ProxyError {
    let kind = if is_certificate_error(error) {
        ErrorKind::TlsCertificateError
    } else if is_alert(error) {
        ErrorKind::TlsAlertReceived
    } else if matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::UnexpectedEof) {
        ErrorKind::ConnectionTerminated
    } else {
        ErrorKind::TlsProtocolError
    };
    ProxyError::from_source(kind, shown, error)
}

/// The error of the socket below HTTP.
fn io_behind(error: &hyper::Error) -> Option<&io::Error> {
    let mut source = error.source();
    while let Some(inner) = source {
        if let Some(io) = inner.downcast_ref() {
            return Some(io);
        }
        source = inner.source();
    }
    None
}

//! Converts errors of the TLS and HTTP libraries on upstream connections.

use super::body::Body;
use super::resend::{RequestProgress, is_reset, is_reset_by_us, is_unprocessed};
use crate::error::{ErrorKind, FramingFault, ProxyError};
use crate::tls::TlsFailure;
use http::request::Parts;
use http::{Request, Uri};
use http_body_util::BodyExt;
use hyper::client::conn::TrySendError;
use std::error::Error;
use std::io;

/// Why a request has no response.
pub(super) struct SendFailure {
    pub(super) error: ProxyError,
    pub(super) again: Again,
}

/// Whether a request may be sent again, with its absolute target.
pub(super) enum Again {
    No,
    /// It was never written.
    Unwritten(Request<Body>),
    /// Its endpoint says that it did not process it.
    Unprocessed(Request<Body>),
}

/// Explains why a request has no response. `begun` is what can be sent again of a request over HTTP/2.
pub(super) fn send_error(
    mut failed: TrySendError<Request<Body>>,
    begun: Option<(Parts, RequestProgress)>,
    endpoint: &str,
    absolute: Uri,
) -> SendFailure {
    let unwritten = failed.take_message();
    let error = failed.into_error();
    let unprocessed = || {
        let (head, progress) = begun.filter(|_| is_unprocessed(&error))?;
        Some(Request::from_parts(head, progress.again()?.boxed_unsync()))
    };
    let with_target = |mut request: Request<Body>| {
        *request.uri_mut() = absolute;
        request
    };
    let again = match unwritten {
        Some(request) => Again::Unwritten(with_target(request)),
        None => unprocessed().map_or(Again::No, |request| Again::Unprocessed(with_target(request))),
    };
    SendFailure { error: explain(&error, endpoint), again }
}

fn explain(error: &hyper::Error, endpoint: &str) -> ProxyError {
    if let Some(fault) = FramingFault::behind(error) {
        // A fault in the client's body breaks our request off; any other is in the response.
        let faulty = if error.is_user() { fault.of_request() } else { fault.of_response() };
        return ProxyError { host: endpoint.to_owned(), ..faulty };
    }
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    let io = io_behind(error);
    let reset =
        io.is_some_and(|io| matches!(io.kind(), ConnectionReset | ConnectionAborted | BrokenPipe | UnexpectedEof));
    let kind = if error.is_user() || is_reset_by_us(error) {
        // The request body failed: the client left while it was sending.
        ErrorKind::HttpRequestIncomplete
    } else if io.is_some_and(|io| matches!(TlsFailure::of(io), TlsFailure::Alert | TlsFailure::NothingInCommon)) {
        // Under TLS 1.3 the endpoint judges our client certificate after the handshake.
        ErrorKind::TlsAlertReceived
    } else if error.is_incomplete_message() || error.is_canceled() || reset || is_reset(error) {
        ErrorKind::ConnectionTerminated
    } else if error.is_timeout() {
        ErrorKind::HttpResponseTimeout
    } else {
        ErrorKind::HttpProtocolError
    };
    ProxyError::from_source(kind, endpoint, error)
}

/// Why the TLS handshake with an endpoint failed.
pub(super) fn tls_error(endpoint: &str, error: &io::Error) -> ProxyError {
    let kind = match TlsFailure::of(error) {
        TlsFailure::CertificateForm(form) => {
            return ProxyError::new(
                ErrorKind::TlsCertificateForm,
                endpoint,
                format!("the endpoint's certificate {form}"),
            );
        }
        TlsFailure::NothingInCommon => {
            let cause = format!("{error}: the endpoint accepts none of our TLS versions and cipher suites");
            return ProxyError::new(ErrorKind::TlsNothingInCommon, endpoint, cause);
        }
        TlsFailure::Certificate => ErrorKind::TlsCertificateError,
        TlsFailure::Alert => ErrorKind::TlsAlertReceived,
        TlsFailure::Other if matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::UnexpectedEof) => {
            ErrorKind::ConnectionTerminated
        }
        TlsFailure::Other => ErrorKind::TlsProtocolError,
    };
    ProxyError::from_source(kind, endpoint, error)
}

/// The socket's error behind an error of the HTTP library.
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

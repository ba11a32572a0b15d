//! Converts errors of the TLS and HTTP libraries on upstream connections.

use super::body::{Body, BodyError};
use super::resend::RequestProgress;
use crate::error::{ErrorKind, FramingFault, ProxyError};
use crate::tls::TlsFailure;
use crate::util::panics::Panicked;
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
    let has_panicked = begun.as_ref().is_some_and(|(_, progress)| progress.has_panicked());
    let unprocessed = || {
        let (head, progress) = begun.filter(|_| behind(&error).is_some_and(is_unprocessed))?;
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
    let error = if has_panicked { Panicked.into() } else { explain(&error, endpoint) };
    SendFailure { error, again }
}

/// True if the task of the connection is gone with its request, which only a panic explains: the HTTP library blames its user,
/// but no body has failed.
fn is_abandoned(error: &hyper::Error) -> bool {
    error.is_user() && behind::<BodyError>(error).is_none()
}

fn explain(error: &hyper::Error, endpoint: &str) -> ProxyError {
    if let Some(fault) = FramingFault::behind(error) {
        // A fault in the client's body breaks our request off; any other is in the response.
        let faulty = if error.is_user() { fault.of_request() } else { fault.of_response() };
        return ProxyError { host: endpoint.to_owned(), ..faulty };
    }
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    let io: Option<&io::Error> = behind(error);
    let stream: Option<&h2::Error> = behind(error);
    let reset =
        io.is_some_and(|io| matches!(io.kind(), ConnectionReset | ConnectionAborted | BrokenPipe | UnexpectedEof));
    let kind = if is_abandoned(error) {
        ErrorKind::ProxyInternalError
    } else if error.is_user() || stream.is_some_and(is_reset_by_us) {
        // The request body failed: the client left while it was sending.
        ErrorKind::HttpRequestIncomplete
    } else if io.is_some_and(|io| matches!(TlsFailure::of(io), TlsFailure::Alert | TlsFailure::NothingInCommon)) {
        // Under TLS 1.3 the endpoint judges our client certificate after the handshake.
        ErrorKind::TlsAlertReceived
    } else if error.is_incomplete_message() || error.is_canceled() || reset || stream.is_some_and(is_reset) {
        ErrorKind::ConnectionTerminated
    } else if error.is_timeout() {
        ErrorKind::HttpResponseTimeout
    } else {
        ErrorKind::HttpProtocolError
    };
    ProxyError::from_source(kind, endpoint, error)
}

/// Why the TLS handshake with an endpoint failed.
pub(crate) fn tls_error(endpoint: &str, error: &io::Error) -> ProxyError {
    let certificate =
        |kind, words: &str| ProxyError::new(kind, endpoint, format!("the endpoint's certificate {words}"));
    let kind = match TlsFailure::of(error) {
        TlsFailure::UntrustedCertificate(words) => return certificate(ErrorKind::TlsCertificateError, words),
        TlsFailure::InvalidCertificate(words) => return certificate(ErrorKind::TlsCertificateInvalid, &words),
        TlsFailure::CertificateForm(words) => return certificate(ErrorKind::TlsCertificateForm, words),
        TlsFailure::NothingInCommon => {
            let cause = format!("{error}: the endpoint accepts none of our TLS versions and cipher suites");
            return ProxyError::new(ErrorKind::TlsNothingInCommon, endpoint, cause);
        }
        TlsFailure::Alert => ErrorKind::TlsAlertReceived,
        TlsFailure::Other if matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::UnexpectedEof) => {
            ErrorKind::ConnectionTerminated
        }
        TlsFailure::Other => ErrorKind::TlsProtocolError,
    };
    ProxyError::from_source(kind, endpoint, error)
}

/// True when an endpoint says that it did not process a request: by REFUSED_STREAM, or by a GOAWAY without an error that
/// has an earlier stream as its last one (RFC 9113 §8.7). Such a request may be sent again, whatever its method.
fn is_unprocessed(error: &h2::Error) -> bool {
    let refused = error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM);
    let above_last = error.is_go_away() && error.reason() == Some(h2::Reason::NO_ERROR);
    error.is_remote() && (refused || above_last)
}

/// True when the endpoint reset the stream, or closed the connection.
fn is_reset(error: &h2::Error) -> bool {
    error.is_remote() && (error.is_reset() || error.is_go_away())
}

/// True when the HTTP library reset the stream because the request's body failed.
fn is_reset_by_us(error: &h2::Error) -> bool {
    error.is_reset() && !error.is_remote() && !error.is_library()
}

/// The error of this type behind an error of the HTTP library.
fn behind<E: Error + 'static>(error: &hyper::Error) -> Option<&E> {
    let mut source = error.source();
    while let Some(inner) = source {
        if let Some(found) = inner.downcast_ref() {
            return Some(found);
        }
        source = inner.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::super::body::boxed;
    use super::super::connection::Sender;
    use super::super::handshake::{http1_sender, http2_sender};
    use super::super::resend::Resendable;
    use super::*;
    use bytes::Bytes;
    use http_body_util::StreamBody;
    use hyper::body::Frame;
    use tokio::io::{AsyncWriteExt, duplex};

    #[tokio::test]
    async fn a_request_whose_body_panics_fails_by_our_fault() {
        for is_http2 in [false, true] {
            let panics = futures_util::stream::poll_fn(|_| {
                assert!(std::hint::black_box(false), "on purpose");
                std::task::Poll::<Option<Result<Frame<Bytes>, BodyError>>>::Ready(None)
            });
            let (ours, mut endpoint) = duplex(64 * 1024);
            let request = Request::post("http://h/").body(boxed(StreamBody::new(panics))).unwrap();
            let target = request.uri().clone();
            let (failed, begun) = if is_http2 {
                endpoint.write_all(b"\0\0\0\x04\0\0\0\0\0").await.unwrap();
                let Ok(Sender::Http2(mut sender)) = http2_sender(Box::new(ours), "h").await else { panic!("HTTP/2") };
                let (head, body) = request.into_parts();
                let body = Resendable::new(body);
                let begun = (head.clone(), body.progress());
                let request = Request::from_parts(head, body.boxed_unsync());
                (sender.requests.try_send_request(request).await.unwrap_err(), Some(begun))
            } else {
                let Ok(Sender::Http1(mut sender)) = http1_sender(Box::new(ours), None, "h").await else {
                    panic!("HTTP/1")
                };
                (sender.requests.try_send_request(request).await.unwrap_err(), None)
            };
            let SendFailure { error, again } = send_error(failed, begun, "h", target);
            assert_eq!(error.kind, ErrorKind::ProxyInternalError, "HTTP/2: {is_http2}: {error}");
            assert!(matches!(again, Again::No));
        }
    }
}

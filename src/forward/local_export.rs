//! Telemetry that must not leave the machine: an OTLP export is answered in place of its endpoint, and recorded.

use super::errors::request_error;
use super::exchange_start::ActiveExchange;
use crate::capture::TeeBody;
use crate::error::{ErrorKind, ProxyError};
use crate::trace::exchange::{Direction, ResponseHead};
use crate::upstream::Body;
use bytes::Bytes;
use http::{Request, Response, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;

/// Answers an export of spans. If it can't be recorded the answer is an error, so that the exporter retries.
pub(super) async fn answer_locally(
    exchange: &ActiveExchange,
    request: Request<Incoming>,
) -> Result<Response<Body>, ProxyError> {
    if !exchange.recording.is_on() {
        let cause = "the spans of this export can't be recorded now";
        return Err(ProxyError::new(ErrorKind::CaptureFull, "", cause));
    }
    let (parts, body) = request.into_parts();
    let mut tee = TeeBody::new(body, exchange.recording.clone(), Direction::Request, request_error, |_| false);
    while let Some(frame) = tee.frame().await {
        frame.map_err(|error| request_error(&error))?;
    }
    let content_type = parts.headers.get(header::CONTENT_TYPE).cloned();
    let is_json = content_type.as_ref().is_some_and(|kind| kind.to_str().is_ok_and(|kind| kind.contains("json")));
    // An empty `ExportTraceServiceResponse`: everything was accepted.
    let body = Full::new(Bytes::from(if is_json { "{}" } else { "" }));
    let mut response = Response::new(());
    response.headers_mut().extend(content_type.map(|kind| (header::CONTENT_TYPE, kind)));
    let headers = response.headers().clone();
    exchange.recording.response(ResponseHead { status: response.status(), version: parts.version, headers });
    let never = |never: &std::convert::Infallible| match *never {};
    let tee = TeeBody::new(body, exchange.recording.clone(), Direction::Response, never, |_| false);
    Ok(response.map(|()| tee.map_err(|never| match never {}).boxed_unsync()))
}

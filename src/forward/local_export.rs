//! Telemetry that must not leave the machine: an OTLP export is answered in place of its endpoint, and recorded.

use super::errors::request_error;
use super::exchange_start::ActiveExchange;
use crate::capture::TeeBody;
use crate::error::{ErrorKind, ProxyError};
use crate::net::received_body::ReceivedBody;
use crate::trace::exchange::{Direction, Outcome, ResponseHead};
use crate::upstream::{Body, body};
use http::{Request, Response, header};
use http_body_util::BodyExt;
use hyper::body::Incoming;

/// Answers an export of spans. If it can't be recorded as a whole the answer is an error, so that the exporter retries.
pub(super) async fn answer_locally(
    exchange: &ActiveExchange,
    request: Request<Incoming>,
) -> Result<Response<Body>, ProxyError> {
    let recording = &exchange.recording;
    let rejected = |cause: &str| ProxyError::new(ErrorKind::CaptureFull, "", cause);
    if !recording.is_on() {
        return Err(rejected("the spans of this export can't be recorded now"));
    }
    let (parts, body) = request.into_parts();
    let mut tee = TeeBody::new(
        ReceivedBody::new(body, parts.version),
        recording.clone(),
        Direction::Request,
        request_error,
        |_| false,
    );
    while let Some(frame) = tee.frame().await {
        frame.map_err(|error| request_error(&error))?;
    }
    if !recording.has_whole_request() {
        return Err(rejected("this export of spans is too large to be recorded as a whole now"));
    }
    let content_type = parts.headers.get(header::CONTENT_TYPE).cloned();
    let is_json = content_type.as_ref().is_some_and(|kind| kind.to_str().is_ok_and(|kind| kind.contains("json")));
    // An empty `ExportTraceServiceResponse`: everything was accepted.
    let accepted = if is_json { "{}" } else { "" };
    let mut response = Response::new(());
    response.headers_mut().extend(content_type.map(|kind| (header::CONTENT_TYPE, kind)));
    let headers = response.headers().clone();
    recording.response(ResponseHead { status: response.status(), version: parts.version, headers });
    recording.relayed_bytes(Direction::Response, accepted.len() as u64);
    recording.body_complete(Direction::Response);
    recording.outcome(Outcome::Complete);
    recording.finish_and_wait().await;
    Ok(response.map(|()| body::full(accepted)))
}

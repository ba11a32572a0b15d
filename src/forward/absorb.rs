//! Telemetry that must not leave the machine: taken in the endpoint's place.

use super::handle::request_error;
use super::start::ActiveExchange;
use crate::capture::TeeBody;
use crate::error::{ErrorKind, ProxyError};
use crate::trace::exchange::{Direction, ResponseHead};
use crate::upstream::Body;
use bytes::Bytes;
use http::{Request, Response, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;

/// Takes an export of spans in the endpoint's place; the record has it.
pub(super) async fn answer_here(
    begun: &ActiveExchange,
    request: Request<Incoming>,
) -> Result<Response<Body>, ProxyError> {
    if !begun.recording.is_on() {
        // Nobody would have it: the exporter is to try again.
        return Err(ProxyError::new(ErrorKind::CaptureFull, "", "the spans of this export can't be taken in now"));
    }
    let (parts, body) = request.into_parts();
    let tee = TeeBody::new(body, begun.recording.clone(), Direction::Request, request_error, |_| false);
    tee.collect().await.map_err(|error| request_error(&error))?;
    let kind = parts.headers.get(header::CONTENT_TYPE).cloned();
    let is_json = kind.as_ref().is_some_and(|kind| kind.to_str().is_ok_and(|kind| kind.contains("json")));
    // An `ExportTraceServiceResponse` without anything in it.
    let answer = Full::new(Bytes::from(if is_json { "{}" } else { "" }));
    let mut response = Response::new(());
    response.headers_mut().extend(kind.map(|kind| (header::CONTENT_TYPE, kind)));
    let headers = response.headers().clone();
    begun.recording.response(ResponseHead { status: response.status(), version: parts.version, headers });
    let never = |never: &std::convert::Infallible| match *never {};
    let tee = TeeBody::new(answer, begun.recording.clone(), Direction::Response, never, |_| false);
    Ok(response.map(|()| tee.map_err(|never| match never {}).boxed_unsync()))
}

//! OTLP over HTTP: `/v1/traces`, protobuf and JSON (OTLP 1.9, Agent Lightning 0.3).
//!
//! Requests may have any content coding that [`encoding`] supports; responses are gzip if the client accepts it. Errors
//! are `google.rpc.Status` messages, in the format of the request.

use super::ingest::{Caller, ingest};
use crate::api::access::CallerAccess;
use crate::api::settings::MAX_BODY_BYTES;
use crate::api::state::ApiState;
use crate::wire::encoding;
use crate::wire::otlp::{self, OtlpFormat};
use axum::Extension;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use prost::Message;
use serde::Serialize;

/// `google.rpc.Status`, the body of an error.
#[derive(Clone, PartialEq, Message, Serialize)]
struct RpcStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
}

/// The values of `google.rpc.Code` in use.
const INVALID_ARGUMENT: i32 = 3;
const UNIMPLEMENTED: i32 = 12;
const UNAVAILABLE: i32 = 14;

/// `POST /v1/traces`
pub(super) async fn traces(
    State(state): State<ApiState>,
    Extension(access): Extension<CallerAccess>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let Some(format) = format_of(&headers) else {
        let text = "the content type must be application/x-protobuf or application/json";
        return error(StatusCode::BAD_REQUEST, OtlpFormat::Protobuf, INVALID_ARGUMENT, text);
    };
    let invalid = |text: &str| error(StatusCode::BAD_REQUEST, format, INVALID_ARGUMENT, text);
    let body = match encoding::decode_whole(&headers, body.into(), MAX_BODY_BYTES) {
        Ok(body) => body,
        Err(error) => return invalid(&format!("the body cannot be decoded by its Content-Encoding: {error}")),
    };
    let spans = match otlp::spans(format, &body) {
        Ok(spans) => spans,
        Err(error) => return invalid(&format!("the body is no ExportTraceServiceRequest: {error}")),
    };
    let caller = match Caller::of(&headers, access) {
        Ok(caller) => caller,
        Err(problem) => return invalid(&problem),
    };
    match ingest(&state, spans, &caller).await {
        Ok(ingested) => {
            let body = match format {
                OtlpFormat::Protobuf => ingested.encode_to_vec(),
                OtlpFormat::Json => ingested.json().to_string().into_bytes(),
            };
            success(&headers, format, body)
        }
        Err(failure) => {
            tracing::error!(error = %failure, "the spans of an OTLP request could not be stored");
            error(StatusCode::SERVICE_UNAVAILABLE, format, UNAVAILABLE, &failure.to_string())
        }
    }
}

fn format_of(headers: &HeaderMap) -> Option<OtlpFormat> {
    OtlpFormat::of_content_type(headers.get(header::CONTENT_TYPE)?.to_str().ok()?)
}

/// `POST /v1/metrics`
pub(super) async fn metrics(headers: HeaderMap) -> Response {
    unsupported(&headers, "metrics")
}

/// `POST /v1/logs`
pub(super) async fn logs(headers: HeaderMap) -> Response {
    unsupported(&headers, "logs")
}

/// `POST /v1/development/profiles`
pub(super) async fn profiles(headers: HeaderMap) -> Response {
    unsupported(&headers, "profiles")
}

fn unsupported(headers: &HeaderMap, signal: &str) -> Response {
    let format = format_of(headers).unwrap_or(OtlpFormat::Json);
    let text = format!("{signal} are not supported; export traces only");
    error(StatusCode::NOT_IMPLEMENTED, format, UNIMPLEMENTED, &text)
}

fn error(status: StatusCode, format: OtlpFormat, code: i32, message: &str) -> Response {
    let body = RpcStatus { code, message: message.to_owned() };
    let body = match format {
        OtlpFormat::Protobuf => body.encode_to_vec(),
        OtlpFormat::Json => serde_json::to_vec(&body).unwrap_or_default(),
    };
    (status, [(header::CONTENT_TYPE, format.content_type())], body).into_response()
}

fn success(request_headers: &HeaderMap, format: OtlpFormat, body: Vec<u8>) -> Response {
    let content_type = [(header::CONTENT_TYPE, format.content_type())];
    if encoding::accepts_gzip(request_headers)
        && let Ok(compressed) = encoding::gzip(&body)
    {
        return (content_type, [(header::CONTENT_ENCODING, "gzip")], compressed).into_response();
    }
    (content_type, body).into_response()
}

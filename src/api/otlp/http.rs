//! OTLP over HTTP: `/v1/traces`, protobuf and JSON, gzip both ways (OTLP 1.9, Agent Lightning 0.3).

use super::{Caller, take};
use crate::api::ApiState;
use crate::api::access::Access;
use crate::wire::otlp;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Extension, Router};
use bytes::Bytes;
use flate2::Compression;
use flate2::read::{GzDecoder, GzEncoder};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use prost::Message;
use serde::Serialize;
use std::io::Read;

/// The routes.
pub(in crate::api) fn router() -> Router<ApiState> {
    Router::new()
        .route("/v1/traces", post(traces))
        .route("/v1/metrics", post(|headers| unwanted(headers, "metrics")))
        .route("/v1/logs", post(|headers| unwanted(headers, "logs")))
        .route("/v1/development/profiles", post(|headers| unwanted(headers, "profiles")))
}

/// How a body is written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Protobuf,
    Json,
}

impl Form {
    fn of(headers: &HeaderMap) -> Option<Self> {
        let kind = headers.get(header::CONTENT_TYPE)?.to_str().ok()?.split(';').next()?.trim().to_ascii_lowercase();
        match kind.as_str() {
            "application/x-protobuf" => Some(Self::Protobuf),
            "application/json" => Some(Self::Json),
            _ => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Protobuf => "application/x-protobuf",
            Self::Json => "application/json",
        }
    }
}

/// The body of an answer that is no success: `google.rpc.Status`.
#[derive(Clone, PartialEq, Message, Serialize)]
struct RpcStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
}

/// `google.rpc.Code`.
const INVALID_ARGUMENT: i32 = 3;
const UNIMPLEMENTED: i32 = 12;
const UNAVAILABLE: i32 = 14;

async fn traces(
    State(state): State<ApiState>,
    Extension(access): Extension<Access>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let Some(form) = Form::of(&headers) else {
        let text = "the content type must be application/x-protobuf or application/json";
        return failed(StatusCode::BAD_REQUEST, Form::Protobuf, INVALID_ARGUMENT, text);
    };
    let bad = |text: &str| failed(StatusCode::BAD_REQUEST, form, INVALID_ARGUMENT, text);
    let body = match unzipped(&headers, body) {
        Ok(body) => body,
        Err(text) => return bad(&text),
    };
    let request = match otlp::request(form == Form::Json, &body) {
        Ok(request) => request,
        Err(error) => return bad(&format!("this is no ExportTraceServiceRequest: {error}")),
    };
    match take(&state, request, &Caller::of(&headers, access)).await {
        Ok(taken) => {
            let written = match form {
                Form::Protobuf => taken.encode_to_vec(),
                Form::Json => json_of(&taken).to_string().into_bytes(),
            };
            zipped(&headers, StatusCode::OK, form, written)
        }
        Err(error) => {
            tracing::error!(%error, "spans could not be stored");
            failed(StatusCode::SERVICE_UNAVAILABLE, form, UNAVAILABLE, &error.to_string())
        }
    }
}

/// protobuf's JSON: 64-bit numbers are texts, and what is not there is not written.
fn json_of(taken: &ExportTraceServiceResponse) -> serde_json::Value {
    match &taken.partial_success {
        Some(partial) => serde_json::json!({ "partialSuccess": {
            "rejectedSpans": partial.rejected_spans.to_string(),
            "errorMessage": partial.error_message,
        }}),
        None => serde_json::json!({}),
    }
}

async fn unwanted(headers: HeaderMap, what: &str) -> Response {
    let form = Form::of(&headers).unwrap_or(Form::Json);
    failed(StatusCode::NOT_IMPLEMENTED, form, UNIMPLEMENTED, &format!("{what} are not taken, only traces"))
}

fn failed(status: StatusCode, form: Form, code: i32, message: &str) -> Response {
    let body = RpcStatus { code, message: message.to_owned() };
    let body = match form {
        Form::Protobuf => body.encode_to_vec(),
        Form::Json => serde_json::to_vec(&body).unwrap_or_default(),
    };
    (status, [(header::CONTENT_TYPE, form.name())], body).into_response()
}

/// A body without its content coding, up to the limit for bodies.
fn unzipped(headers: &HeaderMap, body: Bytes) -> Result<Bytes, String> {
    let coding = headers.get(header::CONTENT_ENCODING).and_then(|coding| coding.to_str().ok()).unwrap_or_default();
    match coding.trim() {
        "" | "identity" => Ok(body),
        "gzip" => {
            let mut out = Vec::new();
            let limit = crate::api::MAX_BODY_BYTES as u64 + 1;
            let read = GzDecoder::new(&body[..]).take(limit).read_to_end(&mut out);
            read.map_err(|error| format!("the gzip body can't be read: {error}"))?;
            if out.len() as u64 == limit {
                return Err(format!("the body is larger than {} bytes", limit - 1));
            }
            Ok(out.into())
        }
        other => Err(format!("the content coding {other} is not understood; use gzip or none")),
    }
}

fn zipped(headers: &HeaderMap, status: StatusCode, form: Form, body: Vec<u8>) -> Response {
    let accepts = headers.get(header::ACCEPT_ENCODING).and_then(|accepted| accepted.to_str().ok()).unwrap_or_default();
    let kind = [(header::CONTENT_TYPE, form.name())];
    if accepts.contains("gzip") {
        let mut out = Vec::new();
        // Into memory nothing can fail.
        if GzEncoder::new(&body[..], Compression::fast()).read_to_end(&mut out).is_ok() {
            return (status, kind, [(header::CONTENT_ENCODING, "gzip")], out).into_response();
        }
    }
    (status, kind, body).into_response()
}

//! The response to a request for traces.

use super::decode::OtlpFormat;
use prost::Message;
use serde_json::{Value as JsonValue, json};

/// `ExportTraceServiceResponse`
#[derive(Clone, PartialEq, Message)]
pub(crate) struct TraceResponse {
    /// Present if spans were rejected.
    #[prost(message, optional, tag = "1")]
    pub(crate) partial_success: Option<PartialSuccess>,
}

/// `ExportTracePartialSuccess`
#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct PartialSuccess {
    /// The number of spans that were rejected.
    #[prost(int64, tag = "1")]
    pub(crate) rejected_spans: i64,
    /// The reasons, each once, divided by semicolons. For people; its form is not defined.
    #[prost(string, tag = "2")]
    pub(crate) error_message: String,
}

impl TraceResponse {
    /// Protobuf's JSON mapping: 64-bit numbers are strings, and unset fields are absent.
    pub(crate) fn json(&self) -> serde_json::Value {
        match &self.partial_success {
            Some(partial) => json!({ "partialSuccess": {
                "rejectedSpans": partial.rejected_spans.to_string(),
                "errorMessage": partial.error_message,
            }}),
            None => json!({}),
        }
    }
}

/// What the receiver of a request says about its spans; the default if it has nothing to say. `None`: the body is no response.
pub(crate) fn accepted(format: OtlpFormat, body: &[u8]) -> Option<PartialSuccess> {
    match format {
        OtlpFormat::Protobuf => Some(TraceResponse::decode(body).ok()?.partial_success.unwrap_or_default()),
        OtlpFormat::Json => {
            let json: JsonValue = serde_json::from_slice(body).ok()?;
            let partial = &json["partialSuccess"];
            // Protobuf's JSON mapping has 64-bit numbers as texts; some receivers write numbers.
            let rejected = &partial["rejectedSpans"];
            let rejected_spans = rejected.as_i64().or_else(|| rejected.as_str()?.parse().ok()).unwrap_or_default();
            let error_message = partial["errorMessage"].as_str().unwrap_or_default().to_owned();
            Some(PartialSuccess { rejected_spans, error_message })
        }
    }
}

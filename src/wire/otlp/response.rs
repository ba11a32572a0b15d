//! The response to a request for traces.

use prost::Message;
use serde_json::json;

/// `ExportTraceServiceResponse`
#[derive(Clone, PartialEq, Message)]
pub(crate) struct TraceResponse {
    /// Present if spans were rejected.
    #[prost(message, optional, tag = "1")]
    pub(crate) partial_success: Option<PartialSuccess>,
}

/// `ExportTracePartialSuccess`
#[derive(Clone, PartialEq, Message)]
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

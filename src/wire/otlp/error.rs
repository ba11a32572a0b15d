//! Why a request for traces, or a span of it, is rejected.

/// Why a body is not an `ExportTraceServiceRequest`.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OtlpError {
    /// The protobuf is damaged, or is another message.
    #[error(transparent)]
    Protobuf(#[from] prost::DecodeError),
    /// The JSON is damaged.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    /// The JSON has another shape.
    #[error(transparent)]
    Shape(#[from] SpanDefect),
}

/// Why a span is rejected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SpanDefect {
    /// The protocol requires 16 bytes that are not all zero.
    #[error("the trace id is not 16 bytes, or all zero")]
    TraceId,
    /// The protocol requires 8 bytes that are not all zero.
    #[error("the span id is not 8 bytes, or all zero")]
    SpanId,
    /// The protocol requires 8 bytes, or none for a root span.
    #[error("the parent span id is not 8 bytes")]
    ParentSpanId,
    /// The protobuf of the span, or of its resource, is damaged.
    #[error("it cannot be decoded: {0}")]
    Protobuf(#[from] prost::DecodeError),
    /// A field has JSON of another type.
    #[error("{field} is not {expected}")]
    Json {
        /// The name of the field.
        field: &'static str,
        /// The type that it must have, with its article.
        expected: &'static str,
    },
}

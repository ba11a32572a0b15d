//! OTLP traces (opentelemetry-proto 1, trace.v1): requests decoded span by span, and their spans in our model.
//!
//! One bad value never costs a batch. What can be kept is kept: invalid UTF-8 becomes U+FFFD, and a number that its type
//! cannot hold becomes its text. A span that cannot be kept is rejected with its reason, and the others stay.

mod decode;
mod error;
mod from_json;
mod from_protobuf;
mod message;
mod response;
mod spans;

pub(crate) use decode::{OtlpFormat, spans};
pub(crate) use response::{PartialSuccess, TraceResponse};
pub(crate) use spans::{Attribution, DecodedSpan};

#[cfg(test)]
mod tests;

//! OTLP traces (opentelemetry-proto 1, trace.v1): requests decoded span by span, and our spans as such requests.
//!
//! One bad value never costs a batch. What can be kept is kept: invalid UTF-8 becomes U+FFFD, and a number that its type
//! cannot hold becomes its text. A span that cannot be kept is rejected with its reason, and the others stay.

mod decode;
mod encode;
mod error;
mod from_json;
mod from_protobuf;
mod message;
mod metrics;
mod names;
mod response;
mod spans;
mod to_json;
mod to_protobuf;
mod view;

pub(crate) use decode::{OtlpFormat, spans};
pub(crate) use encode::encoded;
pub(crate) use metrics::encoded_metrics;
pub(crate) use response::{PartialSuccess, TraceResponse, accepted};
pub(crate) use spans::{Attribution, DecodedSpan, restore_identity};

#[cfg(test)]
mod tests;

//! Formats on the wire, as pure functions: bytes in, values out. No I/O, no clock, and no knowledge of LLM APIs.

pub(crate) mod client_hello;
pub(crate) mod encoding;
pub(crate) mod event_stream;
pub(crate) mod fields;
pub(crate) mod framing;
pub(crate) mod grpc;
pub(crate) mod hpack;
pub(crate) mod json;
pub(crate) mod json_builder;
pub(crate) mod json_edit;
mod json_ids;
mod json_parser;
pub(crate) mod json_repair;
mod json_scan;
pub(crate) mod json_stream;
pub(crate) mod json_strip;
mod json_text;
pub(crate) mod json_value;
pub(crate) mod number_array;
pub(crate) mod otlp;
pub(crate) mod redact;
pub(crate) mod sse;
pub(crate) mod sse_reader;
pub(crate) mod stream_decoder;
pub(crate) mod traceparent;
pub(crate) mod websocket;

//! Formats on the wire, as pure functions: bytes in, values out. No I/O, no clock, and no knowledge of LLM APIs.

pub mod client_hello;
pub mod encoding;
pub mod event_stream;
pub mod fields;
pub mod framing;
pub mod json;
pub mod json_edit;
mod json_scan;
pub mod json_stream;
pub mod otlp;
pub mod redact;
pub mod sse;
pub mod traceparent;
pub mod websocket;

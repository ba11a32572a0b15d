//! The protobuf messages of an export of traces, as far as they are read.
//!
//! Their texts are bytes, because exporters also send texts that are not UTF-8, for which generated types reject the whole
//! request. Spans are bytes too, so that each is decoded by itself.

use super::error::SpanDefect;
use prost::{Message, Oneof};

/// `ExportTraceServiceRequest`
#[derive(Clone, PartialEq, Message)]
pub(super) struct TraceRequest {
    #[prost(message, repeated, tag = "1")]
    pub(super) resource_spans: Vec<ResourceSpans>,
}

/// The spans of one resource, in groups by instrumentation scope.
#[derive(Clone, PartialEq, Message)]
pub(super) struct ResourceSpans {
    /// An encoded [`Resource`].
    #[prost(bytes = "vec", tag = "1")]
    pub(super) resource: Vec<u8>,
    #[prost(message, repeated, tag = "2")]
    pub(super) scope_spans: Vec<ScopeSpans>,
    #[prost(bytes = "vec", tag = "3")]
    pub(super) schema_url: Vec<u8>,
}

/// What produced spans: a program, its host, its SDK.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Resource {
    #[prost(message, repeated, tag = "1")]
    pub(super) attributes: Vec<KeyValue>,
}

/// The spans of one instrumentation scope. The scope itself is only written.
#[derive(Clone, PartialEq, Message)]
pub(super) struct ScopeSpans {
    /// An encoded [`Scope`].
    #[prost(bytes = "vec", tag = "1")]
    pub(super) scope: Vec<u8>,
    /// Encoded [`SpanMessage`]s.
    #[prost(bytes = "vec", repeated, tag = "2")]
    pub(super) spans: Vec<Vec<u8>>,
}

/// `InstrumentationScope`
#[derive(Clone, PartialEq, Message)]
pub(super) struct Scope {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(string, tag = "2")]
    pub(super) version: String,
}

impl Scope {
    /// This program.
    pub(super) fn ours() -> Self {
        Self { name: env!("CARGO_PKG_NAME").to_owned(), version: env!("CARGO_PKG_VERSION").to_owned() }
    }
}

/// `Span`
#[derive(Clone, PartialEq, Message)]
pub(super) struct SpanMessage {
    #[prost(bytes = "vec", tag = "1")]
    pub(super) trace_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub(super) span_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "3")]
    pub(super) trace_state: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    pub(super) parent_span_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "5")]
    pub(super) name: Vec<u8>,
    #[prost(enumeration = "Kind", tag = "6")]
    pub(super) kind: i32,
    #[prost(fixed64, tag = "7")]
    pub(super) start_time_unix_nano: u64,
    #[prost(fixed64, tag = "8")]
    pub(super) end_time_unix_nano: u64,
    #[prost(message, repeated, tag = "9")]
    pub(super) attributes: Vec<KeyValue>,
    #[prost(uint32, tag = "10")]
    pub(super) dropped_attributes_count: u32,
    #[prost(message, repeated, tag = "11")]
    pub(super) events: Vec<EventMessage>,
    #[prost(uint32, tag = "12")]
    pub(super) dropped_events_count: u32,
    #[prost(message, repeated, tag = "13")]
    pub(super) links: Vec<LinkMessage>,
    #[prost(uint32, tag = "14")]
    pub(super) dropped_links_count: u32,
    #[prost(message, optional, tag = "15")]
    pub(super) status: Option<StatusMessage>,
    #[prost(fixed32, tag = "16")]
    pub(super) flags: u32,
}

/// `Span.SpanKind`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub(super) enum Kind {
    Unspecified = 0,
    Internal = 1,
    Server = 2,
    Client = 3,
    Producer = 4,
    Consumer = 5,
}

/// `Status.StatusCode`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub(super) enum Code {
    Unset = 0,
    Ok = 1,
    Error = 2,
}

/// `Status`
#[derive(Clone, PartialEq, Message)]
pub(super) struct StatusMessage {
    #[prost(bytes = "vec", tag = "2")]
    pub(super) message: Vec<u8>,
    #[prost(enumeration = "Code", tag = "3")]
    pub(super) code: i32,
}

/// `Span.Event`
#[derive(Clone, PartialEq, Message)]
pub(super) struct EventMessage {
    #[prost(fixed64, tag = "1")]
    pub(super) time_unix_nano: u64,
    #[prost(bytes = "vec", tag = "2")]
    pub(super) name: Vec<u8>,
    #[prost(message, repeated, tag = "3")]
    pub(super) attributes: Vec<KeyValue>,
    #[prost(uint32, tag = "4")]
    pub(super) dropped_attributes_count: u32,
}

/// `Span.Link`
#[derive(Clone, PartialEq, Message)]
pub(super) struct LinkMessage {
    #[prost(bytes = "vec", tag = "1")]
    pub(super) trace_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub(super) span_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "3")]
    pub(super) trace_state: Vec<u8>,
    #[prost(message, repeated, tag = "4")]
    pub(super) attributes: Vec<KeyValue>,
    #[prost(uint32, tag = "5")]
    pub(super) dropped_attributes_count: u32,
}

/// An attribute: a key and its value.
#[derive(Clone, PartialEq, Message)]
pub(super) struct KeyValue {
    #[prost(bytes = "vec", tag = "1")]
    pub(super) key: Vec<u8>,
    #[prost(message, optional, tag = "2")]
    pub(super) value: Option<AnyValue>,
}

/// The value of an attribute; without one of the fields it is empty.
#[derive(Clone, PartialEq, Message)]
pub(super) struct AnyValue {
    #[prost(oneof = "Any", tags = "1, 2, 3, 4, 5, 6, 7")]
    pub(super) value: Option<Any>,
}

/// The value of an [`AnyValue`].
#[derive(Clone, PartialEq, Oneof)]
pub(super) enum Any {
    #[prost(bytes, tag = "1")]
    Text(Vec<u8>),
    #[prost(bool, tag = "2")]
    Bool(bool),
    #[prost(int64, tag = "3")]
    Int(i64),
    #[prost(double, tag = "4")]
    Double(f64),
    #[prost(message, tag = "5")]
    List(ArrayValue),
    #[prost(message, tag = "6")]
    Map(KeyValueList),
    #[prost(bytes, tag = "7")]
    Bytes(Vec<u8>),
}

/// A list of values, which may have different types.
#[derive(Clone, PartialEq, Message)]
pub(super) struct ArrayValue {
    #[prost(message, repeated, tag = "1")]
    pub(super) values: Vec<AnyValue>,
}

/// Values by name, in their order.
#[derive(Clone, PartialEq, Message)]
pub(super) struct KeyValueList {
    #[prost(message, repeated, tag = "1")]
    pub(super) values: Vec<KeyValue>,
}

/// The spans of one resource.
pub(super) struct ExportedResource {
    pub(super) attributes: Vec<KeyValue>,
    pub(super) schema_url: Vec<u8>,
    pub(super) spans: Vec<Result<SpanMessage, SpanDefect>>,
}

impl ExportedResource {
    /// A resource that can't be read. It counts as one rejected span, because its spans can't be counted.
    pub(super) fn unreadable(defect: SpanDefect) -> Self {
        Self { attributes: Vec::new(), schema_url: Vec::new(), spans: vec![Err(defect)] }
    }
}

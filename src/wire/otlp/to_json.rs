//! Protobuf's JSON mapping of an export of traces: ids in hexadecimal, 64-bit numbers as texts, enums as numbers.
//!
//! Fields with their default value are left out.

use super::message::{Any, AnyValue, EventMessage, KeyValue, LinkMessage, Scope, SpanMessage, StatusMessage};
use super::spans::not_finite;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

/// `TracesData`
pub(super) struct JsonTraces<'a>(pub(super) Vec<JsonResource<'a>>);

/// `ResourceSpans`
pub(super) struct JsonResource<'a> {
    pub(super) attributes: Vec<KeyValue>,
    pub(super) schema_url: &'a str,
    pub(super) spans: Vec<SpanMessage>,
}

/// An object with one field.
struct Field<T>(&'static str, T);

impl<T: Serialize> Serialize for Field<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(1))?;
        map.serialize_entry(self.0, &self.1)?;
        map.end()
    }
}

impl Serialize for JsonTraces<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Field("resourceSpans", &self.0).serialize(serializer)
    }
}

impl Serialize for JsonResource<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("resource", &Field("attributes", &self.attributes))?;
        map.serialize_entry("scopeSpans", &[ScopeOf(&self.spans)])?;
        if !self.schema_url.is_empty() {
            map.serialize_entry("schemaUrl", self.schema_url)?;
        }
        map.end()
    }
}

/// `ScopeSpans` of our scope.
struct ScopeOf<'a>(&'a [SpanMessage]);

impl Serialize for ScopeOf<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(2))?;
        map.serialize_entry("scope", &Scope::ours())?;
        map.serialize_entry("spans", self.0)?;
        map.end()
    }
}

impl Serialize for Scope {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(2))?;
        map.serialize_entry("name", &self.name)?;
        map.serialize_entry("version", &self.version)?;
        map.end()
    }
}

/// A text of protobuf, of which invalid UTF-8 is replaced.
struct Text<'a>(&'a [u8]);

impl Serialize for Text<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&String::from_utf8_lossy(self.0))
    }
}

/// An id in hexadecimal.
struct Hex<'a>(&'a [u8]);

impl Serialize for Hex<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&const_hex::encode(self.0))
    }
}

/// The entries of a message's object that differ from their default.
struct Entries<M>(M);

impl<M: SerializeMap> Entries<M> {
    fn add_text(&mut self, name: &str, text: &[u8]) -> Result<(), M::Error> {
        if text.is_empty() { Ok(()) } else { self.0.serialize_entry(name, &Text(text)) }
    }

    fn add_id(&mut self, name: &str, id: &[u8]) -> Result<(), M::Error> {
        if id.is_empty() { Ok(()) } else { self.0.serialize_entry(name, &Hex(id)) }
    }

    fn add_nanos(&mut self, name: &str, nanos: u64) -> Result<(), M::Error> {
        if nanos == 0 { Ok(()) } else { self.0.serialize_entry(name, &nanos.to_string()) }
    }

    fn add_list<T: Serialize>(&mut self, name: &str, list: &[T]) -> Result<(), M::Error> {
        if list.is_empty() { Ok(()) } else { self.0.serialize_entry(name, list) }
    }

    fn add_number<T: Serialize + Default + PartialEq>(&mut self, name: &str, number: T) -> Result<(), M::Error> {
        if number == T::default() { Ok(()) } else { self.0.serialize_entry(name, &number) }
    }
}

impl Serialize for SpanMessage {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut entries = Entries(serializer.serialize_map(None)?);
        entries.add_id("traceId", &self.trace_id)?;
        entries.add_id("spanId", &self.span_id)?;
        entries.add_text("traceState", &self.trace_state)?;
        entries.add_id("parentSpanId", &self.parent_span_id)?;
        entries.add_number("flags", self.flags)?;
        entries.add_text("name", &self.name)?;
        entries.add_number("kind", self.kind)?;
        entries.add_nanos("startTimeUnixNano", self.start_time_unix_nano)?;
        entries.add_nanos("endTimeUnixNano", self.end_time_unix_nano)?;
        entries.add_list("attributes", &self.attributes)?;
        entries.add_number("droppedAttributesCount", self.dropped_attributes_count)?;
        entries.add_list("events", &self.events)?;
        entries.add_number("droppedEventsCount", self.dropped_events_count)?;
        entries.add_list("links", &self.links)?;
        entries.add_number("droppedLinksCount", self.dropped_links_count)?;
        if let Some(status) = &self.status {
            entries.0.serialize_entry("status", status)?;
        }
        entries.0.end()
    }
}

impl Serialize for StatusMessage {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut entries = Entries(serializer.serialize_map(None)?);
        entries.add_text("message", &self.message)?;
        entries.add_number("code", self.code)?;
        entries.0.end()
    }
}

impl Serialize for EventMessage {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut entries = Entries(serializer.serialize_map(None)?);
        entries.add_nanos("timeUnixNano", self.time_unix_nano)?;
        entries.add_text("name", &self.name)?;
        entries.add_list("attributes", &self.attributes)?;
        entries.add_number("droppedAttributesCount", self.dropped_attributes_count)?;
        entries.0.end()
    }
}

impl Serialize for LinkMessage {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut entries = Entries(serializer.serialize_map(None)?);
        entries.add_id("traceId", &self.trace_id)?;
        entries.add_id("spanId", &self.span_id)?;
        entries.add_text("traceState", &self.trace_state)?;
        entries.add_list("attributes", &self.attributes)?;
        entries.add_number("droppedAttributesCount", self.dropped_attributes_count)?;
        entries.0.end()
    }
}

impl Serialize for KeyValue {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(2))?;
        map.serialize_entry("key", &Text(&self.key))?;
        if let Some(value) = &self.value {
            map.serialize_entry("value", value)?;
        }
        map.end()
    }
}

impl Serialize for AnyValue {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.value {
            None => serializer.serialize_map(Some(0))?.end(),
            Some(Any::Text(text)) => Field("stringValue", Text(text)).serialize(serializer),
            Some(Any::Bool(truth)) => Field("boolValue", truth).serialize(serializer),
            Some(Any::Int(number)) => Field("intValue", number.to_string()).serialize(serializer),
            Some(Any::Double(number)) if number.is_finite() => Field("doubleValue", number).serialize(serializer),
            Some(Any::Double(number)) => Field("doubleValue", not_finite(*number)).serialize(serializer),
            Some(Any::List(list)) => Field("arrayValue", Field("values", &list.values)).serialize(serializer),
            Some(Any::Map(map)) => Field("kvlistValue", Field("values", &map.values)).serialize(serializer),
            Some(Any::Bytes(bytes)) => Field("bytesValue", Base64(bytes)).serialize(serializer),
        }
    }
}

/// Bytes that are no id.
struct Base64<'a>(&'a [u8]);

impl Serialize for Base64<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(self.0))
    }
}

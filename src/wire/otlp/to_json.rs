//! Protobuf's JSON mapping of an export of traces: ids in hexadecimal, 64-bit numbers as texts, enums as numbers.
//!
//! Fields with their default value are left out.

use super::message::{Any, AnyValue, KeyValue, Scope};
use super::spans::not_finite;
use super::view::{SpanView, ValueView, dropped_of_part, ids_of, nanos, trace_state, values};
use crate::trace::span::{Event, Link, Resource};
use crate::trace::{Attributes, Span, Value};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

/// `TracesData`, with a `ResourceSpans` for each resource.
pub(super) struct JsonTraces<'a>(pub(super) &'a [(&'a Resource, Vec<&'a Span>)]);

/// `ResourceSpans`
struct JsonResource<'a>(&'a Resource, &'a [&'a Span]);

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
        Field("resourceSpans", List(|| self.0.iter().map(|(resource, spans)| JsonResource(resource, spans))))
            .serialize(serializer)
    }
}

/// A list of what an iterator gives each time.
struct List<F>(F);

impl<F, I> Serialize for List<F>
where
    F: Fn() -> I,
    I: Iterator,
    I::Item: Serialize,
{
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq((self.0)())
    }
}

impl Serialize for JsonResource<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(resource, spans) = self;
        let mut map = serializer.serialize_map(None)?;
        let attributes = List(|| values(&resource.attributes).map(JsonAttribute::from));
        map.serialize_entry("resource", &Field("attributes", attributes))?;
        map.serialize_entry("scopeSpans", &[ScopeOf(spans)])?;
        if !resource.schema_url.is_empty() {
            map.serialize_entry("schemaUrl", &resource.schema_url)?;
        }
        map.end()
    }
}

/// `ScopeSpans` of our scope.
struct ScopeOf<'a>(&'a [&'a Span]);

impl Serialize for ScopeOf<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(2))?;
        map.serialize_entry("scope", &Scope::ours())?;
        map.serialize_entry("spans", &List(|| self.0.iter().map(|span| SpanView::of(span))))?;
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
struct Hex<const N: usize>([u8; N]);

impl<const N: usize> Serialize for Hex<N> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(const_hex::Buffer::<N>::new().format(&self.0))
    }
}

/// A 64-bit number, which is a text.
struct Long<T>(T);

impl<T: std::fmt::Display> Serialize for Long<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

/// The entries of a message's object that differ from their default.
struct Entries<M>(M);

impl<M: SerializeMap> Entries<M> {
    fn add_text(&mut self, name: &str, text: &str) -> Result<(), M::Error> {
        if text.is_empty() { Ok(()) } else { self.0.serialize_entry(name, text) }
    }

    fn add_nanos(&mut self, name: &str, nanos: u64) -> Result<(), M::Error> {
        if nanos == 0 { Ok(()) } else { self.0.serialize_entry(name, &Long(nanos)) }
    }

    fn add_attributes(&mut self, attributes: &Attributes) -> Result<(), M::Error> {
        let list = List(|| values(attributes).map(JsonAttribute::from));
        if attributes.is_empty() { Ok(()) } else { self.0.serialize_entry("attributes", &list) }
    }

    fn add_number<T: Serialize + Default + PartialEq>(&mut self, name: &str, number: T) -> Result<(), M::Error> {
        if number == T::default() { Ok(()) } else { self.0.serialize_entry(name, &number) }
    }
}

impl Serialize for SpanView<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (span, mut entries) = (self.span, Entries(serializer.serialize_map(None)?));
        entries.0.serialize_entry("traceId", &Hex(self.trace_id.bytes))?;
        entries.0.serialize_entry("spanId", &Hex(self.span_id.bytes))?;
        entries.add_text("traceState", &self.trace_state())?;
        if let Some(parent) = &self.parent_id {
            entries.0.serialize_entry("parentSpanId", &Hex(parent.bytes))?;
        }
        entries.add_number("flags", self.flags())?;
        entries.add_text("name", &span.name)?;
        entries.add_number("kind", self.kind() as i32)?;
        entries.add_nanos("startTimeUnixNano", nanos(span.start_time))?;
        entries.add_nanos("endTimeUnixNano", nanos(span.end_time))?;
        entries.0.serialize_entry("attributes", &List(|| self.attributes().map(JsonAttribute::from)))?;
        entries.add_number("droppedAttributesCount", self.dropped_attributes())?;
        if !span.events.is_empty() {
            entries.0.serialize_entry("events", &List(|| span.events.iter().map(JsonEvent)))?;
        }
        entries.add_number("droppedEventsCount", self.dropped_events())?;
        if !span.links.is_empty() {
            entries.0.serialize_entry("links", &List(|| span.links.iter().map(JsonLink)))?;
        }
        entries.add_number("droppedLinksCount", self.dropped_links())?;
        entries.0.serialize_entry("status", &JsonStatus(self))?;
        entries.0.end()
    }
}

/// `Status`
struct JsonStatus<'a>(&'a SpanView<'a>);

impl Serialize for JsonStatus<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut entries = Entries(serializer.serialize_map(None)?);
        entries.add_text("message", self.0.status_message())?;
        entries.add_number("code", self.0.status_code() as i32)?;
        entries.0.end()
    }
}

/// `Span.Event`
struct JsonEvent<'a>(&'a Event);

impl Serialize for JsonEvent<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut entries = Entries(serializer.serialize_map(None)?);
        entries.add_nanos("timeUnixNano", nanos(self.0.timestamp))?;
        entries.add_text("name", &self.0.name)?;
        entries.add_attributes(&self.0.attributes)?;
        entries.add_number("droppedAttributesCount", dropped_of_part(Some(&self.0.attributes)))?;
        entries.0.end()
    }
}

/// `Span.Link`
struct JsonLink<'a>(&'a Link);

impl Serialize for JsonLink<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut entries = Entries(serializer.serialize_map(None)?);
        let (trace_id, span_id) = ids_of(self.0);
        entries.0.serialize_entry("traceId", &Hex(trace_id))?;
        entries.0.serialize_entry("spanId", &Hex(span_id))?;
        entries.add_text("traceState", &trace_state(&self.0.context.trace_state))?;
        if let Some(attributes) = &self.0.attributes {
            entries.add_attributes(attributes)?;
        }
        entries.add_number("droppedAttributesCount", dropped_of_part(self.0.attributes.as_ref()))?;
        entries.0.end()
    }
}

/// `KeyValue` of a span, a resource, an event or a link.
struct JsonAttribute<'a>(&'a str, ValueView<'a>);

impl<'a> From<(&'a str, ValueView<'a>)> for JsonAttribute<'a> {
    fn from((name, value): (&'a str, ValueView<'a>)) -> Self {
        Self(name, value)
    }
}

impl Serialize for JsonAttribute<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(2))?;
        map.serialize_entry("key", self.0)?;
        map.serialize_entry("value", &self.1)?;
        map.end()
    }
}

impl Serialize for ValueView<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        fn list<S: Serializer, T: Serialize>(serializer: S, values: impl Fn() -> T) -> Result<S::Ok, S::Error> {
            Field("arrayValue", Field("values", values())).serialize(serializer)
        }
        match *self {
            Self::Text(text) => Field("stringValue", text).serialize(serializer),
            Self::Int(number) => Field("intValue", Long(number)).serialize(serializer),
            Self::Stored(Value::String(text)) => Field("stringValue", text).serialize(serializer),
            Self::Stored(Value::Int(number)) => Field("intValue", Long(number)).serialize(serializer),
            Self::Stored(Value::Bool(truth)) => Field("boolValue", truth).serialize(serializer),
            Self::Stored(Value::Float(number)) => double(*number, serializer),
            Self::Stored(Value::Bools(all)) => {
                list(serializer, || List(|| all.iter().map(|one| Field("boolValue", one))))
            }
            Self::Stored(Value::Ints(all)) => {
                list(serializer, || List(|| all.iter().map(|one| Field("intValue", Long(one)))))
            }
            Self::Stored(Value::Floats(all)) => list(serializer, || List(|| all.iter().map(|one| Double(*one)))),
            Self::Stored(Value::Strings(all)) => {
                list(serializer, || List(|| all.iter().map(|one| Field("stringValue", one))))
            }
        }
    }
}

/// A value that is a double.
struct Double(f64);

impl Serialize for Double {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        double(self.0, serializer)
    }
}

fn double<S: Serializer>(number: f64, serializer: S) -> Result<S::Ok, S::Error> {
    if number.is_finite() {
        Field("doubleValue", number).serialize(serializer)
    } else {
        Field("doubleValue", not_finite(number)).serialize(serializer)
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
            Some(Any::Int(number)) => Field("intValue", Long(number)).serialize(serializer),
            Some(Any::Double(number)) => double(*number, serializer),
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

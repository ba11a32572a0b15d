//! Requests in JSON, read as leniently as they can be understood.
//!
//! Exporters write numbers as texts, enums by name, ids in base64, fields as in the `.proto` files, null for what is not
//! there, and halves of characters that they have cut. Fields that are not known are ignored.

use super::error::{OtlpError, SpanDefect};
use super::message::{
    Any, AnyValue, ArrayValue, Code, EventMessage, ExportedResource, KeyValue, KeyValueList, Kind, LinkMessage,
    SpanMessage, StatusMessage,
};
use crate::wire::json_repair::repaired;
use base64::Engine;
use base64::alphabet;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use serde_json::{Map, Value as JsonValue};

type Fields = Map<String, JsonValue>;

pub(super) fn resources(body: &[u8]) -> Result<Vec<ExportedResource>, OtlpError> {
    let json = serde_json::from_slice(body).or_else(|_| serde_json::from_str(&repaired(body)))?;
    let mut request = object(json, "the request")?;
    let resources = list(&mut request, "resourceSpans")?;
    Ok(resources.into_iter().map(|one| exported(one).unwrap_or_else(ExportedResource::unreadable)).collect())
}

fn exported(json: JsonValue) -> Result<ExportedResource, SpanDefect> {
    let mut fields = object(json, "resourceSpans")?;
    let mut spans = Vec::new();
    for scope in list(&mut fields, "scopeSpans")? {
        match object(scope, "scopeSpans").and_then(|mut scope| list(&mut scope, "spans")) {
            Ok(found) => spans.extend(found.into_iter().map(span)),
            Err(defect) => spans.push(Err(defect)),
        }
    }
    let attributes = match take(&mut fields, "resource").map(|resource| object(resource, "resource")) {
        None => Ok(Vec::new()),
        Some(resource) => resource.and_then(|mut resource| attributes(&mut resource)),
    };
    let attributes = attributes.unwrap_or_else(|defect| {
        // They may name the rollout of the spans.
        spans.iter_mut().for_each(|span| *span = Err(defect.clone()));
        Vec::new()
    });
    Ok(ExportedResource { attributes, schema_url: text(&mut fields, "schemaUrl"), spans })
}

fn span(json: JsonValue) -> Result<SpanMessage, SpanDefect> {
    let mut fields = object(json, "a span")?;
    let fields = &mut fields;
    Ok(SpanMessage {
        trace_id: id(fields, "traceId"),
        span_id: id(fields, "spanId"),
        trace_state: text(fields, "traceState"),
        parent_span_id: id(fields, "parentSpanId"),
        name: text(fields, "name"),
        kind: enumerator(fields, "kind", "SPAN_KIND_", KINDS),
        start_time_unix_nano: nanos(fields, "startTimeUnixNano"),
        end_time_unix_nano: nanos(fields, "endTimeUnixNano"),
        attributes: attributes(fields)?,
        dropped_attributes_count: number(fields, "droppedAttributesCount"),
        events: list(fields, "events")?.into_iter().map(event).collect::<Result<_, _>>()?,
        dropped_events_count: number(fields, "droppedEventsCount"),
        links: list(fields, "links")?.into_iter().map(link).collect::<Result<_, _>>()?,
        dropped_links_count: number(fields, "droppedLinksCount"),
        status: take(fields, "status").map(status).transpose()?,
        flags: number(fields, "flags"),
    })
}

fn event(json: JsonValue) -> Result<EventMessage, SpanDefect> {
    let mut fields = object(json, "an event")?;
    Ok(EventMessage {
        time_unix_nano: nanos(&mut fields, "timeUnixNano"),
        name: text(&mut fields, "name"),
        attributes: attributes(&mut fields)?,
        dropped_attributes_count: number(&mut fields, "droppedAttributesCount"),
    })
}

fn link(json: JsonValue) -> Result<LinkMessage, SpanDefect> {
    let mut fields = object(json, "a link")?;
    Ok(LinkMessage {
        trace_id: id(&mut fields, "traceId"),
        span_id: id(&mut fields, "spanId"),
        trace_state: text(&mut fields, "traceState"),
        attributes: attributes(&mut fields)?,
        dropped_attributes_count: number(&mut fields, "droppedAttributesCount"),
    })
}

fn status(json: JsonValue) -> Result<StatusMessage, SpanDefect> {
    let mut fields = object(json, "status")?;
    let code = enumerator(&mut fields, "code", "STATUS_CODE_", CODES);
    Ok(StatusMessage { message: text(&mut fields, "message"), code })
}

/// The attributes of an object, a list of `key` and `value`.
fn attributes(fields: &mut Fields) -> Result<Vec<KeyValue>, SpanDefect> {
    list(fields, "attributes")?.into_iter().map(key_value).collect()
}

fn key_value(json: JsonValue) -> Result<KeyValue, SpanDefect> {
    let mut fields = object(json, "an attribute")?;
    Ok(KeyValue { key: text(&mut fields, "key"), value: take(&mut fields, "value").map(any_value).transpose()? })
}

fn any_value(json: JsonValue) -> Result<AnyValue, SpanDefect> {
    let JsonValue::Object(mut fields) = json else { return Ok(AnyValue { value: plain(json) }) };
    for (name, read) in VALUES {
        if let Some(json) = take(&mut fields, name) {
            return Ok(AnyValue { value: Some(read(json)?) });
        }
    }
    Ok(AnyValue::default())
}

type ReadValue = fn(JsonValue) -> Result<Any, SpanDefect>;

/// The fields of an `AnyValue`, of which one is present.
const VALUES: [(&str, ReadValue); 7] = [
    ("stringValue", |json| Ok(Any::Text(into_text(json)))),
    ("boolValue", |json| Ok(bool_value(json))),
    ("intValue", |json| Ok(int_value(json))),
    ("doubleValue", |json| Ok(double_value(json))),
    ("arrayValue", |json| {
        let mut fields = object(json, "arrayValue")?;
        // A place in a list has a meaning: null stays.
        let values = taken_list(&mut fields, "values")?.into_iter().map(any_value).collect::<Result<_, _>>()?;
        Ok(Any::List(ArrayValue { values }))
    }),
    ("kvlistValue", |json| {
        let mut fields = object(json, "kvlistValue")?;
        let values = list(&mut fields, "values")?.into_iter().map(key_value).collect::<Result<_, _>>()?;
        Ok(Any::Map(KeyValueList { values }))
    }),
    ("bytesValue", |json| {
        let text = into_text(json);
        Ok(BASE64.decode(&text).map_or(Any::Text(text), Any::Bytes))
    }),
];

/// A value that is written without its type.
fn plain(json: JsonValue) -> Option<Any> {
    match json {
        JsonValue::Null => None,
        JsonValue::Bool(_) => Some(bool_value(json)),
        JsonValue::Number(ref number) if number.is_f64() => Some(double_value(json)),
        JsonValue::Number(_) => Some(int_value(json)),
        other => Some(Any::Text(into_text(other))),
    }
}

fn bool_value(json: JsonValue) -> Any {
    match json.as_bool().or_else(|| json.as_str()?.parse().ok()) {
        Some(value) => Any::Bool(value),
        None => Any::Text(into_text(json)),
    }
}

/// An integer, also as text or as `7.0`; of a number beyond 64 bits, the double that it is, or its text.
fn int_value(json: JsonValue) -> Any {
    let whole =
        json.as_f64().filter(|number| number.fract() == 0.0 && number.abs() < MAX_EXACT).map(|number| number as i64);
    match json.as_i64().or(whole).or_else(|| json.as_str()?.trim().parse().ok()) {
        Some(number) => Any::Int(number),
        None if json.is_f64() => double_value(json),
        None => Any::Text(into_text(json)),
    }
}

/// Above it, floats are not exact integers.
const MAX_EXACT: f64 = 9_007_199_254_740_992.0;

/// A double, also as text, of which `NaN` and `Infinity` are some.
fn double_value(json: JsonValue) -> Any {
    match json.as_f64().or_else(|| json.as_str()?.trim().parse().ok()) {
        Some(number) => Any::Double(number),
        None => Any::Text(into_text(json)),
    }
}

/// The text of a string, or the JSON of anything else.
fn into_text(json: JsonValue) -> Vec<u8> {
    match json {
        JsonValue::String(text) => text.into_bytes(),
        other => other.to_string().into_bytes(),
    }
}

fn object(json: JsonValue, field: &'static str) -> Result<Fields, SpanDefect> {
    match json {
        JsonValue::Object(fields) => Ok(fields),
        _ => Err(SpanDefect::Json { field, expected: "an object" }),
    }
}

/// The elements of the list in a field, without null; none if the field is absent.
fn list(fields: &mut Fields, name: &'static str) -> Result<Vec<JsonValue>, SpanDefect> {
    let mut elements = taken_list(fields, name)?;
    elements.retain(|element| !element.is_null());
    Ok(elements)
}

fn taken_list(fields: &mut Fields, name: &'static str) -> Result<Vec<JsonValue>, SpanDefect> {
    match take(fields, name) {
        None => Ok(Vec::new()),
        Some(JsonValue::Array(elements)) => Ok(elements),
        Some(_) => Err(SpanDefect::Json { field: name, expected: "a list" }),
    }
}

fn text(fields: &mut Fields, name: &str) -> Vec<u8> {
    take(fields, name).map(into_text).unwrap_or_default()
}

/// An id in hexadecimal, or in base64 as protobuf's own mapping has it. Their lengths differ. One byte, which is an invalid
/// length for every id, stands for what is neither.
fn id(fields: &mut Fields, name: &str) -> Vec<u8> {
    let id = text(fields, name);
    let decoded =
        const_hex::decode(&id).ok().or_else(|| BASE64.decode(&id).ok().filter(|id| matches!(id.len(), 8 | 16)));
    decoded.unwrap_or_else(|| vec![u8::MAX])
}

/// Nanoseconds since the Unix epoch; 0 for what is no such number.
fn nanos(fields: &mut Fields, name: &str) -> u64 {
    let json = take(fields, name).unwrap_or_default();
    // `as` saturates.
    let number = |json: &JsonValue| json.as_u64().or_else(|| json.as_f64().map(|number| number as u64));
    let parsed = || serde_json::from_str::<JsonValue>(json.as_str()?).ok();
    number(&json).or_else(|| number(&parsed()?)).unwrap_or_default()
}

/// A number of 32 bits; 0 for what is no such number.
fn number(fields: &mut Fields, name: &str) -> u32 {
    u32::try_from(nanos(fields, name)).unwrap_or_default()
}

/// The number of an enum's value, which is written as a number, as its text, or as a name.
fn enumerator(fields: &mut Fields, name: &str, prefix: &str, names: &[(&str, i32)]) -> i32 {
    let json = take(fields, name).unwrap_or_default();
    let by_name = |text: &str| {
        let text = text.strip_prefix(prefix).unwrap_or(text);
        names.iter().find(|(name, _)| *name == text).map(|(_, number)| *number)
    };
    match int_value(json) {
        Any::Int(number) => i32::try_from(number).ok(),
        Any::Text(text) => std::str::from_utf8(&text).ok().and_then(by_name),
        _ => None,
    }
    .unwrap_or_default()
}

const KINDS: &[(&str, i32)] = &[
    ("INTERNAL", Kind::Internal as i32),
    ("SERVER", Kind::Server as i32),
    ("CLIENT", Kind::Client as i32),
    ("PRODUCER", Kind::Producer as i32),
    ("CONSUMER", Kind::Consumer as i32),
];
const CODES: &[(&str, i32)] = &[("OK", Code::Ok as i32), ("ERROR", Code::Error as i32)];

/// The value of a field that is present and not null. Its name may also be written as in the `.proto` file.
fn take(fields: &mut Fields, name: &str) -> Option<JsonValue> {
    let camel = fields.remove(name).filter(|value| !value.is_null());
    camel.or_else(|| fields.remove(&snake_case(name))).filter(|value| !value.is_null())
}

fn snake_case(name: &str) -> String {
    let mut snake = String::with_capacity(name.len() + 4);
    for letter in name.chars() {
        if letter.is_ascii_uppercase() {
            snake.push('_');
        }
        snake.push(letter.to_ascii_lowercase());
    }
    snake
}

/// Base64 with or without padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

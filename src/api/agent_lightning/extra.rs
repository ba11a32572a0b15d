//! Keys of a span that our model does not have. Agent Lightning's model keeps them, so they are stored in an attribute and
//! returned in their place.

use crate::api::request_json::{read, typed};
use crate::api::respond::{ApiError, ApiResult};
use crate::trace::{Span, SpanKind, Value};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Map, Value as JsonValue};

/// The attribute that holds the extra keys in the store, as a JSON object.
const EXTRA: &str = "tracewire.extra";

/// The keys of our model besides [`NULLABLE`] and `kind`.
const KNOWN: [&str; 11] = [
    "rollout_id",
    "attempt_id",
    "sequence_id",
    "trace_id",
    "span_id",
    "name",
    "status",
    "attributes",
    "events",
    "links",
    "resource",
];

/// The keys that must be present and may be null. serde would read null from a missing key too.
const NULLABLE: [&str; 5] = ["parent_id", "start_time", "end_time", "context", "parent"];

/// The span in a body, with its extra keys in an attribute.
pub(super) fn read_span(body: &Bytes) -> ApiResult<Span> {
    let fields: Map<String, JsonValue> = read(body)?;
    if let Some(missing) = NULLABLE.iter().find(|key| !fields.contains_key(**key)) {
        return Err(ApiError::of_value(&["body", missing], "Field required", fields));
    }
    let is_ours = |key: &str, value: &JsonValue| {
        // OpenTelemetry's Python classes have other names of kinds, which are kept as any extra key is.
        KNOWN.contains(&key) || NULLABLE.contains(&key) || (key == "kind" && SpanKind::deserialize(value).is_ok())
    };
    let (ours, extra): (Map<_, _>, Map<_, _>) = fields.into_iter().partition(|(key, value)| is_ours(key, value));
    let mut span: Span = typed("body", &JsonValue::Object(ours))?;
    if !extra.is_empty() {
        span.set(EXTRA, JsonValue::Object(extra).to_string());
    }
    Ok(span)
}

/// A span's JSON, with its extra keys.
pub(super) fn json(span: &Span) -> JsonValue {
    let mut text = Vec::new();
    write(span.clone(), &mut text);
    serde_json::from_slice(&text).unwrap_or_default()
}

/// Writes a span's JSON, with its extra keys.
pub(super) fn write(mut span: Span, text: &mut Vec<u8>) {
    let extra = span.attributes.remove(EXTRA);
    // A span has no keys that are no texts, and a Vec takes all.
    let _ = serde_json::to_writer(&mut *text, &span);
    let extra = extra.as_ref().and_then(Value::as_str).and_then(|extra| serde_json::from_str::<Extra>(extra).ok());
    let Some(mut extra) = extra else { return };
    extra.retain(|key, _| !KNOWN.contains(&key.as_str()) && !NULLABLE.contains(&key.as_str()));
    if span.kind.is_some() {
        extra.remove("kind");
    }
    if !extra.is_empty() {
        text.pop();
        text.push(b',');
        text.extend_from_slice(JsonValue::Object(extra).to_string().get(1..).unwrap_or_default().as_bytes());
    }
}

type Extra = Map<String, JsonValue>;

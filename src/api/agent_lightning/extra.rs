//! Keys of a span that our model does not have. Agent Lightning's model keeps them, so they are stored in an attribute and
//! returned in their place.

use crate::api::request_json::{read, typed};
use crate::api::respond::{ApiError, ApiResult};
use crate::trace::{Span, SpanKind};
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
    let mut json = serde_json::to_value(span).unwrap_or_default();
    let extra = json.get_mut("attributes").and_then(JsonValue::as_object_mut).and_then(|all| all.remove(EXTRA));
    let extra = extra.and_then(|text| serde_json::from_str::<Map<String, JsonValue>>(text.as_str()?).ok());
    if let (Some(fields), Some(extra)) = (json.as_object_mut(), extra) {
        for (key, value) in extra {
            fields.entry(key).or_insert(value);
        }
    }
    json
}

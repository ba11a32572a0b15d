//! Keys of a span that our model does not have. Agent Lightning's model keeps them, so they are stored in an attribute and
//! returned in their place.

use crate::trace::Span;
use serde::Deserialize;
use serde::de::{Deserializer, Error, IgnoredAny, MapAccess, Visitor};
use serde_json::{Map, Value as JsonValue};
use std::fmt;

/// The attribute that holds the extra keys in the store, as a JSON object.
pub(super) const EXTRA: &str = "tracewire.extra";

/// The keys of a span's JSON. Deserialising fails if one of the first [`REQUIRED`] of [`KNOWN`] is missing.
pub(super) struct SpanKeys {
    /// Keys that are not [`KNOWN`], with their values.
    pub(super) extra: Map<String, JsonValue>,
}

/// The keys of our model. The first [`REQUIRED`] may be null, which serde would read from a missing key too.
const KNOWN: [&str; 17] = [
    "parent_id",
    "start_time",
    "end_time",
    "context",
    "parent",
    "rollout_id",
    "attempt_id",
    "sequence_id",
    "trace_id",
    "span_id",
    "name",
    "kind",
    "status",
    "attributes",
    "events",
    "links",
    "resource",
];
const REQUIRED: usize = 5;

impl<'de> Deserialize<'de> for SpanKeys {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct KeyVisitor;
        impl<'de> Visitor<'de> for KeyVisitor {
            type Value = SpanKeys;
            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a span")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<SpanKeys, A::Error> {
                let (mut seen, mut extra) = ([false; REQUIRED], Map::new());
                while let Some(key) = map.next_key::<String>()? {
                    match KNOWN.iter().position(|known| *known == key) {
                        Some(at) => {
                            map.next_value::<IgnoredAny>()?;
                            seen.iter_mut().skip(at).take(usize::from(at < REQUIRED)).for_each(|seen| *seen = true);
                        }
                        None => drop(extra.insert(key, map.next_value()?)),
                    }
                }
                match seen.iter().position(|seen| !seen) {
                    Some(at) => Err(A::Error::missing_field(KNOWN[at])),
                    None => Ok(SpanKeys { extra }),
                }
            }
        }
        deserializer.deserialize_map(KeyVisitor)
    }
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

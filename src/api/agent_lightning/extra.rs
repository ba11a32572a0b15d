//! Keys of a span that our model has no place for: Agent Lightning's model keeps them, so they come back as they went in.

use crate::trace::Span;
use serde::Deserialize;
use serde::de::{Deserializer, Error, IgnoredAny, MapAccess, Visitor};
use serde_json::{Map, Value as JsonValue};
use std::fmt;

/// The attribute that holds them in the store, as JSON.
pub(super) const EXTRA: &str = "tracewire.extra";

/// A span's keys: those that must be there are, and what is not ours is kept.
pub(super) struct Keys {
    pub(super) extra: Map<String, JsonValue>,
}

/// Ours; the first five may be null, and must be there all the same.
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
const NEEDED: usize = 5;

impl<'de> Deserialize<'de> for Keys {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Look;
        impl<'de> Visitor<'de> for Look {
            type Value = Keys;
            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a span")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Keys, A::Error> {
                let (mut seen, mut extra) = ([false; NEEDED], Map::new());
                while let Some(key) = map.next_key::<String>()? {
                    match KNOWN.iter().position(|known| *known == key) {
                        Some(at) => {
                            map.next_value::<IgnoredAny>()?;
                            seen.iter_mut().skip(at).take(usize::from(at < NEEDED)).for_each(|seen| *seen = true);
                        }
                        None => drop(extra.insert(key, map.next_value()?)),
                    }
                }
                match seen.iter().position(|seen| !seen) {
                    Some(at) => Err(A::Error::missing_field(KNOWN[at])),
                    None => Ok(Keys { extra }),
                }
            }
        }
        deserializer.deserialize_map(Look)
    }
}

/// A span as it is served.
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

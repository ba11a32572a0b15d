//! JSON as attributes, as Agent Lightning flattens it.

use super::error::{Result, TracerError};
use crate::trace::{Attributes, Value};
use serde_json::Value as JsonValue;

/// Attributes from a JSON object. Nested objects become `outer.inner`; lists of one type stay lists, and the elements of
/// other lists become `list.0`, `list.1` and so on. An empty list is no attribute, and null is an error.
pub fn flattened(object: &JsonValue) -> Result<Attributes> {
    let JsonValue::Object(_) = object else {
        let problem = "attributes are a JSON object; use {\"name\": value}".to_owned();
        return Err(TracerError::InvalidAttribute { name: String::new(), problem });
    };
    flattened_below("", object, Nulls::Refused)
}

/// What becomes of null.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Nulls {
    Refused,
    /// The text `null`.
    Text,
}

/// As [`flattened`], for any value; the names of the attributes begin with `prefix`.
pub(super) fn flattened_below(prefix: &str, value: &JsonValue, nulls: Nulls) -> Result<Attributes> {
    let mut attributes = Attributes::default();
    // A list instead of recursion: input may be nested deeply.
    let mut waiting = vec![(prefix.to_owned(), value)];
    while let Some((name, value)) = waiting.pop() {
        let below = |key: &str| if name.is_empty() { key.to_owned() } else { format!("{name}.{key}") };
        match value {
            JsonValue::Object(members) => {
                waiting.extend(members.iter().map(|(key, value)| (below(key), value)));
            }
            JsonValue::Array(elements) if !has_one_type(elements) => {
                let elements = elements.iter().enumerate();
                waiting.extend(elements.map(|(at, element)| (below(&at.to_string()), element)));
            }
            JsonValue::Null if nulls == Nulls::Refused => {
                let problem = "null is no attribute; leave it out".to_owned();
                return Err(TracerError::InvalidAttribute { name, problem });
            }
            JsonValue::Null => {
                attributes.insert(name, "null".into());
            }
            value => match serde_json::from_value::<Value>(value.clone()) {
                Ok(value) => {
                    attributes.insert(name, value);
                }
                Err(error) => return Err(TracerError::InvalidAttribute { name, problem: error.to_string() }),
            },
        }
    }
    Ok(attributes)
}

/// True if all elements are texts, booleans, integers, or other numbers.
fn has_one_type(elements: &[JsonValue]) -> bool {
    let kind = |element: &JsonValue| match element {
        JsonValue::String(_) => Some(0),
        JsonValue::Bool(_) => Some(1),
        JsonValue::Number(number) => Some(if number.is_f64() { 2 } else { 3 }),
        JsonValue::Null | JsonValue::Array(_) | JsonValue::Object(_) => None,
    };
    let first = elements.first().and_then(kind);
    first.is_some() && elements.iter().all(|element| kind(element) == first)
}

//! The ids in bodies and queries: by the names of their fields, for all routes alike.

use super::respond::SchemaProblem;
use crate::trace::check_id;
use serde_json::{Value as JsonValue, json};

/// The first invalid id. What has fields below other names is data, not ids.
pub(super) fn invalid_id(json: &JsonValue, place: Vec<JsonValue>) -> Option<SchemaProblem> {
    let at = |step: JsonValue| [place.clone(), vec![step]].concat();
    match json {
        JsonValue::Array(all) => {
            all.iter().enumerate().find_map(|(index, element)| invalid_id(element, at(json!(index))))
        }
        JsonValue::Object(fields) => fields.iter().find_map(|(name, value)| match value {
            JsonValue::String(id) if ID_FIELDS.contains(&name.as_str()) => {
                let message = check_id(id).err()?.to_string();
                Some(SchemaProblem { kind: "value_error", place: at(json!(name)), message, found: value.clone() })
            }
            JsonValue::Array(all) if ID_LISTS.contains(&name.as_str()) => {
                let invalid = all.iter().filter_map(JsonValue::as_str).find_map(|id| Some((id, check_id(id).err()?)));
                let (id, error) = invalid?;
                let place = at(json!(name));
                Some(SchemaProblem { kind: "value_error", place, message: error.to_string(), found: json!(id) })
            }
            _ if name == "rollouts" => invalid_id(value, at(json!(name))),
            _ => None,
        }),
        _ => None,
    }
}

/// The fields of requests that hold ids.
const ID_FIELDS: &[&str] = &[
    "rollout_id",
    "attempt_id",
    "last_attempt_id",
    "trace_id",
    "span_id",
    "parent_id",
    "worker_id",
    "session_id",
    "resources_id",
];
/// The fields of requests that hold lists of ids.
const ID_LISTS: &[&str] = &["rollout_ids", "rollout_id_in", "session_ids"];

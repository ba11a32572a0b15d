//! A check of request bodies that several resources share.

use crate::api::respond::{ApiError, ApiResult};
use serde_json::{Map, Value as JsonValue};

/// An error, with Agent Lightning's text, if one of these fields is null. They may be absent.
pub(super) fn reject_null(fields: &Map<String, JsonValue>, names: &[&str]) -> ApiResult<()> {
    match names.iter().find(|name| fields.get(**name).is_some_and(JsonValue::is_null)) {
        Some(name) => Err(ApiError::Invalid(format!("{name} is invalid; it cannot be a null value."))),
        None => Ok(()),
    }
}

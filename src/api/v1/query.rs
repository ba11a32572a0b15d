//! Parameters of queries, with the error texts of FastAPI.

use crate::api::respond::{ApiError, ApiResult};

/// The names and values of a query, decoded.
pub(super) fn parameters(query: &str) -> impl Iterator<Item = (String, String)> + '_ {
    form_urlencoded::parse(query.as_bytes()).into_owned()
}

/// The first value of a parameter.
pub(super) fn text(query: &str, name: &str) -> Option<String> {
    parameters(query).find(|(key, _)| key == name).map(|(_, value)| value)
}

/// The first value of a parameter that is a whole number.
pub(super) fn integer(query: &str, name: &str) -> ApiResult<Option<i64>> {
    let message = "Input should be a valid integer, unable to parse string as an integer";
    let parse = |value: String| value.parse().map_err(|_| ApiError::of_value(&["query", name], message, value));
    text(query, name).map(parse).transpose()
}

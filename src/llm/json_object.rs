//! Writing JSON objects with fields in a given order, as text and as server-sent events.

use crate::wire::json::Json;
use std::borrow::Cow;

/// An object with its fields in this order: `object! {"type": "text", "text": text}`.
macro_rules! object {
    ($($name:literal: $value:expr),* $(,)?) => {
        $crate::wire::json::Json::Object(vec![$($crate::llm::json_object::field($name, $value)),*])
    };
}
pub(crate) use object;

/// A field of an [`object!`].
pub(crate) fn field<'a>(name: &'static str, value: impl IntoJson<'a>) -> (Cow<'a, str>, Json<'a>) {
    (Cow::Borrowed(name), value.into_json())
}

/// A value that can be a field of an [`object!`].
pub(crate) trait IntoJson<'a> {
    /// The value as JSON.
    fn into_json(self) -> Json<'a>;
}

impl<'a> IntoJson<'a> for Json<'a> {
    fn into_json(self) -> Self {
        self
    }
}

impl<'a> IntoJson<'a> for &Json<'a> {
    fn into_json(self) -> Json<'a> {
        self.clone()
    }
}

impl<'a> IntoJson<'a> for &'a str {
    fn into_json(self) -> Json<'a> {
        Json::Text(Cow::Borrowed(self))
    }
}

impl<'a> IntoJson<'a> for &'a String {
    fn into_json(self) -> Json<'a> {
        Json::Text(Cow::Borrowed(self))
    }
}

impl<'a> IntoJson<'a> for String {
    fn into_json(self) -> Json<'a> {
        Json::Text(Cow::Owned(self))
    }
}

impl<'a> IntoJson<'a> for Cow<'a, str> {
    fn into_json(self) -> Json<'a> {
        Json::Text(self)
    }
}

impl<'a> IntoJson<'a> for bool {
    fn into_json(self) -> Json<'a> {
        Json::Bool(self)
    }
}

impl<'a> IntoJson<'a> for i64 {
    fn into_json(self) -> Json<'a> {
        Json::Int(self)
    }
}

impl<'a> IntoJson<'a> for usize {
    fn into_json(self) -> Json<'a> {
        Json::Int(i64::try_from(self).unwrap_or(i64::MAX))
    }
}

impl<'a> IntoJson<'a> for Vec<Json<'a>> {
    fn into_json(self) -> Json<'a> {
        Json::List(self)
    }
}

/// `None` becomes null.
impl<'a, T: IntoJson<'a>> IntoJson<'a> for Option<T> {
    fn into_json(self) -> Json<'a> {
        self.map_or(Json::Null, T::into_json)
    }
}

/// An object without the fields that are null.
pub(crate) fn without_nulls(json: Json<'_>) -> Json<'_> {
    match json {
        Json::Object(fields) => Json::Object(fields.into_iter().filter(|(_, value)| !value.is_null()).collect()),
        other => other,
    }
}

/// JSON as text, with the fields in their order.
pub(crate) fn text_of(json: &Json<'_>) -> String {
    // Writing to memory can't fail, and every key is a string.
    serde_json::to_string(json).unwrap_or_default()
}

/// Writes a server-sent event that is named by the `type` of its data.
pub(crate) fn write_event(data: &Json<'_>, out: &mut Vec<u8>) {
    let name = data.get("type").text().unwrap_or("message");
    out.extend_from_slice(format!("event: {name}\n").as_bytes());
    write_data(data, out);
}

/// Writes a server-sent event without a name.
pub(crate) fn write_data(data: &Json<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(format!("data: {}\n\n", text_of(data)).as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_keep_their_order_and_may_lose_their_nulls() {
        let object = object! {"z": "text", "a": object! {"n": 1_i64}, "none": None::<bool>, "list": vec![Json::Null]};
        assert_eq!(text_of(&object), r#"{"z":"text","a":{"n":1},"none":null,"list":[null]}"#);
        assert_eq!(text_of(&without_nulls(object)), r#"{"z":"text","a":{"n":1},"list":[null]}"#);
    }
}

//! JSON as it is read from a request and written to an answer: where each value stands, and a short way to write one.
//!
//! It must not know any dialect.

use super::Untranslatable;
use crate::wire::json::Json;
use std::borrow::Cow;

/// An object with its fields in this order: `object! {"type": "text", "text": text}`.
macro_rules! object {
    ($($name:literal: $value:expr),* $(,)?) => {
        $crate::wire::json::Json::Object(vec![$($crate::llm::translate::value::field($name, $value)),*])
    };
}
pub(super) use object;

/// A field of an [`object!`].
pub(super) fn field<'a>(name: &'static str, value: impl IntoJson<'a>) -> (Cow<'a, str>, Json<'a>) {
    (Cow::Borrowed(name), value.into_json())
}

/// What can stand in an [`object!`].
pub(super) trait IntoJson<'a> {
    /// As JSON.
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

/// Nothing is null.
impl<'a, T: IntoJson<'a>> IntoJson<'a> for Option<T> {
    fn into_json(self) -> Json<'a> {
        self.map_or(Json::Null, T::into_json)
    }
}

/// An object without its fields that are null.
pub(super) fn lean(json: Json<'_>) -> Json<'_> {
    match json {
        Json::Object(fields) => Json::Object(fields.into_iter().filter(|(_, value)| !value.is_null()).collect()),
        other => other,
    }
}

/// JSON as text, its fields in their order.
pub(super) fn text_of(json: &Json<'_>) -> String {
    // Writing to memory can't fail, and every key is a text.
    serde_json::to_string(json).unwrap_or_default()
}

/// An event of a stream whose name is the `type` of its data.
pub(super) fn write_event(data: &Json<'_>, out: &mut Vec<u8>) {
    let name = data.get("type").text().unwrap_or("message");
    out.extend_from_slice(format!("event: {name}\n").as_bytes());
    write_data(data, out);
}

/// An event of a stream without a name.
pub(super) fn write_data(data: &Json<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(format!("data: {}\n\n", text_of(data)).as_bytes());
}

/// A value of a request, and where it stands there.
#[derive(Clone, Debug)]
pub(super) struct Node<'a> {
    json: &'a Json<'a>,
    place: String,
}

impl<'a> Node<'a> {
    /// The whole request.
    pub(super) fn root(json: &'a Json<'a>) -> Self {
        Self { json, place: String::new() }
    }

    /// The value itself.
    pub(super) fn json(&self) -> &'a Json<'a> {
        self.json
    }

    /// A field of an object; null where there is none. A name `inCamelCase` also finds `in_camel_case`.
    pub(super) fn get(&self, name: &str) -> Self {
        let other = snake(name);
        let name = if self.json.has(name) || !self.json.has(&other) { name } else { other.as_str() };
        self.child(name, self.json.get(name))
    }

    fn child(&self, name: &str, json: &'a Json<'a>) -> Self {
        let place = if self.place.is_empty() { name.to_owned() } else { format!("{}.{name}", self.place) };
        Self { json, place }
    }

    /// True for null, and for what is not there.
    pub(super) fn is_null(&self) -> bool {
        self.json.is_null()
    }

    /// True for `true`.
    pub(super) fn flag(&self) -> bool {
        self.json.bool() == Some(true)
    }

    /// A text that has to be there.
    pub(super) fn text(&self) -> Result<&'a str, Untranslatable> {
        self.json.text().ok_or_else(|| self.refuse("must be a text"))
    }

    /// A text that may be missing.
    pub(super) fn word(&self) -> Result<Option<&'a str>, Untranslatable> {
        if self.is_null() { Ok(None) } else { self.text().map(Some) }
    }

    /// The elements of a list; none where there is no list.
    pub(super) fn list(&self) -> Result<Vec<Self>, Untranslatable> {
        match self.json {
            Json::Null => Ok(Vec::new()),
            Json::List(elements) => {
                let at = |(index, json)| Self { json, place: format!("{}[{index}]", self.place) };
                Ok(elements.iter().enumerate().map(at).collect())
            }
            _ => Err(self.refuse("must be a list")),
        }
    }

    /// Refuses an object with a field that is not among these. A field that is null says nothing.
    pub(super) fn only(&self, known: &[&str]) -> Result<(), Untranslatable> {
        if !matches!(self.json, Json::Null | Json::Object(_)) {
            return Err(self.refuse("must be an object"));
        }
        let is_known = |name: &str| known.iter().any(|known| *known == name || snake(known) == name);
        match self.json.fields().iter().find(|(name, value)| !value.is_null() && !is_known(name)) {
            Some((name, value)) => Err(self.child(name, value).refuse(NO_COUNTERPART)),
            None => Ok(()),
        }
    }

    /// Why this can't be translated.
    pub(super) fn refuse(&self, cause: impl Into<String>) -> Untranslatable {
        let place = if self.place.is_empty() { "body" } else { self.place.as_str() };
        Untranslatable { place: place.to_owned(), cause: cause.into() }
    }
}

/// What is said of something that only one of the two dialects has.
pub(super) const NO_COUNTERPART: &str = "has no counterpart in chat completions";

/// `inCamelCase` as `in_camel_case`.
fn snake(name: &str) -> String {
    let mut out = String::with_capacity(name.len() + 2);
    for letter in name.chars() {
        if letter.is_ascii_uppercase() {
            out.push('_');
        }
        out.push(letter.to_ascii_lowercase());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::json::parse;

    #[test]
    fn objects_keep_their_order_and_lean_ones_lose_their_nulls() {
        let object = object! {"z": "text", "a": object! {"n": 1_i64}, "none": None::<bool>, "list": vec![Json::Null]};
        assert_eq!(text_of(&object), r#"{"z":"text","a":{"n":1},"none":null,"list":[null]}"#);
        assert_eq!(text_of(&lean(object)), r#"{"z":"text","a":{"n":1},"list":[null]}"#);
    }

    #[test]
    fn a_place_is_named_as_it_is_written() {
        let json = parse(br#"{"a":[{"some_name":{"b":1}}],"n":null}"#).unwrap();
        let root = Node::root(&json);
        let inner = root.get("a").list().unwrap().remove(0);
        assert_eq!(inner.get("someName").get("b").text().unwrap_err().to_string(), "a[0].some_name.b: must be a text");
        assert!(inner.only(&["someName"]).is_ok());
        assert_eq!(root.only(&["b"]).unwrap_err().place, "a");
        assert!(root.only(&["a"]).is_ok());
        assert_eq!(root.get("n").word(), Ok(None));
    }
}

//! A value of a request together with its place, for errors that name it.
//!
//! No API is known here.

use super::untranslatable::Untranslatable;
use crate::wire::json::Json;

/// A value of a request, and its place, such as `messages[2].content`.
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

    /// The value.
    pub(super) fn json(&self) -> &'a Json<'a> {
        self.json
    }

    /// A field of an object; null if it is missing. The name `inCamelCase` also finds `in_camel_case`.
    pub(super) fn get(&self, name: &str) -> Self {
        let other = snake(name);
        let name = if self.json.has(name) || !self.json.has(&other) { name } else { other.as_str() };
        self.child(name, self.json.get(name))
    }

    fn child(&self, name: &str, json: &'a Json<'a>) -> Self {
        let place = if self.place.is_empty() { name.to_owned() } else { format!("{}.{name}", self.place) };
        Self { json, place }
    }

    /// True for null, and for a value that is missing.
    pub(super) fn is_null(&self) -> bool {
        self.json.is_null()
    }

    /// True if the value is `true`.
    pub(super) fn flag(&self) -> bool {
        self.json.bool() == Some(true)
    }

    /// A text that is required.
    pub(super) fn text(&self) -> Result<&'a str, Untranslatable> {
        self.json.text().ok_or_else(|| self.refuse("must be a text"))
    }

    /// A text that is optional.
    pub(super) fn word(&self) -> Result<Option<&'a str>, Untranslatable> {
        if self.is_null() { Ok(None) } else { self.text().map(Some) }
    }

    /// The elements of a list; none if it is missing.
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

    /// Refuses an object with other fields than these, unless they are null.
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

    /// The error that this value can't be translated.
    pub(super) fn refuse(&self, cause: impl Into<String>) -> Untranslatable {
        let place = if self.place.is_empty() { "body" } else { self.place.as_str() };
        Untranslatable { place: place.to_owned(), cause: cause.into() }
    }
}

/// The cause for something that chat completions don't have.
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

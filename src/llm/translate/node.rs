//! A value of a request together with its place, for errors that name it, and the list of what is left out.
//!
//! No API is known here.

use super::untranslatable::Untranslatable;
use crate::wire::json::Json;
use std::cell::RefCell;
use std::collections::BTreeSet;

/// A value of a request, and its place, such as `messages[2].content`.
#[derive(Clone, Debug)]
pub(super) struct Node<'a> {
    json: &'a Json<'a>,
    place: String,
    dropped: &'a Dropped,
}

/// The places of what a translation left out. Elements of a list share one place: `messages[].output_config`.
#[derive(Debug, Default)]
pub(super) struct Dropped {
    places: RefCell<BTreeSet<String>>,
    /// Claude Code's line about billing, which is left out of the system prompt.
    billing_line: RefCell<Option<String>>,
}

impl Dropped {
    /// At most this many places are kept; a longer list would be as hard to read as the request.
    const MAX_PLACES: usize = 64;

    fn add(&self, place: &str) {
        let place = place.split('[').enumerate().map(|(index, part)| match part.split_once(']') {
            Some((_, behind)) if index > 0 => format!("[]{behind}"),
            _ => part.to_owned(),
        });
        let mut places = self.places.borrow_mut();
        if places.len() < Self::MAX_PLACES {
            places.insert(place.collect());
        }
    }

    /// The places, in alphabetical order.
    pub(super) fn places(&self) -> Vec<String> {
        self.places.borrow().iter().cloned().collect()
    }

    /// The line about billing.
    pub(super) fn into_billing_line(self) -> Option<String> {
        self.billing_line.into_inner()
    }
}

impl<'a> Node<'a> {
    /// The whole request.
    pub(super) fn root(json: &'a Json<'a>, dropped: &'a Dropped) -> Self {
        Self { json, place: String::new(), dropped }
    }

    /// The JSON value at this place.
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
        Self { json, place, dropped: self.dropped }
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
                let at =
                    |(index, json)| Self { json, place: format!("{}[{index}]", self.place), dropped: self.dropped };
                Ok(elements.iter().enumerate().map(at).collect())
            }
            _ => Err(self.refuse("must be a list")),
        }
    }

    /// Refuses what is no object, and leaves out the fields that are not known: clients send new ones with each release,
    /// and most have no effect on the answer.
    pub(super) fn only(&self, known: &[&str]) -> Result<(), Untranslatable> {
        if !matches!(self.json, Json::Null | Json::Object(_)) {
            return Err(self.refuse("must be an object"));
        }
        let is_known = |name: &str| known.iter().any(|known| *known == name || snake(known) == name);
        for (name, value) in self.json.fields().iter().filter(|(name, value)| !value.is_null() && !is_known(name)) {
            self.child(name, value).leave_out();
        }
        Ok(())
    }

    /// Refuses the fields with these names: they change the answer, and chat completions have nothing like them.
    pub(super) fn without(&self, names: &[&str]) -> Result<(), Untranslatable> {
        let present = names.iter().map(|name| self.get(name)).find(|field| !field.is_null());
        present.map_or(Ok(()), |field| Err(field.refuse(NO_COUNTERPART)))
    }

    /// Notes that this value is left out, if there is one.
    pub(super) fn leave_out(&self) {
        if !self.is_null() {
            self.dropped.add(&self.place);
        }
    }

    /// Keeps the line about billing that is left out.
    pub(super) fn note_billing_line(&self, line: &str) {
        self.dropped.billing_line.borrow_mut().get_or_insert_with(|| line.to_owned());
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
        let dropped = Dropped::default();
        let root = Node::root(&json, &dropped);
        let inner = root.get("a").list().unwrap().remove(0);
        assert_eq!(inner.get("someName").get("b").text().unwrap_err().to_string(), "a[0].some_name.b: must be a text");
        assert_eq!(root.without(&["n", "a"]).unwrap_err().place, "a");
        assert_eq!(root.without(&["n", "b"]), Ok(()));
        assert_eq!(root.get("n").word(), Ok(None));
    }

    #[test]
    fn what_is_left_out_is_named_once_for_all_elements() {
        let json = parse(br#"{"a":[{"x":1,"b":[{"y":1}]},{"x":2,"some_name":3}],"n":null}"#).unwrap();
        let dropped = Dropped::default();
        let root = Node::root(&json, &dropped);
        for element in root.get("a").list().unwrap() {
            element.only(&["b", "someName"]).unwrap();
            element.get("b").list().unwrap().iter().for_each(Node::leave_out);
        }
        root.only(&["a"]).unwrap();
        assert_eq!(dropped.places(), ["a[].b[]", "a[].x"]);
    }

    #[test]
    fn the_list_of_what_is_left_out_is_bounded() {
        let dropped = Dropped::default();
        (0..1000).for_each(|name| dropped.add(&format!("field{name}")));
        assert_eq!(dropped.places().len(), Dropped::MAX_PLACES);
    }
}

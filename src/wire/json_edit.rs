//! Finding, adding and setting fields of a JSON object; every other byte stays what it was. Fields are removed by
//! [`super::json_strip`].
//!
//! Names are compared as decoded (`"mod\u0065l"` is `model`), and every duplicate of a field is treated alike. Values
//! are not read, only their place is found. Text that is no JSON object, or is cut short, stays as it is.

use super::json_scan::{is_named, skip_space, string_end, value_end};
use std::ops::Range;

/// The fields of the object at the start of a text.
#[derive(Debug)]
pub(crate) struct Object<'a> {
    text: &'a [u8],
    members: Vec<Member<'a>>,
}

/// A field of an object.
#[derive(Debug)]
struct Member<'a> {
    // Without quotes, as it is written.
    key: &'a [u8],
    value: Range<usize>,
}

impl Member<'_> {
    fn is(&self, name: &str) -> bool {
        is_named(self.key, name)
    }
}

impl<'a> Object<'a> {
    /// Finds the fields. `None`: the text begins with no object, or the object is cut short.
    pub(crate) fn find(text: &'a [u8]) -> Option<Self> {
        let members = members(text, start(text))?;
        Some(Self { text, members })
    }

    /// True when it has this field, whatever its value.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.members.iter().any(|member| member.is(name))
    }

    /// The value of a field as it is written; of duplicates the last, which is the one that JSON readers take.
    pub(crate) fn value(&self, name: &str) -> Option<&'a [u8]> {
        let member = self.members.iter().rev().find(|member| member.is(name))?;
        self.text.get(member.value.clone())
    }

    /// The values of a field and of its duplicates, in their order.
    pub(crate) fn values(&self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        self.members
            .iter()
            .filter(move |member| member.is(name))
            .filter_map(|member| self.text.get(member.value.clone()))
    }

    /// True when a field has a value other than null and false.
    pub(crate) fn requests(&self, name: &str) -> bool {
        self.value(name).is_some_and(|value| !matches!(value, b"null" | b"false"))
    }

    /// Puts those of these fields in front that the object does not have.
    pub(crate) fn insert(&self, fields: &[(&str, &str)]) -> Edits {
        let missing = fields.iter().filter(|(name, _)| !self.has(name));
        let mut written = missing.map(|(name, value)| format!("\"{name}\":{value}")).collect::<Vec<_>>().join(",");
        if written.is_empty() {
            return Edits::new();
        }
        if !self.members.is_empty() {
            written.push(',');
        }
        let at = start(self.text) + 1;
        vec![(at..at, written.into())]
    }

    /// Sets fields to values. Every duplicate of a field gets the value; fields that are missing are put in front.
    pub(crate) fn set(&self, fields: &[(String, String)]) -> Edits {
        let named: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let mut edits = self.insert(&named);
        for member in &self.members {
            if let Some((_, value)) = named.iter().find(|(name, _)| member.is(name)) {
                edits.push((member.value.clone(), (*value).into()));
            }
        }
        edits
    }
}

/// Replacements of parts of a text, in ascending order: the range, and the bytes that take its place.
pub(crate) type Edits = Vec<(Range<usize>, Vec<u8>)>;

/// `text` with these edits.
pub(crate) fn edited(text: &[u8], edits: &Edits) -> Vec<u8> {
    let added: usize = edits.iter().map(|(_, instead)| instead.len()).sum();
    let (mut out, mut copied) = (Vec::with_capacity(text.len() + added), 0);
    for (range, instead) in edits {
        out.extend_from_slice(text.get(copied..range.start).unwrap_or_default());
        out.extend_from_slice(instead);
        copied = range.end;
    }
    out.extend_from_slice(text.get(copied..).unwrap_or_default());
    out
}

/// `text` with these fields in front of its own; see `Object::insert`. `None`: it is no object.
pub fn insert(text: &[u8], fields: &[(&str, &str)]) -> Option<Vec<u8>> {
    Some(edited(text, &Object::find(text)?.insert(fields)))
}

/// The index of the first byte that is no white space.
fn start(text: &[u8]) -> usize {
    skip_space(text, 0)
}

/// The fields of the object that opens at `open`; `None` if it is none, or breaks off.
fn members(text: &[u8], open: usize) -> Option<Vec<Member<'_>>> {
    if text.get(open) != Some(&b'{') {
        return None;
    }
    let mut members = Vec::new();
    let mut at = skip_space(text, open + 1);
    if text.get(at) == Some(&b'}') {
        return Some(members);
    }
    loop {
        let from = at;
        let key_end = string_end(text, at)?;
        let colon = skip_space(text, key_end);
        if text.get(colon) != Some(&b':') {
            return None;
        }
        let value = skip_space(text, colon + 1);
        let end = value_end(text, value).filter(|end| *end > value)?;
        members.push(Member { key: &text[from + 1..key_end - 1], value: value..end });
        at = skip_space(text, end);
        match text.get(at) {
            Some(b',') => at = skip_space(text, at + 1),
            Some(b'}') => return Some(members),
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn set(text: &[u8], fields: &[(String, String)]) -> Option<Vec<u8>> {
        Some(edited(text, &Object::find(text)?.set(fields)))
    }

    fn value<'a>(text: &'a [u8], name: &str) -> Option<&'a [u8]> {
        Object::find(text)?.value(name)
    }

    #[test]
    fn values_are_set_in_their_place() {
        let text = br#"{"model":"a", "x":{"model":1},"temperature" : 0.10 ,"n":1}"#;
        let fields = [("model", "\"b\""), ("temperature", "1"), ("seed", "7")];
        let fields = fields.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let after = set(text, &fields).unwrap();
        assert_eq!(
            String::from_utf8(after.clone()).unwrap(),
            r#"{"seed":7,"model":"b", "x":{"model":1},"temperature" : 1 ,"n":1}"#
        );
        assert_eq!(value(&after, "temperature"), Some(&b"1"[..]));
        assert_eq!((value(&after, "y"), set(b"[]", &fields)), (None, None));
    }

    #[test]
    fn fields_are_put_in_front_unless_they_are_there() {
        let put = |text: &str| {
            insert(text.as_bytes(), &[("a", "true"), ("b", "0")]).map(|text| String::from_utf8(text).unwrap())
        };
        assert_eq!(put(r#" {"model":"m"}"#).unwrap(), r#" {"a":true,"b":0,"model":"m"}"#);
        assert_eq!(put(r#"{"b":2}"#).unwrap(), r#"{"a":true,"b":2}"#);
        assert_eq!(put("{ }").unwrap(), r#"{"a":true,"b":0 }"#);
        assert_eq!(put(r#"{"b":1,"a":1}"#).unwrap(), r#"{"b":1,"a":1}"#);
        assert_eq!((put("[]"), put("{\"a\":"), put("")), (None, None, None));
        let requests = |text: &str| Object::find(text.as_bytes()).unwrap().requests("a");
        assert!(requests(r#"{"a":true}"#) && !requests(r#"{"a":false}"#) && !requests(r#"{"x":{"a":1}}"#));
    }

    #[test]
    fn every_spelling_of_a_name_is_the_field() {
        let text =
            r#"{"mod\u0065l":"a","model":"b","max_token\u0073":4000,"x":"\u006dodel","\ud800":1,"model\u0000":2}"#;
        let fields = [("model", "\"c\""), ("max_tokens", "10")];
        let after = set(text.as_bytes(), &fields.map(|(name, value)| (name.to_owned(), value.to_owned()))).unwrap();
        assert_eq!(
            String::from_utf8(after).unwrap(),
            r#"{"mod\u0065l":"c","model":"c","max_token\u0073":10,"x":"\u006dodel","\ud800":1,"model\u0000":2}"#
        );
        assert_eq!(value(text.as_bytes(), "max_tokens"), Some(&b"4000"[..]));
        assert_eq!(insert(text.as_bytes(), &fields).unwrap(), text.as_bytes());
    }

    proptest! {
        #[test]
        fn escaped_letters_of_a_name_change_nothing(
            escaped in prop::collection::vec(any::<bool>(), 30),
            capital in any::<bool>(),
            twice in any::<bool>(),
        ) {
            // A name with the letters escaped that `escaped` says.
            let spelled = |name: &str| -> String {
                let letters = name.chars().zip(escaped.iter().cycle().skip(name.len()));
                letters.map(|(letter, escape)| match (escape, capital) {
                    (false, _) => letter.to_string(),
                    (true, false) => format!("\\u{:04x}", u32::from(letter)),
                    (true, true) => format!("\\u{:04X}", u32::from(letter)),
                }).collect()
            };
            let duplicate = if twice { ",\"model\":\"z\"" } else { "" };
            let text = format!("{{\"{}\":\"a\",\"{}\":4000{duplicate}}}", spelled("model"), spelled("max_tokens"));
            let object = Object::find(text.as_bytes()).unwrap();
            prop_assert!(object.has("model") && object.has("max_tokens"));
            let fields = [("model".to_owned(), "\"b\"".to_owned()), ("max_tokens".to_owned(), "1".to_owned())];
            let text = set(text.as_bytes(), &fields).unwrap();
            let read: Value = serde_json::from_slice(&text).unwrap();
            prop_assert_eq!(read, json!({ "model": "b", "max_tokens": 1 }));
            // No duplicate keeps the agent's value either, for readers that take the first.
            prop_assert!(memchr::memmem::find(&text, b"4000").is_none());
            prop_assert!(memchr::memmem::find(&text, b"\"a\"").is_none() && memchr::memmem::find(&text, b"\"z\"").is_none());
        }

        #[test]
        fn nothing_panics(text in "[\\[\\]{}:,\" a\\\\1]{0,40}") {
            let _ = (insert(text.as_bytes(), &[("a", "1")]), value(text.as_bytes(), "a"));
        }
    }
}

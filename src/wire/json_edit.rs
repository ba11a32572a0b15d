//! Finding, adding, setting and removing fields of a JSON object; every other byte stays what it was.
//!
//! Names are compared as decoded (`"mod\u0065l"` is `model`), and every duplicate of a field is treated alike. Values
//! are not read, only their place is found. Text that is no JSON object, or is cut short, stays as it is.

use super::json_scan::{skip_space, string_end, value_end};
use std::borrow::Cow;
use std::ops::Range;

/// What happens to a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is removed.
    Remove,
    /// Its value becomes null.
    Null,
}

/// What happens to the fields of a response of OpenAI's shape: those of its root, or of the `response` that an event
/// brings, and those of every element of its `choices`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// By their names at the root.
    pub root: Vec<(&'static str, Change)>,
    /// By their names in a choice.
    pub choice: Vec<(&'static str, Change)>,
}

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
    whole: Range<usize>,
}

impl Member<'_> {
    /// True for the field of this name, however its letters are escaped.
    fn is(&self, name: &str) -> bool {
        if memchr::memchr(b'\\', self.key).is_none() {
            return self.key == name.as_bytes();
        }
        let quoted = [b"\"", self.key, b"\""].concat();
        serde_json::from_slice::<Cow<'_, str>>(&quoted).is_ok_and(|key| key == name)
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

    /// The text with these fields in front of its own, each unless it has one of that name.
    pub(crate) fn insert(&self, fields: &[(&str, &str)]) -> Vec<u8> {
        let missing = fields.iter().filter(|(name, _)| !self.has(name));
        let written: Vec<String> = missing.map(|(name, value)| format!("\"{name}\":{value}")).collect();
        let (before, after) = self.text.split_at(start(self.text) + 1);
        let mut out = Vec::with_capacity(self.text.len() + 100);
        out.extend_from_slice(before);
        out.extend_from_slice(written.join(",").as_bytes());
        if !written.is_empty() && !self.members.is_empty() {
            out.push(b',');
        }
        out.extend_from_slice(after);
        out
    }
}

/// The value of a field of the object at the start of `text`; see [`Object::value`].
pub(crate) fn value<'a>(text: &'a [u8], name: &str) -> Option<&'a [u8]> {
    Object::find(text)?.value(name)
}

/// `text` with these fields in front of its own; see `Object::insert`. `None`: it is no object.
pub fn insert(text: &[u8], fields: &[(&str, &str)]) -> Option<Vec<u8>> {
    Some(Object::find(text)?.insert(fields))
}

/// `text` with these fields having these values: in place of every one that is there, others in front. `None`: it is no
/// object.
pub(crate) fn set(text: &[u8], fields: &[(String, String)]) -> Option<Vec<u8>> {
    let object = Object::find(text)?;
    let (mut out, mut copied) = (Vec::with_capacity(text.len() + 200), 0);
    for member in &object.members {
        if let Some((_, value)) = fields.iter().find(|(name, _)| member.is(name)) {
            out.extend_from_slice(&text[copied..member.value.start]);
            out.extend_from_slice(value.as_bytes());
            copied = member.value.end;
        }
    }
    out.extend_from_slice(&text[copied..]);
    let missing: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    insert(&out, &missing)
}

/// `text` with these changes. `None`: nothing changes.
pub fn change(text: &[u8], changes: &Changes) -> Option<Vec<u8>> {
    let members = members(text, start(text))?;
    let mut cuts = cuts(&members, &changes.root, text);
    for response in members.iter().filter(|member| member.is("response")) {
        if let Some(fields) = self::members(text, response.value.start) {
            cuts.extend(self::cuts(&fields, &changes.root, text));
        }
    }
    for choices in members.iter().filter(|member| member.is("choices") && text[member.value.start] == b'[') {
        let mut at = choices.value.start + 1;
        while at < choices.value.end {
            at = skip_space(text, at);
            match text.get(at) {
                Some(b'{') => {
                    let (fields, end) = members_and_end(text, at)?;
                    cuts.extend(self::cuts(&fields, &changes.choice, text));
                    at = end;
                }
                Some(b',') => at += 1,
                _ => break,
            }
        }
    }
    if cuts.is_empty() {
        return None;
    }
    cuts.sort_by_key(|(range, _)| range.start);
    let (mut out, mut copied) = (Vec::with_capacity(text.len()), 0);
    for (range, instead) in cuts {
        out.extend_from_slice(text.get(copied..range.start).unwrap_or_default());
        out.extend_from_slice(instead);
        copied = range.end;
    }
    out.extend_from_slice(&text[copied..]);
    Some(out)
}

/// What is cut out of an object, and what stands there instead. A comma goes with every field that goes.
fn cuts(members: &[Member<'_>], changes: &[(&str, Change)], text: &[u8]) -> Vec<(Range<usize>, &'static [u8])> {
    let change_of = |member: &Member<'_>| changes.iter().find(|(name, _)| member.is(name)).map(|(_, change)| *change);
    let mut cuts: Vec<(Range<usize>, &'static [u8])> = Vec::new();
    let first_kept = members.iter().position(|member| change_of(member) != Some(Change::Remove));
    for (at, member) in members.iter().enumerate() {
        match change_of(member) {
            // Those before the first that stays go with the comma behind them, the others with the one in front.
            Some(Change::Remove) if first_kept.is_none_or(|kept| at < kept) => {
                let end = members.get(at + 1).map_or(member.whole.end, |next| next.whole.start);
                cuts.push((member.whole.start..end, b""));
            }
            Some(Change::Remove) => cuts.push((members[at - 1].whole.end..member.whole.end, b"")),
            Some(Change::Null) if text.get(member.value.clone()) != Some(b"null") => {
                cuts.push((member.value.clone(), b"null"));
            }
            _ => {}
        }
    }
    cuts
}

/// The index of the first byte that is no white space.
fn start(text: &[u8]) -> usize {
    skip_space(text, 0)
}

/// The fields of the object that opens at `open`; `None` if it is none, or breaks off.
fn members(text: &[u8], open: usize) -> Option<Vec<Member<'_>>> {
    members_and_end(text, open).map(|(members, _)| members)
}

/// The same, and the index behind the object.
fn members_and_end(text: &[u8], open: usize) -> Option<(Vec<Member<'_>>, usize)> {
    if text.get(open) != Some(&b'{') {
        return None;
    }
    let mut members = Vec::new();
    let mut at = skip_space(text, open + 1);
    if text.get(at) == Some(&b'}') {
        return Some((members, at + 1));
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
        members.push(Member { key: &text[from + 1..key_end - 1], value: value..end, whole: from..end });
        at = skip_space(text, end);
        match text.get(at) {
            Some(b',') => at = skip_space(text, at + 1),
            Some(b'}') => return Some((members, at + 1)),
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn changes() -> Changes {
        Changes {
            root: vec![("prompt_token_ids", Change::Remove)],
            choice: vec![("token_ids", Change::Remove), ("logprobs", Change::Null)],
        }
    }

    fn changed(text: &str) -> String {
        change(text.as_bytes(), &changes()).map_or_else(|| text.to_owned(), |text| String::from_utf8(text).unwrap())
    }

    #[test]
    fn values_are_set_in_their_place() {
        let text = br#"{"model":"a", "x":{"model":1},"temperature" : 0.10 ,"n":1}"#;
        let fields = [("model", "\"b\""), ("temperature", "1"), ("seed", "7")];
        let fields = fields.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let set = set(text, &fields).unwrap();
        assert_eq!(
            String::from_utf8(set.clone()).unwrap(),
            r#"{"seed":7,"model":"b", "x":{"model":1},"temperature" : 1 ,"n":1}"#
        );
        assert_eq!(value(&set, "temperature"), Some(&b"1"[..]));
        assert_eq!((value(&set, "y"), super::set(b"[]", &fields)), (None, None));
    }

    #[test]
    fn what_was_added_goes_and_the_rest_stays_as_it_was() {
        for (text, expected) in [
            (r#"{"id" : 1, "prompt_token_ids":[1,2] ,"choices":[]}"#, r#"{"id" : 1 ,"choices":[]}"#),
            (r#"{"prompt_token_ids":[1], "id":1}"#, r#"{"id":1}"#),
            (r#"{"prompt_token_ids":null}"#, "{}"),
            (
                r#"{"choices": [ {"token_ids":[1],"x":{"token_ids":[2]},"logprobs":{"content":[{}]}} , {"y":"\"]}","token_ids":[]} ]}"#,
                r#"{"choices": [ {"x":{"token_ids":[2]},"logprobs":null} , {"y":"\"]}"} ]}"#,
            ),
            (r#"{"response":{"id":1,"prompt_token_ids":[1]},"x":1}"#, r#"{"response":{"id":1},"x":1}"#),
            (r#"{"choices":[{"logprobs":null}]}"#, r#"{"choices":[{"logprobs":null}]}"#),
            (r#"{"prompt_token_ids":[1"#, r#"{"prompt_token_ids":[1"#),
            ("[DONE]", "[DONE]"),
            ("", ""),
        ] {
            assert_eq!(changed(text), expected);
        }
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
        let set = set(text.as_bytes(), &fields.map(|(name, value)| (name.to_owned(), value.to_owned()))).unwrap();
        assert_eq!(
            String::from_utf8(set).unwrap(),
            r#"{"mod\u0065l":"c","model":"c","max_token\u0073":10,"x":"\u006dodel","\ud800":1,"model\u0000":2}"#
        );
        assert_eq!(value(text.as_bytes(), "max_tokens"), Some(&b"4000"[..]));
        assert_eq!(insert(text.as_bytes(), &fields).unwrap(), text.as_bytes());
        assert_eq!(
            changed(
                r#"{"\u0070rompt_token_ids":[1],"choic\u0065s":[{"token\u005fids":[1],"a":1}],"choices":[{"token_ids":[2]}]}"#
            ),
            r#"{"choic\u0065s":[{"a":1}],"choices":[{}]}"#
        );
    }

    fn object() -> impl Strategy<Value = Value> {
        let value = prop_oneof![
            Just(json!([1, 2])),
            Just(json!({ "token_ids": [3] })),
            Just(json!("q\"}")),
            Just(Value::Null),
            Just(json!(-1.5))
        ];
        let names = prop::sample::select(vec!["id", "prompt_token_ids", "token_ids", "logprobs", "x", "y"]);
        let fields = prop::collection::vec((names, value), 0..6);
        fields.prop_map(|fields| {
            Value::Object(fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
        })
    }

    proptest! {
        #[test]
        fn it_does_what_reading_and_writing_would(root in object(), choices in prop::collection::vec(object(), 0..3), pretty in any::<bool>()) {
            let mut root = root;
            root["choices"] = Value::Array(choices);
            let text = if pretty { format!("{root:#}") } else { root.to_string() };
            let changed: Value = serde_json::from_str(&changed(&text)).unwrap();
            root.as_object_mut().unwrap().remove("prompt_token_ids");
            for choice in root["choices"].as_array_mut().unwrap() {
                choice.as_object_mut().unwrap().remove("token_ids");
                if choice.get("logprobs").is_some() {
                    choice["logprobs"] = Value::Null;
                }
            }
            prop_assert_eq!(changed, root);
        }

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
            let text = format!(
                "{{\"{}\":\"a\",\"{}\":4000{duplicate},\"{}\":[1],\"{}\":[{{\"{}\":[2]}}]}}",
                spelled("model"), spelled("max_tokens"), spelled("prompt_token_ids"), spelled("choices"), spelled("token_ids"),
            );
            let object = Object::find(text.as_bytes()).unwrap();
            for name in ["model", "max_tokens", "prompt_token_ids", "choices"] {
                prop_assert!(object.has(name));
            }
            let fields = [("model".to_owned(), "\"b\"".to_owned()), ("max_tokens".to_owned(), "1".to_owned())];
            let text = change(&set(text.as_bytes(), &fields).unwrap(), &changes()).unwrap();
            let read: Value = serde_json::from_slice(&text).unwrap();
            prop_assert_eq!(read, json!({ "model": "b", "max_tokens": 1, "choices": [{}] }));
            // No duplicate keeps the agent's value either, for readers that take the first.
            prop_assert!(memchr::memmem::find(&text, b"4000").is_none());
            prop_assert!(memchr::memmem::find(&text, b"\"a\"").is_none() && memchr::memmem::find(&text, b"\"z\"").is_none());
        }

        #[test]
        fn nothing_panics(text in "[\\[\\]{}:,\" a\\\\1]{0,40}") {
            let _ = (change(text.as_bytes(), &changes()), insert(text.as_bytes(), &[("a", "1")]), value(text.as_bytes(), "a"));
        }
    }
}

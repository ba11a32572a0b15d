//! Any division of a text gives the same, and that is what its fields say.

use super::stripper::MAX_SPACE_BYTES;
use super::{Change, Changes, JsonStripper, change};
use crate::wire::json_scan::{skip_space, string_end, value_end};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::ops::Range;

fn changes() -> Changes {
    Changes {
        root: vec![("prompt_token_ids", Change::Remove)],
        choice: vec![("token_ids", Change::Remove), ("logprobs", Change::Null)],
        ..Changes::default()
    }
}

fn changed(text: &str) -> String {
    change(text.as_bytes(), &changes()).map_or_else(|| text.to_owned(), |text| String::from_utf8(text).unwrap())
}

/// What is given of a text in pieces.
fn stripped(text: &[u8], cuts: &[prop::sample::Index]) -> Vec<u8> {
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(text.len() + 1)).chain([text.len()]).collect();
    cuts.sort_unstable();
    let (mut stripper, mut out, mut from) = (JsonStripper::new(changes()), Vec::new(), 0);
    for cut in cuts {
        stripper.push(&text[from..cut], &mut out);
        from = cut;
    }
    stripper.finish(&mut out);
    assert_eq!(stripper.held_bytes(), 0);
    out
}

/// A field: all of it, its key, and its value.
type Member = (Range<usize>, String, usize);

/// The fields of the object that opens at `open`, and its end. The text is JSON.
fn members(text: &str, open: usize) -> (Vec<Member>, usize) {
    let bytes = text.as_bytes();
    let (mut members, mut at) = (Vec::new(), skip_space(bytes, open + 1));
    while bytes[at] != b'}' {
        let key_end = string_end(bytes, at).unwrap();
        let key = serde_json::from_str(&text[at..key_end]).unwrap();
        let value = skip_space(bytes, skip_space(bytes, key_end) + 1);
        let end = value_end(bytes, value).unwrap();
        members.push((at..end, key, value));
        at = skip_space(bytes, end);
        if bytes[at] == b',' {
            at = skip_space(bytes, at + 1);
        }
    }
    (members, at + 1)
}

/// What is cut out of an object, with what stands there instead.
fn cuts(members: &[Member], changes: &[(&str, Change)]) -> Vec<(Range<usize>, &'static str)> {
    let change_of = |key: &str| changes.iter().find(|(name, _)| *name == key).map(|(_, change)| *change);
    let first_kept = members.iter().position(|(_, key, _)| change_of(key) != Some(Change::Remove));
    let cut = |(at, (whole, key, value)): (usize, &Member)| match change_of(key)? {
        // Those before the first that stays go with the comma behind them, the others with the one in front.
        Change::Remove if first_kept.is_none_or(|kept| at < kept) => {
            Some((whole.start..members.get(at + 1).map_or(whole.end, |(next, ..)| next.start), ""))
        }
        Change::Remove => Some((members[at - 1].0.end..whole.end, "")),
        Change::Null => Some((*value..whole.end, "null")),
        Change::Empty => Some((*value..whole.end, "[]")),
        Change::Zero => Some((*value..whole.end, "0")),
    };
    members.iter().enumerate().filter_map(cut).collect()
}

/// What stays of a whole text, by the places of its fields.
fn expected(text: &str) -> String {
    let bytes = text.as_bytes();
    let (root, _) = members(text, skip_space(bytes, 0));
    let mut all = cuts(&root, &changes().root);
    for (whole, key, value) in &root {
        match (key.as_str(), bytes[*value]) {
            ("response", b'{') => all.extend(cuts(&members(text, *value).0, &changes().root)),
            ("choices", b'[') => {
                let mut at = skip_space(bytes, value + 1);
                while at < whole.end - 1 {
                    if bytes[at] == b'{' {
                        all.extend(cuts(&members(text, at).0, &changes().choice));
                    }
                    at = skip_space(bytes, value_end(bytes, at).unwrap());
                    at = skip_space(bytes, at + usize::from(bytes[at] == b','));
                }
            }
            _ => {}
        }
    }
    let mut out = text.to_owned();
    all.sort_by_key(|(range, _)| std::cmp::Reverse(range.start));
    for (range, instead) in all {
        out.replace_range(range, instead);
    }
    out
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
        (
            r#"{"\u0070rompt_token_ids":[1],"choic\u0065s":[{"token\u005fids":[1],"a":1}],"choices":[null,{"token_ids":[2]}]}"#,
            r#"{"choic\u0065s":[{"a":1}],"choices":[null,{}]}"#,
        ),
        (r#"{"prompt_token_ids":[1"#, r#"{"prompt_token_ids":[1"#),
        ("[DONE]", "[DONE]"),
        ("", ""),
    ] {
        assert_eq!(changed(text), expected);
    }
}

#[test]
fn what_is_cut_short_or_broken_loses_only_removed_fields() {
    for (text, expected) in [
        (r#"{"id":1,"prompt_token_ids":[1"#, r#"{"id":1"#),
        (r#"{"id":1,"prompt_token_ids""#, r#"{"id":1,"prompt_token_ids""#),
        (
            r#"{"id":1,"prompt_token_ids" 5,"prompt_token_ids":1}"#,
            r#"{"id":1,"prompt_token_ids" 5,"prompt_token_ids":1}"#,
        ),
        (r#"{"prompt_token_ids":1, "id":,"prompt_token_ids":1}"#, r#"{"id":,"prompt_token_ids":1}"#),
        (r#"{"choices":[{"logprobs":{"a":"b\"#, r#"{"choices":[{"logprobs":null"#),
        (r#"{"id":1} {"prompt_token_ids":1}"#, r#"{"id":1} {"prompt_token_ids":1}"#),
    ] {
        assert_eq!(String::from_utf8(stripped(text.as_bytes(), &[])).unwrap(), expected);
    }
}

#[test]
fn only_so_much_is_held() {
    let space = " ".repeat(MAX_SPACE_BYTES);
    let with = |space: &str| format!("{{\"id\":1{space},\"prompt_token_ids\":[1]}}");
    assert_eq!(changed(&with(&space[1..])), "{\"id\":1}");
    assert_eq!(changed(&with(&space)), with(&space));
    let mut stripper = JsonStripper::new(changes());
    let mut out = Vec::new();
    stripper.push(b"{\"id\":1 , \"k", &mut out);
    for _ in 0..1000 {
        stripper.push(b"e", &mut out);
        assert!(stripper.held_bytes() < 150);
    }
    stripper.push(b"y\": 1, \"prompt_token_ids\": [1]}", &mut out);
    assert_eq!(out, format!("{{\"id\":1 , \"k{}y\": 1}}", "e".repeat(1000)).as_bytes());
}

#[test]
fn foreign_bytes_stay_where_they_are() {
    let mut stripper = JsonStripper::new(changes());
    let mut out = Vec::new();
    for line in ["{", "\"prompt_token_ids\": [", "1", "],", "\"id\"", ": 1", ",", "\"prompt_token_ids\":", "[1]", "}"] {
        stripper.push(line.as_bytes(), &mut out);
        stripper.push_foreign(b"|", &mut out);
    }
    stripper.finish(&mut out);
    assert_eq!(String::from_utf8(out).unwrap(), "{||||\"id\"|: 1||||}|");
}

fn object() -> impl Strategy<Value = Value> {
    let value = prop_oneof![
        Just(json!([1, 2])),
        Just(json!({ "token_ids": [3], "prompt_token_ids": [[4], "]"] })),
        Just(json!("q\"}\\")),
        Just(Value::Null),
        Just(json!(-1.5)),
        Just(json!((0..80).collect::<Vec<u32>>())),
    ];
    let names =
        prop::sample::select(vec!["id", "prompt_token_ids", "token_ids", "logprobs", "response", "choices", "x"]);
    let fields = prop::collection::vec((names, value), 0..6);
    fields.prop_map(|fields| Value::Object(fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()))
}

/// The text of an answer, in any layout, with duplicates and with letters of names escaped.
fn text() -> impl Strategy<Value = String> {
    let part = || (object(), prop::collection::vec(prop_oneof![9 => object(), 1 => Just(json!([{}, 1]))], 0..3), 0..3);
    (part(), part(), any::<bool>(), any::<[bool; 4]>()).prop_map(|(one, other, pretty, escaped)| {
        let [one, other] = [one, other].map(|(mut root, choices, kind)| {
            match kind {
                0 => root["choices"] = Value::Array(choices),
                1 => root["response"] = choices.into_iter().next().unwrap_or_default(),
                _ => {}
            }
            if pretty { format!("{root:#}") } else { root.to_string() }
        });
        let join = if one.len() > 2 && other.len() > 2 { " , " } else { "" };
        let mut text = format!("{}{join}{}", &one[..one.len() - 1], &other[1..]);
        let names = [
            ("token_ids\"", "t\\u006fken_ids\""),
            ("choices\"", "choice\\u0073\""),
            ("logprobs\"", "\\u006Cogprobs\""),
        ];
        for ((plain, spelled), escape) in names.iter().zip(escaped) {
            if escape {
                text = text.replacen(plain, spelled, 1);
            }
        }
        if escaped[3] { format!("\n {text}\n") } else { text }
    })
}

proptest! {
    #[test]
    fn any_division_of_a_text_gives_what_its_fields_say(text in text(), cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12)) {
        prop_assert!(serde_json::from_str::<Value>(&text).is_ok(), "{}", text);
        let whole = changed(&text);
        prop_assert_eq!(&whole, &expected(&text));
        prop_assert_eq!(String::from_utf8(stripped(text.as_bytes(), &cuts)).unwrap(), whole);
    }

    #[test]
    fn a_broken_text_loses_only_removed_fields(
        text in text(),
        end in any::<prop::sample::Index>(),
        (at, wrong) in (any::<prop::sample::Index>(), "[\\[\\]{}:,\" a\\\\1]{0,3}"),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
    ) {
        let mut text = text.into_bytes();
        let at = at.index(text.len());
        text.splice(at..at, wrong.bytes());
        text.truncate(end.index(text.len() + 1));
        let out = stripped(&text, &cuts);
        prop_assert_eq!(&out, &stripped(&text, &[]));
        // What stays is in the text, in this order.
        let mut rest = text.iter();
        prop_assert!(out.iter().filter(|byte| !b"null".contains(byte)).all(|byte| rest.any(|other| other == byte)));
    }

    #[test]
    fn what_is_no_json_passes(text in "[\\[\\]{}:,\" a\\\\1]{0,60}", cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12)) {
        prop_assert_eq!(stripped(text.as_bytes(), &cuts), text.as_bytes());
    }
}

#[test]
fn settings_are_changed_in_their_object_only() {
    let changes = Changes { settings: vec![("n_probs", Change::Zero)], ..Changes::default() };
    for (text, expected) in [
        (
            r#"{"n_probs":3,"generation_settings":{"a":{"n_probs":2},"n_probs":1 ,"b":[1]},"x":{"n_probs":4}}"#,
            r#"{"n_probs":3,"generation_settings":{"a":{"n_probs":2},"n_probs":0 ,"b":[1]},"x":{"n_probs":4}}"#,
        ),
        (r#"{"generation_settings":{"n_probs":1}}"#, r#"{"generation_settings":{"n_probs":0}}"#),
    ] {
        let changed = change(text.as_bytes(), &changes).unwrap();
        assert_eq!(String::from_utf8(changed).unwrap(), expected);
    }
    assert_eq!(change(br#"{"generation_settings":[1],"x":1}"#, &changes), None);
}

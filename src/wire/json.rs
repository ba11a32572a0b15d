//! JSON as servers send it: parsed in one pass, borrowed where possible, with its fields in their order.
//!
//! It is lenient: of two equal keys the last one counts. On request, `NaN` and infinities become null, and invalid UTF-8 and
//! halves of surrogate pairs are replaced; the result says so. serde_json limits the depth to 128.

use super::json_parser::{self, Within};
use super::json_repair::without_lone_surrogates;
use super::json_scan::string_end;
use serde::de::{Deserialize, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use std::borrow::Cow;
use std::fmt;

pub(crate) use super::json_value::Json;

/// What was repaired before the text could be parsed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct JsonRepairs {
    /// Invalid UTF-8, or half of a surrogate pair, was replaced.
    pub characters: bool,
    /// `NaN`, `Infinity` or `-Infinity` became null (Python writes them).
    pub not_finite: bool,
}

/// Parses a JSON text.
pub(crate) fn parse(text: &[u8]) -> serde_json::Result<Json<'_>> {
    json_parser::read(text, Within::Any).map_or_else(|| serde_json::from_slice(text), Ok)
}

/// Parses the JSON text of a response, without `bytes` and `top_logprobs` of its logprobs: they are most of it, and unused. Long
/// lists of ids are packed.
pub(crate) fn parse_response(text: &[u8]) -> serde_json::Result<Json<'_>> {
    json_parser::read(text, Within::Response).map_or_else(|| parse_unusual(text, Within::Response), Ok)
}

/// Parses any JSON text.
fn parse_unusual(text: &[u8], within: Within) -> serde_json::Result<Json<'_>> {
    let mut reader = serde_json::Deserializer::from_slice(text);
    let json = within.deserialize(&mut reader)?;
    reader.end()?;
    Ok(json)
}

/// Parses a text that is almost JSON. Returns what was repaired.
pub(crate) fn parse_repaired(text: &[u8]) -> serde_json::Result<(Json<'static>, JsonRepairs)> {
    let whole = String::from_utf8_lossy(text);
    let paired = without_lone_surrogates(&whole);
    let characters = [&whole, &paired].iter().any(|text| matches!(text, Cow::Owned(_)));
    let mut repairs = JsonRepairs { characters, not_finite: false };
    let finite = without_not_finite(&paired);
    repairs.not_finite = matches!(finite, Cow::Owned(_));
    Ok((serde_json::from_str::<Json<'_>>(&finite)?.into_owned(), repairs))
}

/// The text with `null` in place of the numbers that JSON does not have.
fn without_not_finite(text: &str) -> Cow<'_, str> {
    let bytes = text.as_bytes();
    let (mut out, mut copied, mut at) = (String::new(), 0, 0);
    while at < bytes.len() {
        match bytes[at] {
            b'"' => at = string_end(bytes, at).unwrap_or(bytes.len()),
            b'N' | b'I' | b'-' => {
                let word =
                    ["NaN", "Infinity", "-Infinity"].into_iter().find(|word| bytes[at..].starts_with(word.as_bytes()));
                let Some(word) = word else {
                    at += 1;
                    continue;
                };
                out.push_str(&text[copied..at]);
                out.push_str("null");
                at += word.len();
                copied = at;
            }
            _ => at += 1,
        }
    }
    if copied == 0 {
        return Cow::Borrowed(text);
    }
    out.push_str(&text[copied..]);
    Cow::Owned(out)
}

impl<'de: 'a, 'a> Deserialize<'de> for Json<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Within::Any.deserialize(deserializer)
    }
}

/// serde is asked for a value of any type.
impl<'de> DeserializeSeed<'de> for Within {
    type Value = Json<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Json<'de>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Within {
    type Value = Json<'de>;
    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("JSON")
    }
    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Json::Null)
    }
    fn visit_bool<E>(self, value: bool) -> Result<Self::Value, E> {
        Ok(Json::Bool(value))
    }
    fn visit_i64<E>(self, value: i64) -> Result<Self::Value, E> {
        Ok(Json::Int(value))
    }
    fn visit_u64<E>(self, value: u64) -> Result<Self::Value, E> {
        Ok(i64::try_from(value).map_or_else(|_| Json::Raw(Cow::Owned(value.to_string())), Json::Int))
    }
    fn visit_f64<E>(self, value: f64) -> Result<Self::Value, E> {
        Ok(Json::Float(value))
    }
    fn visit_borrowed_str<E>(self, value: &'de str) -> Result<Self::Value, E> {
        Ok(Json::Text(Cow::Borrowed(value)))
    }
    fn visit_str<E>(self, value: &str) -> Result<Self::Value, E> {
        Ok(Json::Text(Cow::Owned(value.to_owned())))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut elements = Vec::new();
        while let Some(element) = seq.next_element_seed(self)? {
            elements.push(element);
        }
        Ok(Json::List(elements))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut fields = Vec::new();
        while let Some(Key(name)) = map.next_key()? {
            if self.omits(&name) {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            let value = map.next_value_seed(self.value_of(&name))?;
            fields.push((name, value));
        }
        Ok(Json::Object(fields))
    }
}

/// An object's key. serde's own `Cow` is always owned.
struct Key<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Key<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl<'de> Visitor<'de> for Text {
            type Value = Key<'de>;
            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a key")
            }
            fn visit_borrowed_str<E>(self, value: &'de str) -> Result<Self::Value, E> {
                Ok(Key(Cow::Borrowed(value)))
            }
            fn visit_str<E>(self, value: &str) -> Result<Self::Value, E> {
                Ok(Key(Cow::Owned(value.to_owned())))
            }
        }
        deserializer.deserialize_str(Text)
    }
}

#[cfg(test)]
mod tests {
    use super::super::json_value::Packed;
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn unusual_json_is_parsed() {
        let doubled = parse(br#"{"a":1,"a":"last","b":{"c":[1,2.5,true,null]}}"#).unwrap();
        assert_eq!(doubled.get("a").text(), Some("last"));
        assert_eq!(doubled.at(&["b", "c"]).list().len(), 4);
        assert!(doubled.at(&["b", "nowhere", "deep"]).is_null());
        assert!(parse("[".repeat(200).as_bytes()).is_err());
        let response = br#"{"logprobs":{"content":[{"logprob":-1,"bytes":[1],"top_logprobs":[]}]},"bytes":[1]}"#;
        let reduced = br#"{"logprobs":{"content":[{"logprob":-1}]},"bytes":[1]}"#;
        assert_eq!(parse_response(response).unwrap(), parse(reduced).unwrap());
        assert!(parse_response(b"{} x").is_err());
        let (json, repairs) = parse_repaired(b"{\"logprob\":NaN,\"x\":[-Infinity,-1],\"t\":\"NaN \xff\"}").unwrap();
        assert_eq!(repairs, JsonRepairs { characters: true, not_finite: true });
        assert!(json.get("logprob").is_null());
        assert_eq!(json.get("x").list()[1].int(), Some(-1));
        assert_eq!(json.get("t").text(), Some("NaN \u{fffd}"));
        let (json, repairs) = parse_repaired(br#"["cut \ud83e", "\ud83e\udd14"]"#).unwrap();
        assert_eq!((json.list()[0].text(), json.list()[1].text()), (Some("cut \u{fffd}"), Some("🤔")));
        assert!(repairs.characters);
    }

    /// The value with lists in place of packed ones.
    fn unpacked(json: Json<'_>) -> Json<'_> {
        match json {
            Json::Packed(packed) => Json::List(packed.into_elements()),
            Json::List(elements) => Json::List(elements.into_iter().map(unpacked).collect()),
            Json::Object(fields) => {
                Json::Object(fields.into_iter().map(|(name, value)| (name, unpacked(value))).collect())
            }
            // serde_json makes a double of what is beyond 64 bits.
            number @ Json::Raw(_) => number.float().map_or(Json::Null, Json::Float),
            other => other,
        }
    }

    #[test]
    fn usual_json_is_read_without_serde() {
        let ids: Vec<String> = (0..100).map(|id| (id * 7919).to_string()).collect();
        let response = format!(
            r#" {{"id" : "é", "token_ids":[{}],"few":[1,2],"mixed":[{},-1],"logprobs":{{"content":[
                {{"token":"a\n","logprob":-1.5e-3,"bytes":[1,2,[]],"top_logprobs":[{{"token":"\"","x":null}}]}}]}},
                "ok":[true,false,null,{{}},[]],"number":[0,-12,1e2,0.25]}} "#,
            ids.join(","),
            ids.join(", ")
        );
        for within in [Within::Any, Within::Response] {
            let read = json_parser::read(response.as_bytes(), within).unwrap();
            assert_eq!(unpacked(read), parse_unusual(response.as_bytes(), within).unwrap(), "{within:?}");
        }
        let packed = parse_response(response.as_bytes()).unwrap();
        assert!(matches!(packed.get("token_ids"), Json::Packed(_)) && packed.get("mixed").list().len() == 101);
        assert_eq!(parse(response.as_bytes()).unwrap().get("token_ids").list().len(), 100);
    }

    /// A list of rows of logprobs that is read as a table, if `is_table`, and its value by serde.
    fn check_rows(rows: &str, is_table: bool) {
        let text = format!(r#"{{"logprobs":{{"content":[{rows}]}}}}"#);
        let read = json_parser::read(text.as_bytes(), Within::Response).unwrap();
        let content = read.at(&["logprobs", "content"]);
        assert_eq!(matches!(content, Json::Packed(Packed::Table(_))), is_table, "{rows}");
        assert_eq!(unpacked(read), parse_unusual(text.as_bytes(), Within::Response).unwrap(), "{rows}");
    }

    #[test]
    fn logprobs_that_are_written_alike_are_read_as_a_table() {
        let rows =
            |separator: &str, row: &dyn Fn(usize) -> String| (0..40).map(row).collect::<Vec<_>>().join(separator);
        let plain = |at: usize| format!(r#"{{"token":"é\n{at}","bytes":[{at}],"logprob":-{at}.5,"top_logprobs":[]}}"#);
        check_rows(&rows(",", &plain), true);
        let spaced = |at: usize| format!(r#"{{ "logprob": -0.{at}5e-3, "x": null, "token": "{at}" }}"#);
        check_rows(&rows(" , ", &spaced), true);
        check_rows(&rows(",", &|at| format!(r#"{{"logprob":{}}}"#, if at % 7 == 0 { "null" } else { "0.25" })), true);
        check_rows(&rows(",", &|at| format!(r#"{{"logprob":{}}}"#, if at > 9 { "\"t\"" } else { "0.25" })), true);
        check_rows(&rows(",", &|at| format!(r#"{{"first":"{at}","first":-0.5}}"#)), true);
        // Another key, order, space, value or end in one row.
        for odd in [
            r#"{"logprob":-1.5,"token":"t"}"#,
            r#"{"token":"t"}"#,
            r#"{"token":"t", "logprob":-1.5}"#,
            "[]",
            "null",
            "{}",
        ] {
            let usual = r#"{"token":"t","logprob":-2.5}"#;
            for place in [0, 1, 2, 20, 39] {
                check_rows(&rows(",", &|at| if at == place { odd } else { usual }.to_owned()), false);
            }
        }
        check_rows(&rows(",", &|_| r#"{"token":{"a":[1]},"logprob":-2.5}"#.to_owned()), false);
        check_rows(&rows(",", &|_| "-0.5".to_owned()), false);
        for broken in [r#"{"token":"t","logprob":-2.5"#, r#"{"token":"t","logprob":-2.5},"#] {
            let text = format!(r#"{{"logprobs":[{}{broken}]}}"#, r#"{"token":"t","logprob":-2.5},"#.repeat(40));
            assert_eq!(json_parser::read(text.as_bytes(), Within::Response), None);
        }
    }

    proptest! {
        #[test]
        fn usual_and_unusual_json_is_the_same(
            text in "([\\[\\]{}:,\"\\\\a-c0-9.eE+\\- \t\ntruefalsN]|\"logprobs\":|\"bytes\":|12345678,|é){0,30}",
            numbers in prop::collection::vec("(-?[0-9]{1,9}(\\.[0-9]{1,3})?([eE][+-]?[0-9]{1,3})?|[0-9]{17,20})", 0..40),
        ) {
            for text in [text, format!("{{\"logprobs\":[{}]}}", numbers.join(","))] {
                for within in [Within::Any, Within::Response, Within::Logprobs] {
                    if let Some(read) = json_parser::read(text.as_bytes(), within) {
                        let expected = parse_unusual(text.as_bytes(), within);
                        prop_assert!(expected.is_ok(), "{}", text);
                        prop_assert_eq!(unpacked(read), unpacked(expected.unwrap()));
                    }
                }
            }
        }

        #[test]
        fn it_parses_what_serde_json_parses_and_writes_it_back(text in "[\\[\\]{}:,\"a-c0-9.\\- ntruefalsN]{0,40}") {
            let ours = parse(text.as_bytes());
            let theirs = serde_json::from_str::<serde_json::Value>(&text);
            prop_assert_eq!(ours.is_ok(), theirs.is_ok());
            if let (Ok(ours), Ok(theirs)) = (ours, theirs) {
                let written = serde_json::to_string(&ours).unwrap();
                prop_assert_eq!(serde_json::from_str::<serde_json::Value>(&written).unwrap(), theirs);
            }
            let _ = parse_repaired(text.as_bytes());
        }
    }
}

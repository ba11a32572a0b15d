//! JSON as servers send it: parsed in one pass, borrowed where possible, with its fields in their order.
//!
//! It is lenient: the last of two equal keys counts; on request `NaN` and infinities become null and invalid UTF-8 is
//! replaced, both reported. serde_json limits the depth to 128.

use super::json_scan::string_end;
use serde::de::{Deserialize, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, SerializeSeq, Serializer};
use std::borrow::Cow;
use std::fmt;

/// A JSON value.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Json<'a> {
    /// `null`.
    #[default]
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A whole number that fits.
    Int(i64),
    /// Any other number.
    Float(f64),
    /// A string.
    Text(Cow<'a, str>),
    /// A list.
    List(Vec<Self>),
    /// An object, with its fields in their order.
    Object(Vec<(Cow<'a, str>, Self)>),
}

/// What was repaired before the text could be parsed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct JsonRepairs {
    /// Invalid UTF-8 was replaced.
    pub utf8: bool,
    /// `NaN`, `Infinity` or `-Infinity` became null (Python writes them).
    pub not_finite: bool,
}

const NULL: Json<'static> = Json::Null;

/// Parses a JSON text.
pub(crate) fn parse(text: &[u8]) -> serde_json::Result<Json<'_>> {
    serde_json::from_slice(text)
}

/// Parses the JSON text of a response, without `bytes` and `top_logprobs` of its logprobs: they are most of it, and unused.
pub(crate) fn parse_response(text: &[u8]) -> serde_json::Result<Json<'_>> {
    let mut reader = serde_json::Deserializer::from_slice(text);
    let json = AnyValue::Response.deserialize(&mut reader)?;
    reader.end()?;
    Ok(json)
}

/// Parses a text that is almost JSON. Returns what was repaired.
pub(crate) fn parse_repaired(text: &[u8]) -> serde_json::Result<(Json<'static>, JsonRepairs)> {
    let whole = String::from_utf8_lossy(text);
    let mut repairs = JsonRepairs { utf8: matches!(whole, Cow::Owned(_)), not_finite: false };
    let finite = without_not_finite(&whole);
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

impl<'a> Json<'a> {
    /// A field of an object. Null if there is none.
    pub fn get(&self, name: &str) -> &Self {
        match self {
            Self::Object(fields) => fields.iter().rev().find(|(key, _)| key == name).map_or(&NULL, |(_, value)| value),
            _ => &NULL,
        }
    }

    /// The first of these fields that is present and not null. Null if there is none.
    pub fn any(&self, names: &[&str]) -> &Self {
        names.iter().map(|name| self.get(name)).find(|value| !value.is_null()).unwrap_or(&NULL)
    }

    /// The field at the end of a path of field names. Null if there is none.
    pub fn at(&self, path: &[&str]) -> &Self {
        path.iter().fold(self, |value, name| value.get(name))
    }

    /// True for null, and for a field that is missing.
    pub fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }

    /// The text of a string. None for other types.
    pub fn text(&self) -> Option<&str> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }

    /// The text of a string that is not empty. None for other values.
    pub fn word(&self) -> Option<String> {
        self.text().filter(|text| !text.is_empty()).map(str::to_owned)
    }

    /// A whole number, also one that is written as `1.0`. None for other values.
    pub fn int(&self) -> Option<i64> {
        match self {
            Self::Int(number) => Some(*number),
            #[expect(clippy::cast_possible_truncation, reason = "it has no fraction and is small")]
            Self::Float(number) if number.fract() == 0.0 && number.abs() < 9e15 => Some(*number as i64),
            _ => None,
        }
    }

    /// A number. None for other types.
    pub fn float(&self) -> Option<f64> {
        match self {
            Self::Int(number) => Some(*number as f64),
            Self::Float(number) => Some(*number),
            _ => None,
        }
    }

    /// A boolean. None for other types.
    pub fn bool(&self) -> Option<bool> {
        if let Self::Bool(value) = self { Some(*value) } else { None }
    }

    /// The elements of a list. Empty for other types.
    pub fn list(&self) -> &[Self] {
        if let Self::List(elements) = self { elements } else { &[] }
    }

    /// True for a list without elements.
    pub fn is_empty_list(&self) -> bool {
        matches!(self, Self::List(elements) if elements.is_empty())
    }

    /// The fields of an object. Empty for other types.
    pub fn fields(&self) -> &[(Cow<'a, str>, Self)] {
        if let Self::Object(fields) = self { fields } else { &[] }
    }

    /// True if an object has the field, whatever its value.
    pub fn has(&self, name: &str) -> bool {
        self.fields().iter().any(|(key, _)| key == name)
    }

    /// The same value without borrowed text.
    pub fn into_owned(self) -> Json<'static> {
        match self {
            Self::Null => Json::Null,
            Self::Bool(value) => Json::Bool(value),
            Self::Int(number) => Json::Int(number),
            Self::Float(number) => Json::Float(number),
            Self::Text(text) => Json::Text(Cow::Owned(text.into_owned())),
            Self::List(elements) => Json::List(elements.into_iter().map(Json::into_owned).collect()),
            Self::Object(fields) => Json::Object(
                fields.into_iter().map(|(name, value)| (Cow::Owned(name.into_owned()), value.into_owned())).collect(),
            ),
        }
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Json<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        AnyValue::Whole.deserialize(deserializer)
    }
}

/// Deserializes any value.
#[derive(Clone, Copy, PartialEq, Eq)]
enum AnyValue {
    // Completely.
    Whole,
    // A response: without the unused parts of its `logprobs`.
    Response,
    // Within the `logprobs` of a response.
    Logprobs,
}

impl<'de> DeserializeSeed<'de> for AnyValue {
    type Value = Json<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Json<'de>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for AnyValue {
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
        Ok(i64::try_from(value).map_or(Json::Float(value as f64), Json::Int))
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
            if self == Self::Logprobs && matches!(&*name, "bytes" | "top_logprobs") {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            let next = if self == Self::Response && name == "logprobs" { Self::Logprobs } else { self };
            let value = map.next_value_seed(next)?;
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

impl Serialize for Json<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_unit(),
            Self::Bool(value) => serializer.serialize_bool(*value),
            Self::Int(number) => serializer.serialize_i64(*number),
            Self::Float(number) => serializer.serialize_f64(*number),
            Self::Text(text) => serializer.serialize_str(text),
            Self::List(elements) => {
                let mut list = serializer.serialize_seq(Some(elements.len()))?;
                elements.iter().try_for_each(|element| list.serialize_element(element))?;
                list.end()
            }
            Self::Object(fields) => {
                let mut object = serializer.serialize_map(Some(fields.len()))?;
                fields.iter().try_for_each(|(name, value)| object.serialize_entry(name, value))?;
                object.end()
            }
        }
    }
}

#[cfg(test)]
mod tests {
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
        assert_eq!(repairs, JsonRepairs { utf8: true, not_finite: true });
        assert!(json.get("logprob").is_null());
        assert_eq!(json.get("x").list()[1].int(), Some(-1));
        assert_eq!(json.get("t").text(), Some("NaN \u{fffd}"));
    }

    proptest! {
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

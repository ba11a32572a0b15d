//! JSON as it comes from servers: read in one pass, borrowed where it can be, in the order in which it was written.
//!
//! It must not refuse what only looks odd: the last of two equal keys counts, `NaN` and its like are null and said so,
//! bytes that are no UTF-8 are replaced and said so. Depth is limited by the reader (128).

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
    /// A number without fraction that fits.
    Int(i64),
    /// Any other number.
    Float(f64),
    /// A string.
    Text(Cow<'a, str>),
    /// A list.
    List(Vec<Self>),
    /// An object, its fields in their order.
    Object(Vec<(Cow<'a, str>, Self)>),
}

/// What had to be mended before it could be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mended {
    /// Bytes that are no UTF-8 were replaced.
    pub utf8: bool,
    /// `NaN`, `Infinity` or `-Infinity` became null (Python writes them).
    pub not_finite: bool,
}

const NULL: Json<'static> = Json::Null;

/// Reads one JSON text.
pub fn parse(text: &[u8]) -> serde_json::Result<Json<'_>> {
    serde_json::from_slice(text)
}

/// Reads one JSON text of an answer without what is most of it: `bytes` and `top_logprobs` of every token.
pub fn parse_answer(text: &[u8]) -> serde_json::Result<Json<'_>> {
    let mut reader = serde_json::Deserializer::from_slice(text);
    let json = Any::Answer.deserialize(&mut reader)?;
    reader.end()?;
    Ok(json)
}

/// Reads what is not quite JSON, and says what was wrong with it.
pub fn parse_mended(text: &[u8]) -> serde_json::Result<(Json<'static>, Mended)> {
    let whole = String::from_utf8_lossy(text);
    let mut mended = Mended { utf8: matches!(whole, Cow::Owned(_)), not_finite: false };
    let finite = without_not_finite(&whole);
    mended.not_finite = matches!(finite, Cow::Owned(_));
    Ok((serde_json::from_str::<Json<'_>>(&finite)?.into_owned(), mended))
}

/// `null` in place of the numbers that JSON does not have.
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
    /// A field of an object; null where there is none.
    pub fn get(&self, name: &str) -> &Self {
        match self {
            Self::Object(fields) => fields.iter().rev().find(|(key, _)| key == name).map_or(&NULL, |(_, value)| value),
            _ => &NULL,
        }
    }

    /// The first of these fields that is there and not null.
    pub fn any(&self, names: &[&str]) -> &Self {
        names.iter().map(|name| self.get(name)).find(|value| !value.is_null()).unwrap_or(&NULL)
    }

    /// The field at the end of a path.
    pub fn at(&self, path: &[&str]) -> &Self {
        path.iter().fold(self, |value, name| value.get(name))
    }

    /// True for null, and for what is not there.
    pub fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }

    /// A string's text.
    pub fn text(&self) -> Option<&str> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }

    /// A string's text that is not empty.
    pub fn word(&self) -> Option<String> {
        self.text().filter(|text| !text.is_empty()).map(str::to_owned)
    }

    /// A number without fraction.
    pub fn int(&self) -> Option<i64> {
        match self {
            Self::Int(number) => Some(*number),
            #[expect(clippy::cast_possible_truncation, reason = "it has no fraction and is small")]
            Self::Float(number) if number.fract() == 0.0 && number.abs() < 9e15 => Some(*number as i64),
            _ => None,
        }
    }

    /// Any number.
    pub fn float(&self) -> Option<f64> {
        match self {
            Self::Int(number) => Some(*number as f64),
            Self::Float(number) => Some(*number),
            _ => None,
        }
    }

    /// A truth value.
    pub fn bool(&self) -> Option<bool> {
        if let Self::Bool(value) = self { Some(*value) } else { None }
    }

    /// The elements of a list; of anything else none.
    pub fn list(&self) -> &[Self] {
        if let Self::List(elements) = self { elements } else { &[] }
    }

    /// True for a list without elements.
    pub fn is_empty_list(&self) -> bool {
        matches!(self, Self::List(elements) if elements.is_empty())
    }

    /// The fields of an object; of anything else none.
    pub fn fields(&self) -> &[(Cow<'a, str>, Self)] {
        if let Self::Object(fields) = self { fields } else { &[] }
    }

    /// True when an object has the field, whatever its value.
    pub fn has(&self, name: &str) -> bool {
        self.fields().iter().any(|(key, _)| key == name)
    }

    /// The same without borrowing.
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
        Any::Whole.deserialize(deserializer)
    }
}

/// Reads any value.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Any {
    // As it is.
    Whole,
    // An answer: what nobody asks for is passed over within its `logprobs`.
    Answer,
    // A part of an answer's `logprobs`.
    Logprobs,
}

impl<'de> DeserializeSeed<'de> for Any {
    type Value = Json<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Json<'de>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Any {
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
            let next = if self == Self::Answer && name == "logprobs" { Self::Logprobs } else { self };
            let value = map.next_value_seed(next)?;
            fields.push((name, value));
        }
        Ok(Json::Object(fields))
    }
}

/// An object's key: serde would copy every one.
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
    fn odd_json_is_read() {
        let doubled = parse(br#"{"a":1,"a":"last","b":{"c":[1,2.5,true,null]}}"#).unwrap();
        assert_eq!(doubled.get("a").text(), Some("last"));
        assert_eq!(doubled.at(&["b", "c"]).list().len(), 4);
        assert!(doubled.at(&["b", "nowhere", "deep"]).is_null());
        assert!(parse("[".repeat(200).as_bytes()).is_err());
        let answer = br#"{"logprobs":{"content":[{"logprob":-1,"bytes":[1],"top_logprobs":[]}]},"bytes":[1]}"#;
        let lean = br#"{"logprobs":{"content":[{"logprob":-1}]},"bytes":[1]}"#;
        assert_eq!(parse_answer(answer).unwrap(), parse(lean).unwrap());
        assert!(parse_answer(b"{} x").is_err());
        let (json, mended) = parse_mended(b"{\"logprob\":NaN,\"x\":[-Infinity,-1],\"t\":\"NaN \xff\"}").unwrap();
        assert_eq!(mended, Mended { utf8: true, not_finite: true });
        assert!(json.get("logprob").is_null());
        assert_eq!(json.get("x").list()[1].int(), Some(-1));
        assert_eq!(json.get("t").text(), Some("NaN \u{fffd}"));
    }

    proptest! {
        #[test]
        fn it_reads_what_serde_json_reads_and_writes_it_back(text in "[\\[\\]{}:,\"a-c0-9.\\- ntruefalsN]{0,40}") {
            let ours = parse(text.as_bytes());
            let theirs = serde_json::from_str::<serde_json::Value>(&text);
            prop_assert_eq!(ours.is_ok(), theirs.is_ok());
            if let (Ok(ours), Ok(theirs)) = (ours, theirs) {
                let written = serde_json::to_string(&ours).unwrap();
                prop_assert_eq!(serde_json::from_str::<serde_json::Value>(&written).unwrap(), theirs);
            }
            let _ = parse_mended(text.as_bytes());
        }
    }
}

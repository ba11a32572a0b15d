//! JSON of requests, in bodies and queries, read as types.
//!
//! One rule for every route, that of Agent Lightning's server (pydantic): an object is only read from an object, and
//! numbers and booleans also from their texts. An error names the place and shows what was found there.

use super::request_ids::invalid_id;
use super::respond::{ApiError, ApiResult, SchemaProblem};
use crate::wire::json_repair::repaired;
use bytes::Bytes;
use serde::de::value::{MapDeserializer, SeqDeserializer, StrDeserializer};
use serde::de::{DeserializeOwned, Deserializer, Error, Expected, IntoDeserializer, Unexpected, Visitor};
use serde::forward_to_deserialize_any;
use serde_json::{Map, Value as JsonValue, json};
use serde_path_to_error::Segment;
use std::fmt;

/// A required JSON body. `NaN`, halves of surrogate pairs and the like, which Python writes, are repaired.
pub(super) fn read<T: DeserializeOwned>(body: &Bytes) -> ApiResult<T> {
    let json = serde_json::from_slice(body).or_else(|_| serde_json::from_str(&repaired(body)));
    let json = json.map_err(|error| {
        let message = format!("JSON decode error: {error}");
        ApiError::schema(SchemaProblem {
            kind: "json_invalid",
            place: vec![json!("body")],
            message,
            found: JsonValue::Null,
        })
    })?;
    typed("body", &json)
}

/// An optional JSON body; `None` if it is empty. Whether `null` is allowed is decided by `T`.
pub(super) fn read_optional<T: DeserializeOwned>(body: &Bytes) -> ApiResult<Option<T>> {
    if body.is_empty() { Ok(None) } else { read(body) }
}

/// The fields of an optional JSON object, for handlers that distinguish null from absent.
pub(super) fn read_fields(body: &Bytes) -> ApiResult<Map<String, JsonValue>> {
    Ok(read_optional(body)?.unwrap_or_default())
}

/// The parameters of a query. Of those with one name the last counts.
pub(super) fn read_query<T: DeserializeOwned>(query: Option<&str>) -> ApiResult<T> {
    typed("query", &query_json(query, &[]))
}

/// The parameters of a query as JSON. Those of `lists` are lists of all their values; of others the last counts.
pub(super) fn query_json(query: Option<&str>, lists: &[&str]) -> JsonValue {
    let mut fields = Map::new();
    for (name, value) in form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
        if !lists.contains(&&*name) {
            fields.insert(name.into_owned(), json!(value));
        } else if let Some(list) = fields.entry(name.into_owned()).or_insert_with(|| json!([])).as_array_mut() {
            list.push(json!(value));
        }
    }
    JsonValue::Object(fields)
}

/// JSON of `part`, which is `body` or `query`, as a type. Its ids are checked, in its own fields and in those of its elements.
pub(super) fn typed<T: DeserializeOwned>(part: &str, json: &JsonValue) -> ApiResult<T> {
    let value = shaped(part, json)?;
    match invalid_id(json, vec![json!(part)]) {
        None => Ok(value),
        Some(problem) => Err(ApiError::schema(problem)),
    }
}

fn shaped<T: DeserializeOwned>(part: &str, json: &JsonValue) -> ApiResult<T> {
    serde_path_to_error::deserialize(Strict(json)).map_err(|error| {
        let mut place = vec![json!(part)];
        let mut found = Some(json);
        for segment in error.path() {
            let (step, inner) = match segment {
                Segment::Seq { index } => (json!(index), found.and_then(|found| found.get(index))),
                Segment::Map { key } => (json!(key), found.and_then(|found| found.get(key))),
                Segment::Enum { .. } | Segment::Unknown => continue,
            };
            place.push(step);
            found = inner;
        }
        let Mismatch { kind, message, field } = error.into_inner();
        if let Some(field) = field {
            // Of a field that is missing, the object is what was found.
            found = found.map(|found| found.get(&field).unwrap_or(found));
            // Of one that is unknown, the path ends with it already.
            if place.last() != Some(&json!(field)) {
                place.push(json!(field));
            }
        }
        ApiError::schema(SchemaProblem { kind, place, message, found: found.cloned().unwrap_or_default() })
    })
}

/// Why a value is not of its type, in pydantic's words.
#[derive(Debug)]
struct Mismatch {
    /// pydantic's name for the kind of error.
    kind: &'static str,
    message: String,
    /// The field that is missing, or unknown.
    field: Option<String>,
}

impl Mismatch {
    fn new(kind: &'static str, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), field: None }
    }

    fn of_field(self, field: &str) -> Self {
        Self { field: Some(field.to_owned()), ..self }
    }
}

impl fmt::Display for Mismatch {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message)
    }
}

impl std::error::Error for Mismatch {}

impl Error for Mismatch {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::new("value_error", message.to_string())
    }

    fn invalid_type(_: Unexpected<'_>, expected: &dyn Expected) -> Self {
        let expected = expected.to_string();
        let (kind, message) = match expected.as_str() {
            "a string" => ("string_type", "a valid string"),
            "a boolean" => ("bool_type", "a valid boolean"),
            "f32" | "f64" => ("float_type", "a valid number"),
            "a sequence" => ("list_type", "a valid list"),
            "a map" => ("dict_type", "a valid dictionary"),
            struct_of if struct_of.starts_with("struct ") => {
                ("model_attributes_type", "a valid dictionary or object to extract fields from")
            }
            number if is_integer(number) => ("int_type", "a valid integer"),
            other => ("value_error", other),
        };
        Self::new(kind, format!("Input should be {message}"))
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        match found {
            Unexpected::Signed(..0) => Self::new("greater_than_equal", "Input should be greater than or equal to 0"),
            _ if is_integer(&expected.to_string()) => Self::new("int_type", "Input should be a valid integer"),
            _ => Self::new("value_error", format!("Input should be {expected}")),
        }
    }

    fn unknown_variant(_: &str, expected: &'static [&'static str]) -> Self {
        let quoted: Vec<String> = expected.iter().map(|name| format!("'{name}'")).collect();
        let listed = match quoted.split_last() {
            Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
            _ => quoted.concat(),
        };
        Self::new("enum", format!("Input should be {listed}"))
    }

    fn unknown_field(field: &str, _: &'static [&'static str]) -> Self {
        Self::new("extra_forbidden", "Extra inputs are not permitted").of_field(field)
    }

    fn missing_field(field: &'static str) -> Self {
        Self::new("missing", "Field required").of_field(field)
    }
}

/// True for the name of an integer type.
fn is_integer(name: &str) -> bool {
    let digits = name.strip_prefix(['i', 'u']).unwrap_or_default();
    digits == "size" || (!digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()))
}

/// A value that reads an object only from an object, where `serde_json` also takes the fields from a list, by their order.
#[derive(Clone, Copy)]
struct Strict<'a>(&'a JsonValue);

impl<'de> IntoDeserializer<'de, Mismatch> for Strict<'de> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

macro_rules! integers {
    ($($method:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
            self.integer(visitor)
        }
    )*};
}

impl<'de> Strict<'de> {
    /// Also from its text, or written as `7.0`.
    fn integer<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        let unable = "Input should be a valid integer, unable to parse string as an integer";
        let fraction = "Input should be a valid integer, got a number with a fractional part";
        let too_large = "Input should be a valid integer of 64 bits";
        match self.0 {
            JsonValue::String(text) => match (text.trim().parse(), text.trim().parse()) {
                (Ok(number), _) => visitor.visit_i64(number),
                (_, Ok(number)) => visitor.visit_u64(number),
                _ => Err(Mismatch::new("int_parsing", unable)),
            },
            JsonValue::Number(number) if number.is_f64() => match number.as_f64() {
                Some(number) if number.fract() == 0.0 && number.abs() < 9e15 => visitor.visit_i64(number as i64),
                Some(number) if number.fract() == 0.0 => Err(Mismatch::new("int_parsing_size", too_large)),
                _ => Err(Mismatch::new("int_from_float", fraction)),
            },
            _ => self.deserialize_any(visitor),
        }
    }
}

impl<'de> Deserializer<'de> for Strict<'de> {
    type Error = Mismatch;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        match self.0 {
            JsonValue::Null => visitor.visit_unit(),
            JsonValue::Bool(value) => visitor.visit_bool(*value),
            JsonValue::Number(number) => match (number.as_i64(), number.as_u64()) {
                (Some(number), _) => visitor.visit_i64(number),
                (None, Some(number)) => visitor.visit_u64(number),
                (None, None) => visitor.visit_f64(number.as_f64().unwrap_or(f64::NAN)),
            },
            JsonValue::String(text) => visitor.visit_borrowed_str(text),
            JsonValue::Array(elements) => visitor.visit_seq(SeqDeserializer::new(elements.iter().map(Strict))),
            JsonValue::Object(fields) => visitor
                .visit_map(MapDeserializer::new(fields.iter().map(|(name, value)| (name.as_str(), Strict(value))))),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        if self.0.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Mismatch> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Mismatch> {
        if self.0.is_array() {
            return Err(Mismatch::invalid_type(Unexpected::Seq, &visitor));
        }
        self.deserialize_any(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Mismatch> {
        match self.0 {
            JsonValue::String(text) => {
                visitor.visit_enum::<StrDeserializer<'_, Mismatch>>(text.as_str().into_deserializer())
            }
            _ => Err(Mismatch::unknown_variant("", variants)),
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        let unable = "Input should be a valid boolean, unable to interpret input";
        let word = match self.0 {
            JsonValue::String(text) => text.to_ascii_lowercase(),
            JsonValue::Number(number) => number.to_string(),
            _ => return self.deserialize_any(visitor),
        };
        match word.as_str() {
            "true" | "t" | "yes" | "y" | "on" | "1" => visitor.visit_bool(true),
            "false" | "f" | "no" | "n" | "off" | "0" => visitor.visit_bool(false),
            _ => Err(Mismatch::new("bool_parsing", unable)),
        }
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        let unable = "Input should be a valid number, unable to parse string as a number";
        match self.0 {
            JsonValue::String(text) => match text.trim().parse() {
                Ok(number) => visitor.visit_f64(number),
                Err(_) => Err(Mismatch::new("float_parsing", unable)),
            },
            _ => self.deserialize_any(visitor),
        }
    }

    integers! { deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_u8 deserialize_u16
    deserialize_u32 deserialize_u64 }

    forward_to_deserialize_any! {
        i128 u128 f32 char str string bytes byte_buf unit unit_struct seq tuple tuple_struct map identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;
    use std::collections::BTreeMap;

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(default)]
    struct Numbers {
        int: i64,
        count: u64,
        float: f64,
        truth: bool,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only its errors are tested")]
    struct Example {
        name: String,
        #[serde(default)]
        word: Option<Word>,
        #[serde(default)]
        list: Vec<Numbers>,
        #[serde(default)]
        map: BTreeMap<String, JsonValue>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Word {
        One,
        Two,
        Three,
    }

    #[test]
    fn numbers_are_read_from_their_texts() {
        let written = json!({ "int": "7", "count": 7.0, "float": "1.5", "truth": "yes" });
        let expected = Numbers { int: 7, count: 7, float: 1.5, truth: true };
        assert_eq!(typed::<Numbers>("query", &written).unwrap(), expected);
        let body = Bytes::from_static(b"{\"float\": NaN}");
        assert!(read::<Numbers>(&body).unwrap().float.is_nan());
    }

    #[test]
    fn an_error_has_the_place_and_what_was_found() {
        let with = |name: &str, value: JsonValue| json!({ "name": "n", name: value });
        for (json, kind, place, message, found) in [
            (json!([["n"]]), "model_attributes_type", json!([]), "dictionary or object", json!([["n"]])),
            (json!(null), "model_attributes_type", json!([]), "dictionary or object", json!(null)),
            (json!({ "word": "one" }), "missing", json!(["name"]), "Field required", json!({ "word": "one" })),
            (json!({ "name": 7 }), "string_type", json!(["name"]), "valid string", json!(7)),
            (with("nmae", json!(1)), "extra_forbidden", json!(["nmae"]), "not permitted", json!(1)),
            (with("word", json!("four")), "enum", json!(["word"]), "be 'one', 'two' or 'three'", json!("four")),
            (with("word", json!({ "one": 1 })), "enum", json!(["word"]), "'one'", json!({ "one": 1 })),
            (with("list", json!({})), "list_type", json!(["list"]), "valid list", json!({})),
            (with("map", json!([])), "dict_type", json!(["map"]), "valid dictionary", json!([])),
            (with("list", json!([{}, [1]])), "model_attributes_type", json!(["list", 1]), "object", json!([1])),
            (with("list", json!([{ "int": "x" }])), "int_parsing", json!(["list", 0, "int"]), "integer", json!("x")),
            (with("list", json!([{ "int": 1.5 }])), "int_from_float", json!(["list", 0, "int"]), "part", json!(1.5)),
            (with("list", json!([{ "int": 1e20 }])), "int_parsing_size", json!(["list", 0, "int"]), "64", json!(1e20)),
            (with("list", json!([{ "int": {} }])), "int_type", json!(["list", 0, "int"]), "integer", json!({})),
            (with("list", json!([{ "count": -1 }])), "greater_than_equal", json!(["list", 0, "count"]), "0", json!(-1)),
            (with("list", json!([{ "float": [] }])), "float_type", json!(["list", 0, "float"]), "number", json!([])),
            (with("list", json!([{ "truth": 2 }])), "bool_parsing", json!(["list", 0, "truth"]), "boolean", json!(2)),
        ] {
            let Err(ApiError::Schema(problem)) = typed::<Example>("body", &json) else { panic!("{json}") };
            let expected = [json!("body")].into_iter().chain(place.as_array().unwrap().clone()).collect::<Vec<_>>();
            assert_eq!((problem.kind, problem.place, problem.found), (kind, expected, found), "{json}");
            assert!(problem.message.contains(message), "{json}: {}", problem.message);
        }
        assert!(matches!(read::<JsonValue>(&Bytes::from_static(b"{")), Err(ApiError::Schema(_))));
    }
}

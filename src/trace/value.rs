//! Attribute values of OpenTelemetry that Agent Lightning accepts: scalars, and lists of one type.
//!
//! There is no null, no object and no nested list: Agent Lightning's span model rejects a trace that has one.

use serde::de::{Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// A span's attributes, in name order so that output is stable.
pub type Attributes = BTreeMap<String, Value>;

/// An attribute value.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Value {
    /// A boolean.
    Bool(bool),
    /// A signed 64-bit integer.
    Int(i64),
    /// A double.
    Float(f64),
    /// Text.
    String(String),
    /// A list of booleans.
    Bools(Vec<bool>),
    /// A list of integers.
    Ints(Vec<i64>),
    /// A list of doubles.
    Floats(Vec<f64>),
    /// A list of texts.
    Strings(Vec<String>),
}

impl Value {
    /// The text of a string. None for other types.
    pub fn as_str(&self) -> Option<&str> {
        if let Self::String(text) = self { Some(text) } else { None }
    }

    /// The number of an integer. None for other types.
    pub fn as_int(&self) -> Option<i64> {
        if let Self::Int(number) = self { Some(*number) } else { None }
    }

    /// The number of a double or integer. None for other types.
    pub fn as_float(&self) -> Option<f64> {
        match self {
            Self::Float(number) => Some(*number),
            Self::Int(number) => Some(*number as f64),
            _ => None,
        }
    }

    /// The value of a boolean. None for other types.
    pub fn as_bool(&self) -> Option<bool> {
        if let Self::Bool(value) = self { Some(*value) } else { None }
    }
}

/// By hand: derived code would buffer each value, and try each variant for each element of a list.
impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(EXPECTED)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Int(value))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(i64::try_from(value).map_or(Value::Float(value as f64), Value::Int))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Float(value))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E: Error>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Err(E::custom(EXPECTED))
    }

    fn visit_map<A: MapAccess<'de>>(self, _: A) -> Result<Value, A::Error> {
        Err(A::Error::custom(EXPECTED))
    }

    /// The first element decides the type. Integers become doubles when a double follows. An empty list is one of booleans.
    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Value, A::Error> {
        let mut list = match elements.next_element()? {
            None => return Ok(Value::Bools(Vec::new())),
            Some(Value::Bool(first)) => Value::Bools(vec![first]),
            Some(Value::Int(first)) => Value::Ints(started(first)),
            Some(Value::Float(first)) => Value::Floats(started(first)),
            Some(Value::String(first)) => Value::Strings(vec![first]),
            Some(_) => return Err(A::Error::custom(EXPECTED)),
        };
        while let Some(element) = elements.next_element()? {
            match (&mut list, element) {
                (Value::Bools(all), Value::Bool(next)) => all.push(next),
                (Value::Ints(all), Value::Int(next)) => all.push(next),
                (Value::Ints(all), Value::Float(next)) => {
                    list = Value::Floats(all.iter().map(|one| *one as f64).chain([next]).collect());
                }
                (Value::Floats(all), Value::Float(next)) => all.push(next),
                (Value::Floats(all), Value::Int(next)) => all.push(next as f64),
                (Value::Strings(all), Value::String(next)) => all.push(next),
                _ => return Err(A::Error::custom(EXPECTED)),
            }
        }
        Ok(list)
    }
}

/// A list of numbers: most are token ids and log-probabilities, and long.
fn started<T>(first: T) -> Vec<T> {
    let mut list = Vec::with_capacity(32);
    list.push(first);
    list
}

const EXPECTED: &str = "Input should be a text, a number, a boolean, or a list of one of them";

macro_rules! value_from {
    ($($from:ty => $variant:ident),* $(,)?) => {$(
        impl From<$from> for Value {
            fn from(value: $from) -> Self {
                Self::$variant(value.into())
            }
        }
    )*};
}
value_from!(bool => Bool, i64 => Int, i32 => Int, u32 => Int, u16 => Int, f64 => Float, String => String, &str => String, Vec<String> => Strings);

impl From<u64> for Value {
    fn from(value: u64) -> Self {
        Self::Int(i64::try_from(value).unwrap_or(i64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_round_trips_by_type() {
        for text in ["true", "7", "7.5", "\"x\"", "[1,2]", "[1.5,2.5]", "[\"a\"]", "[true]"] {
            let value: Value = serde_json::from_str(text).unwrap();
            assert_eq!(serde_json::to_string(&value).unwrap(), text);
        }
    }

    #[test]
    fn null_objects_and_nested_lists_are_rejected() {
        for text in ["null", "{}", "[[1]]", "[1,\"a\"]", "[true,1]", "[null]", "[1,[]]", "[1,{\"a\":1}]"] {
            let error = serde_json::from_str::<Value>(text).unwrap_err().to_string();
            assert!(error.starts_with(EXPECTED), "{text}: {error}");
            let value: serde_json::Value = serde_json::from_str(text).unwrap();
            assert_eq!(serde_json::from_value::<Value>(value).unwrap_err().to_string(), EXPECTED, "{text}");
        }
    }

    #[test]
    fn numbers_of_a_list_have_one_type() {
        for (text, value) in [
            ("[]", Value::Bools(Vec::new())),
            ("[1,-2,2.5,3]", Value::Floats(vec![1.0, -2.0, 2.5, 3.0])),
            ("[1,18446744073709551615]", Value::Floats(vec![1.0, 18_446_744_073_709_551_615.0])),
            ("18446744073709551615", Value::Float(18_446_744_073_709_551_615.0)),
            ("[0.5,1]", Value::Floats(vec![0.5, 1.0])),
        ] {
            assert_eq!(serde_json::from_str::<Value>(text).unwrap(), value, "{text}");
        }
    }
}

//! Attribute values of OpenTelemetry that Agent Lightning accepts: scalars, and lists of one type.
//!
//! There is no null, no object and no nested list: Agent Lightning's span model rejects a trace that has one.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A span's attributes, in name order so that output is stable.
pub type Attributes = BTreeMap<String, Value>;

/// An attribute value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged, expecting = "Input should be a text, a number, a boolean, or a list of one of them")]
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
        for text in ["null", "{}", "[[1]]", "[1,\"a\"]"] {
            assert!(serde_json::from_str::<Value>(text).is_err(), "{text}");
        }
    }
}

//! Tagged netstrings, in which mitmproxy stores flows: `LENGTH:PAYLOAD` and a letter for the type.

use std::collections::BTreeMap;

/// A value.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Tagged<'a> {
    Bytes(&'a [u8]),
    Text(&'a str),
    Number(f64),
    Bool(bool),
    Null,
    List(Vec<Self>),
    Map(BTreeMap<&'a str, Self>),
}

impl<'a> Tagged<'a> {
    /// The value at the start of `bytes`, and what follows it. `None` if it is damaged, cut or nested too deep.
    pub(super) fn first_of(bytes: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (payload, tag, rest) = divided(bytes)?;
        Some((Self::of(payload, tag, 0)?, rest))
    }

    fn of(payload: &'a [u8], tag: u8, depth: usize) -> Option<Self> {
        let text = || std::str::from_utf8(payload).ok();
        Some(match tag {
            b',' => Self::Bytes(payload),
            b';' => Self::Text(text()?),
            b'#' | b'^' => Self::Number(text()?.parse().ok()?),
            b'!' => Self::Bool(payload == b"true"),
            b'~' => Self::Null,
            b']' | b'}' if depth == MAX_DEPTH => return None,
            b']' => {
                let mut list = Vec::new();
                let mut rest = payload;
                while !rest.is_empty() {
                    let (payload, tag, after) = divided(rest)?;
                    list.push(Self::of(payload, tag, depth + 1)?);
                    rest = after;
                }
                Self::List(list)
            }
            b'}' => {
                let mut map = BTreeMap::new();
                let mut rest = payload;
                while !rest.is_empty() {
                    let (name, _, after) = divided(rest)?;
                    let (payload, tag, after) = divided(after)?;
                    map.insert(std::str::from_utf8(name).ok()?, Self::of(payload, tag, depth + 1)?);
                    rest = after;
                }
                Self::Map(map)
            }
            _ => return None,
        })
    }

    /// A member of a map; null if there is none.
    pub(super) fn get(&self, name: &str) -> &Self {
        if let Self::Map(map) = self { map.get(name).unwrap_or(&Self::Null) } else { &Self::Null }
    }

    /// The elements of a list.
    pub(super) fn list(&self) -> &[Self] {
        if let Self::List(list) = self { list } else { &[] }
    }

    /// A text, which older files have as bytes.
    pub(super) fn text(&self) -> Option<String> {
        match self {
            Self::Text(text) => Some((*text).to_owned()),
            Self::Bytes(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
            _ => None,
        }
    }

    /// Bytes.
    pub(super) fn bytes(&self) -> Option<&'a [u8]> {
        match self {
            Self::Text(text) => Some(text.as_bytes()),
            Self::Bytes(bytes) => Some(bytes),
            _ => None,
        }
    }

    /// A number.
    pub(super) fn number(&self) -> Option<f64> {
        if let Self::Number(number) = self { Some(*number) } else { None }
    }
}

/// The payload and the tag of the value at the start of `bytes`, and what follows it.
pub(super) fn divided(bytes: &[u8]) -> Option<(&[u8], u8, &[u8])> {
    let colon = bytes.iter().take(MAX_LENGTH_DIGITS + 1).position(|byte| *byte == b':')?;
    let length: usize = std::str::from_utf8(&bytes[..colon]).ok()?.parse().ok()?;
    let rest = &bytes[colon + 1..];
    let (payload, rest) = rest.split_at_checked(length)?;
    let (tag, rest) = rest.split_first()?;
    Some((payload, *tag, rest))
}

/// A longer number is none of a length.
const MAX_LENGTH_DIGITS: usize = 12;
const MAX_DEPTH: usize = 32;

//! W3C Baggage: entries that every child span inherits and that travel to other services in the `baggage` header.

use super::error::{Result, TracerError};
use crate::trace::{Attributes, Value};
use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// Key of the entry with the rollout's id.
pub(super) const ROLLOUT_ID: &str = "agentlightning.rollout_id";
/// Key of the entry with the attempt's id.
pub(super) const ATTEMPT_ID: &str = "agentlightning.attempt_id";

/// The baggage of a context. Cloning it is cheap. At most 64 entries and 8192 bytes, as the specification requires others to
/// accept.
///
/// ```
/// use tracewire::tracer::Baggage;
///
/// let baggage = Baggage::default().with("tenant", "blue team")?;
/// assert_eq!(baggage.to_string(), "tenant=blue%20team");
/// assert_eq!(Baggage::parse("tenant=blue%20team;ttl=5").get("tenant"), Some("blue team"));
/// # Ok::<(), tracewire::tracer::TracerError>(())
/// ```
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Baggage(Arc<BTreeMap<String, String>>);

impl Baggage {
    /// Reads a `baggage` header. Entries that are invalid or beyond the bounds are left out; properties after `;` too.
    pub fn parse(header: &str) -> Self {
        let members = header.split(',').filter_map(|member| {
            let (key, value) = member.split(';').next()?.split_once('=')?;
            let value = percent_decode_str(value.trim()).decode_utf8().ok()?;
            Some((key.trim().to_owned(), value.into_owned()))
        });
        members.fold(Self::default(), |baggage, (key, value)| baggage.with(&key, &value).unwrap_or(baggage))
    }

    /// The same baggage with one more entry, or another value of it.
    pub fn with(&self, key: &str, value: &str) -> Result<Self> {
        let invalid = |problem| Err(TracerError::InvalidBaggage { key: key.chars().take(100).collect(), problem });
        if key.is_empty() || !key.bytes().all(is_token) {
            return invalid("its key is not a token of HTTP; use letters, digits, `.`, `-` and `_`");
        }
        let mut entries = Arc::clone(&self.0);
        Arc::make_mut(&mut entries).insert(key.to_owned(), value.to_owned());
        let baggage = Self(entries);
        if baggage.0.len() > MAX_ENTRIES {
            return invalid("there are 64 entries already; remove one");
        }
        if baggage.to_string().len() > MAX_BYTES {
            return invalid("the header would be longer than 8192 bytes; shorten the value");
        }
        Ok(baggage)
    }

    /// The entries of both; of two with one key, that of `other`. Entries beyond the bounds are left out.
    pub fn merged(&self, other: &Self) -> Self {
        other.iter().fold(self.clone(), |baggage, (key, value)| {
            let with_entry = baggage.with(key, value);
            with_entry.unwrap_or(baggage)
        })
    }

    /// The value of an entry.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    /// All entries, by key.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// True without entries.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds the entries as attributes of a span: `baggage.KEY`. Rollout and attempt are fields of the span already.
    pub(super) fn add_to(&self, attributes: &mut Attributes) {
        for (key, value) in self.iter().filter(|(key, _)| ![ROLLOUT_ID, ATTEMPT_ID].contains(key)) {
            attributes.insert(format!("baggage.{key}"), Value::from(value));
        }
    }
}

/// The keys only: values may be personal.
impl fmt::Debug for Baggage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// The value of a `baggage` header.
impl fmt::Display for Baggage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (key, value)) in self.iter().enumerate() {
            let separator = if at == 0 { "" } else { "," };
            write!(f, "{separator}{key}={}", utf8_percent_encode(value, ENCODED))?;
        }
        Ok(())
    }
}

/// The characters of a token (RFC 9110).
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

const MAX_ENTRIES: usize = 64;
const MAX_BYTES: usize = 8192;
/// What a value can't contain unencoded: controls, white space, and the delimiters of the header.
const ENCODED: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b',').add(b';').add(b'\\').add(b'%');

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_invalid_is_left_out() {
        let baggage = Baggage::parse("a=1, b = x%2Cy ;p=1,bad key=2,=3,novalue,c=%ff");
        assert_eq!(baggage.iter().collect::<Vec<_>>(), [("a", "1"), ("b", "x,y")]);
        assert!(Baggage::default().with("a b", "1").is_err());
        assert!(Baggage::default().with("a", &"x".repeat(9000)).unwrap_err().to_string().contains("8192 bytes"));
        let many = (0..100).map(|at| format!("k{at}=v")).collect::<Vec<_>>().join(",");
        assert_eq!(Baggage::parse(&many).iter().count(), MAX_ENTRIES);
    }

    #[test]
    fn of_two_baggages_the_second_has_precedence() {
        let (first, second) = (Baggage::parse("a=1,b=1"), Baggage::parse("b=2,c=2"));
        assert_eq!(first.merged(&second).to_string(), "a=1,b=2,c=2");
        assert_eq!(format!("{:?}", first), r#"{"a", "b"}"#);
    }

    proptest! {
        #[test]
        fn values_round_trip(value in "\\PC{0,40}") {
            let baggage = Baggage::default().with("key", &value).unwrap();
            prop_assert_eq!(Baggage::parse(&baggage.to_string()), baggage);
        }

        #[test]
        fn parsing_never_panics(header in ".*") {
            let _ = Baggage::parse(&header);
        }
    }
}

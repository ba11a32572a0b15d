//! Identifiers: W3C trace and span ids, Agent Lightning's rollout and attempt ids.
//!
//! Ids from outside are kept unchanged. Random bits come from the caller, so that this module stays pure.

use super::units::Timestamp;
use aws_lc_rs::digest;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;
use utoipa::ToSchema;

/// A W3C trace id: 16 bytes, 32 lower-case hexadecimal digits, never all zero.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceId(pub [u8; 16]);

/// A W3C span id (`parent-id`): 8 bytes, 16 lower-case hexadecimal digits, never all zero.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SpanId(pub [u8; 8]);

/// The id of a rollout, one execution of a task: `ro-` and 12 hexadecimal digits if made here, any text from outside.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(transparent)]
#[schema(value_type = String)]
pub struct RolloutId(Arc<str>);

/// The id of an attempt, one try of a rollout: `at-` and 8 hexadecimal digits if made here, any text from outside.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(transparent)]
#[schema(value_type = String)]
pub struct AttemptId(Arc<str>);

/// Why a text cannot be an id from outside. One rule for every API, header, key and command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InvalidId {
    /// Nothing, or only white space.
    #[error("an id must not be empty")]
    Empty,
    /// Control characters, which would break the lines of logs, headers and terminals.
    #[error("an id must not contain control characters")]
    Control,
    /// More than [`MAX_ID_BYTES`].
    #[error("an id must not be longer than {MAX_ID_BYTES} bytes")]
    TooLong,
}

/// The longest id in bytes of UTF-8: ids are parts of URLs, header fields and index entries.
pub(crate) const MAX_ID_BYTES: usize = 1024;

/// Checks an id of a rollout, an attempt, a span, a worker, a session or resources that comes from outside.
pub(crate) fn check_id(id: &str) -> Result<(), InvalidId> {
    if id.trim().is_empty() {
        return Err(InvalidId::Empty);
    }
    if id.len() > MAX_ID_BYTES {
        return Err(InvalidId::TooLong);
    }
    if id.chars().any(char::is_control) { Err(InvalidId::Control) } else { Ok(()) }
}

impl TraceId {
    /// The trace id of an attempt without a `traceparent`: the first 16 bytes of SHA-256 over both ids, so that it is the
    /// same after a restart and in every process.
    pub fn of_attempt(rollout: &RolloutId, attempt: &AttemptId) -> Self {
        Self(non_zero(attempt_digest("trace", rollout, attempt)))
    }
}

impl SpanId {
    /// The id of the root span of an attempt.
    pub fn of_attempt_root(rollout: &RolloutId, attempt: &AttemptId) -> Self {
        Self(non_zero(attempt_digest("root", rollout, attempt)))
    }

    /// A span id from 64 random bits.
    pub fn from_random(bits: u64) -> Self {
        Self(bits.max(1).to_be_bytes())
    }

    /// A span id from a time and random bits, of which 48 are used. The ids of a second have the same beginning, so that a database
    /// adds them to few pages of an index.
    pub(crate) fn of_time(time: Timestamp, bits: u64) -> Self {
        let second = time.unix_nanos / 1_000_000_000;
        Self::from_random(second << RANDOM_BITS | bits & ((1 << RANDOM_BITS) - 1))
    }
}

/// The bytes of a text that should be a W3C trace id (16) or span id (8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct IdBytes<const N: usize> {
    /// Never all zero.
    pub(crate) bytes: [u8; N],
    /// True if the text is no such id, so that the bytes are the start of its SHA-256.
    pub(crate) is_derived: bool,
}

impl<const N: usize> IdBytes<N> {
    /// The bytes that a text names in lower-case hexadecimal, or some that only this text gives.
    pub(crate) fn of(text: &str) -> Self {
        let is_lower = !text.bytes().any(|letter| letter.is_ascii_uppercase());
        let named = const_hex::decode_to_array::<_, N>(text).ok().filter(|bytes| is_lower && *bytes != [0; N]);
        let derived = || {
            let mut bytes = [0; N];
            bytes.copy_from_slice(&digest::digest(&digest::SHA256, text.as_bytes()).as_ref()[..N]);
            non_zero(bytes)
        };
        Self { is_derived: named.is_none(), bytes: named.unwrap_or_else(derived) }
    }

    /// The bytes in lower-case hexadecimal.
    pub(crate) fn hex(&self) -> String {
        const_hex::encode(self.bytes)
    }
}

impl RolloutId {
    /// A new id, `ro-` + 12 hexadecimal digits, from random bits.
    pub fn from_random(bits: u64) -> Self {
        Self(format!("ro-{:012x}", bits & 0xffff_ffff_ffff).into())
    }

    /// The id as shared text.
    pub fn shared(&self) -> Arc<str> {
        Arc::clone(&self.0)
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl AttemptId {
    /// A new id, `at-` + 8 hexadecimal digits, from random bits.
    pub fn from_random(bits: u32) -> Self {
        Self(format!("at-{bits:08x}").into())
    }

    /// The attempt of a rollout for which no attempt was named. It is derived from the rollout's id.
    pub fn default_of(rollout: &RolloutId) -> Self {
        let digest = digest::digest(&digest::SHA256, rollout.as_str().as_bytes());
        let mut bits = [0; 4];
        bits.copy_from_slice(&digest.as_ref()[..4]);
        Self::from_random(u32::from_be_bytes(bits))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for RolloutId {
    fn from(id: &str) -> Self {
        Self(id.into())
    }
}

impl From<&str> for AttemptId {
    fn from(id: &str) -> Self {
        Self(id.into())
    }
}

/// Random bits of a span id that begins with a time, which repeats after 18 hours.
const RANDOM_BITS: u32 = 48;

fn attempt_digest<const N: usize>(label: &str, rollout: &RolloutId, attempt: &AttemptId) -> [u8; N] {
    let mut text = Vec::with_capacity(128);
    for part in [label, rollout.as_str(), attempt.as_str()] {
        // With its length, so that different pairs of ids never give the same bytes.
        text.extend_from_slice(&(part.len() as u64).to_be_bytes());
        text.extend_from_slice(part.as_bytes());
    }
    let mut bytes = [0; N];
    bytes.copy_from_slice(&digest::digest(&digest::SHA256, &text).as_ref()[..N]);
    bytes
}

fn non_zero<const N: usize>(mut bytes: [u8; N]) -> [u8; N] {
    if bytes.iter().all(|byte| *byte == 0) {
        bytes[N - 1] = 1;
    }
    bytes
}

macro_rules! hex_display {
    ($($id:ty: $bytes:literal),*) => {$(
        impl fmt::Display for $id {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(const_hex::Buffer::<$bytes>::new().format(&self.0))
            }
        }
        impl fmt::Debug for $id {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    )*};
}
hex_display!(TraceId: 16, SpanId: 8);

macro_rules! text_display {
    ($($id:ty),*) => {$(
        impl fmt::Display for $id {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl fmt::Debug for $id {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    )*};
}
text_display!(RolloutId, AttemptId);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_have_agent_lightnings_shape() {
        assert_eq!(RolloutId::from_random(0xabc).as_str(), "ro-000000000abc");
        assert_eq!(AttemptId::from_random(0xabc).as_str(), "at-00000abc");
        assert_eq!(SpanId::from_random(0).to_string(), "0000000000000001");
        let time = Timestamp::from_unix_nanos(0x1_2345 * 1_000_000_000 + 7);
        assert_eq!(SpanId::of_time(time, 0xff_0000_0000_0001).to_string(), "2345000000000001");
    }

    #[test]
    fn the_trace_of_an_attempt_is_stable_and_unique() {
        let (rollout, attempt) = (RolloutId::from("ro-1"), AttemptId::from("at-1"));
        assert_eq!(TraceId::of_attempt(&rollout, &attempt), TraceId::of_attempt(&rollout, &attempt));
        let shifted = TraceId::of_attempt(&RolloutId::from("ro-1a"), &AttemptId::from("t-1"));
        assert_ne!(TraceId::of_attempt(&rollout, &attempt), shifted);
        assert_eq!(AttemptId::default_of(&rollout), AttemptId::default_of(&rollout));
    }
}

//! W3C `traceparent` (Trace Context Level 1 and 2): parsed and written. `tracestate` is forwarded unread.

use crate::trace::{AttemptId, RolloutId, SpanId, TraceId};
use std::fmt;

/// The caller's place in its trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TraceParent {
    /// The id of the trace that the caller belongs to; never all zeros.
    pub trace_id: TraceId,
    /// The id of the caller's span, which becomes a parent; never all zeros.
    pub span_id: SpanId,
    /// Bit 0: sampled; bit 1: random trace id.
    pub flags: u8,
}

impl TraceParent {
    /// The root span of an attempt.
    pub(crate) fn of_attempt_root(rollout: &RolloutId, attempt: &AttemptId) -> Self {
        let (trace_id, span_id) = (TraceId::of_attempt(rollout, attempt), SpanId::of_attempt_root(rollout, attempt));
        Self { trace_id, span_id, flags: SAMPLED }
    }

    /// Parses a header value. None if it is invalid. A higher version is read as version 00, as the specification says.
    pub(crate) fn parse(value: &str) -> Option<Self> {
        let bytes = value.trim().as_bytes();
        let version: [u8; 1] = hex(bytes.get(..2)?)?;
        let longer_is_fine = version[0] > 0 && bytes.get(LENGTH) == Some(&b'-');
        if version[0] == 0xff || (bytes.len() != LENGTH && !longer_is_fine) {
            return None;
        }
        if [2, 35, 52].iter().any(|at| bytes.get(*at) != Some(&b'-')) {
            return None;
        }
        let (trace_id, span_id) = (hex::<16>(bytes.get(3..35)?)?, hex::<8>(bytes.get(36..52)?)?);
        let [flags] = hex::<1>(bytes.get(53..55)?)?;
        let valid = trace_id != [0; 16] && span_id != [0; 8];
        valid.then_some(Self { trace_id: TraceId(trace_id), span_id: SpanId(span_id), flags: flags & KNOWN_FLAGS })
    }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{}-{}-{:02x}", self.trace_id, self.span_id, self.flags)
    }
}

/// Lower-case hexadecimal digits only, as the specification demands.
fn hex<const N: usize>(digits: &[u8]) -> Option<[u8; N]> {
    let is_lower_case = digits.iter().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
    const_hex::decode_to_array(digits).ok().filter(|_| is_lower_case)
}

const LENGTH: usize = 55;
const SAMPLED: u8 = 0b01;
/// Sampled, and random trace id (Level 2).
const KNOWN_FLAGS: u8 = 0b11;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn invalid_values_are_rejected() {
        let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        assert!(TraceParent::parse(good).is_some());
        for bad in [
            "",
            &good[..54],
            &good.to_uppercase(),
            &good.replacen("00", "ff", 1),
            &format!("{good}-x"),
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
        ] {
            assert!(TraceParent::parse(bad).is_none(), "{bad}");
        }
        assert!(TraceParent::parse(&format!("{}-more", good.replacen("00", "01", 1))).is_some());
    }

    proptest! {
        #[test]
        fn round_trips(trace in any::<[u8; 16]>(), span in any::<[u8; 8]>(), flags in 0u8..4) {
            prop_assume!(trace != [0; 16] && span != [0; 8]);
            let parent = TraceParent { trace_id: TraceId(trace), span_id: SpanId(span), flags };
            prop_assert_eq!(TraceParent::parse(&parent.to_string()), Some(parent));
        }

        #[test]
        fn never_panics(text in ".*") {
            let _ = TraceParent::parse(&text);
        }
    }
}

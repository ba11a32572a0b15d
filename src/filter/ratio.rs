//! Which traces a share selects: the same ones in every process, and of a larger share all of a smaller one.
//!
//! The rule is that of OpenTelemetry's consistent probability sampling: the last 56 bits of the trace id are random, or `rv` in the
//! `ot` entry of `tracestate` has others in their place. A trace is kept if they are at least the share's threshold.

use crate::trace::{IdBytes, Span};
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};

/// A share of all traces, from 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(transparent)]
pub(crate) struct Ratio(f64);

impl Default for Ratio {
    fn default() -> Self {
        Self(1.0)
    }
}

impl<'de> Deserialize<'de> for Ratio {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let ratio = f64::deserialize(deserializer)?;
        if (0.0..=1.0).contains(&ratio) {
            return Ok(Self(ratio));
        }
        Err(D::Error::custom(format!(
            "`{ratio}` is not a share of traces; use a number from 0.0 (none) to 1.0 (all), such as 0.1 for one in ten"
        )))
    }
}

impl Ratio {
    /// True if it selects every trace.
    pub(super) fn is_all(self) -> bool {
        self.threshold() == 0
    }

    /// True if it selects no trace.
    pub(super) fn is_none(self) -> bool {
        self.threshold() == RANDOM_VALUES
    }

    /// True if it selects the trace of this span.
    pub(super) fn selects(self, span: &Span) -> bool {
        self.is_all() || randomness(span) >= self.threshold()
    }

    /// True if it selects what has this id. Ids that are not random are hashed.
    pub(super) fn selects_id(self, id: &str) -> bool {
        self.is_all() || random_bits(id) >= self.threshold()
    }

    /// The lowest random number of the traces that it selects.
    fn threshold(self) -> u64 {
        ((1.0 - self.0) * RANDOM_VALUES as f64).round() as u64
    }
}

/// The random number of a trace, below [`RANDOM_VALUES`].
fn randomness(span: &Span) -> u64 {
    let state = span.context.as_ref().and_then(|context| context.trace_state.get("ot"));
    let given = state.and_then(|state| state.split(';').find_map(|pair| pair.strip_prefix("rv:")));
    let is_hex = |text: &&str| text.len() == RANDOM_DIGITS && text.bytes().all(|digit| digit.is_ascii_hexdigit());
    let given = given.filter(is_hex).and_then(|text| u64::from_str_radix(text, 16).ok());
    given.unwrap_or_else(|| random_bits(&span.trace_id))
}

/// The last bits of a trace id. Ids of another form are hashed.
fn random_bits(id: &str) -> u64 {
    u128::from_be_bytes(IdBytes::<16>::of(id).bytes) as u64 & (RANDOM_VALUES - 1)
}

const RANDOM_VALUES: u64 = 1 << 56;
const RANDOM_DIGITS: usize = 14;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn span(trace_id: &str, state: Option<&str>) -> Span {
        let state = state.map_or_else(|| json!({}), |state| json!({"ot": state}));
        let context = json!({"trace_id": trace_id, "span_id": "s", "is_remote": false, "trace_state": state});
        serde_json::from_value(
            json!({"rollout_id": "r", "attempt_id": "a", "sequence_id": 1, "trace_id": trace_id, "span_id": "s",
            "parent_id": null, "name": "x", "status": {"status_code": "UNSET", "description": null}, "attributes": {},
            "events": [], "links": [], "start_time": null, "end_time": null, "context": context, "parent": null,
            "resource": {"attributes": {}, "schema_url": ""}}),
        )
        .unwrap()
    }

    #[test]
    fn thresholds_are_those_of_opentelemetry() {
        // Half of all traces: those with a first random bit of 1.
        let trace = |random: &str| span(&format!("{}{random}", "a".repeat(18)), None);
        let half = Ratio(0.5);
        assert!(half.selects(&trace("80000000000000")) && half.selects(&trace("ffffffffffffff")));
        assert!(!half.selects(&trace("7fffffffffffff")) && !half.selects(&trace("00000000000000")));
        assert!(Ratio(0.25).selects(&trace("c0000000000000")) && !Ratio(0.25).selects(&trace("bfffffffffffff")));
        // Random bits of the tracestate win; damaged ones are ignored.
        let low = format!("{}7fffffffffffff", "a".repeat(18));
        assert!(half.selects(&span(&low, Some("th:8;rv:80000000000000"))));
        for damaged in ["rv:8", "rv:+0000000000000", "rv:", "th:8", ""] {
            assert!(!half.selects(&span(&low, Some(damaged))), "{damaged}");
        }
    }

    #[test]
    fn what_is_no_share_is_refused() {
        for text in ["1.5", "-0.1", "nan", "inf"] {
            let error = toml::from_str::<std::collections::BTreeMap<String, Ratio>>(&format!("ratio = {text}"));
            let error = error.unwrap_err().to_string();
            assert!(error.contains("use a number from 0.0 (none) to 1.0 (all)"), "{error}");
        }
        let ratios: std::collections::BTreeMap<String, Ratio> = toml::from_str("a = 1\nb = 0\nc = 0.25\n").unwrap();
        assert!(ratios["a"].is_all() && ratios["b"].is_none() && ratios["c"] == Ratio(0.25));
    }

    proptest! {
        /// A larger share keeps all that a smaller one keeps, whatever the form of the id; 0 keeps none, 1 all.
        #[test]
        fn shares_are_consistent(id in "[0-9a-f]{32}|\\PC{0,40}", one in 0.0..=1.0_f64, other in 0.0..=1.0_f64) {
            let span = span(&id, None);
            let (low, high) = (one.min(other), one.max(other));
            prop_assert!(!Ratio(low).selects(&span) || Ratio(high).selects(&span));
            prop_assert!(!Ratio(0.0).selects(&span) && Ratio(1.0).selects(&span));
            prop_assert!(randomness(&span) < RANDOM_VALUES);
        }

        /// The share of random ids that is kept is close to what was asked for.
        #[test]
        fn shares_are_right(seed: u64, ratio in 0.0..=1.0_f64) {
            let mut random = fastrand::Rng::with_seed(seed);
            let ids = (0..2000).map(|_| format!("{:032x}", random.u128(1..)));
            let kept = ids.filter(|id| Ratio(ratio).selects(&span(id, None))).count();
            prop_assert!((kept as f64 / 2000.0 - ratio).abs() < 0.07, "{kept} of 2000 for {ratio}");
        }
    }
}

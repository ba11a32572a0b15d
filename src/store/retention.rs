//! Retention limits. Pure arithmetic; the stores apply it.

use crate::trace::Timestamp;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Limits on what is stored. When one is exceeded, the oldest spans are removed. 0 means unlimited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Retention {
    /// Maximum number of spans.
    pub max_spans: u64,
    /// Maximum age of a span in days, by its end time.
    pub max_age_days: u64,
    /// Maximum size of the store in bytes. PostgreSQL stores ignore it.
    pub max_bytes: u64,
}

impl Retention {
    /// True if no limit is set.
    pub(super) fn is_unlimited(self) -> bool {
        self == Self::default()
    }

    /// Spans that ended before this instant have to be removed.
    pub(super) fn expired_before(self, now: Timestamp) -> Option<Timestamp> {
        if self.max_age_days == 0 {
            return None;
        }
        let age = Duration::from_secs(self.max_age_days.saturating_mul(SECONDS_PER_DAY));
        let age_nanos = u64::try_from(age.as_nanos()).unwrap_or(u64::MAX);
        Some(Timestamp::from_unix_nanos(now.unix_nanos.saturating_sub(age_nanos)))
    }
}

/// How much has to be removed so that `used` comes below `limit`. A tenth of the limit is removed additionally, so that
/// the next spans do not exceed it at once.
pub(super) fn excess(used: u64, limit: u64) -> u64 {
    if limit == 0 || used <= limit { 0 } else { used - (limit - limit / 10) }
}

const SECONDS_PER_DAY: u64 = 24 * 60 * 60;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn excess_leaves_room_below_the_limit() {
        assert_eq!(excess(100, 0), 0);
        assert_eq!(excess(100, 100), 0);
        assert_eq!(excess(101, 100), 11);
        assert_eq!(excess(2, 1), 1);
    }
}

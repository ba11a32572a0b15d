//! Up to which number all spans are visible. Numbers are given before a transaction commits, so that a span may become visible
//! after others with higher numbers; and a transaction that fails leaves numbers that no span ever has.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The highest numbers that were seen lately, and when.
#[derive(Default)]
pub(super) struct Settled(Mutex<VecDeque<(Instant, i64)>>);

impl Settled {
    /// No number up to the returned one is given to a span any more. `newest` is the highest that is visible now.
    pub(super) fn through(&self, newest: i64) -> i64 {
        self.at(newest, Instant::now())
    }

    fn at(&self, newest: i64, now: Instant) -> i64 {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.back().is_none_or(|(last, _)| now.duration_since(*last) >= SAMPLE_INTERVAL) {
            seen.push_back((now, newest));
        }
        while seen.get(1).is_some_and(|(since, _)| now.duration_since(*since) >= MAX_TRANSACTION) {
            seen.pop_front();
        }
        let oldest = seen.front().filter(|(since, _)| now.duration_since(*since) >= MAX_TRANSACTION);
        oldest.map_or(0, |(_, number)| *number)
    }
}

/// A transaction that stores spans takes no longer. One that does leaves its spans out of exports.
const MAX_TRANSACTION: Duration = Duration::from_secs(30);
/// Numbers are noted this often, so that few are kept.
const SAMPLE_INTERVAL: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_settled_once_every_transaction_of_its_time_has_ended() {
        let (settled, start) = (Settled::default(), Instant::now());
        let after = |seconds: u64| start + Duration::from_secs(seconds);
        assert_eq!(settled.at(10, start), 0);
        assert_eq!(settled.at(20, after(10)), 0);
        assert_eq!(settled.at(30, after(30)), 10);
        assert_eq!(settled.at(40, after(45)), 20);
        assert_eq!(settled.at(40, after(500)), 40);
    }
}

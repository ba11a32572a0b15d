//! Counts over the whole database. A server has no cheap ones, so that those that took long to make are kept for a while.

use crate::store::api::Statistics;
use crate::store::error::Result;
use std::time::{Duration, Instant};
use tokio::sync::Mutex;

/// The counts that were made last.
#[derive(Default)]
pub(super) struct KeptStatistics(Mutex<Option<Kept>>);

struct Kept {
    statistics: Statistics,
    until: Instant,
}

impl KeptStatistics {
    /// The kept counts, or else those that `make` returns. Only one caller makes them; others wait for it.
    pub(super) async fn get(&self, make: impl AsyncFnOnce() -> Result<Statistics>) -> Result<Statistics> {
        let mut kept = self.0.lock().await;
        if let Some(kept) = kept.as_ref().filter(|kept| Instant::now() < kept.until) {
            return Ok(kept.statistics);
        }
        let start = Instant::now();
        let statistics = make().await?;
        let took = start.elapsed();
        let age = if took < CHEAP { Duration::ZERO } else { took * AGE_FACTOR };
        *kept = Some(Kept { statistics, until: start + took + age });
        Ok(statistics)
    }
}

/// Counts that take no longer are made anew for each caller.
const CHEAP: Duration = Duration::from_millis(20);

/// Others are kept for this many times as long as they took, so that at most a twentieth of the time goes into counting.
const AGE_FACTOR: u32 = 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn of(spans: u64) -> Result<Statistics> {
        Ok(Statistics { spans, ..Statistics::default() })
    }

    #[tokio::test]
    async fn only_counts_that_took_long_are_kept() {
        let kept = KeptStatistics::default();
        assert_eq!(kept.get(async || of(1)).await.unwrap().spans, 1);
        let slow = async || {
            tokio::time::sleep(CHEAP * 2).await;
            of(2)
        };
        assert_eq!(kept.get(slow).await.unwrap().spans, 2);
        assert_eq!(kept.get(async || of(3)).await.unwrap().spans, 2);
    }
}

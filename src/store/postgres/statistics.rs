//! Counts over the whole database. A server has no cheap ones, so that those that took long to make are cached for a while.

use crate::store::api::Statistics;
use crate::store::error::{Result, StoreError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::OnceCell;

/// The counts that were made last. Callers that come meanwhile wait for the same ones, and get the same error.
#[derive(Default)]
pub(super) struct StatisticsCache(Mutex<Arc<OnceCell<Made>>>);

struct Made {
    statistics: std::result::Result<Statistics, String>,
    until: Instant,
}

impl StatisticsCache {
    /// The cached counts, or else those that `make` returns.
    pub(super) async fn get(&self, make: impl AsyncFnOnce() -> Result<Statistics>) -> Result<Statistics> {
        let current = self.current();
        // The error of the caller that counted, as the store made it; the others get its text.
        let mut own_error = None;
        let made = current.get_or_init(async || {
            let start = Instant::now();
            let statistics = make().await;
            let took = start.elapsed();
            let is_kept = statistics.is_ok() && took >= CHEAP;
            let age = if is_kept { took * AGE_FACTOR } else { Duration::ZERO };
            let statistics = statistics.map_err(|error| {
                let text = error.to_string();
                own_error = Some(error);
                text
            });
            Made { statistics, until: start + took + age }
        });
        let made = made.await.statistics.as_ref().copied();
        made.map_err(|text| own_error.unwrap_or_else(|| StoreError::Other(text.clone())))
    }

    /// The counts that are being made, or that still hold; else a place for new ones.
    fn current(&self) -> Arc<OnceCell<Made>> {
        let mut current = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if current.get().is_some_and(|made| Instant::now() >= made.until) {
            *current = Arc::default();
        }
        Arc::clone(&current)
    }
}

/// Counts that take no longer are made anew for each caller.
const CHEAP: Duration = Duration::from_millis(20);

/// Others are cached for this many times as long as they took, so that at most a twentieth of the time goes into counting.
const AGE_FACTOR: u32 = 20;

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    fn of(spans: u64) -> Result<Statistics> {
        Ok(Statistics { spans, ..Statistics::default() })
    }

    #[tokio::test]
    async fn only_counts_that_took_long_are_cached() {
        let cache = StatisticsCache::default();
        assert_eq!(cache.get(async || of(1)).await.unwrap().spans, 1);
        let slow = async || {
            tokio::time::sleep(CHEAP * 2).await;
            of(2)
        };
        assert_eq!(cache.get(slow).await.unwrap().spans, 2);
        assert_eq!(cache.get(async || of(3)).await.unwrap().spans, 2);
    }

    #[tokio::test]
    async fn callers_share_counts_and_errors() {
        let (cache, made) = (StatisticsCache::default(), AtomicU32::new(0));
        let fails = async || {
            made.fetch_add(1, Ordering::Relaxed);
            tokio::task::yield_now().await;
            Err(StoreError::Closed)
        };
        let (first, second) = tokio::join!(cache.get(fails), cache.get(fails));
        assert!(matches!(first, Err(StoreError::Closed)));
        assert!(second.unwrap_err().to_string().contains("closed"));
        assert_eq!(made.load(Ordering::Relaxed), 1);
        assert_eq!(cache.get(async || of(1)).await.unwrap().spans, 1, "an error is not cached");
    }
}

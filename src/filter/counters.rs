//! What the filter counts. Each is a metric.

use super::cause::Cause;
use super::span_limits::CutParts;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// What the filter counts.
#[derive(Debug, Default)]
pub(crate) struct FilterCounters {
    attributes: AtomicU64,
    values: AtomicU64,
    events: AtomicU64,
    links: AtomicU64,
    /// One entry for each limit and each rule of the settings.
    not_stored: Mutex<BTreeMap<Cause, u64>>,
}

impl FilterCounters {
    pub(super) fn add_cut(&self, cut: CutParts) {
        for (counter, count) in [
            (&self.attributes, cut.attributes),
            (&self.values, cut.values),
            (&self.events, cut.events),
            (&self.links, cut.links),
        ] {
            counter.fetch_add(count, Ordering::Relaxed);
        }
    }

    pub(super) fn add_not_stored(&self, cause: &Cause, spans: u64) {
        let mut causes = self.not_stored.lock().unwrap_or_else(PoisonError::into_inner);
        match causes.get_mut(cause) {
            Some(count) => *count += spans,
            None => drop(causes.insert(cause.clone(), spans)),
        }
    }

    /// Parts of spans that the span limits left out, by kind.
    pub(crate) fn cut(&self) -> [(&'static str, u64); 4] {
        [("attributes", &self.attributes), ("values", &self.values), ("events", &self.events), ("links", &self.links)]
            .map(|(part, counter)| (part, counter.load(Ordering::Relaxed)))
    }

    /// Spans that were not stored, by cause.
    pub(crate) fn not_stored(&self) -> Vec<(Cause, u64)> {
        let causes = self.not_stored.lock().unwrap_or_else(PoisonError::into_inner);
        causes.iter().map(|(cause, count)| (cause.clone(), *count)).collect()
    }
}

//! What an export has done since the start, for `/metrics` and `/readyz`.

use super::outcome::DropReason;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// The counts of one export.
#[derive(Debug)]
pub(crate) struct ExportCounters {
    /// The name of the export.
    pub(crate) name: String,
    /// Spans, rollouts or points of metrics that the receiver has accepted.
    pub(crate) sent: AtomicU64,
    /// Requests that were sent again.
    pub(crate) retried: AtomicU64,
    /// Stored spans that are not exported yet; 0 while another program exports them.
    pub(crate) waiting: AtomicU64,
    dropped: Mutex<BTreeMap<DropReason, u64>>,
    failure: Mutex<Option<String>>,
}

impl ExportCounters {
    pub(super) fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            sent: AtomicU64::new(0),
            retried: AtomicU64::new(0),
            waiting: AtomicU64::new(0),
            dropped: Mutex::default(),
            failure: Mutex::default(),
        }
    }

    /// Spans that the receiver will never get, by reason.
    pub(crate) fn dropped(&self) -> Vec<(String, u64)> {
        let dropped = self.dropped.lock().unwrap_or_else(PoisonError::into_inner);
        dropped.iter().map(|(reason, spans)| (reason.to_string(), *spans)).collect()
    }

    /// True if the receiver did not accept the last request.
    pub(crate) fn is_failing(&self) -> bool {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Logs that the receiver did not accept the last request, if so. Called when nothing further is sent.
    pub(super) fn log_failure(&self) {
        let dropped: u64 = self.dropped().iter().map(|(_, spans)| spans).sum();
        if let Some(cause) = self.failure.lock().unwrap_or_else(PoisonError::into_inner).as_ref() {
            let export = &self.name;
            tracing::error!(
                export,
                cause,
                dropped,
                "not everything is exported; what was not dropped waits in the store"
            );
        }
    }

    pub(super) fn add_dropped(&self, reason: DropReason, spans: u64) {
        if spans > 0 {
            *self.dropped.lock().unwrap_or_else(PoisonError::into_inner).entry(reason).or_default() += spans;
        }
    }

    pub(super) fn add_sent(&self, spans: u64) {
        self.sent.fetch_add(spans, Ordering::Relaxed);
    }

    /// Notes a failure, and logs it unless it is the one that was noted last.
    pub(super) fn fail(&self, cause: String) {
        let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        if failure.as_ref() != Some(&cause) {
            tracing::warn!(export = self.name, cause, "an export is not accepted");
            *failure = Some(cause);
        }
    }

    /// Notes that the receiver accepts again.
    pub(super) fn recover(&self) {
        if self.failure.lock().unwrap_or_else(PoisonError::into_inner).take().is_some() {
            tracing::info!(export = self.name, "an export is accepted again");
        }
    }
}

//! What capture counts. Each is a metric.

use crate::util::in_flight::InFlightCounter;
use std::sync::atomic::AtomicU64;

/// What capture counts.
#[derive(Debug, Default)]
pub struct CaptureCounters {
    /// Exchanges with a started recording.
    pub started: AtomicU64,
    /// Exchanges that have not ended, without CONNECTs: a client keeps a tunnel long after its last request.
    pub(crate) in_flight: InFlightCounter,
    /// Exchanges that have ended and of which spans are neither stored nor lost. Each is in one of the two counters until then.
    pub(crate) unstored: InFlightCounter,
    /// Exchanges that passed unrecorded because the queue was full.
    pub dropped: AtomicU64,
    /// Exchanges that waited for room in the queue.
    pub waited: AtomicU64,
    /// Those that wait now.
    pub waiting: AtomicU64,
    /// Exchanges that passed unrecorded because a setting excludes them.
    pub filtered: AtomicU64,
    /// Bodies that were recorded in part, and WebSocket messages that were recorded without their payload for lack of memory.
    pub truncated: AtomicU64,
    /// Responses that were delivered whole before their commit.
    pub commit_missed: AtomicU64,
    /// Exchanges for which two sources named different rollouts.
    pub identity_conflicts: AtomicU64,
}

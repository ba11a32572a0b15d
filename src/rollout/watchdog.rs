//! Ends attempts that passed a deadline: `timeout_seconds`, or `unresponsive_seconds` without a span or heartbeat.
//!
//! Reads never end an attempt: only this task does, a few milliseconds after the deadline.

use super::attempts::{store_attempt, update_worker_of};
use super::lifecycle;
use super::rollouts::{Result, Rollouts};
use crate::trace::Timestamp;
use std::time::Duration;

impl Rollouts {
    /// Ends overdue attempts for as long as it runs. It checks at the next deadline, after each change, and at least every
    /// `MAX_WAIT`, since other processes may share the store.
    pub async fn run_watchdog(self) {
        let mut is_failing = false;
        loop {
            let changed = self.next_change();
            let wait = match self.end_overdue_attempts().await {
                Ok(deadline) => {
                    is_failing = false;
                    deadline.map_or(MAX_WAIT, |deadline| deadline.since(self.now()) + AFTER_DEADLINE)
                }
                Err(error) => {
                    if !std::mem::replace(&mut is_failing, true) {
                        tracing::warn!(%error, "the store could not be searched for overdue attempts; trying again every 5 s");
                    }
                    // Changes do not make a store answer that is away.
                    tokio::time::sleep(MAX_WAIT).await;
                    continue;
                }
            };
            tokio::select! {
                () = changed => tokio::time::sleep(MIN_WAIT).await,
                () = tokio::time::sleep(wait.clamp(MIN_WAIT, MAX_WAIT)) => {}
            }
        }
    }

    /// Ends the attempts that are overdue now; returns the next deadline of the others.
    async fn end_overdue_attempts(&self) -> Result<Option<Timestamp>> {
        let (next, changed) = self.transact_silently(|records, now| {
            let (mut next, mut changed): (Option<Timestamp>, bool) = (None, false);
            for (mut rollout, mut attempt) in records.rollouts_with_deadline()? {
                if let Some(status) = lifecycle::overdue_status(&rollout, &attempt, now) {
                    tracing::info!(rollout_id = %rollout.rollout_id, attempt_id = %attempt.attempt_id, ?status, "an attempt passed its deadline");
                    lifecycle::set_attempt_status(&mut attempt, status, now);
                    let attempt = store_attempt(records, &mut rollout, attempt, now)?;
                    update_worker_of(records, &attempt, now)?;
                    changed = true;
                } else if let Some(deadline) = lifecycle::next_deadline(&rollout, &attempt) {
                    next = Some(next.map_or(deadline, |next| next.min(deadline)));
                }
            }
            Ok((next, changed))
        })
        .await?;
        if changed {
            self.notify_changed();
        }
        Ok(next)
    }
}

/// Added to a deadline, so that the clock is past it when the timer fires.
const AFTER_DEADLINE: Duration = Duration::from_millis(1);
/// Changes often come together: one check after this time serves them all.
const MIN_WAIT: Duration = Duration::from_millis(20);
/// Also the wait after the store failed.
const MAX_WAIT: Duration = Duration::from_secs(5);

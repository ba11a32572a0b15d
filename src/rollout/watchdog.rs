//! Gives up attempts that took too long or went silent, when it is time, whether somebody asks or not.

use super::{Rollouts, lifecycle};
use crate::trace::Timestamp;
use std::time::Duration;

impl Rollouts {
    /// Looks for overdue attempts for ever: at the next deadline, when a rollout has changed, and from time to time, since
    /// other processes may share the store.
    pub async fn watch(self) {
        loop {
            let changed = self.changed.notified();
            let wait = match self.give_up_overdue().await {
                Ok(Some(deadline)) => deadline.since((self.clock)()) + AFTER_DEADLINE,
                Ok(None) => LONGEST_WAIT,
                Err(error) => {
                    tracing::warn!(%error, "overdue attempts could not be looked for; trying again");
                    LONGEST_WAIT
                }
            };
            tokio::select! {
                () = changed => tokio::time::sleep(SHORTEST_WAIT).await,
                () = tokio::time::sleep(wait.clamp(SHORTEST_WAIT, LONGEST_WAIT)) => {}
            }
        }
    }

    /// Gives up what is overdue now; the next deadline comes back.
    pub async fn give_up_overdue(&self) -> Result<Option<Timestamp>, super::RolloutError> {
        let (next, given_up) = self.quietly(|records, now| {
            let (mut next, mut given_up): (Option<Timestamp>, bool) = (None, false);
            for (mut rollout, mut attempt) in records.rollouts_with_deadline()? {
                if let Some(status) = lifecycle::overdue(&rollout, &attempt, now) {
                    tracing::info!(rollout_id = %rollout.rollout_id, attempt_id = %attempt.attempt_id, ?status, "an attempt is given up");
                    lifecycle::put(&mut attempt, status, now);
                    let attempt = super::changed_attempt(records, &mut rollout, attempt, now)?;
                    super::tell_worker(records, &attempt, now)?;
                    given_up = true;
                } else if let Some(deadline) = lifecycle::next_deadline(&rollout, &attempt) {
                    next = Some(next.map_or(deadline, |next| next.min(deadline)));
                }
            }
            Ok((next, given_up))
        })
        .await?;
        if given_up {
            self.changed.notify_waiters();
        }
        Ok(next)
    }
}

/// So that the deadline has surely passed.
const AFTER_DEADLINE: Duration = Duration::from_millis(1);
/// Many changes come together; one look serves them all.
const SHORTEST_WAIT: Duration = Duration::from_millis(20);
const LONGEST_WAIT: Duration = Duration::from_secs(5);

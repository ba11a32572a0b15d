//! The process that runs an attempt, noted in the attempt: an attempt does not stay in progress after its `run` was killed.

use crate::run::processes::ProcessMark;
use crate::store::{RolloutFilter, SelectedRollouts, SharedStore, StoreError, StoreExt};
use crate::trace::{Attempt, AttemptStatus, AttemptedRollout, RolloutStatus, Timestamp};
use std::time::SystemTime;

/// Notes this process in an attempt that it runs.
pub(super) fn mark_as_ours(attempt: &mut Attempt) {
    let mark = ProcessMark::own().and_then(|mark| serde_json::to_value(mark).ok());
    if let (Some(mark), Some(metadata)) = (mark, attempt.metadata.as_object_mut()) {
        metadata.insert(PROCESS_KEY.to_owned(), mark);
    }
}

/// Ends the attempts that are in progress without a living process, and their rollouts, as failed.
pub(super) async fn end_abandoned(store: &SharedStore) -> Result<(), StoreError> {
    for AttemptedRollout { mut rollout, attempt } in abandoned(store).await? {
        let Some(mut attempt) = attempt else { continue };
        // Its last sign of life.
        let end = attempt.last_heartbeat_time.unwrap_or_else(|| Timestamp::from(SystemTime::now()));
        (attempt.status, attempt.end_time) = (AttemptStatus::Failed, Some(end));
        (rollout.status, rollout.end_time) = (RolloutStatus::Failed, Some(end));
        store.upsert_attempt(attempt).await?;
        store.upsert_rollout(rollout).await?;
    }
    Ok(())
}

/// The rollouts with a latest attempt that is in progress without a living process. Of the others, only a page is in memory.
pub(super) async fn abandoned(store: &SharedStore) -> Result<Vec<AttemptedRollout>, StoreError> {
    let filter = RolloutFilter::of_statuses(vec![RolloutStatus::Running]);
    let mut running = SelectedRollouts::by_start(store, filter, |_| true);
    let mut abandoned = Vec::new();
    while let Some(rollout) = running.next().await? {
        if rollout.attempt.as_ref().is_some_and(is_abandoned) {
            abandoned.push(rollout);
        }
    }
    Ok(abandoned)
}

fn is_abandoned(attempt: &Attempt) -> bool {
    let mark =
        attempt.metadata.get(PROCESS_KEY).and_then(|mark| serde_json::from_value::<ProcessMark>(mark.clone()).ok());
    matches!(attempt.status, AttemptStatus::Preparing | AttemptStatus::Running)
        && mark.is_some_and(|mark| mark.has_ended())
}

const PROCESS_KEY: &str = "process";

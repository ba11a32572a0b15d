//! A wrapper around the records of a transaction that notes which rollouts it ends, so that this can be announced after the
//! commit.

use crate::store::{ExportCursor, Records, Result};
use crate::trace::{Attempt, AttemptId, ResourcesUpdate, Rollout, RolloutId, Worker};
use std::collections::BTreeSet;

/// Passes every operation on to the records.
pub(super) struct EndedRollouts<'a> {
    records: &'a mut dyn Records,
    /// The rollouts that the transaction so far leaves in a final state, or removes.
    pub(super) ended: BTreeSet<RolloutId>,
}

impl<'a> EndedRollouts<'a> {
    pub(super) fn new(records: &'a mut dyn Records) -> Self {
        Self { records, ended: BTreeSet::new() }
    }
}

impl Records for EndedRollouts<'_> {
    fn rollout(&mut self, id: &RolloutId) -> Result<Option<Rollout>> {
        self.records.rollout(id)
    }

    fn upsert_rollout(&mut self, rollout: &Rollout) -> Result<()> {
        self.records.upsert_rollout(rollout)?;
        if rollout.status.is_final() {
            self.ended.insert(rollout.rollout_id.clone());
        } else {
            self.ended.remove(&rollout.rollout_id);
        }
        Ok(())
    }

    fn remove_rollout(&mut self, id: &RolloutId) -> Result<u64> {
        let spans = self.records.remove_rollout(id)?;
        self.ended.insert(id.clone());
        Ok(spans)
    }

    fn attempt(&mut self, rollout: &RolloutId, attempt: &AttemptId) -> Result<Option<Attempt>> {
        self.records.attempt(rollout, attempt)
    }

    fn latest_attempt(&mut self, rollout: &RolloutId) -> Result<Option<Attempt>> {
        self.records.latest_attempt(rollout)
    }

    fn upsert_attempt(&mut self, attempt: Attempt) -> Result<Attempt> {
        self.records.upsert_attempt(attempt)
    }

    fn rollouts_with_deadline(&mut self) -> Result<Vec<(Rollout, Attempt)>> {
        self.records.rollouts_with_deadline()
    }

    fn enqueue(&mut self, rollout: &RolloutId) -> Result<()> {
        self.records.enqueue(rollout)
    }

    fn dequeue(&mut self) -> Result<Option<RolloutId>> {
        self.records.dequeue()
    }

    fn worker(&mut self, id: &str) -> Result<Option<Worker>> {
        self.records.worker(id)
    }

    fn upsert_worker(&mut self, worker: &Worker) -> Result<()> {
        self.records.upsert_worker(worker)
    }

    fn resources(&mut self, id: &str) -> Result<Option<ResourcesUpdate>> {
        self.records.resources(id)
    }

    fn latest_resources(&mut self) -> Result<Option<ResourcesUpdate>> {
        self.records.latest_resources()
    }

    fn upsert_resources(&mut self, resources: &ResourcesUpdate) -> Result<()> {
        self.records.upsert_resources(resources)
    }

    fn export_cursor(&mut self, name: &str) -> Result<Option<ExportCursor>> {
        self.records.export_cursor(name)
    }

    fn upsert_export_cursor(&mut self, cursor: &ExportCursor) -> Result<()> {
        self.records.upsert_export_cursor(cursor)
    }
}

#[cfg(test)]
mod tests {
    use crate::rollout::{RolloutError, Rollouts};
    use crate::store::Retention;
    use crate::store::memory::MemoryStore;
    use crate::trace::{Rollout, RolloutStatus, Timestamp};
    use std::sync::Arc;

    fn in_state(id: &str, status: RolloutStatus) -> Rollout {
        Rollout { status, ..Rollout::running(id.into(), Timestamp::default()) }
    }

    #[tokio::test]
    async fn ends_are_announced_after_the_commit() {
        let rollouts = Rollouts::new(Arc::new(MemoryStore::new(Retention::default())));
        let mut ended = rollouts.subscribe_ended();
        let put = |id: &'static str, states: &'static [RolloutStatus]| {
            rollouts.transact(move |records, _| {
                for status in states {
                    records.upsert_rollout(&in_state(id, *status))?;
                }
                Ok(())
            })
        };
        put("runs", &[RolloutStatus::Running]).await.unwrap();
        put("is requeued", &[RolloutStatus::Failed, RolloutStatus::Requeuing]).await.unwrap();
        assert!(ended.try_recv().is_err());
        put("ends", &[RolloutStatus::Running, RolloutStatus::Failed, RolloutStatus::Succeeded]).await.unwrap();
        assert_eq!(ended.try_recv().unwrap().as_str(), "ends");
        assert!(ended.try_recv().is_err());
        let rolled_back = rollouts.transact(|records, _| {
            records.upsert_rollout(&in_state("rolled back", RolloutStatus::Failed))?;
            Err::<(), _>(RolloutError::NotFound("something else".to_owned()))
        });
        assert!(rolled_back.await.is_err() && ended.try_recv().is_err());
        rollouts.remove("runs".into()).await.unwrap();
        assert_eq!(ended.try_recv().unwrap().as_str(), "runs");
    }
}

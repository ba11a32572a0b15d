//! Transactions of the memory store. Each runs under the lock; its writes are not undone if it fails.

use super::state::State;
use crate::store::error::Result;
use crate::store::export_cursor::ExportCursor;
use crate::store::records::Records;
use crate::trace::{Attempt, AttemptId, ResourcesUpdate, Rollout, RolloutId, Worker};

impl Records for State {
    fn rollout(&mut self, id: &RolloutId) -> Result<Option<Rollout>> {
        Ok(self.entry(id).map(|entry| entry.rollout.clone()))
    }

    fn upsert_rollout(&mut self, rollout: &Rollout) -> Result<()> {
        let entry = self.ensure_entry(&rollout.rollout_id, rollout.start_time);
        let ends = rollout.status.is_final() && !entry.rollout.status.is_final();
        entry.rollout = rollout.clone();
        entry.registered = true;
        if ends {
            self.ended.push(rollout.rollout_id.clone());
        }
        Ok(())
    }

    fn remove_rollout(&mut self, id: &RolloutId) -> Result<u64> {
        Ok(Self::remove_rollout(self, id))
    }

    fn attempt(&mut self, rollout: &RolloutId, attempt: &AttemptId) -> Result<Option<Attempt>> {
        let attempts = self.entry(rollout).map(|entry| &entry.attempts);
        Ok(attempts.and_then(|all| all.iter().find(|one| one.attempt_id == *attempt)).cloned())
    }

    fn latest_attempt(&mut self, rollout: &RolloutId) -> Result<Option<Attempt>> {
        Ok(self.entry(rollout).and_then(|entry| entry.attempts.last()).cloned())
    }

    fn upsert_attempt(&mut self, attempt: Attempt) -> Result<Attempt> {
        Ok(self.ensure_entry(&attempt.rollout_id, attempt.start_time).upsert_attempt(attempt))
    }

    fn rollouts_with_deadline(&mut self) -> Result<Vec<(Rollout, Attempt)>> {
        let has_deadline = |rollout: &Rollout| rollout.status.is_in_progress() && rollout.config.has_deadline();
        let matching = self.entries().filter(|entry| has_deadline(&entry.rollout));
        Ok(matching.filter_map(|entry| Some((entry.rollout.clone(), entry.attempts.last()?.clone()))).collect())
    }

    fn enqueue(&mut self, rollout: &RolloutId) -> Result<()> {
        if !self.queue.contains(rollout) {
            self.queue.push_back(rollout.clone());
        }
        Ok(())
    }

    fn dequeue(&mut self) -> Result<Option<RolloutId>> {
        Ok(self.queue.pop_front())
    }

    fn worker(&mut self, id: &str) -> Result<Option<Worker>> {
        Ok(self.workers.iter().find(|worker| worker.worker_id == id).cloned())
    }

    fn upsert_worker(&mut self, worker: &Worker) -> Result<()> {
        match self.workers.iter_mut().find(|known| known.worker_id == worker.worker_id) {
            Some(known) => *known = worker.clone(),
            None => self.workers.push(worker.clone()),
        }
        Ok(())
    }

    fn resources(&mut self, id: &str) -> Result<Option<ResourcesUpdate>> {
        Ok(self.resources.iter().find(|resources| resources.resources_id == id).cloned())
    }

    fn latest_resources(&mut self) -> Result<Option<ResourcesUpdate>> {
        Ok(self.resources.iter().max_by_key(|resources| resources.update_time).cloned())
    }

    fn upsert_resources(&mut self, resources: &ResourcesUpdate) -> Result<()> {
        match self.resources.iter_mut().find(|known| known.resources_id == resources.resources_id) {
            Some(known) => *known = resources.clone(),
            None => self.resources.push(resources.clone()),
        }
        Ok(())
    }

    fn export_cursor(&mut self, name: &str) -> Result<Option<ExportCursor>> {
        Ok(self.export_cursors.get(name).cloned())
    }

    fn upsert_export_cursor(&mut self, cursor: &ExportCursor) -> Result<()> {
        self.export_cursors.insert(cursor.name.clone(), cursor.clone());
        Ok(())
    }
}

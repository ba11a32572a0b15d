//! The memory store's transactions: each runs under the lock.

use super::State;
use crate::store::{Records, Result};
use crate::trace::{Attempt, AttemptId, ResourcesUpdate, Rollout, RolloutId, RolloutStatus, Worker};

impl Records for State {
    fn rollout(&mut self, id: &RolloutId) -> Result<Option<Rollout>> {
        Ok(self.rollouts.get(id).map(|kept| kept.rollout.clone()))
    }

    fn put_rollout(&mut self, rollout: &Rollout) -> Result<()> {
        let kept = self.kept(&rollout.rollout_id, rollout.start_time);
        let ends = rollout.status.is_final() && !kept.rollout.status.is_final();
        kept.rollout = rollout.clone();
        kept.registered = true;
        if ends {
            self.terminal.push(rollout.rollout_id.clone());
        }
        Ok(())
    }

    fn remove_rollout(&mut self, id: &RolloutId) -> Result<u64> {
        self.queue.retain(|queued| queued != id);
        self.traces.retain(|_, (rollout, _)| *rollout != *id);
        let spans = self.rollouts.remove(id).map(|kept| kept.spans).unwrap_or_default();
        Ok(spans.into_iter().filter(|span| self.remove(*span)).count() as u64)
    }

    fn raise_sequence(&mut self, id: &RolloutId, to: u64) -> Result<()> {
        if let Some(kept) = self.rollouts.get_mut(id) {
            kept.last_sequence_id = kept.last_sequence_id.max(to);
        }
        Ok(())
    }

    fn attempt(&mut self, rollout: &RolloutId, attempt: &AttemptId) -> Result<Option<Attempt>> {
        let attempts = self.rollouts.get(rollout).map(|kept| &kept.attempts);
        Ok(attempts.and_then(|all| all.iter().find(|one| one.attempt_id == *attempt)).cloned())
    }

    fn latest_attempt(&mut self, rollout: &RolloutId) -> Result<Option<Attempt>> {
        Ok(self.rollouts.get(rollout).and_then(|kept| kept.attempts.last()).cloned())
    }

    fn put_attempt(&mut self, attempt: Attempt) -> Result<Attempt> {
        Ok(self.kept(&attempt.rollout_id, attempt.start_time).put_attempt(attempt))
    }

    fn watched(&mut self) -> Result<Vec<(Rollout, Attempt)>> {
        let is_watched = |rollout: &Rollout| {
            let config = &rollout.config;
            matches!(rollout.status, RolloutStatus::Preparing | RolloutStatus::Running)
                && (config.timeout_seconds.is_some() || config.unresponsive_seconds.is_some())
        };
        let working = self.rollouts.values().filter(|kept| is_watched(&kept.rollout));
        Ok(working.filter_map(|kept| Some((kept.rollout.clone(), kept.attempts.last()?.clone()))).collect())
    }

    fn push(&mut self, rollout: &RolloutId) -> Result<()> {
        if !self.queue.contains(rollout) {
            self.queue.push_back(rollout.clone());
        }
        Ok(())
    }

    fn pop(&mut self) -> Result<Option<RolloutId>> {
        Ok(self.queue.pop_front())
    }

    fn worker(&mut self, id: &str) -> Result<Option<Worker>> {
        Ok(self.workers.iter().find(|worker| worker.worker_id == id).cloned())
    }

    fn put_worker(&mut self, worker: &Worker) -> Result<()> {
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

    fn put_resources(&mut self, resources: &ResourcesUpdate) -> Result<()> {
        match self.resources.iter_mut().find(|known| known.resources_id == resources.resources_id) {
            Some(known) => *known = resources.clone(),
            None => self.resources.push(resources.clone()),
        }
        Ok(())
    }
}

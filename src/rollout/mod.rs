//! Rollouts, attempts, workers and resources: what trainers and runners do with them.
//!
//! [`lifecycle`] decides, [`Rollouts`] does it, each operation one transaction of the store. It must not know HTTP.

pub mod lifecycle;
mod requests;
mod watchdog;
mod watching;

pub use requests::{AttemptChange, Mode, NewRollout, RolloutChange};

use crate::store::{Appended, Records, SharedStore, StoreError};
use crate::trace::{
    Attempt, AttemptId, AttemptStatus, AttemptedRollout, ResourcesUpdate, Rollout, RolloutId, RolloutStatus, Span,
    Timestamp, Worker,
};
use serde_json::Value as JsonValue;
use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};
use tokio::sync::futures::Notified;
use tokio::sync::{Notify, broadcast};
use watching::Watching;

/// Why it could not be done.
#[derive(Debug, thiserror::Error)]
pub enum RolloutError {
    /// There is no such rollout or attempt; the text is Agent Lightning's.
    #[error("{0}")]
    NotFound(String),
    /// The store could not.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What an operation gives.
pub type Result<T> = std::result::Result<T, RolloutError>;

/// Everything that is done with rollouts. Cheap to clone.
#[derive(Clone)]
pub struct Rollouts {
    store: SharedStore,
    changed: Arc<Notify>,
    ended: broadcast::Sender<RolloutId>,
    // Attempts that were seen in the store, the newest; they stay there until their rollout is removed.
    known: Arc<Mutex<HashSet<(RolloutId, AttemptId)>>>,
    clock: fn() -> Timestamp,
}

impl Rollouts {
    /// On this store.
    pub fn new(store: SharedStore) -> Self {
        let ended = broadcast::Sender::new(MAX_UNHEARD);
        Self { store, changed: Arc::default(), ended, known: Arc::default(), clock: || SystemTime::now().into() }
    }

    /// The store.
    pub fn store(&self) -> &SharedStore {
        &self.store
    }

    /// The next change that this process makes, from the moment of the call.
    pub fn next_change(&self) -> Notified<'_> {
        self.changed.notified()
    }

    /// The rollouts that this process ends from now on, each when that is committed: it came into a final state, was
    /// stored anew while in one, or was removed. Who listens too slowly misses some; the store's log has them.
    pub fn ended(&self) -> broadcast::Receiver<RolloutId> {
        self.ended.subscribe()
    }

    /// Stores spans.
    pub async fn append(&self, spans: Vec<Arc<Span>>) -> Result<Appended> {
        let appended = self.store.append(spans).await?;
        self.changed.notify_waiters();
        Ok(appended)
    }

    /// Makes sure that an attempt exists.
    pub async fn must_exist(&self, rollout: &RolloutId, attempt: &AttemptId) -> Result<()> {
        let pair = (rollout.clone(), attempt.clone());
        if self.known.lock().unwrap_or_else(PoisonError::into_inner).contains(&pair) {
            return Ok(());
        }
        if self.store.rollout(rollout.clone()).await?.is_none() {
            return Err(RolloutError::NotFound(format!("Rollout {rollout} not found")));
        }
        let attempts = self.store.attempts(rollout.clone()).await?;
        if attempts.iter().all(|known| known.attempt_id != *attempt) {
            return Err(RolloutError::NotFound(format!("Attempt {attempt} not found for rollout {rollout}")));
        }
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MAX_KNOWN {
            known.clear();
        }
        known.insert(pair);
        Ok(())
    }

    /// New rollouts, at the queue's tail.
    pub async fn enqueue(&self, new: Vec<NewRollout>) -> Result<Vec<Rollout>> {
        self.transact(move |records, now| {
            let latest = latest_resources(records)?;
            // Listings are in the order of their start.
            let rollouts: Vec<Rollout> = (0..)
                .zip(&new)
                .map(|(place, new)| {
                    let started = now.after(Duration::from_nanos(place));
                    rollout_of(new.clone(), RolloutStatus::Queuing, latest.clone(), started)
                })
                .collect();
            for rollout in &rollouts {
                records.upsert_rollout(rollout)?;
                records.enqueue(&rollout.rollout_id)?;
            }
            Ok(rollouts)
        })
        .await
    }

    /// Up to `limit` rollouts from the queue's head, each with a new attempt. What is not queued any more is passed over.
    pub async fn dequeue(&self, limit: usize, worker_id: Option<String>) -> Result<Vec<AttemptedRollout>> {
        self.transact(move |records, now| {
            let mut taken = Vec::new();
            while taken.len() < limit
                && let Some(id) = records.dequeue()?
            {
                let Some(mut rollout) = records.rollout(&id)? else { continue };
                if matches!(rollout.status, RolloutStatus::Queuing | RolloutStatus::Requeuing) {
                    let attempt = new_attempt(records, &mut rollout, worker_id.clone(), now)?;
                    taken.push(AttemptedRollout { rollout, attempt: Some(attempt) });
                }
            }
            let Some(worker_id) = &worker_id else { return Ok(taken) };
            let mut worker = records.worker(worker_id)?.unwrap_or_else(|| Worker::new(worker_id));
            // A worker is tied to one attempt: the last.
            match taken.last().and_then(|last| last.attempt.as_ref()) {
                Some(attempt) => {
                    worker.last_dequeue_time = Some(now);
                    lifecycle::work_changed(&mut worker, attempt, now);
                }
                None => lifecycle::found_nothing(&mut worker, now),
            }
            records.upsert_worker(&worker)?;
            Ok(taken)
        })
        .await
    }

    /// A new rollout with its first attempt, past the queue.
    pub async fn start(&self, new: NewRollout, worker_id: Option<String>) -> Result<AttemptedRollout> {
        self.transact(move |records, now| {
            let latest = latest_resources(records)?;
            let mut rollout = rollout_of(new.clone(), RolloutStatus::Preparing, latest, now);
            let attempt = new_attempt(records, &mut rollout, worker_id.clone(), now)?;
            tell_worker(records, &attempt, now)?;
            Ok(AttemptedRollout { rollout, attempt: Some(attempt) })
        })
        .await
    }

    /// One more attempt, however many there were.
    pub async fn start_attempt(&self, id: RolloutId, worker_id: Option<String>) -> Result<AttemptedRollout> {
        self.transact(move |records, now| {
            let mut rollout = known(records, &id)?;
            let attempt = new_attempt(records, &mut rollout, worker_id.clone(), now)?;
            tell_worker(records, &attempt, now)?;
            Ok(AttemptedRollout { rollout, attempt: Some(attempt) })
        })
        .await
    }

    /// Changes a rollout.
    pub async fn update(&self, id: RolloutId, change: RolloutChange) -> Result<Rollout> {
        self.transact(move |records, now| {
            let mut rollout = known(records, &id)?;
            let RolloutChange { input, mode, resources_id, status, config, metadata } = change.clone();
            rollout.input = input.unwrap_or(rollout.input);
            rollout.mode = mode.map_or(rollout.mode, |mode| mode.map(|mode| mode.as_str().to_owned()));
            rollout.resources_id = resources_id.unwrap_or(rollout.resources_id);
            rollout.config = config.unwrap_or(rollout.config);
            rollout.metadata = metadata.unwrap_or(rollout.metadata);
            let queued = status.is_some_and(|status| lifecycle::enter(&mut rollout, status, now));
            records.upsert_rollout(&rollout)?;
            if queued {
                records.enqueue(&id)?;
            }
            Ok(rollout)
        })
        .await
    }

    /// Removes a rollout with all that belongs to it; how many spans it had. That it ended stays in the store's log.
    pub async fn remove(&self, id: RolloutId) -> Result<u64> {
        let removed = id.clone();
        let spans = self.transact(move |records, _| Ok(records.remove_rollout(&removed)?)).await?;
        self.known.lock().unwrap_or_else(PoisonError::into_inner).retain(|(rollout, _)| *rollout != id);
        Ok(spans)
    }

    /// Changes an attempt, the latest if none is named; its rollout and its worker follow.
    pub async fn update_attempt(
        &self,
        id: RolloutId,
        attempt: Option<AttemptId>,
        change: AttemptChange,
    ) -> Result<Attempt> {
        self.transact(move |records, now| {
            let mut rollout = known(records, &id)?;
            let latest = records.latest_attempt(&id)?;
            let latest = latest.ok_or_else(|| RolloutError::NotFound(format!("No attempts found for rollout {id}")))?;
            let mut attempt = match &attempt {
                None => latest,
                Some(named) => records
                    .attempt(&id, named)?
                    .ok_or_else(|| RolloutError::NotFound(format!("Attempt {named} not found for rollout {id}")))?,
            };
            let AttemptChange { status, worker_id, last_heartbeat_time, metadata } = change.clone();
            let tells = worker_id.is_some() || status.is_some();
            attempt.worker_id = worker_id.or(attempt.worker_id);
            attempt.last_heartbeat_time = last_heartbeat_time.or(attempt.last_heartbeat_time);
            attempt.metadata = metadata.map_or(attempt.metadata, JsonValue::Object);
            if let Some(status) = status {
                lifecycle::put(&mut attempt, status, now);
            }
            let attempt = changed_attempt(records, &mut rollout, attempt, now)?;
            if tells {
                tell_worker(records, &attempt, now)?;
            }
            Ok(attempt)
        })
        .await
    }

    /// A worker is heard from; one that is not known becomes known.
    pub async fn update_worker(&self, id: String, heartbeat_stats: Option<JsonValue>) -> Result<Worker> {
        self.transact(move |records, now| {
            let mut worker = records.worker(&id)?.unwrap_or_else(|| Worker::new(&id));
            worker.last_heartbeat_time = Some(now);
            worker.heartbeat_stats = heartbeat_stats.clone().or(worker.heartbeat_stats);
            records.upsert_worker(&worker)?;
            Ok(worker)
        })
        .await
    }

    /// A set of resources: a new one, or the next version of the one with this id.
    pub async fn put_resources(&self, id: Option<String>, resources: JsonValue) -> Result<ResourcesUpdate> {
        self.transact(move |records, now| {
            let id = id.clone().unwrap_or_else(|| format!("rs-{:012x}", fastrand::u64(..) & 0xffff_ffff_ffff));
            let before = records.resources(&id)?;
            let update = ResourcesUpdate {
                create_time: before.as_ref().map_or(now, |before| before.create_time),
                version: before.map_or(1, |before| before.version + 1),
                update_time: now,
                resources_id: id,
                resources: resources.clone(),
            };
            records.upsert_resources(&update)?;
            Ok(update)
        })
        .await
    }

    /// Runs one transaction, and tells whoever waits for changes.
    pub async fn transact<T: Send + 'static>(
        &self,
        job: impl FnMut(&mut dyn Records, Timestamp) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let done = self.quietly(job).await?;
        self.changed.notify_waiters();
        Ok(done)
    }

    /// Runs one transaction that nobody need hear of.
    pub async fn quietly<T: Send + 'static>(
        &self,
        mut job: impl FnMut(&mut dyn Records, Timestamp) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let outcome = Arc::new(Mutex::new(None));
        let (kept, clock) = (Arc::clone(&outcome), self.clock);
        let change = self.store.change(Box::new(move |records| {
            let mut records = Watching::new(records);
            let result = job(&mut records, clock());
            let undone = if result.is_ok() {
                Ok(())
            } else {
                Err(StoreError::RolledBack("its code returned an error".to_owned()))
            };
            *kept.lock().unwrap_or_else(PoisonError::into_inner) = Some((result, records.ended));
            undone
        }));
        let committed = change.await;
        let outcome = outcome.lock().unwrap_or_else(PoisonError::into_inner).take();
        match (outcome, committed) {
            (Some((Err(error), _)), _) => Err(error),
            (_, Err(error)) => Err(error.into()),
            (Some((Ok(value), ended)), Ok(())) => {
                for id in ended {
                    // That nobody listens is fine.
                    let _ = self.ended.send(id);
                }
                Ok(value)
            }
            (None, Ok(())) => Err(StoreError::Closed.into()),
        }
    }
}

const MAX_KNOWN: usize = 64 * 1024;
/// Rollouts that ended and that some listener has not heard of.
const MAX_UNHEARD: usize = 4096;

fn latest_resources(records: &mut dyn Records) -> Result<Option<String>> {
    Ok(records.latest_resources()?.map(|latest| latest.resources_id))
}

fn rollout_of(new: NewRollout, status: RolloutStatus, latest: Option<String>, now: Timestamp) -> Rollout {
    Rollout {
        rollout_id: RolloutId::from_random(fastrand::u64(..)),
        input: new.input,
        start_time: now,
        end_time: None,
        mode: new.mode.map(|mode| mode.as_str().to_owned()),
        resources_id: new.resources_id.or(latest),
        status,
        config: new.config.unwrap_or_default(),
        metadata: JsonValue::Object(new.metadata.unwrap_or_default()),
    }
}

/// Stores the rollout as preparing, with one attempt more.
fn new_attempt(
    records: &mut dyn Records,
    rollout: &mut Rollout,
    worker_id: Option<String>,
    now: Timestamp,
) -> Result<Attempt> {
    let id = AttemptId::from_random(fastrand::u32(..));
    let attempt = Attempt {
        status: AttemptStatus::Preparing,
        worker_id,
        metadata: JsonValue::Null,
        ..Attempt::running(rollout.rollout_id.clone(), id, now)
    };
    lifecycle::enter(rollout, RolloutStatus::Preparing, now);
    records.upsert_rollout(rollout)?;
    Ok(records.upsert_attempt(attempt)?)
}

/// Stores an attempt; if it is the latest, its rollout follows.
fn changed_attempt(
    records: &mut dyn Records,
    rollout: &mut Rollout,
    attempt: Attempt,
    now: Timestamp,
) -> Result<Attempt> {
    let attempt = records.upsert_attempt(attempt)?;
    let latest = records.latest_attempt(&attempt.rollout_id)?;
    if latest.is_some_and(|latest| latest.attempt_id == attempt.attempt_id)
        && let Some(queued) = lifecycle::follow(rollout, &attempt, now)
    {
        records.upsert_rollout(rollout)?;
        if queued {
            records.enqueue(&rollout.rollout_id)?;
        }
    }
    Ok(attempt)
}

fn tell_worker(records: &mut dyn Records, attempt: &Attempt, now: Timestamp) -> Result<()> {
    let Some(id) = &attempt.worker_id else { return Ok(()) };
    let mut worker = records.worker(id)?.unwrap_or_else(|| Worker::new(id));
    lifecycle::work_changed(&mut worker, attempt, now);
    Ok(records.upsert_worker(&worker)?)
}

fn known(records: &mut dyn Records, id: &RolloutId) -> Result<Rollout> {
    records.rollout(id)?.ok_or_else(|| RolloutError::NotFound(format!("Rollout {id} not found")))
}

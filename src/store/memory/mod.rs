//! A store that keeps everything in memory, for tests and for runs that want no file.
//!
//! It must behave as the file store does, except that it is gone with the process. Its lock is never held over an await.

mod records;

use super::records::nothing_heard;
use super::{
    Appended, BoxFuture, Change, Pruned, Result, Retention, RolloutFilter, RolloutSummary, SpanObserver, Standing,
    Statistics, Store, StoreError, TerminalPage, UNASSIGNED,
};
use crate::trace::{
    Attempt, AttemptId, AttemptedRollout, ResourcesUpdate, Rollout, RolloutId, Span, Timestamp, Value, Worker,
};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

/// What a span weighs besides its texts: a guess, good enough for a limit.
const SPAN_OVERHEAD: u64 = 512;

const SECONDS_PER_DAY: u64 = 24 * 60 * 60;

/// The store. Cheap to create; share it behind an `Arc`.
#[derive(Debug)]
pub struct MemoryStore {
    retention: Retention,
    heard: SpanObserver,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    closed: bool,
    last_id: u64,
    /// By insertion, so that the oldest is first.
    spans: BTreeMap<u64, Arc<Span>>,
    seen: HashSet<(RolloutId, AttemptId, String)>,
    rollouts: BTreeMap<RolloutId, Kept>,
    traces: HashMap<String, (RolloutId, AttemptId)>,
    queue: VecDeque<RolloutId>,
    /// As they ended.
    terminal: Vec<RolloutId>,
    workers: Vec<Worker>,
    resources: Vec<ResourcesUpdate>,
    size_bytes: u64,
}

#[derive(Debug)]
struct Kept {
    rollout: Rollout,
    registered: bool,
    last_sequence_id: u64,
    /// By sequence id, as they were numbered.
    attempts: Vec<Attempt>,
    spans: BTreeSet<u64>,
}

impl MemoryStore {
    /// An empty store that keeps to `retention`.
    pub fn new(retention: Retention) -> Self {
        Self { retention, heard: nothing_heard, state: Mutex::new(State::default()) }
    }

    /// What is stored has consequences.
    pub fn hearing(self, heard: SpanObserver) -> Self {
        Self { heard, ..self }
    }

    /// Runs `job` under the lock, at once: nothing here waits.
    fn with<'a, T: Send + 'a>(&'a self, job: impl FnOnce(&mut State) -> T + Send + 'a) -> BoxFuture<'a, Result<T>> {
        Box::pin(async move {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            if state.closed { Err(StoreError::Closed) } else { Ok(job(&mut state)) }
        })
    }
}

impl Store for MemoryStore {
    fn append(&self, spans: Vec<Arc<Span>>) -> BoxFuture<'_, Result<Appended>> {
        self.with(move |state| {
            let appended = state.append(spans, self.heard);
            state.prune(self.retention);
            appended
        })
    }

    fn rollout(&self, id: RolloutId) -> BoxFuture<'_, Result<Option<Rollout>>> {
        self.with(move |state| state.rollouts.get(&id).map(|kept| kept.rollout.clone()))
    }

    fn rollouts(&self, limit: usize) -> BoxFuture<'_, Result<Vec<RolloutSummary>>> {
        self.with(move |state| {
            let mut all: Vec<&Kept> = state.rollouts.values().collect();
            all.sort_by(|a, b| {
                let key = |kept: &Kept| (kept.rollout.start_time, kept.rollout.rollout_id.clone());
                key(b).cmp(&key(a))
            });
            all.into_iter().take(limit).map(|kept| state.summary(kept)).collect()
        })
    }

    fn attempts(&self, id: RolloutId) -> BoxFuture<'_, Result<Vec<Attempt>>> {
        self.with(move |state| state.rollouts.get(&id).map(|kept| kept.attempts.clone()).unwrap_or_default())
    }

    fn spans(&self, rollout: RolloutId, attempt: Option<AttemptId>) -> BoxFuture<'_, Result<Vec<Span>>> {
        self.with(move |state| {
            let Some(kept) = state.rollouts.get(&rollout) else { return Vec::new() };
            let mut spans: Vec<Span> = kept
                .spans
                .iter()
                .filter_map(|id| state.spans.get(id))
                .filter(|span| attempt.as_ref().is_none_or(|attempt| *attempt == span.attempt_id))
                .map(|span| Span::clone(span))
                .collect();
            // A stable sort, so that spans which tie stay in the order of their insertion.
            spans.sort_by_key(|span| (span.sequence_id, span.start_time));
            spans
        })
    }

    fn change(&self, mut change: Change) -> BoxFuture<'_, Result<()>> {
        let changed = self.with(move |state| change(state));
        Box::pin(async move { changed.await? })
    }

    fn attempted(&self, filter: RolloutFilter) -> BoxFuture<'_, Result<Vec<AttemptedRollout>>> {
        self.with(move |state| {
            let meant = state.rollouts.values().filter(|kept| filter.lets_through(&kept.rollout));
            let with_attempt = |kept: &Kept| AttemptedRollout {
                rollout: kept.rollout.clone(),
                attempt: kept.attempts.last().cloned(),
            };
            let mut all: Vec<_> = meant.map(with_attempt).collect();
            all.sort_by_key(|one| one.rollout.start_time);
            all
        })
    }

    fn workers(&self) -> BoxFuture<'_, Result<Vec<Worker>>> {
        self.with(|state| state.workers.clone())
    }

    fn all_resources(&self) -> BoxFuture<'_, Result<Vec<ResourcesUpdate>>> {
        self.with(|state| state.resources.clone())
    }

    fn llm_calls(&self, rollouts: Vec<RolloutId>) -> BoxFuture<'_, Result<HashMap<RolloutId, u64>>> {
        self.with(move |state| {
            let calls = rollouts.into_iter().map(|id| {
                let calls = state.llm_calls(&id);
                (id, calls)
            });
            calls.filter(|(_, calls)| *calls > 0).collect()
        })
    }

    fn owners(&self, traces: Vec<String>) -> BoxFuture<'_, Result<HashMap<String, (RolloutId, AttemptId)>>> {
        self.with(move |state| {
            let known = |trace: String| state.traces.get(&trace).cloned().map(|owner| (trace, owner));
            traces.into_iter().filter_map(known).collect()
        })
    }

    fn terminal(&self, after: u64, limit: usize) -> BoxFuture<'_, Result<TerminalPage>> {
        self.with(move |state| {
            let after = usize::try_from(after).unwrap_or(usize::MAX);
            let ids = state.terminal.iter().skip(after).take(limit).cloned().collect();
            TerminalPage { ids, total: state.terminal.len() as u64 }
        })
    }

    fn standing(&self, id: RolloutId) -> BoxFuture<'_, Result<Standing>> {
        self.with(move |state| {
            let standing =
                |kept: &Kept| Standing { registered: kept.registered, last_sequence_id: kept.last_sequence_id };
            state.rollouts.get(&id).map(standing).unwrap_or_default()
        })
    }

    fn statistics(&self) -> BoxFuture<'_, Result<Statistics>> {
        self.with(|state| Statistics {
            rollouts: state.rollouts.len() as u64,
            attempts: state.rollouts.values().map(|kept| kept.attempts.len() as u64).sum(),
            workers: state.workers.len() as u64,
            resources: state.resources.len() as u64,
            spans: state.spans.len() as u64,
            size_bytes: state.size_bytes,
            ..Statistics::default()
        })
    }

    fn prune(&self) -> BoxFuture<'_, Result<Pruned>> {
        self.with(move |state| state.prune(self.retention))
    }

    fn close(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            *state = State { closed: true, ..State::default() };
            Ok(())
        })
    }
}

impl State {
    fn append(&mut self, spans: Vec<Arc<Span>>, heard: SpanObserver) -> Appended {
        let mut appended = Appended::default();
        let now = SystemTime::now().into();
        for span in spans {
            let id = self.last_id + 1;
            let is_new = self.seen.insert(identity(&span));
            let start = span.start_time.unwrap_or_else(|| SystemTime::now().into());
            let kept = self.kept(&span.rollout_id, start);
            kept.last_sequence_id = kept.last_sequence_id.max(span.sequence_id);
            if kept.attempts.iter().all(|attempt| attempt.attempt_id != span.attempt_id) {
                let attempt = Attempt::running(span.rollout_id.clone(), span.attempt_id.clone(), start);
                if kept.registered && !kept.attempts.is_empty() {
                    // Its attempts are those that somebody started: one that only a span names is never the latest.
                    kept.attempts.insert(0, Attempt { sequence_id: 0, ..attempt });
                } else {
                    kept.put_attempt(attempt);
                }
            }
            if is_new {
                if span.rollout_id.as_str() != UNASSIGNED && !self.traces.contains_key(&span.trace_id) {
                    self.traces.insert(span.trace_id.clone(), (span.rollout_id.clone(), span.attempt_id.clone()));
                }
                let kept = self.kept(&span.rollout_id, start);
                kept.heard(&span.attempt_id, heard, now);
                kept.spans.insert(id);
                self.size_bytes += weight(&span);
                self.spans.insert(id, span);
                self.last_id = id;
                appended.stored += 1;
            } else {
                appended.duplicates += 1;
            }
        }
        appended
    }

    /// The rollout, created as running when nobody registered it.
    fn kept(&mut self, id: &RolloutId, start: Timestamp) -> &mut Kept {
        self.rollouts.entry(id.clone()).or_insert_with(|| Kept {
            rollout: Rollout::running(id.clone(), start),
            registered: false,
            last_sequence_id: 0,
            attempts: Vec::new(),
            spans: BTreeSet::new(),
        })
    }

    fn llm_calls(&self, rollout: &RolloutId) -> u64 {
        let spans = self.rollouts.get(rollout).into_iter().flat_map(|kept| &kept.spans);
        spans.filter(|id| self.spans.get(id).is_some_and(|span| span.is_llm_call())).count() as u64
    }

    fn summary(&self, kept: &Kept) -> RolloutSummary {
        let errors = kept.spans.iter().filter(|id| self.spans.get(id).is_some_and(|span| span.is_error())).count();
        RolloutSummary {
            rollout: kept.rollout.clone(),
            attempts: kept.attempts.len() as u64,
            spans: kept.spans.len() as u64,
            errors: errors as u64,
        }
    }

    fn prune(&mut self, retention: Retention) -> Pruned {
        let mut pruned = Pruned::default();
        if let Some(before) = expired_before(retention, SystemTime::now().into()) {
            let is_old = |span: &Span| span.end_time.or(span.start_time).is_some_and(|time| time < before);
            let old: Vec<u64> = self.spans.iter().filter(|(_, span)| is_old(span)).map(|(id, _)| *id).collect();
            for id in old {
                pruned.spans += u64::from(self.remove(id));
            }
        }
        let spans = excess(self.spans.len() as u64, retention.max_spans);
        let bytes = excess(self.size_bytes, retention.max_bytes);
        let (most_spans, max_bytes) = (self.spans.len() as u64 - spans, self.size_bytes - bytes);
        while self.spans.len() as u64 > most_spans || self.size_bytes > max_bytes {
            let Some(oldest) = self.spans.keys().next().copied() else { break };
            pruned.spans += u64::from(self.remove(oldest));
        }
        if pruned.spans > 0 {
            self.rollouts.retain(|_, kept| kept.registered || !kept.spans.is_empty());
        }
        pruned
    }

    fn remove(&mut self, id: u64) -> bool {
        let Some(span) = self.spans.remove(&id) else { return false };
        self.size_bytes = self.size_bytes.saturating_sub(weight(&span));
        if let Some(kept) = self.rollouts.get_mut(&span.rollout_id) {
            kept.spans.remove(&id);
        }
        self.seen.remove(&identity(&span));
        true
    }
}

impl Kept {
    fn heard(&mut self, attempt: &AttemptId, heard: SpanObserver, now: Timestamp) {
        let latest = self.attempts.last().map(|last| last.attempt_id.clone());
        let attempt = self.attempts.iter_mut().find(|known| known.attempt_id == *attempt);
        if let Some(attempt) = attempt.filter(|_| self.registered) {
            let is_latest = latest.as_ref() == Some(&attempt.attempt_id);
            heard(&mut self.rollout, attempt, is_latest, now);
        }
    }

    fn put_attempt(&mut self, mut attempt: Attempt) -> Attempt {
        let known = self.attempts.iter_mut().find(|known| known.attempt_id == attempt.attempt_id);
        if let Some(known) = known {
            attempt.sequence_id = known.sequence_id;
            *known = attempt.clone();
        } else {
            attempt.sequence_id = self.attempts.last().map_or(1, |last| last.sequence_id + 1);
            self.attempts.push(attempt.clone());
        }
        attempt
    }
}

/// How much is over a limit. It goes a tenth under, so that pruning does not run with every span after.
pub(super) fn excess(have: u64, limit: u64) -> u64 {
    if limit == 0 || have <= limit { 0 } else { have - (limit - limit / 10) }
}

/// Spans that ended before this instant are too old.
pub(super) fn expired_before(retention: Retention, now: Timestamp) -> Option<Timestamp> {
    if retention.max_age_days == 0 {
        return None;
    }
    let kept = Duration::from_secs(retention.max_age_days.saturating_mul(SECONDS_PER_DAY));
    let kept_nanos = u64::try_from(kept.as_nanos()).unwrap_or(u64::MAX);
    Some(Timestamp::from_unix_nanos(now.unix_nanos.saturating_sub(kept_nanos)))
}

fn identity(span: &Span) -> (RolloutId, AttemptId, String) {
    (span.rollout_id.clone(), span.attempt_id.clone(), span.span_id.clone())
}

fn weight(span: &Span) -> u64 {
    let value = |value: &Value| match value {
        Value::String(text) => text.len(),
        Value::Strings(texts) => texts.iter().map(String::len).sum(),
        _ => 16,
    };
    let attributes: usize = span.attributes.iter().map(|(name, held)| name.len() + value(held)).sum();
    attributes as u64 + SPAN_OVERHEAD
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn excess_leaves_room_below_the_limit() {
        assert_eq!(excess(100, 0), 0);
        assert_eq!(excess(100, 100), 0);
        assert_eq!(excess(101, 100), 11);
        assert_eq!(excess(2, 1), 1);
    }
}

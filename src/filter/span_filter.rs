//! The filter itself: every span on its way to the store passes it once.

use super::cause::Cause;
use super::counters::FilterCounters;
use super::essential::{is_call, is_reward};
use super::limit_settings::{BeyondRolloutLimit, LimitSettings};
use super::not_stored::NotStored;
use super::recent_rollouts::RecentRollouts;
use super::rollout_usage::{RolloutUsage, RolloutUsages, SpanCount};
use super::sampling::Sampling;
use super::sampling_settings::SamplingSettings;
use crate::store::{SharedStore, UNASSIGNED};
use crate::trace::{RolloutId, Span};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

/// Applies the settings to spans. Cheap to clone; clones share their counts. By default it does nothing.
#[derive(Clone, Default)]
pub(crate) struct SpanFilter(Option<Arc<Filter>>);

/// Spans that passed the filter.
pub(crate) struct FilteredSpans {
    /// What is to be stored: the spans, and the counts of those that are not stored.
    pub(crate) spans: Vec<Arc<Span>>,
    /// How many were left out.
    pub(crate) removed: u64,
    /// How many of `spans` are counts.
    pub(crate) added: u64,
}

/// Counts that are on their way to the store. If they do not arrive, the filter stores them later: what they count is not in the
/// store.
pub(crate) struct SentCounts {
    filter: Option<Arc<Filter>>,
    counts: Vec<Arc<Span>>,
}

impl SentCounts {
    /// Notes that the store has them.
    pub(crate) fn arrived(mut self) {
        self.counts.clear();
    }
}

impl Drop for SentCounts {
    fn drop(&mut self) {
        let Some(filter) = self.filter.as_ref().filter(|_| !self.counts.is_empty()) else { return };
        let mut unstored = locked(&filter.unstored_counts);
        let room = MAX_UNSTORED_COUNTS.saturating_sub(unstored.len());
        if self.counts.len() > room {
            tracing::error!(counts = self.counts.len() - room, "counts of spans that are not stored are lost");
        }
        unstored.extend(self.counts.drain(..).take(room));
    }
}

struct Filter {
    limits: LimitSettings,
    sampling: Sampling,
    store: SharedStore,
    usages: Mutex<RolloutUsages>,
    not_stored: Mutex<NotStored>,
    /// When a rollout could not be read from the store.
    unread_at: Mutex<Option<Instant>>,
    /// Counts that the store did not take.
    unstored_counts: Mutex<Vec<Arc<Span>>>,
    /// What tail sampling will decide on. `None` if it keeps everything.
    recent: Option<Arc<RecentRollouts>>,
    counters: FilterCounters,
}

impl SpanFilter {
    /// A filter for the spans of `store`. Logs the rules that store nothing.
    pub(crate) fn new(limits: LimitSettings, sampling: &SamplingSettings, store: SharedStore) -> Self {
        let recent = sampling.tail.is_active().then(Arc::default);
        for rule in sampling.tail.rules_that_keep_nothing() {
            tracing::warn!(rule, "a rule of sampling.tail keeps no rollout, except what sampling.always names");
        }
        let sampling = Sampling::new(sampling);
        for rule in sampling.rules_that_keep_nothing() {
            tracing::warn!(rule, "a sampling rule stores nothing, except what sampling.always names");
        }
        let is_active = limits.limits_spans() || limits.limits_rollouts() || sampling.is_active() || recent.is_some();
        Self(is_active.then(|| {
            Arc::new(Filter {
                limits,
                sampling,
                store,
                usages: Mutex::default(),
                not_stored: Mutex::default(),
                unread_at: Mutex::default(),
                unstored_counts: Mutex::default(),
                recent,
                counters: FilterCounters::default(),
            })
        }))
    }

    /// What the filter counts. `None` if it does nothing.
    pub(crate) fn counters(&self) -> Option<&FilterCounters> {
        self.0.as_ref().map(|filter| &filter.counters)
    }

    /// The rollouts that tail sampling will decide on. `None` if it keeps everything.
    pub(crate) fn recent_rollouts(&self) -> Option<&Arc<RecentRollouts>> {
        self.0.as_ref().and_then(|filter| filter.recent.as_ref())
    }

    /// Counts spans that a rule of tail sampling has left out.
    pub(crate) fn add_tail_sampled(&self, rule: &Arc<str>, spans: u64) {
        if let Some(filter) = &self.0 {
            filter.counters.add_not_stored(&Cause::TailSampling(Arc::clone(rule)), spans);
        }
    }

    /// Applies the settings to spans that are redacted and not stored yet.
    pub(crate) async fn apply(&self, spans: Vec<Arc<Span>>) -> FilteredSpans {
        match &self.0 {
            Some(filter) => filter.apply(spans).await,
            None => FilteredSpans { spans, removed: 0, added: 0 },
        }
    }

    /// Stores counts as they are due, and those of each rollout that ends, until it is dropped.
    pub(crate) async fn run(self, mut ended: broadcast::Receiver<RolloutId>) {
        let Some(filter) = self.0.filter(|filter| filter.may_remove()) else { return };
        let (mut tick, mut is_open) = (tokio::time::interval(TICK), true);
        loop {
            tokio::select! {
                _ = tick.tick() => filter.store_due().await,
                rollout = ended.recv(), if is_open => match rollout {
                    Ok(rollout) => filter.end(&rollout).await,
                    // The counts of those that are missed are stored as they are due.
                    Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => is_open = false,
                },
            }
        }
    }

    /// The counts among spans that are about to be stored.
    pub(crate) fn sent_counts(&self, filtered: &FilteredSpans) -> SentCounts {
        let counts = filtered.spans.iter().rev().take(usize::try_from(filtered.added).unwrap_or(usize::MAX));
        SentCounts { filter: self.0.clone(), counts: counts.cloned().collect() }
    }

    /// Stores all counts.
    pub(crate) async fn finish(&self) {
        let Some(filter) = &self.0 else { return };
        let counts = locked(&filter.not_stored).all(Instant::now());
        filter.store_counts(counts).await;
        let lost = locked(&filter.unstored_counts).len();
        if lost > 0 {
            tracing::error!(
                counts = lost,
                "counts of spans that are not stored are lost: the store failed until the end"
            );
        }
    }
}

impl Filter {
    /// False if it only cuts spans.
    fn may_remove(&self) -> bool {
        self.limits.limits_rollouts() || self.sampling.is_active()
    }

    async fn apply(&self, spans: Vec<Arc<Span>>) -> FilteredSpans {
        let (before, now) = (spans.len(), Instant::now());
        let (mut kept, mut counts) = (Vec::with_capacity(before), Vec::new());
        for mut span in spans {
            if self.limits.limits_spans() && self.limits.exceeds(&span) {
                let cut = self.limits.cut(Arc::make_mut(&mut span));
                self.counters.add_cut(cut);
            }
            match self.cause_against(&span).await {
                None => kept.push(span),
                Some(cause) => {
                    self.counters.add_not_stored(&cause, 1);
                    counts.extend(locked(&self.not_stored).add(&span, cause, now));
                }
            }
        }
        if let Some(recent) = &self.recent {
            recent.note_spans(&kept, now);
        }
        let removed = (before - kept.len()) as u64;
        if removed > 0 {
            counts.extend(locked(&self.not_stored).first(now));
        }
        let added = counts.len() as u64;
        kept.extend(counts.into_iter().map(Arc::new));
        FilteredSpans { spans: kept, removed, added }
    }

    /// Why the span is not stored. If the store does not answer, it is stored.
    async fn cause_against(&self, span: &Span) -> Option<Cause> {
        if !self.may_remove() || is_reward(span) {
            return None;
        }
        match self.sampled_out(span).await {
            Some(cause) => Some(cause),
            None => self.beyond_limit(span).await,
        }
    }

    /// The rule of sampling that leaves a span out.
    async fn sampled_out(&self, span: &Span) -> Option<Cause> {
        if !self.sampling.is_active() {
            return None;
        }
        let rollout = &span.rollout_id;
        let mode = if self.sampling.asks_for_mode() { self.read_if_outdated(rollout).await?.mode } else { None };
        let cause = self.sampling.cause_against(span, mode.as_deref())?;
        let is_kept = self.sampling.keeps_registered() && self.is_registered(rollout).await;
        (!is_kept).then_some(cause)
    }

    /// The limit that leaves a span out. Spans without a rollout have no limit together.
    async fn beyond_limit(&self, span: &Span) -> Option<Cause> {
        let rollout = &span.rollout_id;
        if !self.limits.limits_rollouts() || rollout.as_str() == UNASSIGNED {
            return None;
        }
        if locked(&self.usages).get(rollout).is_none() {
            self.read(rollout).await;
        }
        let cause = self.use_rollout(span)?;
        let is_exempt = match self.limits.beyond_rollout_limit {
            BeyondRolloutLimit::Nothing => false,
            BeyondRolloutLimit::Calls => is_call(span),
            BeyondRolloutLimit::RegisteredCalls => is_call(span) && self.is_registered(rollout).await,
        };
        (!is_exempt).then_some(cause)
    }

    /// Counts a span in its rollout. Returns the limit that the rollout had reached before.
    fn use_rollout(&self, span: &Span) -> Option<Cause> {
        let (max_spans, max_bytes) = (self.limits.max_rollout_spans, self.limits.max_rollout_bytes);
        let mut usages = locked(&self.usages);
        let usage = usages.get(&span.rollout_id)?;
        let cause = if max_spans > 0 && usage.spans >= max_spans {
            Cause::RolloutSpans
        } else if max_bytes > 0 && usage.bytes >= max_bytes {
            Cause::RolloutBytes
        } else {
            usage.spans += 1;
            usage.bytes = usage.bytes.saturating_add(span.estimated_bytes());
            return None;
        };
        if !std::mem::replace(&mut usage.is_logged, true) {
            let (rollout_id, limit) = (&span.rollout_id, cause.rule());
            tracing::warn!(%rollout_id, limit, "a rollout is at its limit: its further spans are counted, not stored");
        }
        Some(cause)
    }

    /// Whether a rollout is registered. If the store does not answer, it may be.
    async fn is_registered(&self, rollout: &RolloutId) -> bool {
        self.read_if_outdated(rollout).await.is_none_or(|usage| usage.is_registered)
    }

    /// What is known of a rollout. `None` if the store does not answer.
    async fn read_if_outdated(&self, rollout: &RolloutId) -> Option<RolloutUsage> {
        let known = locked(&self.usages).get(rollout).filter(|usage| !usage.is_outdated()).cloned();
        if known.is_none() && !self.read(rollout).await {
            return None;
        }
        known.or_else(|| locked(&self.usages).get(rollout).cloned())
    }

    /// Reads a rollout from the store. False if the store does not answer, or did not a moment ago: each span would wait for it.
    async fn read(&self, rollout: &RolloutId) -> bool {
        // A store that is away may take seconds to say so, for each span.
        if locked(&self.unread_at).is_some_and(|failed| failed.elapsed() < UNREAD_PAUSE) {
            return false;
        }
        let count = if self.limits.limits_rollouts() { SpanCount::Needed } else { SpanCount::Unused };
        match RolloutUsage::read(&self.store, rollout, count).await {
            Ok(read) => {
                locked(&self.usages).learn(rollout.clone(), read);
                true
            }
            Err(error) => {
                tracing::warn!(%error, rollout_id = %rollout, "rollouts can't be read from the store; their spans are kept");
                *locked(&self.unread_at) = Some(Instant::now());
                false
            }
        }
    }

    async fn store_due(&self) {
        let counts = if locked(&self.unstored_counts).is_empty() {
            locked(&self.not_stored).due(Instant::now())
        } else {
            // The store has to work first.
            Vec::new()
        };
        self.store_counts(counts).await;
    }

    /// Stores the counts of a rollout that has ended. A rollout that was removed is forgotten: a count would create it again.
    async fn end(&self, rollout: &RolloutId) {
        if matches!(self.store.rollout(rollout.clone()).await, Ok(None)) {
            locked(&self.not_stored).forget(rollout);
            locked(&self.usages).forget(rollout);
            return;
        }
        let counts = locked(&self.not_stored).of(rollout, Instant::now());
        self.store_counts(counts).await;
    }

    /// Stores counts, with those that were not stored before.
    async fn store_counts(&self, counts: Vec<Span>) {
        let mut spans = std::mem::take(&mut *locked(&self.unstored_counts));
        spans.extend(counts.into_iter().map(Arc::new));
        if spans.is_empty() {
            return;
        }
        if let Err(error) = self.store.append(spans.clone()).await {
            tracing::warn!(%error, counts = spans.len(), "counts of spans that are not stored can't be stored; retrying");
            // Others may have come back meanwhile.
            locked(&self.unstored_counts).extend(spans);
        }
    }
}

fn locked<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

const TICK: Duration = Duration::from_secs(1);
/// Counts that wait for the store.
const MAX_UNSTORED_COUNTS: usize = 65_536;
/// How long a store that did not answer is not asked again: each try may take seconds, and other spans wait.
const UNREAD_PAUSE: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests;

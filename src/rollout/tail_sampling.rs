//! Tail sampling: some time after the end of a rollout, rules decide whether it keeps its spans.
//!
//! Spans are stored as they come, so that nothing is missing while a rollout runs. Of a rollout that is not kept, the spans are replaced by
//! their counts; rewards and annotations stay. A transaction stores the counts of some spans and removes these spans, so that each is
//! counted once whenever the program is killed. Then the rollouts since the place in the store's cursor are decided on again.

use super::totals::TotalsCache;
use super::verdicts::MAX_JUDGED_SPANS;
use crate::filter::{AlwaysStored, LeftOutSpans, ParsedTailRule, RecentRollouts, SamplingSettings, SpanFilter};
use crate::query::{FoundPhrases, RolloutFacts, RolloutTotals};
use crate::store::{
    ExportCursor, PruneCursor, PruneRequest, Records, Result, RolloutCounts, RolloutFilter, RolloutPlace, SharedStore,
    SpanReplacement, StoreExt,
};
use crate::trace::{AttemptedRollout, Rollout, RolloutId, RolloutStatus, Span, Timestamp};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

/// Says whether the latest attempt of a rollout is sound, from its spans.
pub(crate) type SoundnessCheck = Arc<dyn Fn(AttemptedRollout, &[Span]) -> bool + Send + Sync>;

/// Applies `[sampling.tail]` to the rollouts that this program has stored spans of.
pub(crate) struct TailSampler {
    store: SharedStore,
    filter: SpanFilter,
    recent: Arc<RecentRollouts>,
    settings: SamplingSettings,
    is_sound: SoundnessCheck,
    totals: TotalsCache,
    /// Rollouts that started before are kept, or were decided on by an earlier program.
    from: Timestamp,
    /// When the place for the next program was stored.
    saved: Option<Instant>,
}

/// Spans that their counts have to replace.
#[derive(Default)]
struct LeftOut {
    replacements: Vec<SpanReplacement>,
    /// What each of them belongs to.
    causes: Vec<LeftOutRollout>,
    spans: usize,
}

/// A rollout that is not kept.
#[derive(Clone)]
struct LeftOutRollout {
    id: RolloutId,
    start: Timestamp,
    rule: Arc<str>,
}

impl TailSampler {
    /// `None` if the settings keep everything.
    pub(crate) fn new(
        store: SharedStore,
        filter: &SpanFilter,
        settings: &SamplingSettings,
        is_sound: SoundnessCheck,
    ) -> Option<Self> {
        let recent = Arc::clone(filter.recent_rollouts()?);
        Some(Self {
            store,
            filter: filter.clone(),
            recent,
            settings: settings.clone(),
            is_sound,
            totals: TotalsCache::default(),
            from: SystemTime::now().into(),
            saved: None,
        })
    }

    /// Decides on rollouts as they are due, until it is dropped.
    pub(crate) async fn run(mut self, mut ended: broadcast::Receiver<RolloutId>) {
        if let Err(error) = self.resume().await {
            tracing::warn!(%error, "tail sampling can't read where it was: rollouts of an earlier run are kept");
        }
        let tick = (self.settings.tail.delay / 4).clamp(MIN_TICK, MAX_TICK);
        let (mut tick, mut is_open) = (tokio::time::interval(tick), true);
        loop {
            tokio::select! {
                _ = tick.tick() => self.decide_due().await,
                rollout = ended.recv(), if is_open => match rollout {
                    Ok(rollout) => self.note_end(&rollout).await,
                    // Those that are missed are kept.
                    Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => is_open = false,
                },
            }
        }
    }

    /// Notes the rollouts that earlier programs may not have decided on. Without such programs, what is stored already is kept.
    async fn resume(&mut self) -> Result<()> {
        let known = self.store.transaction(|records: &mut dyn Records| records.export_cursor(CURSOR)).await?;
        let Some(known) = known.filter(|known| known.position != NOWHERE) else { return self.save(self.from).await };
        self.from = Timestamp::from_unix_nanos(known.position);
        let page = RolloutFilter { limit: Some(PAGE_ROLLOUTS), ..RolloutFilter::default() };
        let mut filter = RolloutFilter { started_from: Some(self.from), ..page };
        loop {
            let found = self.store.attempted_rollouts(filter.clone()).await?;
            for AttemptedRollout { rollout, .. } in &found {
                self.recent.note(&rollout.rollout_id, rollout.start_time, Instant::now());
            }
            match found.last() {
                Some(last) if found.len() == PAGE_ROLLOUTS => filter.after = Some(RolloutPlace::of(&last.rollout)),
                _ => return Ok(()),
            }
        }
    }

    /// Notes a rollout that has ended, unless all of those are kept.
    async fn note_end(&self, id: &RolloutId) {
        if !self.always(AlwaysStored::Registered)
            && let Ok(Some(rollout)) = self.store.rollout(id.clone()).await
        {
            self.recent.note(id, rollout.start_time, Instant::now());
        }
    }

    /// Decides on the rollouts that are due.
    async fn decide_due(&mut self) {
        let due = self.recent.take_due(self.settings.tail.delay, Instant::now());
        let mut left_out = LeftOut::default();
        for rollout in &due {
            if let Err(error) = self.apply_to(rollout, &mut left_out).await {
                tracing::warn!(%error, rollout_id = %rollout, "tail sampling can't decide on a rollout; trying again");
                self.recent.note(rollout, self.from, Instant::now());
            }
            if left_out.spans >= MAX_SPANS_AT_ONCE {
                self.replace(std::mem::take(&mut left_out)).await;
            }
        }
        self.replace(left_out).await;
        if self.saved.is_none_or(|saved| saved.elapsed() >= SAVE_INTERVAL) {
            let now = Timestamp::from(SystemTime::now());
            let undecided = self.recent.earliest_start().unwrap_or(now);
            if let Err(error) = self.save(undecided.min(before(now, LONGEST_SPAN).max(self.from))).await {
                tracing::debug!(%error, "the place of tail sampling can't be stored; trying again later");
            }
        }
    }

    /// Adds the spans of a rollout that is not kept to those that have to be replaced.
    async fn apply_to(&self, id: &RolloutId, left_out: &mut LeftOut) -> Result<()> {
        let filter = RolloutFilter::of_ids(vec![id.clone()]);
        let Some(found) = self.store.attempted_rollouts(filter).await?.pop() else { return Ok(()) };
        let Some(counts) = self.store.rollout_counts(vec![id.clone()]).await?.remove(id) else { return Ok(()) };
        let start = found.rollout.start_time;
        if start < self.from {
            // It is from before the settings, or was decided on.
            return Ok(());
        }
        let Some(rule) = self.rule_against(found, counts).await? else { return Ok(()) };
        let (cause, mut after) = (LeftOutRollout { id: id.clone(), start, rule }, 0);
        loop {
            let page = self.store.span_outlines(id.clone(), after, PAGE_SPANS).await?;
            let mut spans = LeftOutSpans::new(id.clone(), Arc::clone(&cause.rule));
            for outline in &page {
                spans.add(outline.number, &outline.span);
                after = outline.number;
            }
            let by = spans.counts();
            if !by.is_empty() {
                let numbers = spans.into_numbers();
                left_out.spans += numbers.len();
                left_out.replacements.push(SpanReplacement { numbers, by });
                left_out.causes.push(cause.clone());
            }
            if page.len() < PAGE_SPANS {
                return Ok(());
            }
        }
    }

    /// The rule that does not keep a rollout. `None` if it is kept, or has not ended: it is noted again with its spans and its end.
    async fn rule_against(&self, found: AttemptedRollout, counts: RolloutCounts) -> Result<Option<Arc<str>>> {
        let id = found.rollout.rollout_id.clone();
        if self.store.sequence_state(id.clone()).await?.registered
            && (self.always(AlwaysStored::Registered) || !found.rollout.status.is_final())
        {
            return Ok(None);
        }
        let has_error = counts.errors > 0 || found.rollout.status == RolloutStatus::Failed;
        if self.always(AlwaysStored::Errors) && has_error {
            return Ok(None);
        }
        let now = SystemTime::now().into();
        let rule = self.matching(found, counts, self.settings.tail.rules_at(now), now).await?;
        Ok(rule.filter(|rule| !rule.keeps(&id)).map(|rule| rule.name))
    }

    fn always(&self, kind: AlwaysStored) -> bool {
        self.settings.always.contains(&kind)
    }

    /// The first rule that matches a rollout.
    async fn matching(
        &self,
        found: AttemptedRollout,
        counts: RolloutCounts,
        rules: Vec<ParsedTailRule>,
        now: Timestamp,
    ) -> Result<Option<ParsedTailRule>> {
        let totals = self.totals_of(&found.rollout, &counts).await?;
        let is_recent = |end: Timestamp| now.since(end) < self.settings.tail.delay;
        if found.rollout.end_time.is_none() && totals.last_end.is_some_and(is_recent) {
            // Another program still stores its spans.
            self.recent.note(&found.rollout.rollout_id, found.rollout.start_time, Instant::now());
            return Ok(None);
        }
        // A rollout that only spans name ends with the last of them.
        let end_time = found.rollout.end_time.or(totals.last_end);
        let rollout = &Rollout { end_time, ..found.rollout.clone() };
        let RolloutCounts { attempts, spans, errors, llm_calls, .. } = counts;
        let phrases = &FoundPhrases::new();
        let (totals, verdict, cost) = (&totals, None, None);
        let facts = RolloutFacts { rollout, attempts, spans, errors, llm_calls, totals, verdict, phrases, cost, now };
        let mut verdict = None;
        for rule in rules {
            if !rule.query.matches(&facts) {
                continue;
            }
            if let Some(wanted) = rule.sound {
                if verdict.is_none() {
                    verdict = self.soundness(&found, &counts).await?;
                }
                let Some(sound) = verdict else { return Ok(None) };
                if sound != wanted {
                    continue;
                }
            }
            return Ok(Some(rule));
        }
        Ok(None)
    }

    async fn totals_of(&self, rollout: &Rollout, counts: &RolloutCounts) -> Result<RolloutTotals> {
        loop {
            let mut budget = SPANS_READ_AT_ONCE;
            let read = self.totals.of(&self.store, &rollout.rollout_id, counts, &mut budget).await?;
            if let Some(totals) = read {
                return Ok(totals);
            }
        }
    }

    /// `None` for an attempt with too many spans to judge it in memory.
    async fn soundness(&self, found: &AttemptedRollout, counts: &RolloutCounts) -> Result<Option<bool>> {
        if counts.spans > MAX_JUDGED_SPANS {
            tracing::warn!(rollout_id = %found.rollout.rollout_id, spans = counts.spans,
                "tail sampling keeps a rollout that has too many spans for a verdict");
            return Ok(None);
        }
        let attempt = found.attempt.as_ref().map(|attempt| attempt.attempt_id.clone());
        let spans = self.store.spans(found.rollout.rollout_id.clone(), attempt).await?;
        // Trees of many calls take their time.
        Ok(Some(tokio::task::block_in_place(|| (self.is_sound)(found.clone(), &spans))))
    }

    /// Replaces spans by their counts. The rollouts of those that can't be replaced are decided on again.
    async fn replace(&self, LeftOut { replacements, causes, .. }: LeftOut) {
        if replacements.is_empty() {
            return;
        }
        let replacements: Arc<[SpanReplacement]> = replacements.into();
        let (mut left, mut from) = (BTreeMap::from_iter(causes.into_iter().enumerate()), PruneCursor::default());
        loop {
            let request = PruneRequest::Replace(Arc::clone(&replacements));
            let slice = match self.store.prune_slice(request, from).await {
                Ok(slice) => slice,
                Err(error) => {
                    tracing::warn!(%error, "spans that tail sampling leaves out can't be replaced; trying again later");
                    break;
                }
            };
            for at in slice.replaced {
                if let Some((cause, replaced)) = left.remove(&at).zip(replacements.get(at)) {
                    let spans = replaced.numbers.len();
                    self.filter.add_tail_sampled(&cause.rule, spans as u64);
                    tracing::debug!(rollout_id = %cause.id, spans, "replaced spans by their counts, by the rules of sampling.tail");
                }
            }
            // The last slices of a prune give back space.
            let Some(next) = slice.next else { break };
            from = next;
        }
        left.values().for_each(|LeftOutRollout { id, start, .. }| self.recent.note(id, *start, Instant::now()));
    }

    /// Stores where the next program begins.
    async fn save(&mut self, position: Timestamp) -> Result<()> {
        self.saved = Some(Instant::now());
        let position = position.unix_nanos;
        self.store.transaction(move |records: &mut dyn Records| save(records, position)).await
    }
}

/// Forgets the place of an earlier program: what this one stores, without `[sampling.tail]`, is kept also by later ones with it.
pub(crate) async fn forget_place(store: SharedStore) {
    let change = |records: &mut dyn Records| match records.export_cursor(CURSOR)? {
        Some(_) => save(records, NOWHERE),
        None => Ok(()),
    };
    if let Err(error) = store.transaction(change).await {
        tracing::warn!(%error, "the place of tail sampling can't be forgotten: later programs may decide on what this one stores");
    }
}

fn save(records: &mut dyn Records, position: u64) -> Result<()> {
    let (name, holder) = (CURSOR.to_owned(), String::new());
    records.upsert_export_cursor(&ExportCursor { name, position, holder, held_until: Timestamp::default() })
}

fn before(now: Timestamp, by: Duration) -> Timestamp {
    Timestamp::from_unix_nanos(now.unix_nanos.saturating_sub(u64::try_from(by.as_nanos()).unwrap_or(u64::MAX)))
}

/// The place while no program samples.
const NOWHERE: u64 = 0;
/// The name of the place among those of exports.
const CURSOR: &str = "sampling.tail";
const MIN_TICK: Duration = Duration::from_millis(50);
const MAX_TICK: Duration = Duration::from_secs(1);
const SAVE_INTERVAL: Duration = Duration::from_secs(10);
/// A span may be stored so long after its start, which is the start of its rollout if it is the first one.
const LONGEST_SPAN: Duration = Duration::from_secs(15 * 60);
const PAGE_ROLLOUTS: usize = 1000;
/// Spans that one transaction replaces.
const PAGE_SPANS: usize = 1000;
const SPANS_READ_AT_ONCE: usize = 20_000;
/// Spans of several rollouts are removed together: each removal ends with a look at free pages and the log.
const MAX_SPANS_AT_ONCE: usize = 4096;

//! The content of the memory store: spans by insertion, and rollouts with their attempts.

use super::outline::{outline, restricted};
use crate::llm::recorded::is_llm_call;
use crate::store::api::{
    Appended, RolloutCounts, RolloutFilter, RolloutOrder, RolloutSequenceState, RolloutSummary, SpanOutline,
    Statistics, UNASSIGNED,
};
use crate::store::export_cursor::ExportCursor;
use crate::store::pruning::Pruned;
use crate::store::records::SpanObserver;
use crate::store::span_columns::SpanKey;
use crate::store::span_query::{PAGE_BYTES, SpanContent, SpanPage, SpanPlace, SpanQuery, SpansAt};
use crate::store::span_row::place;
use crate::store::sql::{signed, unsigned};
use crate::trace::{
    Attempt, AttemptId, AttemptPosition, AttemptedRollout, ResourcesUpdate, Rollout, RolloutId, Span, Timestamp, Worker,
};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::ops::Bound;
use std::sync::Arc;
use std::time::SystemTime;

#[derive(Debug, Default)]
pub(super) struct State {
    closed: bool,
    pub(super) last_number: u64,
    /// By number, so that the oldest is first.
    pub(super) spans: BTreeMap<u64, Arc<Span>>,
    /// The keys of `spans`.
    keys: HashSet<SpanKey>,
    pub(super) rollouts: BTreeMap<RolloutId, RolloutEntry>,
    pub(super) traces: HashMap<String, TraceEntry>,
    pub(super) queue: VecDeque<RolloutId>,
    /// The log of ended rollouts, in the order in which they ended.
    pub(super) ended: Vec<RolloutId>,
    pub(super) workers: Vec<Worker>,
    pub(super) resources: Vec<ResourcesUpdate>,
    /// By name. As many as the settings have exports.
    pub(super) export_cursors: HashMap<String, ExportCursor>,
    pub(super) size_bytes: u64,
    pub(super) pruned: Pruned,
}

/// A rollout with what belongs to it.
#[derive(Debug)]
pub(super) struct RolloutEntry {
    pub(super) rollout: Rollout,
    pub(super) registered: bool,
    pub(super) last_sequence_id: u64,
    /// By sequence id.
    pub(super) attempts: Vec<Attempt>,
    /// Numbers of its spans.
    pub(super) spans: BTreeSet<u64>,
    /// The same spans in the order of the rollout.
    places: BTreeSet<SpanPlace>,
}

/// The owner of a trace.
#[derive(Debug)]
pub(super) struct TraceEntry {
    pub(super) rollout_id: RolloutId,
    attempt_id: AttemptId,
    /// Number of the last span of the trace in its rollout: when it is removed, the one before it is looked for.
    pub(super) last_span: u64,
}

impl State {
    /// The state after closing.
    pub(super) fn closed() -> Self {
        Self { closed: true, ..Self::default() }
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }

    pub(super) fn entry(&self, id: &RolloutId) -> Option<&RolloutEntry> {
        self.rollouts.get(id)
    }

    pub(super) fn entries(&self) -> impl Iterator<Item = &RolloutEntry> {
        self.rollouts.values()
    }

    /// The rollout's entry, created as running and unregistered if it is missing.
    pub(super) fn ensure_entry(&mut self, id: &RolloutId, start: Timestamp) -> &mut RolloutEntry {
        self.rollouts.entry(id.clone()).or_insert_with(|| RolloutEntry {
            rollout: Rollout::running(id.clone(), start),
            registered: false,
            last_sequence_id: 0,
            attempts: Vec::new(),
            spans: BTreeSet::new(),
            places: BTreeSet::new(),
        })
    }

    pub(super) fn append(&mut self, spans: Vec<Arc<Span>>, observer: Option<SpanObserver>) -> Appended {
        let mut appended = Appended::default();
        let now = SystemTime::now().into();
        for span in spans {
            let entry = self.ensure_entry(&span.rollout_id, span.start_time.unwrap_or(now));
            entry.last_sequence_id = entry.last_sequence_id.max(span.sequence_id);
            entry.ensure_attempt(&span, now);
            if !self.keys.insert(SpanKey::of(&span)) {
                appended.duplicates += 1;
                continue;
            }
            self.last_number += 1;
            let number = self.last_number;
            if let Some(entry) = self.rollouts.get_mut(&span.rollout_id) {
                entry.spans.insert(number);
                entry.places.insert(place(&span, signed(number)));
                if let Some(observer) = observer {
                    entry.observe(&span.attempt_id, observer, now);
                }
            }
            self.note_trace(&span, number);
            self.size_bytes += span.estimated_bytes();
            self.spans.insert(number, span);
            appended.stored += 1;
        }
        appended
    }

    fn note_trace(&mut self, span: &Span, number: u64) {
        if span.rollout_id.as_str() == UNASSIGNED {
            return;
        }
        let entry = self.traces.entry(span.trace_id.clone()).or_insert_with(|| TraceEntry {
            rollout_id: span.rollout_id.clone(),
            attempt_id: span.attempt_id.clone(),
            last_span: number,
        });
        if entry.rollout_id == span.rollout_id {
            entry.last_span = number;
        }
    }

    pub(super) fn trace_owner(&self, trace: &str) -> Option<(RolloutId, AttemptId)> {
        self.traces.get(trace).map(|entry| (entry.rollout_id.clone(), entry.attempt_id.clone()))
    }

    pub(super) fn next_sequences(&mut self, id: &RolloutId, above: u64, count: u64) -> RolloutSequenceState {
        let entry = self.ensure_entry(id, SystemTime::now().into());
        entry.last_sequence_id = entry.last_sequence_id.max(above) + count;
        entry.sequence_state()
    }

    /// The summaries of at most `limit` rollouts, newest first.
    pub(super) fn summaries(&self, limit: usize) -> Vec<RolloutSummary> {
        let mut all: Vec<&RolloutEntry> = self.rollouts.values().collect();
        let order = |entry: &RolloutEntry| (entry.rollout.start_time, entry.rollout.rollout_id.clone());
        all.sort_by_key(|entry| Reverse(order(entry)));
        all.into_iter().take(limit).map(|entry| self.summary(entry)).collect()
    }

    fn summary(&self, entry: &RolloutEntry) -> RolloutSummary {
        RolloutSummary {
            rollout: entry.rollout.clone(),
            attempts: entry.attempts.len() as u64,
            spans: entry.spans.len() as u64,
            errors: self.count_spans(entry, Span::is_error),
        }
    }

    fn count_spans(&self, entry: &RolloutEntry, counts: fn(&Span) -> bool) -> u64 {
        entry.spans.iter().filter(|number| self.spans.get(number).is_some_and(|span| counts(span))).count() as u64
    }

    pub(super) fn counts(&self, rollout: &RolloutId) -> Option<RolloutCounts> {
        let entry = self.rollouts.get(rollout)?;
        Some(RolloutCounts {
            attempts: entry.attempts.len() as u64,
            spans: entry.spans.len() as u64,
            errors: self.count_spans(entry, Span::is_error),
            llm_calls: self.count_spans(entry, is_llm_call),
            newest: entry.spans.last().copied().unwrap_or_default(),
        })
    }

    pub(super) fn llm_calls(&self, rollout: &RolloutId) -> u64 {
        self.rollouts.get(rollout).map_or(0, |entry| self.count_spans(entry, is_llm_call))
    }

    pub(super) fn attempted_rollouts(&self, filter: &RolloutFilter) -> Vec<AttemptedRollout> {
        let mut found: Vec<_> = self.matching(filter).collect();
        // The sort is stable, and the entries are ordered by id.
        found.sort_by_key(|entry| entry.rollout.start_time);
        if filter.order == RolloutOrder::NewestFirst {
            found.reverse();
        }
        let found = found.into_iter().skip(filter.offset).take(filter.limit.unwrap_or(usize::MAX));
        let attempted = |entry: &RolloutEntry| AttemptedRollout {
            rollout: entry.rollout.clone(),
            attempt: entry.attempts.last().cloned(),
        };
        found.map(attempted).collect()
    }

    pub(super) fn count_rollouts(&self, filter: &RolloutFilter) -> u64 {
        self.matching(filter).count() as u64
    }

    fn matching<'a>(&'a self, filter: &'a RolloutFilter) -> impl Iterator<Item = &'a RolloutEntry> {
        let is_kind = |entry: &&RolloutEntry| filter.is_registered.is_none_or(|wanted| wanted == entry.registered);
        self.rollouts.values().filter(|entry| filter.matches(&entry.rollout)).filter(is_kind)
    }

    pub(super) fn span_page(&self, query: &SpanQuery) -> SpanPage {
        let after = query.after.map_or(Bound::Unbounded, Bound::Excluded);
        let places = self.rollouts.get(&query.rollout_id).into_iter();
        let places = places.flat_map(|entry| entry.places.range((after, Bound::Unbounded)));
        let is_wanted = |span: &Span| query.attempt_id.as_ref().is_none_or(|attempt| *attempt == span.attempt_id);
        let mut page = SpanPage { spans: Vec::new(), is_last: true };
        let mut bytes = 0;
        for (place, span) in places.filter_map(|place| Some((*place, self.at(*place)?))) {
            if !is_wanted(span) {
                continue;
            }
            if page.spans.len() >= query.limit.get() || bytes >= PAGE_BYTES as u64 {
                page.is_last = false;
                break;
            }
            let span = restricted(span, query.content);
            bytes += span.estimated_bytes();
            page.spans.push((place, span));
        }
        page
    }

    pub(super) fn spans_at(&self, rollout: &RolloutId, places: &[SpanPlace], content: SpanContent) -> SpansAt {
        let (mut found, mut bytes) = (SpansAt::default(), 0);
        for place in places {
            if bytes >= PAGE_BYTES as u64 {
                break;
            }
            found.places_read += 1;
            let Some(span) = self.at(*place).filter(|span| span.rollout_id == *rollout) else { continue };
            let span = restricted(span, content);
            bytes += span.estimated_bytes();
            found.spans.push((*place, span));
        }
        found
    }

    fn at(&self, place: SpanPlace) -> Option<&Arc<Span>> {
        self.spans.get(&unsigned(place.number))
    }

    pub(super) fn span_outlines(&self, rollout: &RolloutId, after: u64, limit: usize) -> Vec<SpanOutline> {
        let Some(entry) = self.rollouts.get(rollout) else { return Vec::new() };
        let numbers = entry.spans.range(after.saturating_add(1)..).take(limit);
        numbers
            .filter_map(|number| Some(SpanOutline { number: *number, span: outline(self.spans.get(number)?) }))
            .collect()
    }

    pub(super) fn span(&self, rollout: &RolloutId, attempt: &AttemptId, span_id: &str) -> Option<Span> {
        let mut spans = self.rollouts.get(rollout)?.spans.iter().filter_map(|number| self.spans.get(number));
        spans.find(|span| span.attempt_id == *attempt && span.span_id == span_id).map(|span| Span::clone(span))
    }

    pub(super) fn statistics(&self) -> Statistics {
        Statistics {
            rollouts: self.rollouts.len() as u64,
            attempts: self.rollouts.values().map(|entry| entry.attempts.len() as u64).sum(),
            workers: self.workers.len() as u64,
            resources: self.resources.len() as u64,
            spans: self.spans.len() as u64,
            size_bytes: self.size_bytes,
            pruned_spans: self.pruned.spans,
            pruned_rollouts: self.pruned.rollouts,
            ..Statistics::default()
        }
    }

    /// Removes a rollout with all that belongs to it. Returns the number of its spans.
    pub(super) fn remove_rollout(&mut self, id: &RolloutId) -> u64 {
        self.queue.retain(|queued| queued != id);
        self.traces.retain(|_, trace| trace.rollout_id != *id);
        let spans = self.rollouts.remove(id).map(|entry| entry.spans).unwrap_or_default();
        spans.into_iter().filter(|number| self.remove_span(*number)).count() as u64
    }

    pub(super) fn remove_span(&mut self, number: u64) -> bool {
        let Some(span) = self.spans.remove(&number) else { return false };
        self.size_bytes = self.size_bytes.saturating_sub(span.estimated_bytes());
        if let Some(entry) = self.rollouts.get_mut(&span.rollout_id) {
            entry.spans.remove(&number);
            entry.places.remove(&place(&span, signed(number)));
        }
        self.keys.remove(&SpanKey::of(&span));
        true
    }
}

impl RolloutEntry {
    pub(super) fn sequence_state(&self) -> RolloutSequenceState {
        RolloutSequenceState { registered: self.registered, last_sequence_id: self.last_sequence_id }
    }

    /// Creates the attempt of a span if it is missing.
    fn ensure_attempt(&mut self, span: &Span, now: Timestamp) {
        if self.attempts.iter().any(|attempt| attempt.attempt_id == span.attempt_id) {
            return;
        }
        let start = span.start_time.unwrap_or(now);
        let attempt = Attempt::running(span.rollout_id.clone(), span.attempt_id.clone(), start);
        if self.registered && !self.attempts.is_empty() {
            // Only started attempts of a registered rollout can be its latest.
            self.attempts.insert(0, Attempt { sequence_id: 0, ..attempt });
        } else {
            self.upsert_attempt(attempt);
        }
    }

    pub(super) fn upsert_attempt(&mut self, mut attempt: Attempt) -> Attempt {
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

    fn observe(&mut self, attempt: &AttemptId, observer: SpanObserver, now: Timestamp) {
        if !self.registered {
            return;
        }
        let last = self.attempts.len().saturating_sub(1);
        if let Some(index) = self.attempts.iter().position(|known| known.attempt_id == *attempt) {
            let position = if index == last { AttemptPosition::Latest } else { AttemptPosition::Earlier };
            observer(&mut self.rollout, &mut self.attempts[index], position, now);
        }
    }
}

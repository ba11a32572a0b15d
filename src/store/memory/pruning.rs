//! Removal of what exceeds limits. The lock is held once for all of it: what a store in memory has is small.

use super::state::{State, TraceEntry};
use crate::llm::recorded::is_llm_call;
use crate::store::pruning::{PruneLimits, PruneRequest, PruneSlice, Pruned, SpanReplacement};
use crate::store::retention::{Retention, excess};
use crate::trace::{AttemptId, PrunedSpans, RolloutId, Span};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::SystemTime;

/// What has to go, and whether more would have to.
struct Selection {
    spans: Vec<u64>,
    rollouts: Vec<RolloutId>,
    is_exceeded: bool,
}

impl State {
    /// False if nothing has to be removed, which is known without a look at the spans.
    pub(super) fn may_exceed(&self, limits: Retention) -> bool {
        let Retention { max_spans, max_bytes, max_age_days } = limits;
        max_age_days > 0 || excess(self.spans.len() as u64, max_spans) > 0 || excess(self.size_bytes, max_bytes) > 0
    }

    /// Removes what `request` selects, as one slice.
    pub(super) fn prune(&mut self, request: &PruneRequest, own_limits: Retention) -> PruneSlice {
        let (before, mut removed) = (self.size_bytes, Pruned::default());
        let replaced = self.store_replacements(request);
        let Selection { spans, rollouts, is_exceeded } = self.selected(request, own_limits);
        for id in rollouts {
            removed.rollouts += 1;
            removed.spans += self.remove_rollout(&id);
        }
        if !matches!(request, PruneRequest::Replace(_)) {
            self.note_at_attempts(&spans);
        }
        removed.spans += spans.into_iter().filter(|number| self.remove_span(*number)).count() as u64;
        if removed.spans > 0 && removed.rollouts == 0 {
            let rollouts = self.rollouts.len();
            self.remove_unused();
            removed.rollouts = (rollouts - self.rollouts.len()) as u64;
        }
        removed.bytes = before.saturating_sub(self.size_bytes);
        self.pruned.add(removed);
        let has_removed = removed.spans > 0 || removed.rollouts > 0;
        PruneSlice { removed, next: None, replaced, has_removed, is_exceeded }
    }

    /// What [`Self::prune`] would remove.
    pub(super) fn prune_preview(&self, request: &PruneRequest, own_limits: Retention) -> Pruned {
        let Selection { spans, rollouts, .. } = self.selected(request, own_limits);
        let of_rollouts = rollouts.iter().filter_map(|id| self.entry(id)).flat_map(|entry| entry.spans.iter().copied());
        let gone: BTreeSet<u64> = spans.into_iter().chain(of_rollouts).collect();
        let emptied = self.entries().filter(|entry| !entry.registered && entry.spans.is_subset(&gone)).count();
        let bytes = gone.iter().filter_map(|number| self.spans.get(number)).map(|span| span.estimated_bytes()).sum();
        let rollouts = match (rollouts.is_empty(), gone.is_empty()) {
            (false, _) => rollouts.len() as u64,
            (true, false) => emptied as u64,
            (true, true) => 0,
        };
        Pruned { rollouts, spans: gone.len() as u64, bytes }
    }

    /// Stores what takes the place of other spans, as far as those may go. Returns the places of these replacements.
    fn store_replacements(&mut self, request: &PruneRequest) -> Vec<usize> {
        let PruneRequest::Replace(replacements) = request else { return Vec::new() };
        let possible = replacements.iter().enumerate().filter(|(_, replacement)| self.is_possible(replacement));
        let places: Vec<usize> = possible.map(|(at, _)| at).collect();
        for replacement in places.iter().filter_map(|at| replacements.get(*at)) {
            self.append(replacement.by.clone(), None);
        }
        places
    }

    fn is_possible(&self, replacement: &SpanReplacement) -> bool {
        let may_go = |number: &u64| self.spans.get(number).is_some_and(|span| !self.is_in_progress(&span.rollout_id));
        replacement.numbers.iter().all(may_go)
    }

    fn selected(&self, request: &PruneRequest, own_limits: Retention) -> Selection {
        let limits = match request {
            PruneRequest::OwnLimits => PruneLimits::of(own_limits, SystemTime::now().into()),
            PruneRequest::Limits(limits) => *limits,
            PruneRequest::Rollouts(rollouts) => {
                let is_free = |id: &&RolloutId| self.entry(id).is_some() && !self.is_in_progress(id);
                let rollouts = rollouts.iter().filter(is_free).cloned().collect();
                return Selection { spans: Vec::new(), rollouts, is_exceeded: false };
            }
            PruneRequest::Replace(replacements) => {
                let possible = replacements.iter().filter(|replacement| self.is_possible(replacement));
                let spans = possible.flat_map(|replacement| replacement.numbers.iter().copied()).collect();
                return Selection { spans, rollouts: Vec::new(), is_exceeded: false };
            }
        };
        let is_old = |span: &Span| {
            let end = span.end_time.or(span.start_time);
            limits.ended_before.is_some_and(|before| end.is_some_and(|end| end < before))
        };
        let (mut spans, mut kept) = (Vec::new(), Vec::new());
        let mut bytes = self.size_bytes;
        for (number, span) in &self.spans {
            if self.is_in_progress(&span.rollout_id) {
                continue;
            }
            if is_old(span) {
                bytes = bytes.saturating_sub(span.estimated_bytes());
                spans.push(*number);
            } else {
                kept.push((*number, span.estimated_bytes()));
            }
        }
        let left = (self.spans.len() - spans.len()) as u64;
        let (max_spans, max_bytes) = (left - excess(left, limits.max_spans), bytes - excess(bytes, limits.max_bytes));
        let (mut left, mut kept) = (left, kept.into_iter());
        while left > max_spans || bytes > max_bytes {
            let Some((number, size)) = kept.next() else {
                return Selection { spans, rollouts: Vec::new(), is_exceeded: true };
            };
            (left, bytes) = (left - 1, bytes.saturating_sub(size));
            spans.push(number);
        }
        Selection { spans, rollouts: Vec::new(), is_exceeded: false }
    }

    /// Notes at their attempts that spans are removed.
    fn note_at_attempts(&mut self, spans: &[u64]) {
        for span in spans.iter().filter_map(|number| self.spans.get(number)) {
            let attempts = self.rollouts.get_mut(&span.rollout_id).map(|entry| &mut entry.attempts);
            let known = attempts.into_iter().flatten().find(|known| known.attempt_id == span.attempt_id);
            if let Some(attempt) = known {
                attempt.add_pruned(PrunedSpans { spans: 1, llm_calls: u64::from(is_llm_call(span)) });
            }
        }
    }

    fn is_in_progress(&self, id: &RolloutId) -> bool {
        self.entry(id).is_some_and(|entry| entry.registered && !entry.rollout.status.is_final())
    }

    /// Removes the rows that no span needs any more.
    fn remove_unused(&mut self) {
        for entry in self.rollouts.values_mut() {
            let of_span = |number: &u64| self.spans.get(number).map(|span| &span.attempt_id);
            let used: HashSet<&AttemptId> = entry.spans.iter().filter_map(of_span).collect();
            let registered = entry.registered;
            entry
                .attempts
                .retain(|attempt| (registered && attempt.sequence_id > 0) || used.contains(&attempt.attempt_id));
        }
        self.rollouts.retain(|_, entry| entry.registered || !entry.spans.is_empty());
        self.queue.retain(|id| self.rollouts.contains_key(id));
        self.remove_unused_traces();
    }

    fn remove_unused_traces(&mut self) {
        let orphaned = self.traces.iter().filter(|(_, trace)| !self.spans.contains_key(&trace.last_span));
        let mut orphaned: HashMap<String, Option<u64>> = orphaned.map(|(id, _)| (id.clone(), None)).collect();
        if orphaned.is_empty() {
            return;
        }
        for (number, span) in &self.spans {
            let is_owner = |trace: &TraceEntry| trace.rollout_id == span.rollout_id;
            if let Some(last) = orphaned.get_mut(&span.trace_id)
                && self.traces.get(&span.trace_id).is_some_and(is_owner)
            {
                *last = Some(*number);
            }
        }
        for (id, last) in orphaned {
            match (last, self.traces.get_mut(&id)) {
                (Some(last), Some(trace)) => trace.last_span = last,
                _ => drop(self.traces.remove(&id)),
            }
        }
    }
}

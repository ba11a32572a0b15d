//! The spans that were committed last, for readers that follow the store: they need not be read from the file and decoded.
//!
//! Kept only while something reads spans by number. What is here is also in the file: after a removal, all is forgotten, and a page is
//! returned only if no other program has changed the spans in the file since.

use super::spans::SpansState;
use crate::store::api::NumberedSpans;
use crate::store::span_query::PAGE_BYTES;
use crate::trace::Span;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Spans without a gap between their numbers: at most [`MAX_SPANS`] of [`MAX_BYTES`].
#[derive(Debug, Default)]
pub(super) struct RecentSpans(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// The number of the first of `spans`.
    first: u64,
    spans: VecDeque<(Arc<Span>, u64)>,
    bytes: u64,
    /// Spans of the transaction that is in progress, with their numbers.
    pending: Vec<(u64, Arc<Span>)>,
    /// The spans in the file after the last commit; `None` if others may be among those here.
    file: Option<SpansState>,
    /// When spans were last read by number.
    wanted: Option<Instant>,
}

impl RecentSpans {
    /// Notes a span of the transaction in progress.
    pub(super) fn add(&self, number: u64, span: &Arc<Span>) {
        let mut state = self.state();
        if state.is_wanted() {
            state.pending.push((number, Arc::clone(span)));
        }
    }

    /// True while spans are read by number.
    pub(super) fn are_wanted(&self) -> bool {
        self.state().is_wanted()
    }

    /// Takes over the spans of the transaction, which is committed. `file` is the state of the spans after it; `None` if spans of the
    /// transaction may have been undone in it, or others removed: then all are forgotten.
    pub(super) fn committed(&self, file: Option<SpansState>) {
        let mut state = self.state();
        let (pending, before) = (std::mem::take(&mut state.pending), state.file.take());
        let Some(file) = file.filter(|_| state.is_wanted()) else { return state.forget() };
        let is_ours = |before: SpansState| before.count + pending.len() as u64 == file.count;
        if !before.is_some_and(is_ours) {
            state.forget();
        }
        pending.into_iter().for_each(|(number, span)| state.push(number, span));
        state.file = (state.newest() == file.newest).then_some(file);
    }

    /// Forgets all spans.
    pub(super) fn clear(&self) {
        let mut state = self.state();
        state.pending = Vec::new();
        state.forget();
    }

    /// The spans with a number above `after`, as the file in the state `file` has them. `None` if some of them are not here.
    pub(super) fn page(&self, after: u64, limit: usize, file: SpansState) -> Option<NumberedSpans> {
        let mut state = self.state();
        state.wanted = Some(Instant::now());
        if state.file != Some(file) {
            return None;
        }
        let start = usize::try_from((after + 1).checked_sub(state.first)?).ok()?;
        let mut page = NumberedSpans { through: after, newest: state.newest(), ..NumberedSpans::default() };
        let mut bytes = 0;
        for (span, size) in state.spans.iter().skip(start).take(limit) {
            if bytes >= PAGE_BYTES as u64 {
                break;
            }
            bytes += size;
            page.through += 1;
            page.numbers.push(page.through);
            page.spans.push(Arc::clone(span));
        }
        (!page.spans.is_empty()).then_some(page)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn is_wanted(&self) -> bool {
        self.wanted.is_some_and(|wanted| wanted.elapsed() < WANTED_FOR)
    }

    /// The number of the last span; if there is none, the one before the first.
    fn newest(&self) -> u64 {
        (self.first + self.spans.len() as u64).saturating_sub(1)
    }

    fn push(&mut self, number: u64, span: Arc<Span>) {
        if self.spans.is_empty() || number != self.newest() + 1 {
            // Another program has stored some in between.
            self.forget();
            self.first = number;
        }
        let bytes = span.estimated_bytes();
        self.bytes += bytes;
        self.spans.push_back((span, bytes));
        while self.bytes > MAX_BYTES || self.spans.len() > MAX_SPANS {
            let Some((_, bytes)) = self.spans.pop_front() else { break };
            (self.bytes, self.first) = (self.bytes - bytes, self.first + 1);
        }
    }

    fn forget(&mut self) {
        self.spans = VecDeque::new();
        self.bytes = 0;
        self.file = None;
    }
}

/// Readers come at least every second or so.
const WANTED_FOR: Duration = Duration::from_secs(10);
const MAX_SPANS: usize = 16 * 1024;
const MAX_BYTES: u64 = 16 * 1024 * 1024;

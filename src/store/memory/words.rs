//! Searches the messages of spans. What a store in memory has is small: there is no index.

use super::state::State;
use crate::store::words::{FoundRollouts, WordSearch};
use crate::trace::has_phrase;

impl State {
    /// The rollouts with spans that have a phrase, newest first.
    pub(super) fn find_words(&self, search: &WordSearch) -> FoundRollouts {
        let (mut found, mut hits) = (FoundRollouts::default(), 0);
        for span in
            self.spans.values().rev().filter(|span| search.rollout.as_ref().is_none_or(|id| *id == span.rollout_id))
        {
            if hits < search.max_spans && !found.rollouts.contains(&span.rollout_id) && has_phrase(span, &search.phrase)
            {
                hits += 1;
                found.rollouts.insert(span.rollout_id.clone());
            }
        }
        found.is_cut = hits == search.max_spans;
        found
    }
}

//! What is asked of a store's index of words, and what is put into it.
//!
//! The index is not filled as spans are stored: a search brings it up to date first, batch by batch, with what it reads of the store. A
//! store that needs none says that it is complete.

use crate::trace::{RolloutId, Word};
use std::collections::HashSet;

/// The words of some spans, for the index.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WordBatch {
    /// Where the index has to end for the batch to be added, which changes nothing otherwise: another program was faster.
    pub after: u64,
    /// Where it ends then: all spans with a number above `after` and up to this one are in the batch, or have no words.
    pub through: u64,
    /// The words of each span that has some.
    pub spans: Vec<SpanWords>,
    /// Spans in the index that have words which the batch leaves out because they are there. If one of them is no longer stored,
    /// nothing changes.
    pub relies_on: Vec<u64>,
}

/// The words of a span.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpanWords {
    /// The number of the span in its store.
    pub number: u64,
    /// In the order of the text, with [`Word::GAP`] between texts.
    pub words: Vec<Word>,
}

impl SpanWords {
    /// The words with a space between them.
    pub(super) fn text(&self) -> String {
        self.words.iter().map(Word::to_string).collect::<Vec<_>>().join(" ")
    }
}

/// What is searched for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WordSearch {
    /// The words, which have to follow each other in one text. At least one.
    pub phrase: Vec<Word>,
    /// Only in this rollout; `None`: in all.
    pub rollout: Option<RolloutId>,
    /// How many of the spans that have the phrase are looked at, newest first.
    pub max_spans: usize,
}

/// The rollouts that have a phrase.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FoundRollouts {
    /// The ids of the rollouts that have the phrase.
    pub rollouts: HashSet<RolloutId>,
    /// True if as many spans have the phrase as the search looked at: older ones may have it too.
    pub is_cut: bool,
}

//! What searches keep between them.

use super::text_index::{IndexWait, TextIndex};
use super::totals::TotalsCache;
use super::verdicts::VerdictCache;
use crate::query::Prices;
use crate::trajectory::VerdictSettings;
use std::sync::Arc;

/// What searches in one store keep between them.
pub(crate) struct SearchCache {
    pub(crate) totals: TotalsCache,
    pub(super) verdicts: VerdictCache,
    pub(super) texts: Arc<TextIndex>,
    pub(crate) prices: Prices,
}

impl SearchCache {
    /// `verdict` says what is sound, `prices` what calls cost, `wait` how long a search of messages waits for the index of words.
    pub(crate) fn new(verdict: VerdictSettings, prices: Prices, wait: IndexWait) -> Self {
        Self {
            totals: TotalsCache::default(),
            verdicts: VerdictCache::new(verdict),
            texts: Arc::new(TextIndex::new(wait)),
            prices,
        }
    }
}

impl Default for SearchCache {
    /// For a program that searches once.
    fn default() -> Self {
        Self::new(VerdictSettings::default(), Prices::default(), IndexWait::Complete)
    }
}

//! What was stored recently, which the writer shares with those who encode and read spans.

use super::recent_spans::RecentSpans;
use super::texts::RecentTexts;

/// Pieces of texts, and spans.
#[derive(Debug, Default)]
pub(super) struct Recent {
    pub(super) texts: RecentTexts,
    pub(super) spans: RecentSpans,
}

impl Recent {
    /// Forgets everything: another file has none of it.
    pub(super) fn clear(&self) {
        self.texts.clear();
        self.spans.clear();
    }
}

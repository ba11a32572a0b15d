//! A quick look that spares most bodies the slow ones: what it finds may be a secret, what it passes over is none.

use super::pattern::{begins, starts_word};
use aho_corasick::packed::{Config, MatchKind, Searcher};

/// Looks for secret keys and for how credentials begin, all in one pass.
#[derive(Clone, Debug)]
pub(super) struct Suspects {
    // None: this processor can't search quickly.
    searcher: Option<Searcher>,
    // Patterns from here on only count at the start of a word.
    first_of_word: usize,
}

impl Suspects {
    /// Suspects what has one of these JSON keys, in whatever case.
    pub(super) fn new<'a>(keys: impl Iterator<Item = &'a str> + Clone) -> Self {
        // A key may be spelled with escapes.
        let escapes: Vec<String> = match keys.clone().all(str::is_ascii) {
            true => (2..8).map(|row| format!("\\u00{row}")).collect(),
            false => vec!["\\u".to_owned()],
        };
        let quoted = keys.map(|key| format!("\"{}\"", key.to_ascii_lowercase()));
        let mut patterns: Vec<String> = quoted.chain(escapes).collect();
        let first_of_word = patterns.len();
        patterns.extend(begins().map(str::to_ascii_lowercase));
        let mut builder = Config::new().match_kind(MatchKind::LeftmostFirst).builder();
        Self { searcher: builder.extend(&patterns).build(), first_of_word }
    }

    /// True when `text` may have a secret.
    pub(super) fn any(&self, text: &str) -> bool {
        let Some(searcher) = &self.searcher else { return true };
        let lower = text.to_ascii_lowercase();
        searcher.find_iter(&lower).any(|found| {
            found.pattern().as_usize() < self.first_of_word || starts_word(lower.as_bytes(), found.start())
        })
    }
}

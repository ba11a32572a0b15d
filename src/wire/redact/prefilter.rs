//! A fast test that spares most bodies the slow search. A hit may be a secret; a body without a hit has none.

use super::credential::{prefixes, starts_word};
use aho_corasick::packed::{Config, MatchKind, Searcher};

/// Searches for secret keys and for prefixes of credentials in one pass.
#[derive(Clone, Debug)]
pub(super) struct Prefilter {
    // None: everything passes. The processor has no vector instructions, or a key is a pattern.
    searcher: Option<Searcher>,
    // Patterns from this index on only count at the start of a word.
    first_prefix: usize,
}

impl Prefilter {
    /// Passes what has one of these JSON keys, upper or lower case, or the prefix of a credential.
    pub(super) fn new<'a>(keys: impl Iterator<Item = &'a str> + Clone) -> Self {
        // A key may be written with escapes.
        let escapes: Vec<String> = match keys.clone().all(str::is_ascii) {
            true => (2..8).map(|row| format!("\\u00{row}")).collect(),
            false => vec!["\\u".to_owned()],
        };
        let quoted = keys.map(|key| format!("\"{}\"", key.to_ascii_lowercase()));
        let mut patterns: Vec<String> = quoted.chain(escapes).collect();
        let first_prefix = patterns.len();
        patterns.extend(prefixes().map(str::to_ascii_lowercase));
        let mut builder = Config::new().match_kind(MatchKind::LeftmostFirst).builder();
        Self { searcher: builder.extend(&patterns).build(), first_prefix }
    }

    /// Passes everything.
    pub(super) fn pass_all() -> Self {
        Self { searcher: None, first_prefix: 0 }
    }

    /// True when `text` may have a secret.
    pub(super) fn may_have_secret(&self, text: &str) -> bool {
        let Some(searcher) = &self.searcher else { return true };
        let lower = text.to_ascii_lowercase();
        searcher
            .find_iter(&lower)
            .any(|found| found.pattern().as_usize() < self.first_prefix || starts_word(lower.as_bytes(), found.start()))
    }
}

//! A fast test, so that most bodies need no slow search. A hit may be a secret; a body without a hit has none.

use super::credential::{ASSIGNED, ASSIGNED_IN_CODE, WORDS, secret_at, user_info};
use super::json::is_near_logprobs;
use super::names::{LAST_WORDS, is_secret_name};
use super::prefixes;
use super::words::{is_word, starts_word};
use aho_corasick::{AhoCorasick, AhoCorasickKind, MatchKind, StartKind};
use std::sync::LazyLock;

/// Searches for the names of secrets and for the beginnings of credentials in one pass.
#[derive(Clone, Debug)]
pub(super) struct Prefilter {
    // None: everything passes. A key of the settings is a pattern.
    searcher: Option<AhoCorasick>,
    // Patterns before the first number are names of the settings, then come last words of names, escapes, and ends of
    // assigned names; the rest begins what may be a credential.
    first_last_word: usize,
    first_escape: usize,
    first_assigned: usize,
    first_word: usize,
}

impl Prefilter {
    /// A prefilter for texts that have one of these JSON keys, or a built-in one, in any case, or that may have a credential.
    pub(super) fn new<'a>(keys: impl Iterator<Item = &'a str>) -> Self {
        // Most programs have several redactors with these settings.
        static BUILT_IN: LazyLock<Prefilter> = LazyLock::new(|| Prefilter::build(std::iter::empty()));
        let mut keys = keys.peekable();
        if keys.peek().is_none() { BUILT_IN.clone() } else { Self::build(keys) }
    }

    fn build<'a>(keys: impl Iterator<Item = &'a str>) -> Self {
        let mut patterns: Vec<String> = Vec::new();
        // In JSON within JSON the closing quote is escaped.
        let closed = |name: &str| [format!("{name}\""), format!("{name}\\")];
        patterns.extend(keys.flat_map(closed));
        let first_last_word = patterns.len();
        patterns.extend(LAST_WORDS.iter().copied().flat_map(closed));
        let first_escape = patterns.len();
        // A key may be written with escapes.
        patterns.extend((2..8).map(|row| format!("\\u00{row}")));
        let first_assigned = patterns.len();
        patterns.extend(ASSIGNED.iter().map(|end| (*end).to_owned()));
        let [words, followers] = ASSIGNED_IN_CODE;
        patterns.extend(words.iter().flat_map(|word| followers.iter().map(move |next| format!("{word}{next}"))));
        let first_word = patterns.len();
        patterns.extend(WORDS.iter().map(|word| (*word).to_owned()));
        patterns.extend(prefixes::all().iter().map(|(prefix, _)| (*prefix).to_owned()));
        patterns.push("://".to_owned());
        let searcher = AhoCorasick::builder()
            .ascii_case_insensitive(true)
            .match_kind(MatchKind::Standard)
            // For so many patterns another kind is the default, which is several times slower and takes less memory.
            .kind(Some(AhoCorasickKind::DFA))
            .start_kind(StartKind::Unanchored)
            .build(&patterns);
        Self { searcher: searcher.ok(), first_last_word, first_escape, first_assigned, first_word }
    }

    /// A prefilter for which every text may have a secret: some keys of the settings are patterns, which it can't search for.
    pub(super) fn pass_all() -> Self {
        Self { searcher: None, first_last_word: 0, first_escape: 0, first_assigned: 0, first_word: 0 }
    }

    /// True when `text` may have a secret.
    pub(super) fn may_have_secret(&self, text: &str) -> bool {
        let Some(searcher) = &self.searcher else { return true };
        let bytes = text.as_bytes();
        searcher.find_overlapping_iter(text).any(|found| {
            let (pattern, at) = (found.pattern().as_usize(), found.start());
            match bytes[at] {
                _ if pattern < self.first_last_word => is_before_colon(bytes, found.end() - 1),
                _ if pattern < self.first_escape => is_secret_key(text, found.end() - 1),
                _ if pattern < self.first_assigned => true,
                _ if pattern < self.first_word => {
                    let name = bytes[..at].iter().rev().take(MAX_NAME_BYTES).take_while(|byte| is_word(**byte)).count();
                    // In JSON text an escaped line break may stand before the name: `n`, or `u000a`.
                    (at - name..=(at - name + ESCAPE_BYTES).min(at)).any(|start| is_credential(text, start))
                }
                b':' => user_info(text, at).is_some(),
                _ => is_credential(text, at),
            }
        })
    }
}

/// True when the string that ends at `quote` is the name of a secret, and the key of a value that is not the text of a token of
/// a model's vocabulary.
fn is_secret_key(text: &str, quote: usize) -> bool {
    let bytes = text.as_bytes();
    let name = bytes[..quote].iter().rev().take(MAX_NAME_BYTES).take_while(|byte| **byte != b'"').count();
    let name = text.get(quote - name..quote).unwrap_or_default();
    is_secret_name(name)
        && is_before_colon(bytes, quote)
        && !(name.eq_ignore_ascii_case("token") && is_near_logprobs(text, quote..quote))
}

fn is_before_colon(bytes: &[u8], quote: usize) -> bool {
    bytes[quote..].iter().find(|byte| !b"\\\" \t\r\n".contains(byte)) == Some(&b':')
}

fn is_credential(text: &str, at: usize) -> bool {
    let bytes = text.as_bytes();
    let word = || bytes[at..].iter().take_while(|byte| is_word(**byte) || **byte == b'.').count();
    starts_word(bytes, at) && secret_at(text, at, word()).is_some()
}

const MAX_NAME_BYTES: usize = 64;
/// Of an escape in JSON, without its backslash.
const ESCAPE_BYTES: usize = 5;

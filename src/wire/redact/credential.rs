//! Credentials that are recognised by their shape: provider keys, tokens, JWTs, private keys, bearer credentials.

use super::names::REDACTED;
use std::borrow::Cow;

/// Replaces everything that looks like a credential.
pub(super) fn redact(text: &str) -> Cow<'_, str> {
    let mut out = String::new();
    let mut copied = 0;
    let mut at = 0;
    let bytes = text.as_bytes();
    // End of the last word that was measured. A word is measured once, however many possible starts it has.
    let mut word_end = 0;
    while at < bytes.len() {
        // A credential starts a word, with one of few bytes.
        let starts = FIRST_BYTES[usize::from(bytes[at])] && starts_word(bytes, at);
        if starts && at >= word_end {
            word_end = at + bytes[at..].iter().take_while(|byte| is_word(**byte) || **byte == b'.').count();
        }
        match starts.then(|| secret_at(text, at, word_end.saturating_sub(at))).flatten() {
            Some((keep, end)) if text[at + keep..end] != *REDACTED => {
                out.push_str(&text[copied..at + keep]);
                out.push_str(REDACTED);
                copied = end;
                at = end;
            }
            _ => at += 1,
        }
    }
    if copied == 0 {
        return Cow::Borrowed(text);
    }
    out.push_str(&text[copied..]);
    Cow::Owned(out)
}

/// A credential that starts at `at`: how many bytes of it stay (its prefix), and where it ends. `word` is the length of
/// the word that starts there.
fn secret_at(text: &str, at: usize, word: usize) -> Option<(usize, usize)> {
    let rest = text.get(at..)?;
    if rest.starts_with("-----BEGIN ")
        && rest.get(..64.min(rest.len())).is_some_and(|head| head.contains("PRIVATE KEY-----"))
    {
        // Its last line ends in dashes; in JSON no line break follows them.
        let last = rest.find("-----END").map(|end| end + "-----END".len());
        let end = last.and_then(|last| Some(last + rest[last..].find("-----")? + "-----".len()));
        return Some((0, at + end.unwrap_or(rest.len())));
    }
    for (prefix, shortest) in PREFIXES {
        if rest.starts_with(prefix) && word >= *shortest {
            return Some((prefix.len(), at + word));
        }
    }
    for prefix in ["AKIA", "ASIA"] {
        if rest.starts_with(prefix) && word == 20 {
            return Some((prefix.len(), at + word));
        }
    }
    if rest.starts_with("eyJ") && word > 40 && rest[..word].matches('.').count() == 2 {
        return Some((0, at + word));
    }
    for prefix in ["Bearer ", "bearer "] {
        let token = rest.strip_prefix(prefix).map(|token| token.bytes().take_while(|byte| is_token68(*byte)).count());
        if let Some(length) = token.filter(|length| *length >= 8) {
            return Some((prefix.len(), at + prefix.len() + length));
        }
    }
    None
}

/// The prefixes of credentials, for the prefilter.
pub(super) fn prefixes() -> impl Iterator<Item = &'static str> {
    PREFIXES.iter().map(|(prefix, _)| *prefix).chain(OTHER_PREFIXES.iter().copied())
}

/// True when a word starts at `at`. In JSON text an escaped line break ends in a letter, and counts as a separator.
pub(super) fn starts_word(bytes: &[u8], at: usize) -> bool {
    let before = |distance: usize| at.checked_sub(distance).map(|at| bytes[at]);
    let Some(last) = before(1) else { return true };
    !is_word(last)
        || (before(2) == Some(b'\\') && matches!(last, b'n' | b'r' | b't' | b'b' | b'f'))
        || (before(6) == Some(b'\\') && before(5) == Some(b'u'))
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-'
}

fn is_token68(byte: u8) -> bool {
    is_word(byte) || b".~+/=".contains(&byte)
}

/// The bytes that a credential can start with.
const FIRST_BYTES: [bool; 256] = {
    let mut first_bytes = [false; 256];
    let firsts = b"-sgxAheBb";
    let mut at = 0;
    while at < firsts.len() {
        first_bytes[firsts[at] as usize] = true;
        at += 1;
    }
    first_bytes
};

/// Prefix, and the minimum length of the whole word. First bytes are listed in [`FIRST_BYTES`] too.
const PREFIXES: &[(&str, usize)] = &[
    ("sk-", 20),
    ("gsk_", 20),
    ("xai-", 20),
    ("AIza", 39),
    ("hf_", 20),
    ("ghp_", 20),
    ("gho_", 20),
    ("ghs_", 20),
    ("ghu_", 20),
    ("github_pat_", 22),
];

/// Prefixes of the credentials with rules of their own in [`secret_at`].
const OTHER_PREFIXES: &[&str] = &["-----BEGIN ", "AKIA", "ASIA", "eyJ", "Bearer ", "bearer "];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_prefix_starts_with_a_known_byte() {
        assert!(prefixes().all(|prefix| FIRST_BYTES[usize::from(prefix.as_bytes()[0])]));
    }
}

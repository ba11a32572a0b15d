//! Credentials that are recognised by their shape: provider keys, JWTs, private keys, user names with passwords in URLs, and
//! what is assigned to a name of a secret (`assignment`).

use super::assignment;
use super::names::REDACTED;
use super::prefixes;
use super::words::{is_token68, is_word, starts_word};
use std::borrow::Cow;
use std::ops::Range;

/// Replaces everything that looks like a credential.
pub(super) fn redact(text: &str) -> Cow<'_, str> {
    let mut out = String::new();
    let mut copied = 0;
    let mut at = 0;
    let bytes = text.as_bytes();
    // End of the last word that was measured. A word is measured once, however many possible starts it has.
    let mut word_end = 0;
    while at < bytes.len() {
        let secret = match bytes[at] {
            b':' => user_info(text, at),
            byte if (is_word(byte)) && starts_word(bytes, at) => {
                if at >= word_end {
                    word_end = at + bytes[at..].iter().take_while(|byte| is_word(**byte) || **byte == b'.').count();
                }
                secret_at(text, at, word_end.saturating_sub(at))
            }
            _ => None,
        };
        match secret {
            Some(secret) if !is_redacted(&text[secret.clone()]) => {
                out.push_str(&text[copied..secret.start]);
                out.push_str(REDACTED);
                (copied, at) = (secret.end, secret.end);
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

/// True for what redaction leaves behind: redacting twice must give the same as redacting once.
fn is_redacted(text: &str) -> bool {
    text.strip_prefix(REDACTED)
        .is_some_and(|rest| rest.is_empty() || !rest.starts_with(|next: char| next.is_alphanumeric()))
}

/// The secret part of what starts at `at`: its prefix stays. `word` is the length of the word that starts there.
pub(super) fn secret_at(text: &str, at: usize, word: usize) -> Option<Range<usize>> {
    let rest = text.get(at..)?;
    let bytes = rest.as_bytes();
    match bytes.first()? {
        b'-' if rest.starts_with("-----BEGIN ") => return private_key(rest).map(|end| at..at + end),
        b'-' => return assignment::option(text, at),
        b'A' if AWS_PREFIXES.iter().any(|prefix| rest.starts_with(prefix)) && word == AWS_KEY_BYTES => {
            return Some(at + AWS_PREFIXES[0].len()..at + word);
        }
        b'e' if rest.starts_with("eyJ") && word > 40 && rest[..word].matches('.').count() == 2 => {
            return Some(at..at + word);
        }
        _ => {}
    }
    if let Some(prefix) = prefixes::of(rest, word).filter(|prefix| !is_prose(&rest[prefix.len()..word])) {
        return Some(at + prefix.len()..at + word);
    }
    for prefix in ["Bearer ", "bearer "] {
        let token = rest.strip_prefix(prefix).map(|token| token.bytes().take_while(|byte| is_token68(*byte)).count());
        let token = token.map(|length| &rest[prefix.len()..prefix.len() + length]);
        if let Some(length) = token.filter(|token| token.len() >= 8 && !is_prose(token)).map(str::len) {
            return Some(at + prefix.len()..at + prefix.len() + length);
        }
    }
    assignment::value(text, at)
}

/// True for words of a language, as in `bearer authentication` and `npm_config_https_proxy`. Credentials have digits or
/// capitals, or are longer than words are.
fn is_prose(text: &str) -> bool {
    text.split(['_', '-', '.'])
        .all(|word| word.len() <= LONGEST_WORD && word.bytes().all(|byte| byte.is_ascii_lowercase()))
}

/// The end of a private key in PEM or of PGP that starts `rest`.
fn private_key(rest: &str) -> Option<usize> {
    let head = rest.as_bytes().get(..rest.len().min(64))?;
    if !head.windows(11).any(|window| window == b"PRIVATE KEY") {
        return None;
    }
    // Its last line ends in dashes; in JSON no line break follows them.
    let last = rest.find("-----END").map(|end| end + "-----END".len());
    let end = last.and_then(|last| Some(last + rest[last..].find("-----")? + "-----".len()));
    Some(end.unwrap_or(rest.len()))
}

/// User name and password in a URL. Its scheme ends at `colon`. A user name alone, as in `ssh://git@host`, stays.
pub(super) fn user_info(text: &str, colon: usize) -> Option<Range<usize>> {
    let rest = text.get(colon..)?.strip_prefix("://")?;
    let ends = |byte: &u8| byte.is_ascii_whitespace() || b"/\"'`\\<>?#,;()[]{}|".contains(byte);
    let authority = &rest.as_bytes()[..rest
        .bytes()
        .take(MAX_AUTHORITY_BYTES)
        .position(|byte| ends(&byte))
        .unwrap_or(rest.len().min(MAX_AUTHORITY_BYTES))];
    let at = authority.iter().rposition(|byte| *byte == b'@')?;
    let password = authority[..at].iter().position(|byte| *byte == b':')? + 1;
    let start = colon + "://".len();
    (password < at && text.is_char_boundary(start + at)).then_some(start..start + at)
}

/// The words that the rules here and in `assignment` start with, for the prefilter: each ends where it is written here.
pub(super) const WORDS: &[&str] = &[
    "-----BEGIN ",
    "AKIA",
    "ASIA",
    "ABIA",
    "ACCA",
    "eyJ",
    "Bearer ",
    "bearer ",
    "authorization",
    "x-api-key",
    "-u ",
    "--user ",
    "--token",
    "--api-key",
    "--password",
    "aws_secret_access_key",
    "aws_session_token",
];
/// What an assigned name of a secret ends with, with its equals sign or colon.
pub(super) const ASSIGNED: &[&str] = &[
    "key=",
    "token=",
    "secret=",
    "password=",
    "passwd=",
    "pwd=",
    "pass=",
    "credentials=",
    "signature=",
    "key: ",
    "token: ",
    "secret: ",
    "password: ",
    "pass: ",
];
/// The last words of assigned names, and what may follow them in source code instead of the equals sign.
pub(super) const ASSIGNED_IN_CODE: [&[&str]; 2] = [
    &["key", "token", "secret", "password", "passwd", "pwd", "pass", "credentials"],
    &["']", "',", "\"]", "\",", "\\", " ="],
];
const LONGEST_WORD: usize = 14;
const AWS_PREFIXES: [&str; 4] = ["AKIA", "ASIA", "ABIA", "ACCA"];
const AWS_KEY_BYTES: usize = 20;
const MAX_AUTHORITY_BYTES: usize = 512;

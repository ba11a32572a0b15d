//! Secret values in JSON text, by their keys. The text may be truncated, or hold many values and event framing, and its strings
//! may hold JSON again.

use super::names::REDACTED;
use crate::wire::json_scan::{skip_space, string_end, value_end};
use std::borrow::Cow;

/// Replaces the value of every key for which `is_secret` is true, whatever its type: a string, a number, a whole object
/// or list. A value that a truncation leaves open is redacted to the end. Nothing else changes.
pub(super) fn redact_json(text: &str, is_secret: &dyn Fn(&str) -> bool) -> String {
    redact_within(text, is_secret, MAX_DEPTH).unwrap_or_else(|| text.to_owned())
}

/// As [`redact_json`]; `None` if the text has no secret. `depth`: how many levels of JSON within strings are still searched.
fn redact_within(text: &str, is_secret: &dyn Fn(&str) -> bool, depth: usize) -> Option<String> {
    let bytes = text.as_bytes();
    let mut out = String::new();
    let mut copied = 0;
    let mut at = 0;
    while at < bytes.len() {
        if bytes[at] != b'"' {
            at += 1;
            continue;
        }
        let end = string_end(bytes, at).map_or(bytes.len(), |behind| behind - 1);
        let colon = skip_space(bytes, end + 1);
        let content = &text[at + 1..end];
        if bytes.get(colon) == Some(&b':') && is_secret(&unescaped(content)) {
            let value = skip_space(bytes, colon + 1);
            let value_end = value_end(bytes, value).unwrap_or(bytes.len());
            if value < bytes.len() && !is_no_secret(content, text, at, value..value_end) {
                out.push_str(&text[copied..value]);
                // Still JSON: the value becomes a string.
                out.push('"');
                out.push_str(REDACTED);
                out.push('"');
                copied = value_end;
                at = value_end.max(colon + 1);
                continue;
            }
        } else if let Some(inner) = inner_json(content, is_secret, depth) {
            out.push_str(&text[copied..at]);
            out.push_str(&inner);
            // A string that was cut stays open.
            copied = (end + 1).min(bytes.len());
        }
        at = end + 1;
    }
    if copied == 0 {
        return None;
    }
    out.push_str(text.get(copied..).unwrap_or_default());
    Some(out)
}

/// A string of JSON with secrets, with its quotes. `None`: it has none.
fn inner_json(content: &str, is_secret: &dyn Fn(&str) -> bool, depth: usize) -> Option<String> {
    if depth == 0 || !content.contains("\\\"") {
        return None;
    }
    let inner = redact_within(&unescaped(content), is_secret, depth - 1)?;
    serde_json::to_string(&inner).ok()
}

/// True for the value of a secret's name that is none: nothing, a yes or no, a variable, a description of the value's type, or a token of
/// a model's vocabulary.
fn is_no_secret(key: &str, text: &str, at: usize, value: std::ops::Range<usize>) -> bool {
    let found = &text[value.clone()];
    let near = |range: std::ops::Range<usize>, word: &str| {
        text.as_bytes()[range].windows(word.len()).any(|window| window == word.as_bytes())
    };
    // Source code that resembles JSON has names of variables there.
    let is_literal = matches!(found.as_bytes().first(), Some(b'"' | b'{' | b'[' | b'-' | b'0'..=b'9'));
    !is_literal
        || found == "\"\""
        || (found.starts_with('{') && near(value.start..(value.start + NEAR_BYTES).min(value.end), "\"type\""))
        || (key.eq_ignore_ascii_case("token") && is_near_logprobs(text, at..value.end))
}

/// True for a part of a list of log-probabilities. Their entries call the texts of a vocabulary `token`.
pub(super) fn is_near_logprobs(text: &str, part: std::ops::Range<usize>) -> bool {
    let around = part.start.saturating_sub(NEAR_BYTES)..(part.end + NEAR_BYTES).min(text.len());
    text.as_bytes()[around].windows(7).any(|window| window == b"logprob")
}

/// A string as decoded: `"pass\u0077ord"` is `password`. Of one that was cut within an escape, what is before it.
fn unescaped(content: &str) -> Cow<'_, str> {
    if !content.contains('\\') {
        return Cow::Borrowed(content);
    }
    let decode = |content: &str| serde_json::from_str::<String>(&format!("\"{content}\"")).ok();
    let cut = || content.rfind('\\').and_then(|escape| decode(&content[..escape]));
    decode(content).or_else(cut).map_or(Cow::Borrowed(content), Cow::Owned)
}

/// How many levels of JSON within strings of JSON are searched. Each level doubles the escapes, so that deeper ones are not used.
const MAX_DEPTH: usize = 6;
/// How many bytes around a value are searched for other fields of its object.
const NEAR_BYTES: usize = 200;

//! Secret values in JSON text, found without parsing it: it may be cut short, or be one event of a stream of many.

use super::REDACTED;
use std::borrow::Cow;

/// Replaces the value of every key that `secret` names, whatever its type: a string's content, a number, a whole object
/// or list. What a cut leaves open is redacted to the end. Nothing else changes.
pub(super) fn redact_json(text: &str, secret: impl Fn(&str) -> bool) -> Cow<'_, str> {
    let bytes = text.as_bytes();
    let mut out = String::new();
    let mut copied = 0;
    let mut at = 0;
    while at < bytes.len() {
        if bytes[at] != b'"' {
            at += 1;
            continue;
        }
        let end = string_end(bytes, at);
        let colon = skip_space(bytes, end + 1);
        if bytes.get(colon) != Some(&b':') || !secret(&unescaped(&text[at + 1..end])) {
            at = end + 1;
            continue;
        }
        let value = skip_space(bytes, colon + 1);
        let value_end = value_end(bytes, value);
        if value < bytes.len() && &text[value..value_end] != "null" {
            out.push_str(&text[copied..value]);
            // Still JSON: the value becomes a string.
            out.push('"');
            out.push_str(REDACTED);
            out.push('"');
            copied = value_end;
        }
        at = value_end.max(colon + 1);
    }
    if copied == 0 {
        return Cow::Borrowed(text);
    }
    out.push_str(text.get(copied..).unwrap_or_default());
    Cow::Owned(out)
}

/// The index of the closing quote of the string that opens at `open`, or the end of the text.
fn string_end(bytes: &[u8], open: usize) -> usize {
    let mut at = open + 1;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            b'"' => return at,
            _ => at += 1,
        }
    }
    bytes.len()
}

/// The index after the value that starts at `start`.
fn value_end(bytes: &[u8], start: usize) -> usize {
    match bytes.get(start) {
        Some(b'"') => (string_end(bytes, start) + 1).min(bytes.len()),
        Some(b'{' | b'[') => {
            let (mut depth, mut at) = (0usize, start);
            while at < bytes.len() {
                match bytes[at] {
                    b'"' => at = string_end(bytes, at),
                    b'{' | b'[' => depth += 1,
                    b'}' | b']' if depth == 1 => return at + 1,
                    b'}' | b']' => depth -= 1,
                    _ => {}
                }
                at += 1;
            }
            bytes.len()
        }
        Some(_) => {
            let ends = |byte: &u8| matches!(byte, b',' | b'}' | b']') || byte.is_ascii_whitespace();
            bytes[start..].iter().position(ends).map_or(bytes.len(), |length| start + length)
        }
        None => bytes.len(),
    }
}

fn skip_space(bytes: &[u8], mut at: usize) -> usize {
    while bytes.get(at).is_some_and(u8::is_ascii_whitespace) {
        at += 1;
    }
    at
}

/// A key as it is meant: `"pass\u0077ord"` is `password`.
fn unescaped(key: &str) -> Cow<'_, str> {
    if !key.contains('\\') {
        return Cow::Borrowed(key);
    }
    serde_json::from_str(&format!("\"{key}\"")).map_or(Cow::Borrowed(key), Cow::Owned)
}

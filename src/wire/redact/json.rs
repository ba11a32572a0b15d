//! Redacts values in JSON text without parsing it: the text may be truncated, or hold many values and event framing.

use super::names::REDACTED;
use crate::wire::json_scan::{skip_space, string_end, value_end};
use std::borrow::Cow;

/// Replaces the value of every key for which `is_secret` is true, whatever its type: a string, a number, a whole object
/// or list. A value that a truncation leaves open is redacted to the end. Nothing else changes.
pub(super) fn redact_json(text: &str, is_secret: impl Fn(&str) -> bool) -> Cow<'_, str> {
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
        if bytes.get(colon) != Some(&b':') || !is_secret(&unescaped(&text[at + 1..end])) {
            at = end + 1;
            continue;
        }
        let value = skip_space(bytes, colon + 1);
        let value_end = value_end(bytes, value).unwrap_or(bytes.len());
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

/// A key as decoded: `"pass\u0077ord"` is `password`.
fn unescaped(key: &str) -> Cow<'_, str> {
    if !key.contains('\\') {
        return Cow::Borrowed(key);
    }
    serde_json::from_str(&format!("\"{key}\"")).map_or(Cow::Borrowed(key), Cow::Owned)
}

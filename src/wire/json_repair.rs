//! Turns text that is almost JSON into JSON, by repairing the mistakes that JSON writers are known to make.

use super::json_scan::value_end;
use std::borrow::Cow;

/// The text as JSON that `serde_json` takes, if it is JSON but for these mistakes: U+FFFD replaces what is not UTF-8 and the
/// halves of surrogate pairs, a byte order mark is dropped, `NaN` and infinity become strings, control characters in strings are escaped, and `"…"`
/// replaces what is nested too deeply.
pub(crate) fn repaired(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let (bytes, mut out) = (text.as_bytes(), String::with_capacity(text.len()));
    let (mut at, mut copied, mut depth) = (0, 0, 0_usize);
    while at < bytes.len() {
        let replaced = match bytes[at] {
            b'"' => {
                out.push_str(&text[copied..at]);
                at = string(text, at, &mut out);
                copied = at;
                continue;
            }
            b'{' | b'[' if depth == MAX_DEPTH => match value_end(bytes, at) {
                Some(end) => Some(("\"…\"", end)),
                // The text is cut short, and no JSON. Going on would look for this end again and again.
                None => break,
            },
            b'{' | b'[' => {
                depth += 1;
                None
            }
            b'}' | b']' => {
                depth = depth.saturating_sub(1);
                None
            }
            _ => NOT_FINITE
                .iter()
                .find(|word| bytes[at..].starts_with(&word.as_bytes()[1..word.len() - 1]))
                .map(|word| (*word, at + word.len() - 2)),
        };
        match replaced {
            Some((replacement, end)) => {
                out.push_str(&text[copied..at]);
                out.push_str(replacement);
                (at, copied) = (end, end);
            }
            None => at += 1,
        }
    }
    out.push_str(&text[copied..]);
    out
}

/// The text with U+FFFD in place of every escape that is half of a surrogate pair: JavaScript writes those when it cuts a
/// character in two, and no Rust string can hold them. `text` is JSON, or what is between the quotes of a string.
pub(crate) fn without_lone_surrogates(text: &str) -> Cow<'_, str> {
    let bytes = text.as_bytes();
    let (mut out, mut copied, mut at) = (String::new(), 0, 0);
    while let Some(mark) = memchr::memchr(b'\\', bytes.get(at..).unwrap_or_default()) {
        at += mark;
        match escape(text, at) {
            Escape::LoneSurrogate => {
                out.push_str(&text[copied..at]);
                out.push_str("\\ufffd");
                at += UNIT_BYTES;
                copied = at;
            }
            Escape::Other(length) => at += length,
        }
    }
    if copied == 0 {
        return Cow::Borrowed(text);
    }
    out.push_str(&text[copied..]);
    Cow::Owned(out)
}

/// The most levels of objects and lists; `serde_json` reads 127.
const MAX_DEPTH: usize = 120;

/// Numbers that JSON does not have, as strings.
const NOT_FINITE: [&str; 3] = ["\"NaN\"", "\"Infinity\"", "\"-Infinity\""];

/// Copies the string that opens at `open`, repaired, and returns the index behind it, or the end of the text.
fn string(text: &str, open: usize, out: &mut String) -> usize {
    let bytes = text.as_bytes();
    let (mut at, mut copied) = (open + 1, open);
    loop {
        let end = match bytes.get(at) {
            None => break,
            Some(b'"') => {
                at += 1;
                break;
            }
            Some(b'\\') => match escape(text, at) {
                Escape::LoneSurrogate => at + UNIT_BYTES,
                Escape::Other(length) => {
                    at += length;
                    continue;
                }
            },
            Some(..0x20) => at + 1,
            Some(_) => {
                at += 1;
                continue;
            }
        };
        out.push_str(&text[copied..at]);
        match bytes[at] {
            b'\\' => out.push_str("\\ufffd"),
            control => out.push_str(&format!("\\u{control:04x}")),
        }
        (at, copied) = (end, end);
    }
    out.push_str(&text[copied..at]);
    at
}

/// An escape within a string.
enum Escape {
    /// `\uXXXX` that is half of a surrogate pair.
    LoneSurrogate,
    /// Any other, of this length; a pair counts as one.
    Other(usize),
}

/// The escape with its backslash at `at`.
fn escape(text: &str, at: usize) -> Escape {
    let bytes = text.as_bytes();
    match escaped_unit(bytes, at) {
        Some(0xd800..=0xdbff) if matches!(escaped_unit(bytes, at + UNIT_BYTES), Some(0xdc00..=0xdfff)) => {
            Escape::Other(2 * UNIT_BYTES)
        }
        Some(0xd800..=0xdfff) => Escape::LoneSurrogate,
        // The escaped byte may be the first of a longer character.
        _ => Escape::Other(1 + text[at + 1..].chars().next().map_or(0, char::len_utf8)),
    }
}

/// The length of `\uXXXX`.
const UNIT_BYTES: usize = 6;

/// The UTF-16 code unit of the escape `\uXXXX` at `at`; `None` for anything else.
fn escaped_unit(bytes: &[u8], at: usize) -> Option<u16> {
    let digits = bytes.get(at..at + UNIT_BYTES)?.strip_prefix(b"\\u")?;
    let digits =
        std::str::from_utf8(digits).ok().filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()))?;
    u16::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    #[test]
    fn mistakes_of_exporters_are_repaired() {
        for (text, expected) in [
            (&br#"["cut \ud83e", "\udd14 \ud83e\ud83e\udd14"]"#[..], json!(["cut \u{fffd}", "\u{fffd} \u{fffd}🤔"])),
            (br#"{"\ud800":"\\ud800 \"NaN\""}"#, json!({ "\u{fffd}": "\\ud800 \"NaN\"" })),
            (b"[NaN,-Infinity, Infinity,-1]", json!(["NaN", "-Infinity", "Infinity", -1])),
            (b"[\"caf\xe9\",\"\xed\xa0\xbe\"]", json!(["caf\u{fffd}", "\u{fffd}\u{fffd}\u{fffd}"])),
            (b"[\"a\nb\"]", json!(["a\nb"])),
            (b"\xef\xbb\xbf[]", json!([])),
        ] {
            assert_eq!(serde_json::from_str::<Value>(&repaired(text)).unwrap(), expected);
        }
        assert_eq!(without_lone_surrogates(r#"\\ud83e \ud83e\udd14 \udd14 \é"#), r#"\\ud83e \ud83e\udd14 \ufffd \é"#);
        let deep = format!("[{},1]", "[".repeat(300) + &"]".repeat(300));
        let read: Value = serde_json::from_str(&repaired(deep.as_bytes())).unwrap();
        assert_eq!(read[1], 1);
        // In time that grows with the length only.
        assert!(serde_json::from_str::<Value>(&repaired(&[b'['; 1 << 22])).is_err());
        for damaged in [&b"{\"a\":\"b"[..], b"\"\\", b"\"\\\xc3\xa9", b"[1", b"[\"\\ud8", b""] {
            assert!(serde_json::from_str::<Value>(&repaired(damaged)).is_err());
        }
    }

    proptest! {
        #[test]
        fn json_is_unchanged_and_nothing_panics(text in "[\\[\\]{}:,\"\\\\ud8eNaI0-9 é\n-]{0,40}") {
            let repaired = repaired(text.as_bytes());
            if let Ok(read) = serde_json::from_str::<Value>(&text) {
                prop_assert_eq!(serde_json::from_str::<Value>(&repaired).unwrap(), read);
                prop_assert_eq!(&*without_lone_surrogates(&text), &text);
            }
            prop_assert!(without_lone_surrogates(&text).len() == text.len());
        }
    }
}

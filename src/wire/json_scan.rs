//! Finds where the parts of JSON text begin and end, without reading their values. The text may be cut short, or be no
//! JSON. Strings and values can also be followed through text that comes in pieces.

use memchr::memchr2;
use std::borrow::Cow;

/// The index behind the string that opens at `open`; `None` if it is no string, or has no end.
pub(super) fn string_end(text: &[u8], open: usize) -> Option<usize> {
    if text.get(open) != Some(&b'"') {
        return None;
    }
    StringScan::default().end(text, open + 1)
}

/// The index behind the value that starts at `at`; `None` if it has no end, or the text ends before it.
pub(super) fn value_end(text: &[u8], at: usize) -> Option<usize> {
    let mut scan = ValueScan::open(*text.get(at)?)?;
    let end = scan.end(text, at + 1);
    end.or_else(|| matches!(scan, ValueScan::Scalar).then_some(text.len()))
}

/// The index of the first byte from `at` on that is no white space.
pub(super) fn skip_space(text: &[u8], mut at: usize) -> usize {
    while text.get(at).is_some_and(u8::is_ascii_whitespace) {
        at += 1;
    }
    at
}

/// True if a key, written as `key` between its quotes, is this name, however its letters are escaped.
pub(super) fn is_named(key: &[u8], name: &str) -> bool {
    // What is shorter has no letter that is escaped.
    if key.len() <= name.len() || memchr::memchr(b'\\', key).is_none() {
        return key == name.as_bytes();
    }
    let quoted = [b"\"", key, b"\""].concat();
    serde_json::from_slice::<Cow<'_, str>>(&quoted).is_ok_and(|key| key == name)
}

/// A string, followed from behind its opening quote.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct StringScan {
    // The next byte is escaped.
    escaped: bool,
}

impl StringScan {
    /// The index behind the string, which goes on at `at`. `None`: the text ends within it.
    pub(super) fn end(&mut self, text: &[u8], at: usize) -> Option<usize> {
        let skips = self.escaped && at < text.len();
        let mut at = at + usize::from(skips);
        // Most are short: for those a plain loop is faster than memchr.
        for _ in 0..SHORT_BYTES {
            match text.get(at) {
                Some(b'"') => return Some(at + 1),
                Some(b'\\') => at += 2,
                Some(_) => at += 1,
                None => break,
            }
        }
        while let Some(found) = text.get(at..).and_then(|rest| memchr2(b'"', b'\\', rest)) {
            at += found;
            if text[at] == b'"' {
                return Some(at + 1);
            }
            at += 2;
        }
        self.escaped = at > text.len() || (self.escaped && !skips);
        None
    }
}

/// A value, followed from behind its first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ValueScan {
    /// Within a string.
    String(StringScan),
    /// An object or a list, in which so many are open, itself included.
    Container(usize),
    /// A string within such a container.
    Inner(usize, StringScan),
    /// A number, a word, or what is none: it ends before a comma, a closing bracket or white space.
    Scalar,
}

impl ValueScan {
    /// The value that begins with this byte. `None`: no value does.
    pub(super) fn open(first: u8) -> Option<Self> {
        match first {
            b'"' => Some(Self::String(StringScan::default())),
            b'{' | b'[' => Some(Self::Container(1)),
            _ => (!ends_scalar(first)).then_some(Self::Scalar),
        }
    }

    /// The index behind the value, which goes on at `at`. `None`: the text ends within it, or with a scalar.
    pub(super) fn end(&mut self, text: &[u8], mut at: usize) -> Option<usize> {
        loop {
            match self {
                Self::String(scan) => return scan.end(text, at),
                Self::Scalar => return Some(at + text.get(at..)?.iter().position(|byte| ends_scalar(*byte))?),
                Self::Inner(depth, scan) => {
                    at = scan.end(text, at)?;
                    *self = Self::Container(*depth);
                }
                Self::Container(depth) => match container_end(depth, text, at)? {
                    (end, 0) => return Some(end),
                    (opened, depth) => {
                        at = opened;
                        *self = Self::Inner(depth, StringScan::default());
                    }
                },
            }
        }
    }
}

/// The index behind the next quote and the depth there, or behind the bracket that closes the container, with depth 0.
fn container_end(depth: &mut usize, text: &[u8], mut at: usize) -> Option<(usize, usize)> {
    let mut slow_until = at + BLOCK_BYTES;
    loop {
        if at >= slow_until {
            at = skip_blocks(depth, text, at);
            slow_until = at + BLOCK_BYTES;
        }
        let window = text.get(at..text.len().min(slow_until)).filter(|window| !window.is_empty())?;
        let Some(found) = window.iter().position(|byte| IS_MARK[usize::from(*byte)]) else {
            at += window.len();
            continue;
        };
        at += found + 1;
        match window[found] {
            b'"' => return Some((at, *depth)),
            b'{' | b'[' => *depth += 1,
            _ => *depth -= 1,
        }
        if *depth == 0 {
            return Some((at, 0));
        }
    }
}

/// Skips blocks without a quote in which no container of `depth` can close: long lists of numbers. The loop over a block
/// has no branches, so that the compiler makes it one over vectors.
fn skip_blocks(depth: &mut usize, text: &[u8], mut at: usize) -> usize {
    while let Some(block) = text.get(at..at + BLOCK_BYTES) {
        let (mut quotes, mut opened, mut closed) = (0_u8, 0_u8, 0_u8);
        for byte in block {
            quotes += u8::from(*byte == b'"');
            // `[` and `{`, `]` and `}` differ in this bit only.
            opened += u8::from(*byte | 0x20 == b'{');
            closed += u8::from(*byte | 0x20 == b'}');
        }
        if quotes > 0 || usize::from(closed) >= *depth {
            break;
        }
        *depth = *depth + usize::from(opened) - usize::from(closed);
        at += BLOCK_BYTES;
    }
    at
}

fn ends_scalar(byte: u8) -> bool {
    matches!(byte, b',' | b'}' | b']') || byte.is_ascii_whitespace()
}

const SHORT_BYTES: usize = 16;
/// A block's brackets are counted in a byte.
const BLOCK_BYTES: usize = 64;

/// The bytes by which containers and strings begin and end.
const IS_MARK: [bool; 256] = {
    let mut marks = [false; 256];
    let bytes = b"\"{}[]";
    let mut at = 0;
    while at < bytes.len() {
        marks[bytes[at] as usize] = true;
        at += 1;
    }
    marks
};

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What [`value_end`] is, byte by byte.
    fn plain_end(text: &[u8]) -> Option<usize> {
        let (mut depth, mut string, mut escaped) = (0_usize, false, false);
        for (at, byte) in text.iter().enumerate() {
            match byte {
                _ if escaped => escaped = false,
                b'\\' if string => escaped = true,
                b'"' => string = !string,
                _ if string => {}
                b'{' | b'[' => depth += 1,
                b'}' | b']' => depth -= 1,
                _ => {}
            }
            if depth == 0 && !string {
                return Some(at + 1);
            }
        }
        None
    }

    proptest! {
        #[test]
        fn the_end_of_a_value_is_found_in_pieces(
            parts in prop::collection::vec(prop_oneof!["[0-9,.]{0,150}", "\"[a\\[{}\\\\\"]{0,60}\"", "[\\[\\]{}]{1,4}"], 0..20),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
        ) {
            let text = format!("[{}", parts.concat()).into_bytes();
            let expected = plain_end(&text);
            prop_assert_eq!(value_end(&text, 0), expected);
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| 1 + cut.index(text.len())).chain([text.len()]).collect();
            cuts.sort_unstable();
            let (mut scan, mut from, mut found) = (ValueScan::open(b'[').unwrap(), 1, None);
            for cut in cuts {
                if found.is_none() {
                    found = scan.end(&text[from..cut], 0).map(|end| from + end);
                }
                from = cut;
            }
            prop_assert_eq!(found, expected);
        }
    }
}

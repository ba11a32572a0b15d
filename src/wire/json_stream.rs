//! JSON values that follow each other: one a line (NDJSON), or the elements of a list that arrives piece by piece.
//!
//! It finds the values and does not parse them.

use super::json_scan::string_end;
use memchr::memchr;

/// The text of a value. The last one may be truncated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Piece<'a> {
    /// The text, without white space around it.
    pub(crate) text: &'a [u8],
    /// The index after it in the input.
    pub(crate) end: usize,
}

/// The values of NDJSON: the lines that are not blank.
pub(crate) fn lines(bytes: &[u8]) -> impl Iterator<Item = Piece<'_>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        loop {
            let rest = bytes.get(at..).filter(|rest| !rest.is_empty())?;
            let length = memchr(b'\n', rest).unwrap_or(rest.len());
            at += (length + 1).min(rest.len());
            let text = rest[..length].trim_ascii();
            if !text.is_empty() {
                return Some(Piece { text, end: at });
            }
        }
    })
}

/// The elements of a list, also of one that is truncated.
pub(crate) fn elements(bytes: &[u8]) -> impl Iterator<Item = Piece<'_>> {
    let mut at = bytes.iter().position(|byte| *byte == b'[').map_or(bytes.len(), |open| open + 1);
    std::iter::from_fn(move || {
        while bytes.get(at).is_some_and(|byte| byte.is_ascii_whitespace() || *byte == b',') {
            at += 1;
        }
        let start = at;
        if bytes.get(at).is_none_or(|byte| *byte == b']') {
            return None;
        }
        let mut depth = 0_usize;
        while let Some(byte) = bytes.get(at) {
            match byte {
                b'"' => {
                    at = string_end(bytes, at).unwrap_or(bytes.len());
                    continue;
                }
                b'{' | b'[' => depth += 1,
                b']' if depth == 0 => break,
                b'}' | b']' => depth = depth.saturating_sub(1),
                b',' if depth == 0 => break,
                _ => {}
            }
            at += 1;
            if depth == 0 && matches!(byte, b'}' | b']') {
                break;
            }
        }
        at = at.min(bytes.len());
        Some(Piece { text: bytes[start..at].trim_ascii(), end: at })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn texts<'a>(pieces: impl Iterator<Item = Piece<'a>>) -> Vec<&'a str> {
        pieces.map(|piece| std::str::from_utf8(piece.text).unwrap()).collect()
    }

    #[test]
    fn lines_and_elements_are_found() {
        assert_eq!(texts(lines(b"{\"a\":1}\r\n\n {\"b\"")), ["{\"a\":1}", "{\"b\""]);
        assert_eq!(
            texts(elements(b" [ {\"a\":\"},]\\\"\"} ,[1,[2]], 3 ]rest")),
            ["{\"a\":\"},]\\\"\"}", "[1,[2]]", "3"]
        );
        assert_eq!(texts(elements(b"[{\"a\":1},\r\n{\"b\":")), ["{\"a\":1}", "{\"b\":"]);
        assert_eq!(texts(elements(b"no list")), Vec::<&str>::new());
    }

    proptest! {
        #[test]
        fn ends_rise_and_nothing_panics(bytes in prop::collection::vec(prop::sample::select(b"[]{}\",\\ \n1a".to_vec()), 0..100)) {
            for pieces in [lines(&bytes).collect::<Vec<_>>(), elements(&bytes).collect()] {
                prop_assert!(pieces.windows(2).all(|pair| pair[0].end < pair[1].end));
                prop_assert!(pieces.iter().all(|piece| piece.end <= bytes.len()));
            }
        }
    }
}

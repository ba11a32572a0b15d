//! Where a long value is divided into pieces, so that values with a common beginning have common pieces.

use crate::wire::json_stream::elements;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use memchr::memmem;
use std::ops::Range;

/// Minimum size of a piece of a text that is divided. It contains whole elements of a list.
const PIECE_BYTES: usize = 512;

/// A request of at least this size is divided. A shorter one is stored for less as one piece, if no other has its beginning.
const MINIMUM_REQUEST_BYTES: usize = 8 * 1024;

/// Base64 of at least this size is stored as the bytes that it is: arrays of samplers, images.
const MINIMUM_BASE64_BYTES: usize = 4096;

/// Characters of base64 in a piece, a multiple of four.
const PIECE_BASE64_BYTES: usize = 64 * 1024;

/// The pieces of a list of messages: JSON that begins with a list of objects. Other texts are one piece.
pub(super) fn text_ranges(text: &str) -> Vec<Range<usize>> {
    let list = if text.starts_with("[{") { Some(0) } else { None };
    ranges_at(text, list.into_iter().flat_map(|list| ends_of_elements(text, list)))
}

/// The pieces of the body of a request. The next request of an agent has the same messages, and more behind them.
pub(super) fn request_ranges(text: &str) -> Vec<Range<usize>> {
    if text.len() < MINIMUM_REQUEST_BYTES || !text.starts_with('{') {
        return text_ranges(text);
    }
    let mut next = 0;
    let lists = std::iter::from_fn(|| {
        let list = next + memmem::find(text.as_bytes().get(next..)?, b"[{")?;
        let ends: Vec<usize> = ends_of_elements(text, list).collect();
        next = ends.last().copied().unwrap_or(list).max(list + 1);
        Some(ends)
    });
    ranges_at(text, lists.flatten())
}

/// The pieces of a text that is the only base64 of some bytes: it is written again when the text is read. `None` for other and
/// shorter texts.
pub(super) fn base64_ranges(text: &str) -> Option<Vec<Range<usize>>> {
    let ranges = ranges_of(text.len(), PIECE_BASE64_BYTES);
    let is_base64 = |range: &Range<usize>| {
        let bytes = STANDARD.decode(&text.as_bytes()[range.clone()]);
        bytes.is_ok_and(|bytes| range.end == text.len() || bytes.len() == PIECE_BASE64_BYTES / 4 * 3)
    };
    (text.len() >= MINIMUM_BASE64_BYTES && ranges.iter().all(is_base64)).then_some(ranges)
}

/// Pieces of as many items.
pub(super) fn ranges_of(length: usize, piece: usize) -> Vec<Range<usize>> {
    (0..length).step_by(piece).map(|from| from..(from + piece).min(length)).collect()
}

/// Where the elements of the list end that begins at `list`.
fn ends_of_elements(text: &str, list: usize) -> impl Iterator<Item = usize> {
    elements(&text.as_bytes()[list..]).map(move |element| list + element.end)
}

/// Pieces that end at some of these rising places, none shorter than [`PIECE_BYTES`] but the last.
fn ranges_at(text: &str, ends: impl Iterator<Item = usize>) -> Vec<Range<usize>> {
    let (mut ranges, mut from) = (Vec::new(), 0);
    for end in ends {
        if end - from >= PIECE_BYTES && text.is_char_boundary(end) {
            ranges.push(from..end);
            from = end;
        }
    }
    if from < text.len() {
        ranges.push(from..text.len());
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn request(messages: usize) -> String {
        let tool = format!(r#"{{"type":"function","description":"[{{{}"}}"#, "t".repeat(700));
        let message = |number| format!(r#"{{"role":"user","content":[{{"text":"{number} {}"}}]}}"#, "é".repeat(300));
        let messages: Vec<String> = (0..messages).map(message).collect();
        format!(r#"{{"model":"m","tools":[{tool},{tool}],"messages":[{}],"stream":true}}"#, messages.join(","))
    }

    #[test]
    fn requests_of_a_growing_conversation_have_common_pieces() {
        let (short, long) = (request(20), request(23));
        let (pieces, more) = (request_ranges(&short), request_ranges(&long));
        assert_eq!(pieces.len(), 2 + 20 + 1, "two tools, twenty messages, and the end");
        assert_eq!((&pieces[..22], more.len()), (&more[..22], 26));
        assert_eq!(short[..pieces[21].end], long[..pieces[21].end]);
        assert_eq!(request_ranges(&request(5)).len(), 1);
    }

    proptest! {
        #[test]
        fn pieces_make_up_the_text(text in "(\\{|\\[\\{)?([\\[\\]{},\"\\\\é ]|\\[\\{|a{100}){0,200}") {
            for ranges in [text_ranges(&text), request_ranges(&text)] {
                let whole: String = ranges.iter().map(|range| &text[range.clone()]).collect();
                prop_assert_eq!(&whole, &text);
                prop_assert!(ranges.iter().rev().skip(1).all(|range| range.len() >= PIECE_BYTES));
            }
        }
    }
}

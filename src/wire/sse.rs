//! Server-sent events (WHATWG HTML §9.2), found in bytes without copying them.
//!
//! Lines are found in bytes and text is not decoded, so that a character that two frames divide is no problem.

use memchr::memchr2;
use std::borrow::Cow;

/// An event with at least one `data` line. Its comments and its other fields are skipped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event<'a> {
    /// Its `event` field. Empty means `message`.
    pub name: &'a [u8],
    /// Its `data` lines, joined by LF.
    pub data: Cow<'a, [u8]>,
    /// The index after its blank line in the input.
    pub end: usize,
    /// False when the input ended within it.
    pub complete: bool,
}

/// The events of a stream. An incomplete event at the end comes last.
#[derive(Clone, Debug)]
pub struct Events<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Events<'a> {
    /// Reads events from the start of `bytes`, which may begin with a byte order mark.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: if bytes.starts_with(BOM) { BOM.len() } else { 0 } }
    }

    /// The line at `from`, the index after its line end, and whether it has one: the last line may have none.
    fn line(&self, from: usize) -> Option<(&'a [u8], usize, bool)> {
        let rest = self.bytes.get(from..).filter(|rest| !rest.is_empty())?;
        let Some(length) = memchr2(b'\n', b'\r', rest) else { return Some((rest, self.bytes.len(), false)) };
        let ended_by_both = rest[length] == b'\r' && rest.get(length + 1) == Some(&b'\n');
        Some((&rest[..length], from + length + if ended_by_both { 2 } else { 1 }, true))
    }
}

impl<'a> Iterator for Events<'a> {
    type Item = Event<'a>;

    fn next(&mut self) -> Option<Event<'a>> {
        let (mut name, mut data): (&[u8], Option<Cow<'a, [u8]>>) = (b"", None);
        while let Some((line, end, ended)) = self.line(self.at) {
            self.at = end;
            if line.is_empty() {
                match data.take() {
                    Some(data) => return Some(Event { name, data, end, complete: true }),
                    None => name = b"",
                }
                continue;
            }
            let (field, value) = field(line);
            match field {
                b"event" => name = value,
                b"data" => match &mut data {
                    None => data = Some(Cow::Borrowed(value)),
                    Some(data) => {
                        let data = data.to_mut();
                        data.push(b'\n');
                        data.extend_from_slice(value);
                    }
                },
                _ => {}
            }
            if !ended {
                break;
            }
        }
        data.map(|data| Event { name, data, end: self.bytes.len(), complete: false })
    }
}

/// Field name and value of a line. A comment has an empty name.
fn field(line: &[u8]) -> (&[u8], &[u8]) {
    match memchr::memchr(b':', line) {
        Some(colon) => {
            let value = &line[colon + 1..];
            (&line[..colon], value.strip_prefix(b" ").unwrap_or(value))
        }
        None => (line, b""),
    }
}

const BOM: &[u8] = b"\xef\xbb\xbf";

/// True for bytes that begin a stream of server-sent events: with a field, or with a comment.
pub(crate) fn looks_like_events(bytes: &[u8]) -> bool {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes).trim_ascii_start();
    [&b"data:"[..], b"event:", b"id:", b"retry:", b": "].iter().any(|field| bytes.starts_with(field))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> Vec<(String, String, bool)> {
        let text_of = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        Events::new(text.as_bytes()).map(|event| (text_of(event.name), text_of(&event.data), event.complete)).collect()
    }

    fn whole(name: &str, data: &str) -> (String, String, bool) {
        (name.to_owned(), data.to_owned(), true)
    }

    #[test]
    fn lines_end_with_cr_lf_or_both() {
        for end in ["\n", "\r\n", "\r"] {
            let text = format!(
                "\u{feff}: hello{end}event: x{end}data:a{end}data:  b{end}id: 7{end}retry: 1{end}{end}data{end}{end}"
            );
            assert_eq!(read(&text), [whole("x", "a\n b"), whole("", "")], "{end:?}");
        }
    }

    #[test]
    fn events_without_data_are_skipped_and_an_incomplete_one_is_marked() {
        assert_eq!(read("event: a\n\n: only a comment\n\ndata: 1\n\n"), [whole("", "1")]);
        assert_eq!(read("data: 1\n\ndata: 2"), [whole("", "1"), (String::new(), "2".to_owned(), false)]);
        assert_eq!(read("data: 1\n"), [(String::new(), "1".to_owned(), false)]);
        assert_eq!(read(""), []);
    }

    proptest! {
        #[test]
        fn ends_rise_and_nothing_panics(bytes in prop::collection::vec(prop::sample::select(b"data: \r\n:xev\xff".to_vec()), 0..200)) {
            let ends: Vec<usize> = Events::new(&bytes).map(|event| event.end).collect();
            prop_assert!(ends.windows(2).all(|pair| pair[0] < pair[1]));
            prop_assert!(ends.iter().all(|end| *end <= bytes.len()));
        }

        #[test]
        fn what_is_complete_in_a_part_is_complete_in_the_whole(bytes in prop::collection::vec(prop::sample::select(b"data: \n:xev".to_vec()), 0..200), cut in 0_usize..200) {
            let part = &bytes[..cut.min(bytes.len())];
            let of_part: Vec<_> = Events::new(part).filter(|event| event.complete).collect();
            let of_whole: Vec<_> = Events::new(&bytes).take(of_part.len()).collect();
            prop_assert_eq!(of_part, of_whole);
        }
    }
}

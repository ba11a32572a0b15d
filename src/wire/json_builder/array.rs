//! Reads an array of numbers as its JSON text arrives: nested lists, the base64 of a numpy file (`.npy`), or the base64 of
//! little-endian 32-bit integers.
//!
//! The caller finds the end of the text. Of the text, only an incomplete number is held.

use crate::wire::json::Json;
use crate::wire::json_value::Packed;
use crate::wire::number_array::NumberArray;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use std::sync::Arc;

/// An array that is being read.
#[derive(Debug, Default)]
pub(super) struct ArrayReader {
    form: Form,
    array: NumberArray,
    is_malformed: bool,
}

#[derive(Debug, Default)]
enum Form {
    /// Nothing but white space has come.
    #[default]
    Unknown,
    Lists(Lists),
    /// Base64: characters that are not decoded yet, and what is known of the bytes.
    Base64 {
        text: Vec<u8>,
        bytes: Vec<u8>,
        file: File,
    },
    /// `null`, or no array.
    Word(Vec<u8>),
}

/// The lists that are open.
#[derive(Debug, Default)]
struct Lists {
    /// The elements of each open list so far, outermost first.
    open: Vec<usize>,
    /// The length of the lists of each depth, `None` until one has ended, and whether all of a depth are alike.
    lengths: Vec<Option<usize>>,
    is_ragged: bool,
    /// The lengths of the lists in the outermost one, as long as they have numbers in them.
    rows: Vec<u32>,
    number: Option<i64>,
    /// A minus sign has come, before a digit.
    is_negative: bool,
    has_ended: bool,
}

/// The kind of file that the decoded bytes are.
#[derive(Debug)]
enum File {
    /// Too few bytes have come to tell a numpy file from bare integers.
    Unknown,
    /// Numbers of this type; the dimensions, where a header names them.
    Numbers(NumberType, Option<Vec<usize>>),
}

#[derive(Clone, Copy, Debug)]
struct NumberType {
    bytes: usize,
    is_signed: bool,
}

impl ArrayReader {
    /// Reads the next bytes of the text.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        let bytes = match self.form {
            Form::Unknown => bytes.trim_ascii_start(),
            _ => bytes,
        };
        let Some(first) = bytes.first() else { return };
        if let Form::Unknown = self.form {
            self.form = match first {
                b'[' => Form::Lists(Lists::default()),
                b'"' => Form::Base64 { text: Vec::new(), bytes: Vec::new(), file: File::Unknown },
                _ => Form::Word(Vec::new()),
            };
        }
        if self.is_malformed {
            return;
        }
        let is_read = match &mut self.form {
            Form::Unknown => true,
            Form::Lists(lists) => lists.push(bytes, &mut self.array),
            Form::Base64 { text, bytes: decoded, file } => {
                text.extend(bytes.iter().filter(|byte| !matches!(byte, b'"' | b'\\')));
                let whole = text.len() / 4 * 4;
                let is_read = STANDARD.decode_vec(&text[..whole], decoded).is_ok();
                text.drain(..whole);
                is_read && file.read(decoded, &mut self.array)
            }
            Form::Word(word) => {
                word.extend_from_slice(&bytes[..bytes.len().min(MAX_WORD_BYTES)]);
                word.len() < MAX_WORD_BYTES
            }
        };
        self.is_malformed = !is_read;
    }

    /// An estimate of the bytes of memory in use.
    pub(super) fn memory_bytes(&self) -> usize {
        let rows = if let Form::Lists(lists) = &self.form { lists.rows.capacity() * size_of::<u32>() } else { 0 };
        self.array.memory_bytes() + rows
    }

    /// The value: an array, or null. Text that is no array becomes a value that no reader of arrays accepts, so that the
    /// array counts as malformed.
    pub(super) fn into_json(self) -> Json<'static> {
        match self.finish() {
            Ok(Some(array)) => Json::Packed(Packed::Array(Arc::new(array))),
            Ok(None) => Json::Null,
            Err(MalformedArray) => Json::Bool(false),
        }
    }

    /// The array; `None` for `null`. An error if the text is no array of numbers that fit.
    fn finish(mut self) -> Result<Option<NumberArray>, MalformedArray> {
        let fits = match self.form {
            _ if self.is_malformed => false,
            Form::Word(word) if word.trim_ascii() == b"null" => return Ok(None),
            Form::Unknown | Form::Word(_) => false,
            Form::Lists(lists) => lists.finish(&mut self.array),
            Form::Base64 { text, mut bytes, mut file } => {
                let is_read = STANDARD_NO_PAD.decode_vec(&text, &mut bytes).is_ok();
                is_read && file.read(&mut bytes, &mut self.array) && bytes.is_empty() && file.finish(&mut self.array)
            }
        };
        if fits { Ok(Some(self.array)) } else { Err(MalformedArray) }
    }
}

/// The text is no array of numbers.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the value is no array of numbers")]
pub(crate) struct MalformedArray;

/// The array of numbers that a value is: one that was built as such, or the form that it has in JSON. `None`: the value is
/// null.
pub(crate) fn number_array(value: &Json<'_>) -> Result<Option<Arc<NumberArray>>, MalformedArray> {
    if let Json::Packed(Packed::Array(array)) = value {
        return Ok(Some(Arc::clone(array)));
    }
    let mut reader = ArrayReader::default();
    reader.push(&serde_json::to_vec(value).map_err(|_| MalformedArray)?);
    Ok(reader.finish()?.map(Arc::new))
}

impl Lists {
    /// False: this is no nested list of numbers.
    fn push(&mut self, bytes: &[u8], array: &mut NumberArray) -> bool {
        for byte in bytes {
            let is_read = match byte {
                b'0'..=b'9' => {
                    let digit = i64::from(byte - b'0');
                    let digit = if self.is_negative { -digit } else { digit };
                    self.number = self.number.unwrap_or(0).checked_mul(10).and_then(|tens| tens.checked_add(digit));
                    self.number.is_some() && !self.open.is_empty()
                }
                b'-' => {
                    let is_first = self.number.is_none() && !self.is_negative;
                    self.is_negative = true;
                    is_first
                }
                b'[' => {
                    self.open.push(0);
                    self.open.len() <= MAX_DIMENSIONS && !self.has_ended
                }
                b',' => self.end_number(array),
                b']' => self.end_number(array) && self.close(),
                byte => byte.is_ascii_whitespace(),
            };
            if !is_read {
                return false;
            }
        }
        true
    }

    fn end_number(&mut self, array: &mut NumberArray) -> bool {
        let is_negative = std::mem::take(&mut self.is_negative);
        if let (Some(number), Some(count)) = (self.number.take(), self.open.last_mut()) {
            *count += 1;
            array.push(number);
            // Numbers are in the innermost lists only.
            return self.lengths.len() <= self.open.len();
        }
        !is_negative
    }

    fn close(&mut self) -> bool {
        let depth = self.open.len();
        let Some(length) = self.open.pop() else { return false };
        if self.lengths.len() < depth {
            self.lengths.resize(depth, None);
        }
        self.is_ragged |= self.lengths[depth - 1].is_some_and(|known| known != length);
        self.lengths[depth - 1] = Some(length);
        if depth == 2 && self.lengths.len() == 2 {
            self.rows.push(u32::try_from(length).unwrap_or(u32::MAX));
        }
        match self.open.last_mut() {
            Some(count) => *count += 1,
            None => self.has_ended = true,
        }
        true
    }

    fn finish(self, array: &mut NumberArray) -> bool {
        if !self.has_ended {
            return false;
        }
        if self.lengths.len() == 2 {
            let fits = self.rows.iter().map(|length| *length as usize).sum::<usize>() == array.len();
            array.set_lengths(self.rows);
            return fits;
        }
        let lengths = self.lengths.into_iter().map(Option::unwrap_or_default).collect();
        !self.is_ragged && array.set_dimensions(lengths)
    }
}

impl File {
    /// Reads the numbers that arrived whole, and removes their bytes. False: they are no numbers.
    fn read(&mut self, bytes: &mut Vec<u8>, array: &mut NumberArray) -> bool {
        if let Self::Unknown = self {
            if MAGIC.starts_with(bytes) && bytes.len() < MAGIC.len() {
                return true;
            }
            *self = if bytes.starts_with(MAGIC) {
                let Some((header, start)) = header(bytes) else { return bytes.len() < MAX_HEADER_BYTES };
                let Some((kind, lengths)) = std::str::from_utf8(header).ok().and_then(parsed) else { return false };
                array.reserve(lengths.iter().fold(1, |all: usize, length| all.saturating_mul(*length)));
                bytes.drain(..start);
                Self::Numbers(kind, Some(lengths))
            } else {
                Self::Numbers(NumberType { bytes: 4, is_signed: true }, None)
            };
        }
        let Self::Numbers(kind, _) = self else { return true };
        let mut fits = true;
        let whole = bytes.len() / kind.bytes * kind.bytes;
        for number in bytes[..whole].chunks_exact(kind.bytes) {
            let is_negative = kind.is_signed && number[kind.bytes - 1] & 0x80 != 0;
            let mut word = [if is_negative { 0xff } else { 0 }; 8];
            word[..kind.bytes].copy_from_slice(number);
            let number = i64::from_le_bytes(word);
            // An unsigned number beyond the range looks negative.
            fits &= kind.is_signed || number >= 0;
            array.push(number);
        }
        bytes.drain(..whole);
        fits
    }

    fn finish(self, array: &mut NumberArray) -> bool {
        let count = array.len();
        match self {
            Self::Unknown => false,
            Self::Numbers(_, lengths) => array.set_dimensions(lengths.unwrap_or_else(|| vec![count])),
        }
    }
}

/// The header of a numpy file, and where its numbers start. `None`: it is not complete.
fn header(bytes: &[u8]) -> Option<(&[u8], usize)> {
    let (start, length): (usize, usize) = match bytes.get(6)? {
        1 => (10, usize::from(u16::from_le_bytes(bytes.get(8..10)?.try_into().ok()?))),
        _ => (12, usize::try_from(u32::from_le_bytes(bytes.get(8..12)?.try_into().ok()?)).ok()?),
    };
    let end = start.checked_add(length)?;
    Some((bytes.get(start..end)?, end))
}

/// The type and the dimensions that a header names, such as `{'descr': '<i2', 'fortran_order': False, 'shape': (9, 48, 8), }`.
fn parsed(header: &str) -> Option<(NumberType, Vec<usize>)> {
    let value = |key: &str| header.split_once(key).map(|(_, rest)| rest.trim_start());
    let descr = value("'descr':")?.strip_prefix('\'')?.split('\'').next()?;
    let kind = match descr.get(1..)? {
        "u1" | "i1" | "u2" | "i2" | "u4" | "i4" | "u8" | "i8" => {
            NumberType { bytes: descr[2..].parse().ok()?, is_signed: &descr[1..2] == "i" }
        }
        _ => return None,
    };
    let is_read = matches!(&descr[..1], "<" | "|") && value("'fortran_order':")?.starts_with("False");
    let shape = value("'shape':")?.strip_prefix('(')?.split(')').next()?;
    let lengths = shape.split(',').map(str::trim).filter(|length| !length.is_empty()).map(|length| length.parse().ok());
    let lengths = lengths.collect::<Option<Vec<usize>>>()?;
    (is_read && lengths.len() <= MAX_DIMENSIONS).then_some((kind, lengths))
}

const MAGIC: &[u8] = b"\x93NUMPY";
const MAX_HEADER_BYTES: usize = 4096;
const MAX_DIMENSIONS: usize = 8;
/// Longer than every word of JSON.
const MAX_WORD_BYTES: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Reads a text that is cut into pieces of this length.
    fn read(text: &[u8], length: usize) -> Result<Option<NumberArray>, MalformedArray> {
        let mut reader = ArrayReader::default();
        text.chunks(length.max(1)).for_each(|piece| reader.push(piece));
        reader.finish()
    }

    fn npy(descr: &str, shape: &str, numbers: &[u8]) -> String {
        let header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}\n");
        let length = u16::try_from(header.len()).unwrap().to_le_bytes();
        let file = [MAGIC, &[1, 0], &length, header.as_bytes(), numbers].concat();
        format!("\"{}\"", STANDARD.encode(file))
    }

    #[test]
    fn arrays_are_read_in_every_form() {
        let text = npy("<i2", "(1, 2, 2)", &[1, 0, 2, 0, 255, 0, 0, 1]);
        let array = read(text.as_bytes(), 3).unwrap().unwrap();
        assert_eq!(array.numbers().collect::<Vec<_>>(), [1, 2, 255, 256]);
        assert_eq!((array.dimensions(), array.dtype(), array.rows()), (Some(&[1, 2, 2][..]), "uint16", 1));
        let lists = read(b" [[[1, 2], [255,256]]]", 2).unwrap().unwrap();
        assert_eq!(lists, array);
        let raw = format!("\"{}\"", STANDARD.encode([7, 0, 0, 0, 9, 0, 0, 0]));
        let negative = read(npy("<i2", "(2,)", &[255, 255, 5, 0]).as_bytes(), 9).unwrap().unwrap();
        assert_eq!((negative.numbers().collect::<Vec<_>>(), negative.dtype()), (vec![-1, 5], "int16"));
        assert_eq!(read(b"[-1,5]", 9).unwrap().unwrap(), negative);
        let flat = read(raw.as_bytes(), 100).unwrap().unwrap();
        assert_eq!((flat.dimensions(), flat.divided(2).unwrap().dimensions()), (Some(&[2][..]), Some(&[2, 1][..])));
        assert_eq!(flat.divided(3), None);
        let mask = read(b"[[1,2],[],[300000]]", 1).unwrap().unwrap();
        assert_eq!((mask.lengths(), mask.dtype(), mask.rows()), (Some(&[2, 0, 1][..]), "uint32", 3));
        assert_eq!((read(b"null", 1), read(b"[]", 1).unwrap().unwrap().rows()), (Ok(None), 0));
    }

    #[test]
    fn what_is_no_array_is_an_error() {
        let short = npy("<i2", "(2,)", &[1, 0]);
        let odd = npy("<i2", "(1,)", &[1, 0, 2]);
        let floats = npy("<f4", "(1,)", &[0, 0, 0, 0]);
        for text in [
            "1",
            "true",
            "{}",
            "[1,[2]]",
            "[[1],2]",
            "[[[1]],[[2],[3]]]",
            "[-]",
            "[--1]",
            "[1-1]",
            "[1.5]",
            "[null]",
            "[99999999999999999999]",
            "[[1]",
            "\"x!\"",
            "\"AAA\"",
            "\"k05VTVBZ\"",
            &short,
            &odd,
            &floats,
        ] {
            assert_eq!(read(text.as_bytes(), 2), Err(MalformedArray), "{text}");
        }
    }

    proptest! {
        #[test]
        fn lists_are_read_as_they_were_written(
            lists in prop::collection::vec(prop::collection::vec(any::<i64>(), 0..5), 1..20), length in 1_usize..40,
        ) {
            let array = read(serde_json::to_string(&lists).unwrap().as_bytes(), length).unwrap().unwrap();
            prop_assert_eq!(array.numbers().collect::<Vec<_>>(), lists.concat());
            let lengths: Vec<usize> = array.lengths().unwrap().iter().map(|length| *length as usize).collect();
            prop_assert_eq!(lengths, lists.iter().map(Vec::len).collect::<Vec<_>>());
        }

        #[test]
        fn any_text_is_no_danger(text in "[\\[\\], 0-9\"A-Za-z=\\\\.-]{0,60}", length in 1_usize..10) {
            prop_assert_eq!(read(text.as_bytes(), length).is_ok(), read(text.as_bytes(), 100).is_ok());
        }
    }
}

//! Content addressing: long attribute values are stored outside of their span, in pieces identified by a SHA-256 hash.
//!
//! An agent sends its whole conversation again with each call. Lists of messages are therefore divided between messages,
//! and lists of token ids into blocks. Lists of ids in a text are values of their own. The hash of a piece covers all pieces before it, so that the common prefix of two
//! prompts is stored once. Values are restored exactly. This module does not know where pieces are stored.

use super::frames::{compress_into, decompressed};
use super::pieces::{base64_ranges, ranges_of, request_ranges, text_ranges};
use super::planes::{WORD_BYTES, numbers};
use super::{bits, planes};
use crate::trace::number_lists::{self, DividedText};
use crate::trace::{Span, Value, semconv as names};
use aws_lc_rs::digest::{self, Context};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::ops::Range;

/// Identifies a piece: SHA-256 over the hash of the previous piece of its value and its own bytes.
pub(super) type Hash = [u8; 32];

/// Values of at least this many bytes are externalized. For shorter ones a row of their own costs more than it saves.
const MINIMUM_BYTES: usize = 512;

/// Token ids or logprobs in a piece.
const PIECE_NUMBERS: usize = 512;

/// The type of an externalized value, which determines its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ValueKind {
    /// UTF-8 text.
    Text,
    /// Integers from 0 to 2³² − 1 as little-endian `u32`.
    Numbers,
    /// Numbers without loss of precision as little-endian `f32`.
    Floats,
    /// The bytes that a text is the base64 of.
    Bytes,
}

/// An attribute value that is stored outside of its span.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ExternalizedValue {
    /// Name of the attribute, or of a list in it.
    pub(super) attribute: String,
    pub(super) kind: ValueKind,
    /// In the order of the value; at least one.
    pub(super) pieces: Vec<Piece>,
    /// The value if the span has no attribute with it: a text without its long lists, or such a list.
    pub(super) part: Option<Value>,
}

/// A part of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) hash: Hash,
    // In bytes of a text or in numbers of a list.
    range: Range<usize>,
}

/// Why a stored piece can't be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum PieceError {
    #[error("a stored text has an unknown encoding")]
    UnknownTag,
    #[error("a stored text can't be decompressed: {0}")]
    Frame(#[from] std::io::Error),
    #[error("a stored list of ids is incomplete")]
    Bits,
    #[error("a stored text does not match its hash")]
    HashMismatch,
    #[error("a piece of a stored text is missing")]
    Missing,
}

impl ValueKind {
    /// First byte of an uncompressed piece. A compressed piece has the next higher value, that of its [`planes`], or that of
    /// [`bits`].
    fn tag(self) -> u8 {
        match self {
            Self::Text => 0,
            Self::Numbers => 2,
            Self::Floats => 4,
            Self::Bytes => 10,
        }
    }

    /// The kind of a stored piece with this first byte.
    pub(super) fn of_tag(tag: u8) -> Result<Self, PieceError> {
        match tag {
            planes::NUMBERS_TAG | bits::TAG => Ok(Self::Numbers),
            planes::FLOATS_TAG => Ok(Self::Floats),
            tag => {
                let kinds = [Self::Text, Self::Numbers, Self::Floats, Self::Bytes];
                kinds.into_iter().find(|kind| kind.tag() == tag & !1).ok_or(PieceError::UnknownTag)
            }
        }
    }

    /// The value that has these pieces.
    pub(super) fn value(self, pieces: &[&[u8]]) -> Result<Value, PieceError> {
        Ok(match self {
            Self::Numbers => Value::Ints(numbers(pieces, |word| u32::from_le_bytes(word).into())),
            Self::Floats => Value::Floats(numbers(pieces, |word| f32::from_le_bytes(word).into())),
            Self::Bytes => Value::String(STANDARD.encode(pieces.concat())),
            Self::Text => Value::String(String::from_utf8(pieces.concat()).map_err(|_| PieceError::HashMismatch)?),
        })
    }
}

/// The attributes of a span that are stored outside of it.
pub(super) fn externalize(span: &Span) -> Vec<ExternalizedValue> {
    let mut all = Vec::new();
    for (name, value) in span.attributes.iter().filter(|(name, value)| is_long(value) && !number_lists::is_marked(name))
    {
        match value.as_str().and_then(number_lists::divide) {
            Some(divided) => all.extend(externalize_divided(name, divided)),
            None => all.extend(externalize_value(name, value)),
        }
    }
    all
}

/// True for a value that databases store outside of its span, or may.
pub(super) fn is_long(value: &Value) -> bool {
    match value {
        Value::String(text) => text.len() >= MINIMUM_BYTES,
        Value::Ints(all) => all.len() * 4 >= MINIMUM_BYTES,
        Value::Floats(all) => all.len() * 4 >= MINIMUM_BYTES,
        _ => false,
    }
}

/// A text and the lists that were in it.
fn externalize_divided(name: &str, DividedText { rest, lists }: DividedText) -> Vec<ExternalizedValue> {
    let part = |name: &str, kind, ranges, value| {
        let externalized = externalize_ranges(name, kind, &value, ranges);
        ExternalizedValue { part: Some(value), ..externalized }
    };
    let lists = lists.into_iter().map(|list| {
        let (name, ranges) = (list.name(name), ranges_of(list.numbers.len(), PIECE_NUMBERS));
        part(&name, ValueKind::Numbers, ranges, Value::Ints(list.numbers))
    });
    std::iter::once(part(name, ValueKind::Text, text_pieces(name, &rest), rest.into())).chain(lists).collect()
}

fn externalize_value(name: &str, value: &Value) -> Option<ExternalizedValue> {
    let (kind, ranges) = match value {
        Value::String(text) if text.len() >= MINIMUM_BYTES => match base64_ranges(text) {
            Some(ranges) => (ValueKind::Bytes, ranges),
            None => (ValueKind::Text, text_pieces(name, text)),
        },
        Value::Ints(all)
            if all.len() * 4 >= MINIMUM_BYTES && all.iter().all(|number| u32::try_from(*number).is_ok()) =>
        {
            (ValueKind::Numbers, ranges_of(all.len(), PIECE_NUMBERS))
        }
        Value::Floats(all) if all.len() * 4 >= MINIMUM_BYTES && all.iter().all(|number| is_f32(*number)) => {
            (ValueKind::Floats, ranges_of(all.len(), PIECE_NUMBERS))
        }
        _ => return None,
    };
    Some(externalize_ranges(name, kind, value, ranges))
}

fn text_pieces(name: &str, text: &str) -> Vec<Range<usize>> {
    if name == names::HTTP_REQUEST_BODY_CONTENT { request_ranges(text) } else { text_ranges(text) }
}

fn externalize_ranges(name: &str, kind: ValueKind, value: &Value, ranges: Vec<Range<usize>>) -> ExternalizedValue {
    let mut previous: Option<Hash> = None;
    let piece = |range: Range<usize>| {
        let hash = hash(kind, previous.as_ref(), &bytes(kind, value, &range));
        previous = Some(hash);
        Piece { hash, range }
    };
    let pieces = ranges.into_iter().map(piece).collect();
    ExternalizedValue { attribute: name.to_owned(), kind, pieces, part: None }
}

#[expect(clippy::cast_possible_truncation, reason = "tests whether the cast loses precision")]
fn is_f32(number: f64) -> bool {
    f64::from(number as f32).to_bits() == number.to_bits()
}

/// The bytes of a part of a value.
fn bytes<'a>(kind: ValueKind, value: &'a Value, range: &Range<usize>) -> std::borrow::Cow<'a, [u8]> {
    #[expect(clippy::cast_possible_truncation, reason = "only values without loss of precision are externalized")]
    let single = |number: &f64| (*number as f32).to_le_bytes();
    match value {
        Value::String(text) => {
            let text = text.as_bytes().get(range.clone()).unwrap_or_default();
            match kind {
                ValueKind::Bytes => STANDARD.decode(text).unwrap_or_default().into(),
                _ => text.into(),
            }
        }
        Value::Ints(all) => words(all, range, |number| u32::try_from(*number).unwrap_or(u32::MAX).to_le_bytes()).into(),
        Value::Floats(all) => words(all, range, single).into(),
        _ => std::borrow::Cow::Borrowed(&[]),
    }
}

fn words<T>(all: &[T], range: &Range<usize>, word: impl Fn(&T) -> [u8; WORD_BYTES]) -> Vec<u8> {
    let numbers = all.get(range.clone()).unwrap_or_default();
    let mut bytes = vec![0; numbers.len() * WORD_BYTES];
    for (into, number) in bytes.chunks_exact_mut(WORD_BYTES).zip(numbers) {
        into.copy_from_slice(&word(number));
    }
    bytes
}

impl ExternalizedValue {
    /// A piece as stored: a tag, then the bytes, as a zstd frame if that is smaller. `span` is the one that the value was
    /// externalized from.
    pub(super) fn pack(&self, piece: &Piece, span: &Span) -> Vec<u8> {
        let value = self.part.as_ref().or_else(|| span.attributes.get(&self.attribute));
        let raw = value.map(|value| bytes(self.kind, value, &piece.range)).unwrap_or_default();
        pack(self.kind, &raw)
    }
}

fn pack(kind: ValueKind, raw: &[u8]) -> Vec<u8> {
    match kind {
        ValueKind::Text | ValueKind::Bytes => compressed(kind, kind.tag() + 1, raw, raw),
        // Ids take a fifth more than as a zstd frame, for a tenth of the time.
        ValueKind::Numbers => match bits::pack(raw.as_chunks().0) {
            Some(packed) => [&[bits::TAG][..], &packed].concat(),
            None => compressed(kind, kind.tag() + 1, raw, raw),
        },
        ValueKind::Floats => compressed(kind, planes::FLOATS_TAG, &planes::divide(raw), raw),
    }
}

/// `tag` and `text` as a zstd frame, or `raw` as it is if that is not longer.
fn compressed(kind: ValueKind, tag: u8, text: &[u8], raw: &[u8]) -> Vec<u8> {
    let mut data = vec![0; 1 + zstd::zstd_safe::compress_bound(text.len())];
    let written = compress_into(&mut data[1..], text).filter(|length| *length < raw.len());
    match written {
        Some(length) => {
            data[0] = tag;
            data.truncate(1 + length);
        }
        None => {
            data[0] = kind.tag();
            data.truncate(1);
            data.extend_from_slice(raw);
        }
    }
    data
}

/// Kind and bytes of a stored piece, verified by its hash. `previous` is the hash of the piece before it.
pub(super) fn unpack(
    previous: Option<&Hash>,
    expected: &Hash,
    data: &[u8],
) -> Result<(ValueKind, Vec<u8>), PieceError> {
    let (tag, body) = data.split_first().ok_or(PieceError::UnknownTag)?;
    let kind = ValueKind::of_tag(*tag)?;
    let bytes = match *tag {
        planes::NUMBERS_TAG | planes::FLOATS_TAG => planes::join(&decompressed(body)?),
        bits::TAG => bits::unpack(body).ok_or(PieceError::Bits)?.into_flattened(),
        tag if tag & 1 == 1 => decompressed(body)?,
        _ => body.to_vec(),
    };
    if hash(kind, previous, &bytes) != *expected {
        return Err(PieceError::HashMismatch);
    }
    Ok((kind, bytes))
}

/// The hash of a piece. The first piece of a text is hashed without a prefix, as whole texts were in schema version 2. All
/// others begin with a prefix that is not UTF-8, so that numbers never have the hash of a text with the same bytes.
fn hash(kind: ValueKind, previous: Option<&Hash>, bytes: &[u8]) -> Hash {
    let mut context = Context::new(&digest::SHA256);
    if kind != ValueKind::Text || previous.is_some() {
        context.update(&[0xff, kind.tag(), u8::from(previous.is_some())]);
    }
    if let Some(previous) = previous {
        context.update(previous);
    }
    context.update(bytes);
    let mut hash = Hash::default();
    hash.copy_from_slice(context.finish().as_ref());
    hash
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn restored(value: &Value) -> Option<Value> {
        let externalized = externalize_value("a", value)?;
        let (mut whole, mut previous) = (Vec::new(), None);
        for piece in &externalized.pieces {
            let data = pack(externalized.kind, &bytes(externalized.kind, value, &piece.range));
            let (kind, part) = unpack(previous.as_ref(), &piece.hash, &data).unwrap();
            assert_eq!(kind, externalized.kind);
            previous = Some(piece.hash);
            whole.extend(part);
        }
        Some(externalized.kind.value(&[&whole]).unwrap())
    }

    fn messages(count: usize) -> String {
        let one = |number| {
            format!(r#"{{"role":"user","parts":[{{"type":"text","content":"{}"}}]}}"#, "é".repeat(number % 400))
        };
        format!("[{}]", (0..count).map(one).collect::<Vec<_>>().join(","))
    }

    #[test]
    fn a_common_prefix_of_lists_has_the_same_pieces() {
        let pieces = |count| externalize_value("m", &Value::String(messages(count))).unwrap().pieces;
        let (short, long) = (pieces(40), pieces(60));
        assert!(short.len() > 5);
        assert_eq!(short[..short.len() - 1], long[..short.len() - 1]);
        let ids = |count: i64| externalize_value("i", &Value::Ints((0..count).collect())).unwrap().pieces;
        assert_eq!(ids(2000)[..3], ids(3000)[..3]);
        assert_ne!(ids(2000)[3], ids(3000)[3]);
    }

    #[test]
    fn base64_is_stored_as_its_bytes() {
        let array = |length: usize| (0..length).map(|at| u8::try_from(at * 7 % 128).unwrap()).collect::<Vec<u8>>();
        let pieces = |length| externalize_value("e", &Value::String(STANDARD.encode(array(length)))).unwrap().pieces;
        assert_eq!(pieces(200_000)[..3], pieces(300_001)[..3], "a common prefix is stored once");
        for length in [3072, 50_000, 49_152, 49_153, 200_000] {
            let value = Value::String(STANDARD.encode(array(length)));
            let externalized = externalize_value("e", &value).unwrap();
            assert_eq!((externalized.kind, restored(&value)), (ValueKind::Bytes, Some(value)), "{length}");
        }
        for text in ["A".repeat(4097), "=".repeat(4096), "A===".repeat(1024), "AAA=".repeat(32_768)] {
            let value = Value::String(text);
            assert_eq!(externalize_value("e", &value).unwrap().kind, ValueKind::Text);
            assert_eq!(restored(&value), Some(value));
        }
    }

    #[test]
    fn ids_take_less_than_three_bytes_and_others_stay_inline() {
        let ids = Value::Ints((0..4096).map(|id| id * 31 % 151_000).collect());
        let packed = pack(ValueKind::Numbers, &bytes(ValueKind::Numbers, &ids, &(0..512)));
        assert!(packed.len() < 512 * 5 / 2, "{}", packed.len());
        let raw = bytes(ValueKind::Numbers, &ids, &(0..512)).into_owned();
        let frame = |tag: u8, raw: &[u8]| [&[tag][..], &zstd::encode_all(raw, 1).unwrap()].concat();
        let old = [frame(ValueKind::Numbers.tag() + 1, &raw), frame(planes::NUMBERS_TAG, &planes::divide(&raw))];
        let hash = hash(ValueKind::Numbers, None, &raw);
        for stored in old.into_iter().chain([packed]) {
            assert_eq!(unpack(None, &hash, &stored).unwrap(), (ValueKind::Numbers, raw.clone()));
        }
        assert_eq!(externalize_value("a", &Value::Ints(vec![-1; 500])), None);
        assert_eq!(externalize_value("a", &Value::Floats(vec![0.1; 500])), None);
        assert_eq!(externalize_value("a", &Value::Ints(vec![1; 10])), None);
    }

    #[test]
    fn a_list_in_a_text_has_the_pieces_of_the_same_list() {
        let ids = Value::Ints((0..2000).collect());
        let body = Value::String(format!("{{\"ids\":{}}}", serde_json::to_string(&ids).unwrap()));
        let list = externalize_divided("a", number_lists::divide(body.as_str().unwrap()).unwrap()).pop().unwrap();
        assert_eq!(list.pieces, externalize_value("b", &ids).unwrap().pieces);
    }

    #[test]
    fn the_same_bytes_of_another_kind_have_another_hash() {
        let hash_of = |value| externalize_value("a", &value).unwrap().pieces[0].hash;
        assert_ne!(hash_of(Value::Ints(vec![0; 200])), hash_of(Value::Floats(vec![0.0; 200])));
        assert_ne!(hash_of(Value::Ints(vec![0; 200])), hash_of(Value::String("\0".repeat(800))));
    }

    #[test]
    fn damage_is_detected() {
        let value = Value::String("x".repeat(600));
        let externalized = externalize_value("a", &value).unwrap();
        let mut data = pack(externalized.kind, &bytes(externalized.kind, &value, &(0..600)));
        assert!(unpack(Some(&Hash::default()), &externalized.pieces[0].hash, &data).is_err());
        *data.last_mut().unwrap() ^= 1;
        assert!(unpack(None, &externalized.pieces[0].hash, &data).is_err());
        assert!(matches!(unpack(None, &externalized.pieces[0].hash, &[]), Err(PieceError::UnknownTag)));
    }

    proptest! {
        #[test]
        fn values_are_restored(text in "(\\[\\{)?[\\[\\]{},\"a\\\\é🦀 ]{400,1200}", ids in prop::collection::vec(0_i64..=4_294_967_295, 100..1500), floats in prop::collection::vec(any::<f32>(), 100..1500)) {
            let floats = Value::Floats(floats.into_iter().filter(|number| number.is_finite()).map(f64::from).collect());
            for value in [Value::String(text), Value::Ints(ids), floats] {
                if let Some(restored) = restored(&value) {
                    prop_assert_eq!(restored, value);
                }
            }
        }
    }
}

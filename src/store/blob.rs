//! Content addressing: what is long in a span is taken out of it in pieces, named by their SHA-256, and put back on
//! reading.
//!
//! An agent sends its whole conversation again with every call. So lists of messages are cut between messages and lists of
//! token ids into blocks, each piece named by all that comes before it too: what two prompts begin with is stored once. It
//! must not know where pieces are kept, and must not change a value.

use crate::trace::{Span, Value};
use crate::wire::json_stream::elements;
use aws_lc_rs::digest::{self, Context};
use std::cell::RefCell;
use std::ops::Range;

/// A piece's name: the SHA-256 of its bytes, behind the name of the piece before it.
pub type Hash = [u8; 32];

/// Values of at least this many bytes are taken out; below it a row of their own costs more than it saves.
pub const MINIMUM_BYTES: usize = 512;

/// A piece of a list of messages has whole messages, and at least so many bytes.
const PIECE_BYTES: usize = 512;

/// Token ids or logprobs of a piece.
const PIECE_NUMBERS: usize = 512;

/// The fast end of zstd: what more levels save on disk costs more than all else that is done with a span.
const LEVEL: i32 = 1;
thread_local! {
    // Making one takes longer than packing a text.
    static COMPRESSOR: RefCell<Option<zstd::bulk::Compressor<'static>>> =
        RefCell::new(zstd::bulk::Compressor::new(LEVEL).ok());
}

/// What a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Text.
    Text,
    /// Whole numbers from 0 to 2³² − 1, four bytes each, the lowest first.
    Numbers,
    /// Numbers that an `f32` has exactly, four bytes each, the lowest first.
    Floats,
}

/// A value taken out of a span.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExternalizedValue {
    /// The attribute.
    pub attribute: String,
    /// What it is.
    pub kind: Kind,
    /// Its pieces, in order.
    pub pieces: Vec<Piece>,
}

/// A part of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Its name.
    pub hash: Hash,
    // Bytes of a text, or numbers of a list.
    range: Range<usize>,
}

/// Why a piece can't be read.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// The first byte is none of ours, or missing.
    #[error("a stored text has an unknown encoding")]
    Tag,
    /// The zstd frame is damaged.
    #[error("a stored text can't be decompressed: {0}")]
    Frame(#[from] std::io::Error),
    /// The bytes are not the ones that were stored.
    #[error("a stored text does not match its hash")]
    Mismatch,
}

impl Kind {
    /// The tag of packed bytes of this kind; compressed ones have the next.
    fn tag(self) -> u8 {
        match self {
            Self::Text => 0,
            Self::Numbers => 2,
            Self::Floats => 4,
        }
    }

    /// The value that the bytes of all its pieces are.
    pub fn value(self, bytes: Vec<u8>) -> Result<Value, BlobError> {
        let words = || bytes.chunks_exact(4).map(|word| [word[0], word[1], word[2], word[3]]);
        Ok(match self {
            Self::Numbers => Value::Ints(words().map(u32::from_le_bytes).map(i64::from).collect()),
            Self::Floats => Value::Floats(words().map(f32::from_le_bytes).map(f64::from).collect()),
            Self::Text => Value::String(String::from_utf8(bytes).map_err(|_| BlobError::Mismatch)?),
        })
    }
}

/// What is long in a span's attributes.
pub fn take(span: &Span) -> Vec<ExternalizedValue> {
    span.attributes.iter().filter_map(|(name, value)| taken(name, value)).collect()
}

fn taken(name: &str, value: &Value) -> Option<ExternalizedValue> {
    let (kind, ranges) = match value {
        Value::String(text) if text.len() >= MINIMUM_BYTES => (Kind::Text, cut(text)),
        Value::Ints(all)
            if all.len() * 4 >= MINIMUM_BYTES && all.iter().all(|number| u32::try_from(*number).is_ok()) =>
        {
            (Kind::Numbers, blocks(all.len()))
        }
        Value::Floats(all) if all.len() * 4 >= MINIMUM_BYTES && all.iter().all(|number| is_single(*number)) => {
            (Kind::Floats, blocks(all.len()))
        }
        _ => return None,
    };
    let mut before: Option<Hash> = None;
    let name_of = |range: Range<usize>| {
        let hash = hash(kind, before.as_ref(), &bytes(value, &range));
        before = Some(hash);
        Piece { hash, range }
    };
    Some(ExternalizedValue { attribute: name.to_owned(), kind, pieces: ranges.into_iter().map(name_of).collect() })
}

/// Where a text is divided: a list of objects between them, so that lists with the same beginning have the same pieces.
fn cut(text: &str) -> Vec<Range<usize>> {
    let (mut ranges, mut from) = (Vec::new(), 0);
    if text.starts_with("[{") {
        for element in elements(text.as_bytes()) {
            if element.end - from >= PIECE_BYTES && text.is_char_boundary(element.end) {
                ranges.push(from..element.end);
                from = element.end;
            }
        }
    }
    if from < text.len() {
        ranges.push(from..text.len());
    }
    ranges
}

fn blocks(length: usize) -> Vec<Range<usize>> {
    (0..length).step_by(PIECE_NUMBERS).map(|from| from..(from + PIECE_NUMBERS).min(length)).collect()
}

#[expect(clippy::cast_possible_truncation, reason = "that is the question")]
fn is_single(number: f64) -> bool {
    f64::from(number as f32).to_bits() == number.to_bits()
}

/// The bytes of a part of a value.
fn bytes<'a>(value: &'a Value, range: &Range<usize>) -> std::borrow::Cow<'a, [u8]> {
    #[expect(clippy::cast_possible_truncation, reason = "only what an f32 has exactly is taken")]
    let single = |number: &f64| (*number as f32).to_le_bytes();
    match value {
        Value::String(text) => text.as_bytes().get(range.clone()).unwrap_or_default().into(),
        Value::Ints(all) => {
            let words = all.get(range.clone()).unwrap_or_default().iter();
            words.flat_map(|number| u32::try_from(*number).unwrap_or(u32::MAX).to_le_bytes()).collect::<Vec<_>>().into()
        }
        Value::Floats(all) => {
            all.get(range.clone()).unwrap_or_default().iter().flat_map(single).collect::<Vec<_>>().into()
        }
        _ => std::borrow::Cow::Borrowed(&[]),
    }
}

impl ExternalizedValue {
    /// A piece as it is stored: a tag, then its bytes as a zstd frame if that is smaller, or as they are.
    pub fn pack(&self, piece: &Piece, span: &Span) -> Vec<u8> {
        let raw = span.attributes.get(&self.attribute).map(|value| bytes(value, &piece.range)).unwrap_or_default();
        pack(self.kind, &raw)
    }
}

fn pack(kind: Kind, raw: &[u8]) -> Vec<u8> {
    let mut data = vec![0; 1 + zstd::zstd_safe::compress_bound(raw.len())];
    let written = COMPRESSOR.with_borrow_mut(|compressor| {
        let compressor = compressor.as_mut()?;
        compressor.compress_to_buffer(raw, &mut data[1..]).ok().filter(|length| *length < raw.len())
    });
    match written {
        Some(length) => {
            data[0] = kind.tag() + 1;
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

/// A stored piece's kind and bytes, checked against its name.
pub fn unpack(before: Option<&Hash>, name: &Hash, data: &[u8]) -> Result<(Kind, Vec<u8>), BlobError> {
    let (tag, body) = data.split_first().ok_or(BlobError::Tag)?;
    let kind = [Kind::Text, Kind::Numbers, Kind::Floats].into_iter().find(|kind| kind.tag() == tag & !1);
    let bytes = if tag & 1 == 1 { zstd::decode_all(body)? } else { body.to_vec() };
    let kind = kind.ok_or(BlobError::Tag)?;
    if hash(kind, before, &bytes) != *name {
        return Err(BlobError::Mismatch);
    }
    Ok((kind, bytes))
}

/// The name of a piece. A text's first piece has the name that texts had before there were pieces; all others say what
/// they are first, so that ids and a text of the same bytes are not taken for each other.
fn hash(kind: Kind, before: Option<&Hash>, bytes: &[u8]) -> Hash {
    let mut context = Context::new(&digest::SHA256);
    if kind != Kind::Text || before.is_some() {
        context.update(&[0xff, kind.tag(), u8::from(before.is_some())]);
    }
    if let Some(before) = before {
        context.update(before);
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
        let taken = taken("a", value)?;
        let (mut whole, mut before) = (Vec::new(), None);
        for piece in &taken.pieces {
            let data = pack(taken.kind, &bytes(value, &piece.range));
            let (kind, part) = unpack(before.as_ref(), &piece.hash, &data).unwrap();
            assert_eq!(kind, taken.kind);
            before = Some(piece.hash);
            whole.extend(part);
        }
        Some(taken.kind.value(whole).unwrap())
    }

    fn messages(count: usize) -> String {
        let one = |number| {
            format!(r#"{{"role":"user","parts":[{{"type":"text","content":"{}"}}]}}"#, "é".repeat(number % 400))
        };
        format!("[{}]", (0..count).map(one).collect::<Vec<_>>().join(","))
    }

    #[test]
    fn what_two_lists_begin_with_has_the_same_pieces() {
        let pieces = |count| taken("m", &Value::String(messages(count))).unwrap().pieces;
        let (short, long) = (pieces(40), pieces(60));
        assert!(short.len() > 5);
        assert_eq!(short[..short.len() - 1], long[..short.len() - 1]);
        let ids = |count: i64| taken("i", &Value::Ints((0..count).collect())).unwrap().pieces;
        assert_eq!(ids(2000)[..3], ids(3000)[..3]);
        assert_ne!(ids(2000)[3], ids(3000)[3]);
    }

    #[test]
    fn numbers_take_four_bytes_and_others_stay() {
        let ids = Value::Ints((0..4096).map(|id| id * 31 % 151_000).collect());
        let packed = pack(Kind::Numbers, &bytes(&ids, &(0..512)));
        assert!(packed.len() <= 1 + 4 * 512);
        assert_eq!(taken("a", &Value::Ints(vec![-1; 500])), None);
        assert_eq!(taken("a", &Value::Floats(vec![0.1; 500])), None);
        assert_eq!(taken("a", &Value::Ints(vec![1; 10])), None);
    }

    #[test]
    fn the_same_bytes_of_another_kind_have_another_name() {
        let names = |value| taken("a", &value).unwrap().pieces[0].hash;
        assert_ne!(names(Value::Ints(vec![0; 200])), names(Value::Floats(vec![0.0; 200])));
        assert_ne!(names(Value::Ints(vec![0; 200])), names(Value::String("\0".repeat(800))));
    }

    #[test]
    fn damage_is_noticed() {
        let value = Value::String("x".repeat(600));
        let taken = taken("a", &value).unwrap();
        let mut data = pack(taken.kind, &bytes(&value, &(0..600)));
        assert!(unpack(Some(&Hash::default()), &taken.pieces[0].hash, &data).is_err());
        *data.last_mut().unwrap() ^= 1;
        assert!(unpack(None, &taken.pieces[0].hash, &data).is_err());
        assert!(matches!(unpack(None, &taken.pieces[0].hash, &[]), Err(BlobError::Tag)));
    }

    proptest! {
        #[test]
        fn values_come_back(text in "(\\[\\{)?[\\[\\]{},\"a\\\\é🦀 ]{400,1200}", ids in prop::collection::vec(0_i64..=4_294_967_295, 100..1500), floats in prop::collection::vec(any::<f32>(), 100..1500)) {
            let floats = Value::Floats(floats.into_iter().filter(|number| number.is_finite()).map(f64::from).collect());
            for value in [Value::String(text), Value::Ints(ids), floats] {
                if let Some(back) = restored(&value) {
                    prop_assert_eq!(back, value);
                }
            }
        }
    }
}

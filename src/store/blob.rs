//! Content addressing: long texts of a span are taken out of it, named by their SHA-256, and put back on reading.
//!
//! An agent sends its whole conversation again with every call, so the same text is stored once. It must not know where
//! blobs are kept, and must not change a text.

use crate::trace::{Span, Value};
use aws_lc_rs::digest;
use std::collections::BTreeMap;

/// A blob's name: the SHA-256 of its text.
pub type Hash = [u8; 32];

/// Which attribute holds which blob.
pub type References = BTreeMap<String, Hash>;

/// Texts of at least this many bytes become blobs; below it a row of their own costs more than it saves.
pub const MINIMUM_BYTES: usize = 512;

const LEVEL: i32 = 3;
const TAG_RAW: u8 = 0;
const TAG_ZSTD: u8 = 1;

/// A text as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blob {
    /// SHA-256 of the text, before compression.
    pub hash: Hash,
    /// A tag byte, then the text as a zstd frame or as it is.
    pub data: Vec<u8>,
}

/// What was taken out of a span.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Split {
    /// Each different text once.
    pub blobs: Vec<Blob>,
    /// Where they belong.
    pub references: References,
}

/// Why a blob can't be read.
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

impl Blob {
    /// Packs a text, compressed when that makes it smaller.
    pub fn pack(text: &str) -> Self {
        let (tag, body) = match zstd::encode_all(text.as_bytes(), LEVEL) {
            Ok(frame) if frame.len() < text.len() => (TAG_ZSTD, frame),
            // Writing to memory does not fail; if it ever did, the text itself is as good.
            _ => (TAG_RAW, text.as_bytes().to_vec()),
        };
        let mut data = Vec::with_capacity(body.len() + 1);
        data.push(tag);
        data.extend_from_slice(&body);
        Self { hash: hash(text.as_bytes()), data }
    }

    /// The text, checked against its hash.
    pub fn unpack(&self) -> Result<String, BlobError> {
        let bytes = match self.data.split_first() {
            Some((&TAG_RAW, body)) => body.to_vec(),
            Some((&TAG_ZSTD, body)) => zstd::decode_all(body)?,
            _ => return Err(BlobError::Tag),
        };
        if hash(&bytes) != self.hash {
            return Err(BlobError::Mismatch);
        }
        String::from_utf8(bytes).map_err(|_| BlobError::Mismatch)
    }
}

/// Takes the long texts out of a span's attributes.
pub fn split(span: &mut Span) -> Split {
    let mut split = Split::default();
    let is_long = |value: &Value| value.as_str().is_some_and(|text| text.len() >= MINIMUM_BYTES);
    let names: Vec<String> =
        span.attributes.iter().filter(|(_, value)| is_long(value)).map(|(name, _)| name.clone()).collect();
    for name in names {
        if let Some(Value::String(text)) = span.attributes.remove(&name) {
            let blob = Blob::pack(&text);
            split.references.insert(name, blob.hash);
            if split.blobs.iter().all(|other| other.hash != blob.hash) {
                split.blobs.push(blob);
            }
        }
    }
    split
}

/// Puts the texts back that `split` took out; `find` gives the text of a hash.
pub fn join<E>(
    span: &mut Span,
    references: References,
    mut find: impl FnMut(&Hash) -> Result<String, E>,
) -> Result<(), E> {
    for (name, hash) in references {
        let text = find(&hash)?;
        span.attributes.insert(name, Value::String(text));
    }
    Ok(())
}

fn hash(bytes: &[u8]) -> Hash {
    let mut hash = Hash::default();
    hash.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_round_trip_compressed_or_not() {
        for text in ["", "a", "é\u{0}漢字🦀", &"again and again ".repeat(500)] {
            assert_eq!(Blob::pack(text).unpack().unwrap(), text);
        }
        assert!(Blob::pack(&"x".repeat(10_000)).data.len() < 200);
    }

    #[test]
    fn damage_is_noticed() {
        let mut blob = Blob::pack("short");
        blob.data[2] ^= 1;
        assert!(matches!(blob.unpack(), Err(BlobError::Mismatch)));
        blob.data.clear();
        assert!(matches!(blob.unpack(), Err(BlobError::Tag)));
    }
}

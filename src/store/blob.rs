//! Content addressing: long texts of a span are taken out of it, named by their SHA-256, and put back on reading.
//!
//! An agent sends its whole conversation again with every call, so the same text is stored once. It must not know where
//! blobs are kept, and must not change a text.

use crate::trace::Span;
use aws_lc_rs::digest;
use std::cell::RefCell;
use std::collections::BTreeMap;

/// A blob's name: the SHA-256 of its text.
pub type Hash = [u8; 32];

/// Which attribute holds which blob.
pub type References = BTreeMap<String, Hash>;

/// Texts of at least this many bytes become blobs; below it a row of their own costs more than it saves.
pub const MINIMUM_BYTES: usize = 512;

/// The fast end of zstd: what more levels save on disk costs more than all else that is done with a span.
const LEVEL: i32 = 1;
thread_local! {
    // Making one takes longer than packing a text.
    static COMPRESSOR: RefCell<Option<zstd::bulk::Compressor<'static>>> =
        RefCell::new(zstd::bulk::Compressor::new(LEVEL).ok());
}
const TAG_RAW: u8 = 0;
const TAG_ZSTD: u8 = 1;

/// A text as it is stored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
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
        Self::pack_as(hash(text.as_bytes()), text)
    }

    fn pack_as(hash: Hash, text: &str) -> Self {
        let mut data = vec![0; 1 + zstd::zstd_safe::compress_bound(text.len())];
        let written = COMPRESSOR.with_borrow_mut(|compressor| {
            let compressor = compressor.as_mut()?;
            compressor.compress_to_buffer(text.as_bytes(), &mut data[1..]).ok().filter(|length| *length < text.len())
        });
        match written {
            Some(length) => {
                data[0] = TAG_ZSTD;
                data.truncate(1 + length);
            }
            None => {
                data[0] = TAG_RAW;
                data.truncate(1);
                data.extend_from_slice(text.as_bytes());
            }
        }
        Self { hash, data }
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

/// The long texts of a span's attributes, packed.
pub fn split(span: &Span) -> Split {
    let mut split = Split::default();
    for (name, value) in &span.attributes {
        let Some(text) = value.as_str().filter(|text| text.len() >= MINIMUM_BYTES) else { continue };
        let hash = hash(text.as_bytes());
        split.references.insert(name.clone(), hash);
        if split.blobs.iter().all(|other| other.hash != hash) {
            split.blobs.push(Blob::pack_as(hash, text));
        }
    }
    split
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

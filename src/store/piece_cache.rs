//! Pieces of values that were read recently, so that one that many prompts share is loaded, unpacked and verified once, and not
//! with each page of a read.

use super::externalized::{Hash, ValueKind};
use std::collections::HashMap;

/// The pieces that one connection has read, at most about [`MAX_BYTES`] and those of one value. With a piece, those before it are
/// in the cache: its hash covers them, so that it stands for the whole beginning of a value.
#[derive(Default)]
pub(super) struct PieceCache {
    pieces: HashMap<Hash, CachedPiece>,
    bytes: usize,
}

struct CachedPiece {
    previous: Option<Hash>,
    kind: ValueKind,
    bytes: Box<[u8]>,
}

impl PieceCache {
    /// Makes room for the pieces of a value.
    pub(super) fn make_room(&mut self) {
        if self.bytes > MAX_BYTES {
            *self = Self::default();
        }
    }

    pub(super) fn contains(&self, hash: &Hash) -> bool {
        self.pieces.contains_key(hash)
    }

    /// Adds a piece that follows one in the cache, or begins a value. Returns its bytes if it is too long to keep.
    pub(super) fn add(
        &mut self,
        hash: Hash,
        previous: Option<Hash>,
        kind: ValueKind,
        bytes: Vec<u8>,
    ) -> Result<(), Vec<u8>> {
        if bytes.len() > MAX_PIECE_BYTES {
            return Err(bytes);
        }
        self.bytes += bytes.len() + PIECE_OVERHEAD_BYTES;
        self.pieces.insert(hash, CachedPiece { previous, kind, bytes: bytes.into() });
        Ok(())
    }

    /// The pieces up to this one, in their order.
    pub(super) fn up_to(&self, last: Option<&Hash>) -> Vec<&[u8]> {
        let next = |piece: &&CachedPiece| piece.previous.as_ref().and_then(|hash| self.pieces.get(hash));
        let first = last.and_then(|hash| self.pieces.get(hash));
        let mut chain: Vec<&[u8]> = std::iter::successors(first, next).map(|piece| &*piece.bytes).collect();
        chain.reverse();
        chain
    }

    /// The type of a value, by one of its pieces.
    pub(super) fn kind(&self, hash: &Hash) -> Option<ValueKind> {
        self.pieces.get(hash).map(|piece| piece.kind)
    }
}

/// The ids of a prompt of two million tokens.
const MAX_BYTES: usize = 8 * 1024 * 1024;

/// Longer pieces are texts that no other value has a part of.
const MAX_PIECE_BYTES: usize = 64 * 1024;

/// A map's entry.
const PIECE_OVERHEAD_BYTES: usize = 128;

//! The bytes that are kept of a body: as they came, or packed where a long stream would hold much room for long.
//!
//! An answer of a thousand small events is nine parts in ten the same text over and over.

use std::cell::RefCell;
use zstd::bulk::{Compressor, Decompressor};

/// Bytes that grow at their end and are read once.
#[derive(Clone, Debug, Default)]
pub struct Kept {
    // Compressed, each with the length it had.
    blocks: Vec<(Box<[u8]>, usize)>,
    packed_bytes: usize,
    tail: Vec<u8>,
}

impl Kept {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.packed_bytes + self.tail.len()
    }

    /// True when there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds some.
    pub fn push(&mut self, data: &[u8]) {
        self.tail.extend_from_slice(data);
    }

    /// Makes room for that many at once.
    pub fn reserve_exact(&mut self, bytes: usize) {
        self.tail.reserve_exact(bytes);
    }

    /// How many are not packed.
    pub fn unpacked_bytes(&self) -> usize {
        self.tail.len()
    }

    /// Packs what is not packed; gives how many bytes that saved.
    pub fn pack(&mut self) -> usize {
        let packed = COMPRESSOR.with_borrow_mut(|compressor| compressor.as_mut()?.compress(&self.tail).ok());
        let Some(packed) = packed.filter(|packed| packed.len() < self.tail.len()) else { return 0 };
        let (before, after) = (self.tail.len(), packed.len());
        self.blocks.push((packed.into_boxed_slice(), before));
        self.packed_bytes += before;
        self.tail.clear();
        before - after
    }

    /// All of them.
    pub fn into_bytes(self) -> Vec<u8> {
        if self.blocks.is_empty() {
            return self.tail;
        }
        let mut bytes = Vec::with_capacity(self.len());
        let Ok(mut decompressor) = Decompressor::new() else { return bytes };
        for (block, length) in &self.blocks {
            // What we packed ourselves a moment ago is whole.
            bytes.extend(decompressor.decompress(block, *length).unwrap_or_default());
        }
        bytes.extend_from_slice(&self.tail);
        bytes
    }
}

impl From<Vec<u8>> for Kept {
    fn from(tail: Vec<u8>) -> Self {
        Self { tail, ..Self::default() }
    }
}

thread_local! {
    static COMPRESSOR: RefCell<Option<Compressor<'static>>> = RefCell::new(Compressor::new(1).ok());
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_kept_comes_back(pieces in prop::collection::vec(("[a-d]{0,40}", any::<bool>()), 0..60)) {
            let (mut kept, mut whole) = (Kept::default(), Vec::new());
            for (piece, pack) in &pieces {
                kept.push(piece.as_bytes());
                whole.extend_from_slice(piece.as_bytes());
                if *pack {
                    kept.pack();
                }
                prop_assert_eq!(kept.len(), whole.len());
            }
            prop_assert_eq!(kept.into_bytes(), whole);
        }
    }

    #[test]
    fn a_stream_of_events_is_packed_well() {
        let mut kept = Kept::default();
        for at in 0..100 {
            kept.push(format!("data: {{\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\" {at}\"}}}}]}}\n\n").as_bytes());
        }
        let before = kept.len();
        assert!(kept.pack() > before * 8 / 10);
        assert_eq!((kept.len(), kept.unpacked_bytes()), (before, 0));
    }
}

//! The recorded bytes of a body: plain, or compressed in blocks where a long stream would occupy much memory for long.
//!
//! A streamed response of a thousand small events is nine tenths the same text over and over.

use std::cell::RefCell;
use zstd::bulk::{Compressor, Decompressor};

/// Bytes that are appended to, and read once.
#[derive(Clone, Debug, Default)]
pub struct BodyBuffer {
    // Compressed blocks, each with its uncompressed length.
    blocks: Vec<(Box<[u8]>, usize)>,
    // Sum of the uncompressed lengths of `blocks`.
    packed_bytes: usize,
    tail: Vec<u8>,
}

impl BodyBuffer {
    /// Bytes, uncompressed.
    pub fn len(&self) -> usize {
        self.packed_bytes + self.tail.len()
    }

    /// True when there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Appends bytes.
    pub fn push(&mut self, data: &[u8]) {
        self.tail.extend_from_slice(data);
    }

    /// Allocates room for exactly `bytes` more.
    pub fn reserve_exact(&mut self, bytes: usize) {
        self.tail.reserve_exact(bytes);
    }

    /// Bytes that are not compressed.
    pub fn unpacked_bytes(&self) -> usize {
        self.tail.len()
    }

    /// Compresses what is not compressed yet. Returns how many bytes of memory that freed.
    pub fn pack(&mut self) -> usize {
        let packed = COMPRESSOR.with_borrow_mut(|compressor| compressor.as_mut()?.compress(&self.tail).ok());
        let Some(packed) = packed.filter(|packed| packed.len() < self.tail.len()) else { return 0 };
        let (before, after) = (self.tail.len(), packed.len());
        self.blocks.push((packed.into_boxed_slice(), before));
        self.packed_bytes += before;
        self.tail.clear();
        before - after
    }

    /// All bytes, uncompressed.
    pub fn into_bytes(self) -> Vec<u8> {
        if self.blocks.is_empty() {
            return self.tail;
        }
        let mut bytes = Vec::with_capacity(self.len());
        let Ok(mut decompressor) = Decompressor::new() else { return bytes };
        for (block, length) in &self.blocks {
            // It is our own block from this process's memory: it decompresses.
            bytes.extend(decompressor.decompress(block, *length).unwrap_or_default());
        }
        bytes.extend_from_slice(&self.tail);
        bytes
    }
}

impl From<Vec<u8>> for BodyBuffer {
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
        fn bytes_come_back_unchanged(pieces in prop::collection::vec(("[a-d]{0,40}", any::<bool>()), 0..60)) {
            let (mut buffer, mut whole) = (BodyBuffer::default(), Vec::new());
            for (piece, pack) in &pieces {
                buffer.push(piece.as_bytes());
                whole.extend_from_slice(piece.as_bytes());
                if *pack {
                    buffer.pack();
                }
                prop_assert_eq!(buffer.len(), whole.len());
            }
            prop_assert_eq!(buffer.into_bytes(), whole);
        }
    }

    #[test]
    fn a_stream_of_events_compresses_well() {
        let mut buffer = BodyBuffer::default();
        for at in 0..100 {
            buffer.push(format!("data: {{\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\" {at}\"}}}}]}}\n\n").as_bytes());
        }
        let before = buffer.len();
        assert!(buffer.pack() > before * 8 / 10);
        assert_eq!((buffer.len(), buffer.unpacked_bytes()), (before, 0));
    }
}

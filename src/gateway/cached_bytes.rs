//! The bytes of a cached response. They are kept, or, once the response is only passed through, dropped as they are read.

use crate::capture::{HeldBytes, Memory, MemoryUse, SpillError};
use crate::trace::exchange::BodyContent;
use crate::util::paged_buffer::PagedBuffer;
use bytes::Bytes;

/// Bytes that are appended, and read from any offset that is kept. A read copies.
#[derive(Debug)]
pub(super) struct CachedBytes {
    /// The beginning, within the memory budget or on disk; empty once it was dropped.
    kept: HeldBytes,
    /// The offset at which the kept bytes end, and those that are passed through begin.
    kept_end: usize,
    passing: PagedBuffer,
    /// The number of bytes that were ever appended.
    end: usize,
}

impl CachedBytes {
    pub(super) fn new(memory: &Memory) -> Self {
        let kept = HeldBytes::new(memory, MemoryUse::Retries);
        Self { kept, kept_end: 0, passing: PagedBuffer::default(), end: 0 }
    }

    /// Appends bytes to keep. An error if neither memory nor disk has room for them.
    pub(super) fn keep(&mut self, data: &[u8]) -> Result<(), SpillError> {
        self.kept.push(data)?;
        self.kept_end += data.len();
        self.end += data.len();
        Ok(())
    }

    /// Appends bytes that are dropped once they are read. None are kept after them.
    pub(super) fn pass(&mut self, data: &[u8]) {
        self.passing.push(data);
        self.end += data.len();
    }

    /// A piece of the bytes from an offset on; `None` if there are none yet.
    pub(super) fn read(&self, offset: usize) -> Result<Option<Bytes>, SpillError> {
        let Some(left) = self.kept_end.checked_sub(offset).filter(|left| *left > 0) else {
            let piece = self.passing.read(offset - self.kept_end);
            return Ok((!piece.is_empty()).then(|| Bytes::copy_from_slice(piece)));
        };
        let mut piece = vec![0; left.min(PIECE_BYTES)];
        let length = self.kept.read_at(offset as u64, &mut piece)?;
        piece.truncate(length);
        Ok(Some(piece.into()).filter(|piece: &Bytes| !piece.is_empty()))
    }

    /// The offset behind the last byte.
    pub(super) fn end(&self) -> usize {
        self.end
    }

    /// Drops bytes before an offset; returns how many.
    pub(super) fn drop_before(&mut self, offset: usize) -> usize {
        let Some(passed) = offset.checked_sub(self.kept_end) else { return 0 };
        let kept = usize::try_from(self.kept.len()).unwrap_or(usize::MAX);
        self.kept.clear();
        kept + self.passing.drop_before(passed)
    }

    /// Bytes that were not dropped.
    pub(super) fn len(&self) -> usize {
        usize::try_from(self.kept.len()).unwrap_or(usize::MAX) + self.passing.len()
    }
}

/// The most that is read from kept bytes at a time.
const PIECE_BYTES: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn bytes_are_read_as_they_were_added(
            pieces in prop::collection::vec((0..40_000_usize, any::<bool>()), 0..12),
            kept_pieces in 0..12_usize,
            budget in prop::sample::select(vec![0_u64, 20_000, 1 << 30]),
        ) {
            let folder = tempfile::tempdir().unwrap();
            let memory = Memory::new(budget, folder.path().to_owned());
            let (mut bytes, mut written, mut read) = (CachedBytes::new(&memory), Vec::new(), Vec::new());
            let mut dropped = 0;
            for (at, (length, reads)) in pieces.into_iter().enumerate() {
                let piece: Vec<u8> = (0..length).map(|at| (at + written.len()) as u8).collect();
                if at < kept_pieces {
                    bytes.keep(&piece).unwrap();
                } else {
                    bytes.pass(&piece);
                }
                written.extend_from_slice(&piece);
                while let Some(piece) = bytes.read(read.len()).unwrap().filter(|_| reads) {
                    read.extend_from_slice(&piece);
                    if at >= kept_pieces {
                        dropped += bytes.drop_before(read.len());
                    }
                }
                prop_assert_eq!((bytes.len() + dropped, bytes.end()), (written.len(), written.len()));
            }
            while let Some(piece) = bytes.read(read.len()).unwrap() {
                read.extend_from_slice(&piece);
            }
            prop_assert!(read == written);
            drop(bytes);
            prop_assert_eq!((memory.budget().left_bytes(), memory.spill().spilled_bytes()), (budget, 0));
        }
    }
}

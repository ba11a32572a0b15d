//! Bytes that are appended and read back later: in memory while the budget has room, then in the spill file.

use super::memory::Memory;
use super::memory_budget::{MemoryShare, MemoryUse};
use super::spill::{SpillError, SpilledBytes};
use crate::trace::exchange::BodyContent;
use crate::util::paged_buffer::PagedBuffer;
use std::io;

/// Bytes in memory or in the spill file.
#[derive(Debug)]
pub(crate) struct HeldBytes {
    memory: Memory,
    share: MemoryShare,
    /// The beginning, once memory was short.
    spilled: Option<SpilledBytes>,
    /// What follows it.
    pages: PagedBuffer,
}

impl HeldBytes {
    /// No bytes yet.
    pub(crate) fn new(memory: &Memory, memory_use: MemoryUse) -> Self {
        let share = memory.share(memory_use);
        Self { memory: memory.clone(), share, spilled: None, pages: PagedBuffer::default() }
    }

    /// Appends bytes. After an error those before it can be read.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Result<(), SpillError> {
        let in_memory = self.pages.len() + bytes.len();
        if self.spilled.is_none() && in_memory <= MAX_IN_MEMORY_BYTES && self.share.try_grow(bytes.len() as u64) {
            self.pages.push(bytes);
            return Ok(());
        }
        let spilled = self.spilled.get_or_insert_with(|| self.memory.spill().spilled());
        if spilled.len() > 0 && in_memory <= MAX_UNSPILLED_BYTES {
            self.pages.push(bytes);
            return Ok(());
        }
        loop {
            let page = self.pages.read(self.pages.start());
            if page.is_empty() {
                break;
            }
            let is_last = page.len() == self.pages.len();
            spilled.append(page)?;
            if is_last {
                self.pages = PagedBuffer::default();
            }
            self.pages.drop_full_page();
        }
        self.share.shrink(self.share.bytes());
        spilled.append(bytes)
    }

    /// The same with bytes that must not be lost.
    pub(crate) fn of(memory: &Memory, memory_use: MemoryUse, bytes: &[u8]) -> Self {
        let mut held = Self::new(memory, memory_use);
        held.push_always(bytes);
        held
    }

    /// Appends bytes that must not be lost: what the disk does not take stays in memory, beyond the budget.
    pub(crate) fn push_always(&mut self, bytes: &[u8]) {
        if self.push(bytes).is_err() {
            self.share.grow(bytes.len() as u64);
            self.pages.push(bytes);
        }
    }

    /// All bytes in one piece, beside the budget.
    pub(crate) fn to_vec(&self) -> Result<Vec<u8>, SpillError> {
        let mut bytes = vec![0; usize::try_from(self.len()).unwrap_or(usize::MAX)];
        let mut done = 0;
        while done < bytes.len() {
            match self.read_at(done as u64, &mut bytes[done..])? {
                0 => break,
                length => done += length,
            }
        }
        Ok(bytes)
    }

    /// Forgets all bytes.
    pub(crate) fn clear(&mut self) {
        self.spilled = None;
        self.pages = PagedBuffer::default();
        self.share.shrink(self.share.bytes());
    }

    /// The most bytes that one read from an offset on gives; 0 at the end.
    pub(crate) fn readable_at(&self, offset: u64) -> u64 {
        let spilled_bytes = self.spilled.as_ref().map_or(0, SpilledBytes::len);
        match spilled_bytes.checked_sub(offset) {
            Some(left) if left > 0 => left.min(PIECE_BYTES as u64),
            _ => self.pages_from(offset - spilled_bytes).len() as u64,
        }
    }

    /// The bytes in memory from an offset behind the spilled ones to the end of their page.
    fn pages_from(&self, offset: u64) -> &[u8] {
        let at = usize::try_from(offset).unwrap_or(usize::MAX);
        self.pages.read(self.pages.start().saturating_add(at))
    }

    /// Reads bytes from an offset on, and returns how many; 0 at the end.
    pub(crate) fn read_at(&self, offset: u64, into: &mut [u8]) -> Result<usize, SpillError> {
        let spilled_bytes = self.spilled.as_ref().map_or(0, SpilledBytes::len);
        if let Some(spilled) = self.spilled.as_ref().filter(|_| offset < spilled_bytes) {
            return spilled.read_at(offset, into);
        }
        let rest = self.pages_from(offset - spilled_bytes);
        let length = rest.len().min(into.len());
        into[..length].copy_from_slice(&rest[..length]);
        Ok(length)
    }
}

impl BodyContent for HeldBytes {
    fn len(&self) -> u64 {
        self.spilled.as_ref().map_or(0, SpilledBytes::len) + self.pages.len() as u64
    }

    fn read_from(&self, mut offset: u64, on_piece: &mut dyn FnMut(&[u8])) -> io::Result<()> {
        let mut piece =
            vec![0; usize::try_from(self.len().saturating_sub(offset)).unwrap_or(usize::MAX).min(PIECE_BYTES)];
        loop {
            let length = self.read_at(offset, &mut piece)?;
            if length == 0 {
                return Ok(());
            }
            on_piece(&piece[..length]);
            offset += length as u64;
        }
    }
}

/// Longer bytes are spilled even if the budget has room: what is long is read rarely, and to spill it must not take long.
const MAX_IN_MEMORY_BYTES: usize = 8 << 20;
/// Small pieces are written to the spill file together; so many bytes may wait in memory, beside the budget.
const MAX_UNSPILLED_BYTES: usize = 8 * 1024;
const PIECE_BYTES: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(held: &HeldBytes, from: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        held.read_from(from, &mut |piece| bytes.extend_from_slice(piece)).unwrap();
        bytes
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]

        #[test]
        fn bytes_come_back_wherever_they_were(
            pieces in prop::collection::vec((0_usize..40_000, any::<u8>()), 0..20),
            budget in prop::sample::select(vec![0_u64, 10_000, 100_000, 10_000_000]),
            from in 0_u64..200_000,
        ) {
            let folder = tempfile::tempdir().unwrap();
            let memory = Memory::new(budget, folder.path().to_owned());
            let (mut held, mut expected) = (HeldBytes::new(&memory, MemoryUse::Capture), Vec::new());
            for (length, byte) in pieces {
                let piece: Vec<u8> = (0..length % 30_011).map(|at| byte.wrapping_add(at as u8)).collect();
                held.push(&piece).unwrap();
                expected.extend(piece);
                prop_assert_eq!(held.len(), expected.len() as u64);
            }
            prop_assert!(read(&held, 0) == expected);
            prop_assert!(held.to_vec().unwrap() == expected);
            let rest = expected.get(usize::try_from(from).unwrap()..).unwrap_or_default();
            prop_assert!(read(&held, from) == rest);
            prop_assert!(memory.budget().left_bytes() <= budget);
            held.clear();
            prop_assert_eq!((held.len(), memory.budget().left_bytes(), memory.spill().spilled_bytes()), (0, budget, 0));
        }
    }

    #[test]
    fn what_cannot_be_spilled_stays_readable() {
        let folder = tempfile::tempdir().unwrap();
        let memory = Memory::new(10, folder.path().join("missing"));
        let mut held = HeldBytes::new(&memory, MemoryUse::Capture);
        held.push(b"12345678").unwrap();
        held.push(b"90ab").unwrap_err();
        assert_eq!(read(&held, 0), b"12345678");
        held.push_always(b"90ab");
        assert_eq!(held.to_vec().unwrap(), b"1234567890ab");
        assert_eq!((memory.budget().used_for(MemoryUse::Capture), memory.budget().left_bytes()), (12, 0));
        std::fs::create_dir(folder.path().join("missing")).unwrap();
        held.push(b"cd").unwrap();
        assert_eq!((held.to_vec().unwrap(), memory.budget().left_bytes()), (b"1234567890abcd".to_vec(), 10));
    }
}

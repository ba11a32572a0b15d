//! Bytes that are appended at one end and dropped at the other, in pages. An allocation for each small piece would take
//! more memory than the piece, and one for all bytes would move them whenever it grows.

use std::collections::VecDeque;

/// Bytes in pages that are full, but for the last. Offsets count from the first byte that was ever appended.
#[derive(Debug, Default)]
pub(crate) struct PagedBuffer {
    pages: VecDeque<Vec<u8>>,
    dropped_pages: usize,
    len: usize,
}

impl PagedBuffer {
    /// The number of bytes that were not dropped.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The offset of the first byte that was not dropped.
    pub(crate) fn start(&self) -> usize {
        self.dropped_pages * PAGE_BYTES
    }

    /// Appends bytes, in new pages where the last one is full.
    pub(crate) fn push(&mut self, mut data: &[u8]) {
        self.len += data.len();
        while !data.is_empty() {
            if self.pages.back().is_none_or(|page| page.len() == PAGE_BYTES) {
                self.pages.push_back(Vec::new());
            }
            let Some(page) = self.pages.back_mut() else { return };
            let (fits, rest) = data.split_at(data.len().min(PAGE_BYTES - page.len()));
            let needed = page.len() + fits.len();
            if needed > page.capacity() {
                // Not as much as a vector would take: two pages of one that has grown beyond its half.
                let capacity = (page.capacity() * 2).clamp(needed, PAGE_BYTES);
                page.reserve_exact(capacity - page.len());
            }
            page.extend_from_slice(fits);
            data = rest;
        }
    }

    /// The bytes from an offset to the end of its page; empty if there are none yet, or if they were dropped.
    pub(crate) fn read(&self, offset: usize) -> &[u8] {
        let page = (offset / PAGE_BYTES).checked_sub(self.dropped_pages).and_then(|page| self.pages.get(page));
        page.and_then(|page| page.get(offset % PAGE_BYTES..)).unwrap_or_default()
    }

    /// Drops the first page, if it is full.
    pub(crate) fn drop_full_page(&mut self) {
        if self.pages.front().is_some_and(|page| page.len() == PAGE_BYTES) {
            self.pages.pop_front();
            self.dropped_pages += 1;
            self.len -= PAGE_BYTES;
        }
    }

    /// Drops the pages before an offset that was read; returns how many bytes they held.
    pub(crate) fn drop_before(&mut self, offset: usize) -> usize {
        let before = self.len;
        while self.start() + PAGE_BYTES <= offset && self.len >= PAGE_BYTES {
            self.drop_full_page();
        }
        before - self.len
    }
}

/// The most that a page holds. It grows to that by doubling, so that a few bytes take little memory.
const PAGE_BYTES: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn bytes_are_read_as_they_were_pushed(pieces in prop::collection::vec((0..40_000_usize, any::<bool>()), 0..12)) {
            let (mut buffer, mut pushed, mut read, mut dropped) = (PagedBuffer::default(), Vec::new(), Vec::new(), 0);
            for (length, reads) in pieces {
                let piece: Vec<u8> = (0..length).map(|at| (at + pushed.len()) as u8).collect();
                buffer.push(&piece);
                pushed.extend_from_slice(&piece);
                while reads && !buffer.read(read.len()).is_empty() {
                    read.extend_from_slice(buffer.read(read.len()));
                    dropped += buffer.drop_before(read.len());
                }
                prop_assert_eq!(buffer.len() + dropped, pushed.len());
                prop_assert!(buffer.start() == dropped && pushed.starts_with(&read));
            }
            while !buffer.read(read.len()).is_empty() {
                read.extend_from_slice(buffer.read(read.len()));
            }
            prop_assert!(read == pushed);
        }
    }
}

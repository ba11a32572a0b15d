//! Held bytes in which parts are replaced. What was received is held once, however often it is changed and sent.

use super::held_bytes::HeldBytes;
use super::spill::SpillError;
use crate::error::ProxyError;
use crate::trace::exchange::BodyContent;
use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

/// Held bytes with replacements. Cheap to clone: clones share the bytes.
#[derive(Clone, Debug, Default)]
pub(crate) struct EditedBytes {
    pieces: Vec<Piece>,
}

#[derive(Clone, Debug)]
enum Piece {
    Held(Arc<HeldBytes>, Range<u64>),
    Text(Bytes),
}

/// A body that sends held bytes, one piece of at most [`CHUNK_BYTES`] at a time.
#[derive(Debug)]
pub(crate) struct HeldBody {
    bytes: EditedBytes,
    /// The piece that is sent now, and how much of it was.
    at: usize,
    offset: u64,
}

impl EditedBytes {
    /// The number of bytes, with the replacements.
    pub(crate) fn len(&self) -> u64 {
        self.pieces.iter().map(Piece::len).sum()
    }

    /// The same with these ranges replaced; they are in order, and do not overlap.
    pub(crate) fn edited(&self, edits: &[(Range<usize>, Vec<u8>)]) -> Self {
        let (mut pieces, mut copied) = (Vec::new(), 0);
        for (range, text) in edits {
            pieces.extend(self.part(copied..range.start as u64));
            pieces.push(Piece::Text(text.clone().into()));
            copied = range.end as u64;
        }
        pieces.extend(self.part(copied..self.len()));
        Self { pieces }
    }

    /// Gives the bytes chunk by chunk. An error if they can't be read to their end.
    pub(crate) fn read(&self, on_chunk: &mut dyn FnMut(&Bytes)) -> Result<(), SpillError> {
        let mut body = self.body();
        while let Some(chunk) = body.next_chunk()? {
            on_chunk(&chunk);
        }
        Ok(())
    }

    /// All of them in one piece, beside the budget.
    pub(crate) fn to_vec(&self) -> Result<Vec<u8>, SpillError> {
        let mut bytes = Vec::with_capacity(index(self.len()));
        self.read(&mut |chunk| bytes.extend_from_slice(chunk))?;
        Ok(bytes)
    }

    /// Their first chunk; empty only if there are none.
    pub(crate) fn beginning(&self) -> Result<Bytes, SpillError> {
        self.body().next_chunk().map(Option::unwrap_or_default)
    }

    /// A body that sends them.
    pub(crate) fn body(&self) -> HeldBody {
        HeldBody { bytes: self.clone(), at: 0, offset: 0 }
    }

    /// The pieces of a range.
    fn part(&self, range: Range<u64>) -> impl Iterator<Item = Piece> {
        let mut start = 0;
        self.pieces.iter().filter_map(move |piece| {
            let (from, to) = (range.start.saturating_sub(start), range.end.saturating_sub(start).min(piece.len()));
            start += piece.len();
            (from < to).then(|| piece.part(from..to))
        })
    }
}

impl From<Arc<HeldBytes>> for EditedBytes {
    fn from(held: Arc<HeldBytes>) -> Self {
        let range = 0..held.len();
        Self { pieces: vec![Piece::Held(held, range)] }
    }
}

impl From<HeldBytes> for EditedBytes {
    fn from(held: HeldBytes) -> Self {
        Arc::new(held).into()
    }
}

impl From<Bytes> for EditedBytes {
    fn from(text: Bytes) -> Self {
        Self { pieces: vec![Piece::Text(text)] }
    }
}

/// The record of a request shares the bytes that are sent.
impl BodyContent for EditedBytes {
    fn len(&self) -> u64 {
        self.len()
    }

    fn read_from(&self, offset: u64, on_piece: &mut dyn FnMut(&[u8])) -> io::Result<()> {
        let pieces = self.part(offset..self.len()).collect();
        Ok(Self { pieces }.read(&mut |chunk| on_piece(chunk))?)
    }
}

impl Piece {
    fn len(&self) -> u64 {
        match self {
            Self::Held(_, range) => range.end - range.start,
            Self::Text(text) => text.len() as u64,
        }
    }

    fn part(&self, part: Range<u64>) -> Self {
        match self {
            Self::Held(held, range) => Self::Held(Arc::clone(held), range.start + part.start..range.start + part.end),
            Self::Text(text) => Self::Text(text.slice(index(part.start)..index(part.end))),
        }
    }

    /// The bytes from an offset on, as many as are sent at a time.
    fn chunk(&self, offset: u64) -> Result<Bytes, SpillError> {
        let end = self.len().min(offset + CHUNK_BYTES);
        match self {
            Self::Text(text) => Ok(text.slice(index(offset)..index(end))),
            Self::Held(held, range) => {
                let readable = held.readable_at(range.start + offset).min(end - offset);
                let mut chunk = vec![0; index(readable)];
                let length = held.read_at(range.start + offset, &mut chunk)?;
                chunk.truncate(length);
                Ok(chunk.into())
            }
        }
    }
}

/// An index into bytes that are in memory.
fn index(at: u64) -> usize {
    usize::try_from(at).unwrap_or(usize::MAX)
}

impl HeldBody {
    fn next_chunk(&mut self) -> Result<Option<Bytes>, SpillError> {
        while let Some(piece) = self.bytes.pieces.get(self.at) {
            let chunk = piece.chunk(self.offset)?;
            self.offset += chunk.len() as u64;
            if !chunk.is_empty() {
                return Ok(Some(chunk));
            }
            (self.at, self.offset) = (self.at + 1, 0);
        }
        Ok(None)
    }

    fn left_bytes(&self) -> u64 {
        let left = self.bytes.pieces.get(self.at..).unwrap_or_default();
        left.iter().map(Piece::len).sum::<u64>() - self.offset
    }
}

impl Body for HeldBody {
    type Data = Bytes;
    type Error = ProxyError;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ProxyError>>> {
        let chunk = self.next_chunk().map_err(ProxyError::from).transpose();
        Poll::Ready(chunk.map(|chunk| chunk.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        self.left_bytes() == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left_bytes())
    }
}

const CHUNK_BYTES: u64 = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::super::memory::Memory;
    use super::super::memory_budget::MemoryUse;
    use super::*;
    use http_body_util::BodyExt;
    use proptest::prelude::*;
    use proptest::sample::Index;

    fn read(bytes: &EditedBytes) -> Vec<u8> {
        let mut read = Vec::new();
        bytes.read(&mut |chunk| read.extend_from_slice(chunk)).unwrap();
        read
    }

    /// Edits of a text of this length, in order.
    fn edits(length: usize, places: &[(Index, Index, usize)]) -> Vec<(Range<usize>, Vec<u8>)> {
        let ends = places.iter().flat_map(|(start, end, _)| [start.index(length + 1), end.index(length + 1)]);
        let mut ends: Vec<usize> = ends.collect();
        ends.sort_unstable();
        ends.chunks(2).zip(places).map(|(ends, (_, _, size))| (ends[0]..ends[1], vec![b'x'; *size])).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn edits_of_edits_are_read_and_sent_as_often_as_needed(
            length in prop_oneof![0..50_usize, 0..200_000_usize],
            budget in prop::sample::select(vec![0_u64, 100_000, 10_000_000]),
            rounds in prop::collection::vec(prop::collection::vec((any::<Index>(), any::<Index>(), 0..20_usize), 0..4), 0..4),
        ) {
            let folder = tempfile::tempdir().unwrap();
            let memory = Memory::new(budget, folder.path().to_owned());
            let mut expected: Vec<u8> = (0..length).map(|at| at as u8).collect();
            let held = Arc::new(HeldBytes::of(&memory, MemoryUse::GatewayRequest, &expected));
            let mut bytes = EditedBytes::from(Arc::clone(&held));
            for places in rounds {
                let edits = edits(expected.len(), &places);
                bytes = bytes.edited(&edits);
                for (range, text) in edits.into_iter().rev() {
                    expected.splice(range, text);
                }
                prop_assert_eq!(bytes.len(), expected.len() as u64);
                prop_assert!(read(&bytes) == expected);
                let (from, mut rest) = (expected.len() / 3, Vec::new());
                bytes.read_from(from as u64, &mut |piece| rest.extend_from_slice(piece)).unwrap();
                prop_assert!(rest == expected[from..]);
            }
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            for _ in 0..2 {
                let mut body = bytes.body();
                let mut sent = Vec::new();
                while !body.is_end_stream() {
                    prop_assert_eq!(body.size_hint().exact(), Some((expected.len() - sent.len()) as u64));
                    let chunk = runtime.block_on(body.frame()).unwrap().unwrap().into_data().unwrap();
                    prop_assert!(chunk.len() as u64 <= CHUNK_BYTES);
                    sent.extend_from_slice(&chunk);
                }
                prop_assert!(runtime.block_on(body.frame()).is_none() && sent == expected);
            }
            drop((bytes, held));
            prop_assert_eq!((memory.budget().left_bytes(), memory.spill().spilled_bytes()), (budget, 0));
        }
    }
}

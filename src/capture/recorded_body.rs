//! Which bytes of a body are recorded, and when they are compressed.

use super::memory_budget::MemoryShare;
use crate::trace::exchange::{Body, Truncation};

/// Records a copy of a frame that has been counted already, or says why not all of it. `declared_rest` is the number of
/// bytes that follow by Content-Length. A clone of the frame would keep the reader's whole buffer alive.
pub(super) fn record(
    body: &mut Body,
    memory: &mut MemoryShare,
    frame: &[u8],
    declared_rest: u64,
    max_body_bytes: u64,
) -> Option<Truncation> {
    let passed_before = body.size_bytes - frame.len() as u64;
    let room = usize::try_from(max_body_bytes.saturating_sub(passed_before)).unwrap_or(usize::MAX);
    let part = &frame[..frame.len().min(room)];
    if !memory.try_grow(part.len() as u64) {
        return Some(Truncation::MemoryBudget);
    }
    if body.buffer.is_empty() && part.len() == frame.len() {
        // One allocation for a body of known length. What is only declared is trusted up to a limit.
        let declared_rest = usize::try_from(declared_rest).unwrap_or(usize::MAX);
        body.buffer.reserve_exact(part.len() + declared_rest.min(MAX_RESERVED_BYTES));
    }
    body.buffer.push(part);
    let is_slow_stream = body.frames >= PACKED_FRAMES && body.size_bytes / body.frames < PACKED_FRAME_BYTES;
    if is_slow_stream && body.buffer.unpacked_bytes() >= PACKED_BLOCK_BYTES {
        memory.shrink(body.buffer.pack() as u64);
    }
    (part.len() < frame.len()).then_some(Truncation::BodyLimit)
}

/// A body is compressed while it passes if it has at least so many frames
const PACKED_FRAMES: u64 = 64;
/// with fewer bytes than this on average: a stream that may last long.
const PACKED_FRAME_BYTES: u64 = 4096;
/// It is compressed in blocks of this size.
const PACKED_BLOCK_BYTES: usize = 32 * 1024;
const MAX_RESERVED_BYTES: usize = 64 * 1024;

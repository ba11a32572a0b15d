//! What is recorded of a body: its bytes, or, of the response of an LLM call, the call that is read from them as they pass.
//!
//! Bytes are held in memory within the budget, then in the spill file. A response that is long is read while it passes, and
//! its bytes are dropped; if its call needs more memory than the budget has, the bytes that follow are held instead and
//! read when the exchange is over. Nothing is lost while the disk has room.

use super::held_bytes::HeldBytes;
use super::memory_budget::MemoryShare;
use crate::llm::formats::BegunResponse;
use crate::trace::SamplerArrays;
use crate::trace::exchange::{BodyContent, RawEnd, RequestHead, ResponseHead, Truncation};

/// The record of a body.
#[derive(Debug)]
pub(super) struct BodyRecord {
    held: HeldBytes,
    call: CallReading,
    share: MemoryShare,
    /// The most bytes that are held unless a call needs more (`capture.max_body_bytes`).
    max_bytes: u64,
    limit: HeldLimit,
    /// Set once `held` had no room for more; nothing more is held, unless a call needs it.
    cut: Option<RawEnd>,
    /// Bytes of a call are missing: what follows can't be read.
    is_lost: bool,
    /// The arrays that are kept of a long call.
    arrays: SamplerArrays,
}

/// How the call in a response is read.
#[derive(Debug)]
enum CallReading {
    /// Not from this body, or not while it passes.
    No,
    /// Once the response is long.
    WhenLong,
    /// As it passes. `unchecked_bytes` passed since its memory was compared with the budget.
    Now { response: Box<BegunResponse>, unchecked_bytes: usize },
    /// Again when it is over: from here on its bytes are held.
    Later { response: Box<BegunResponse>, held_from: u64 },
}

/// How much of a body is held, as long as no call is read from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum HeldLimit {
    /// Up to `capture.max_body_bytes`.
    MaxBytes,
    /// All of it: a call will be read from it.
    None,
}

/// What was recorded of a body.
#[derive(Debug)]
pub(super) struct RecordedBody {
    /// The bytes that are held.
    pub(super) held: HeldBytes,
    /// The call, as far as it was read, and where in `held` it goes on.
    pub(super) begun: Option<(Box<BegunResponse>, u64)>,
    /// The memory of the call.
    pub(super) share: MemoryShare,
    /// Where the bytes that are recorded as such end, if not with `held`.
    pub(super) raw_end: Option<RawEnd>,
}

/// What a record lacks from a frame on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Loss {
    /// Content: all that was to be recorded, or what the call is read from.
    Content(Truncation),
    /// Bytes that were to be recorded beside the call, which is whole.
    Raw(Truncation),
}

/// Which bytes are recorded beside the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RawBytes {
    /// Those of a body that is recorded as such.
    Keep,
    /// Those from which the call is not read yet.
    Drop,
}

impl BodyRecord {
    /// The record of a body of which at most `max_bytes` are held.
    pub(super) fn new(held: HeldBytes, share: MemoryShare, max_bytes: u64) -> Self {
        let (call, limit) = (CallReading::No, HeldLimit::MaxBytes);
        Self { held, call, share, max_bytes, limit, cut: None, is_lost: false, arrays: SamplerArrays::default() }
    }

    /// The number of bytes that are held.
    pub(super) fn held_bytes(&self) -> u64 {
        self.held.len()
    }

    /// Reads the call in the body as it passes, once it is long, with these arrays if they come.
    pub(super) fn read_when_long(&mut self, arrays: SamplerArrays) {
        self.arrays = arrays;
        self.call = CallReading::WhenLong;
    }

    /// True for a body that is held whole.
    pub(super) fn holds_whole(&self) -> bool {
        self.limit == HeldLimit::None
    }

    /// Holds the body whole: a call will be read from it.
    pub(super) fn hold_whole(&mut self) {
        self.limit = HeldLimit::None;
    }

    /// Records a frame, or says what is lost; the first time only.
    pub(super) fn push(
        &mut self,
        frame: &[u8],
        (request, response): (&RequestHead, Option<&ResponseHead>),
        raw: RawBytes,
    ) -> Option<Loss> {
        if matches!(self.call, CallReading::WhenLong) && self.held.len() + frame.len() as u64 > LONG_BYTES {
            self.begin(request, response, raw);
        }
        match &mut self.call {
            CallReading::Now { response, unchecked_bytes } => {
                response.push(frame);
                *unchecked_bytes += frame.len();
                if *unchecked_bytes >= CHECK_BYTES {
                    *unchecked_bytes = 0;
                    self.check_memory();
                }
                if raw == RawBytes::Keep { self.hold(frame, HeldLimit::MaxBytes).map(Loss::Raw) } else { None }
            }
            CallReading::Later { .. } if self.is_lost => None,
            CallReading::Later { .. } => {
                self.is_lost = self.held.push(frame).is_err();
                self.is_lost.then_some(Loss::Content(Truncation::Spill))
            }
            CallReading::No | CallReading::WhenLong => self.hold(frame, self.limit).map(Loss::Content),
        }
    }

    /// What was recorded, at the end.
    pub(super) fn finish(self) -> RecordedBody {
        let begun = match self.call {
            CallReading::No | CallReading::WhenLong => None,
            CallReading::Now { response, .. } => Some((response, self.held.len())),
            CallReading::Later { response, held_from } => Some((response, held_from)),
        };
        RecordedBody { held: self.held, begun, share: self.share, raw_end: self.cut }
    }

    /// Begins to read the call, from the bytes that are held.
    fn begin(&mut self, request: &RequestHead, response: Option<&ResponseHead>, raw: RawBytes) {
        self.call = CallReading::No;
        let begun = response.and_then(|response| BegunResponse::new(&request.target, &response.headers, self.arrays));
        let Some(mut begun) = begun else { return };
        if self.held.read_from(0, &mut |piece| begun.push(piece)).is_err() {
            return;
        }
        if raw == RawBytes::Drop {
            self.held.clear();
        }
        self.call = CallReading::Now { response: Box::new(begun), unchecked_bytes: 0 };
    }

    /// Takes the memory of the call from the budget. If there is too little, it is not read any further for now.
    fn check_memory(&mut self) {
        let CallReading::Now { response, .. } = &self.call else { return };
        let needed = response.memory_bytes() as u64;
        let has = self.share.bytes();
        if needed <= has {
            self.share.shrink(has - needed);
        } else if !self.share.try_grow(needed - has) {
            let CallReading::Now { response, .. } = std::mem::replace(&mut self.call, CallReading::No) else { return };
            self.call = CallReading::Later { response, held_from: self.held.len() };
        }
    }

    fn hold(&mut self, frame: &[u8], limit: HeldLimit) -> Option<Truncation> {
        if self.cut.is_some() {
            return None;
        }
        let room = match limit {
            HeldLimit::MaxBytes => {
                usize::try_from(self.max_bytes.saturating_sub(self.held.len())).unwrap_or(usize::MAX)
            }
            HeldLimit::None => usize::MAX,
        };
        let part = &frame[..frame.len().min(room)];
        let why = match self.held.push(part) {
            Err(_) => Truncation::Spill,
            Ok(()) if part.len() < frame.len() => Truncation::BodyLimit,
            Ok(()) => return None,
        };
        self.cut = Some(RawEnd { at: self.held.len(), why });
        Some(why)
    }
}

/// A response of this size is read while it passes; a shorter one when it is over, which costs its connection nothing.
const LONG_BYTES: u64 = 64 * 1024;
/// The memory of a call is compared with the budget each time that so many bytes have passed.
const CHECK_BYTES: usize = 32 * 1024;

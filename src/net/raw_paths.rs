//! Requests of HTTP/2 clients that the HTTP library refuses. It gets their targets percent-encoded, and beside them as they
//! came; in place of a request that must be refused, an empty one with the fault.
//!
//! A target is a field of a block, and blocks refer to earlier ones. So each is decoded as it passes, unchanged. From the first
//! on that must change, blocks are written anew. Of a connection this holds one block, up to [`MAX_BLOCK_FRAMES`].

mod faults;

use self::faults::{NO_URI, TARGET_TOO_LONG, TOO_LONG};
use super::io::{BoxedIo, flush_through, write_through};
use crate::error::{FramingFault, FramingRule};
use crate::wire::framing::head::MAX_FIELD_LIST_BYTES;
use crate::wire::framing::target::{RawTarget, encoded_path};
use crate::wire::hpack::{Decoder, Field, encode};
use bytes::{Buf, Bytes, BytesMut};
use http::Request;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, ReadBuf};

/// A client's socket, behind which no target is refused by the HTTP library.
pub(crate) struct RawPathIo {
    inner: BoxedIo,
    decoder: Decoder,
    mode: Mode,
    // Bytes until the next frame: of the preface at first, then of frames that are not looked at.
    skip: usize,
    // Read and not passed: the beginning of a frame's head, or of a block.
    held: BytesMut,
    // To be passed before anything else.
    ready: BytesMut,
    // The last stream that a request was read on. A block on it, or on an earlier one, is trailers.
    last_stream: u32,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// Blocks pass unchanged.
    Unchanged,
    /// Blocks are written anew.
    Rewritten,
    /// Everything passes: the HTTP library ends the connection for what came.
    Ended,
}

/// What a block is found to be.
enum Found {
    /// A part of a block: its other frames have not come.
    Part,
    /// A block in so many bytes of frames.
    Block { length: usize, stream: [u8; 4], ends_stream: bool, fragments: Vec<u8> },
    /// No sequence of frames that may be.
    Violation,
}

impl RawPathIo {
    /// Wraps a socket from which an HTTP/2 connection is read from its start.
    pub(crate) fn new(inner: BoxedIo) -> Self {
        let (decoder, held, ready) = (Decoder::default(), BytesMut::new(), BytesMut::new());
        Self { inner, decoder, mode: Mode::Unchanged, skip: PREFACE_BYTES, held, ready, last_stream: 0 }
    }

    /// How many of these bytes, which are next, pass as they are.
    fn passing(&mut self, bytes: &[u8]) -> usize {
        if self.mode == Mode::Ended {
            return bytes.len();
        }
        let mut at = 0;
        loop {
            let skipped = self.skip.min(bytes.len() - at);
            at += skipped;
            self.skip -= skipped;
            match FrameHead::of(&bytes[at..]) {
                Some(head) if self.skip == 0 && !matches!(head.kind, HEADERS | CONTINUATION) => {
                    self.skip = FRAME_HEAD_BYTES + head.length;
                }
                _ => return at,
            }
        }
    }

    /// Passes what is held, as far as it is complete.
    fn pass_held(&mut self) {
        loop {
            let held = std::mem::take(&mut self.held);
            let passing = self.passing(&held);
            self.held = held;
            self.ready.unsplit(self.held.split_to(passing));
            if self.skip > 0 || self.held.len() < FRAME_HEAD_BYTES {
                return;
            }
            match find_block(&self.held) {
                Found::Part => return,
                Found::Violation => self.end(),
                Found::Block { length, stream, ends_stream, fragments } => match self.rewritten(stream, &fragments) {
                    Ok(None) => self.ready.unsplit(self.held.split_to(length)),
                    Ok(Some(fields)) => {
                        self.held.advance(length);
                        self.write_block(stream, ends_stream, &encode(&fields));
                    }
                    Err(Undecodable) => self.end(),
                },
            }
        }
    }

    /// Leaves what comes to the library, which ends the connection for it.
    fn end(&mut self) {
        if self.mode == Mode::Rewritten {
            // The library's table is not the client's any more: it must not read another block of it.
            self.write_block([0, 0, 0, 1], false, INVALID_BLOCK);
        }
        self.mode = Mode::Ended;
    }

    /// The fields of a block that must be written anew.
    fn rewritten(&mut self, stream: [u8; 4], block: &[u8]) -> Result<Option<Vec<Field>>, Undecodable> {
        let decoded = self.decoder.decode(block, MAX_FIELD_LIST_BYTES as usize).map_err(|_| Undecodable)?;
        let stream = u32::from_be_bytes(stream) & MAX_STREAM;
        let is_request = stream > self.last_stream;
        self.last_stream = stream.max(self.last_stream);
        let replaced = match (is_request, decoded.is_too_long) {
            (true, true) => Some(faults::replacement(TOO_LONG, RAW_PATH)),
            (true, false) => faults::of_request(&decoded.fields).map(|fault| faults::replacement(fault, RAW_PATH)),
            (false, is_too_long) => {
                (is_too_long || faults::is_malformed_trailers(&decoded.fields)).then(faults::refused_trailers)
            }
        };
        if replaced.is_some() {
            self.mode = Mode::Rewritten;
            return Ok(replaced);
        }
        let mut fields = decoded.fields;
        let count = fields.len();
        // Only this program may say what a target was.
        fields.retain(|field| *field.name != *RAW_PATH.as_bytes());
        let mut must_change = fields.len() < count;
        if let Some(path) = fields.iter_mut().find(|field| *field.name == *b":path") {
            match encoded_path(&path.value) {
                Ok(None) => {}
                Ok(Some(RawTarget { encoded, raw })) => {
                    path.value = encoded.into();
                    let name = Bytes::from_static(RAW_PATH.as_bytes());
                    fields.push(Field { name, value: raw, is_sensitive: true });
                    must_change = true;
                }
                Err(fault) => {
                    let is_too_long = fault.rule == FramingRule::TargetTooLong;
                    fields = faults::replacement(if is_too_long { TARGET_TOO_LONG } else { NO_URI }, RAW_PATH);
                    must_change = true;
                }
            }
        }
        if must_change {
            self.mode = Mode::Rewritten;
        }
        Ok((self.mode == Mode::Rewritten).then_some(fields))
    }

    fn write_block(&mut self, stream: [u8; 4], ends_stream: bool, block: &[u8]) {
        let mut pieces = block.chunks(MAX_FRAME_BYTES);
        let mut kind = HEADERS;
        let mut flags = if ends_stream { END_STREAM } else { 0 };
        loop {
            let piece = pieces.next().unwrap_or_default();
            let is_last = pieces.len() == 0;
            flags |= if is_last { END_HEADERS } else { 0 };
            let length = u32::try_from(piece.len()).unwrap_or_default().to_be_bytes();
            self.ready.extend_from_slice(&length[1..]);
            self.ready.extend_from_slice(&[kind, flags]);
            self.ready.extend_from_slice(&stream);
            self.ready.extend_from_slice(piece);
            if is_last {
                return;
            }
            (kind, flags) = (CONTINUATION, 0);
        }
    }
}

/// The block can't be decoded.
struct Undecodable;

/// Takes what a [`RawPathIo`] says about a request: its [`RawTarget`], or the fault for which it is refused.
pub(crate) fn restore_path<B>(mut request: Request<B>) -> Result<Request<B>, FramingFault> {
    let Some(raw) = request.headers_mut().remove(RAW_PATH) else { return Ok(request) };
    if let Some(fault) = faults::of_word(&raw) {
        return Err(fault);
    }
    let encoded = request.uri().path_and_query().map_or_else(String::new, ToString::to_string);
    request.extensions_mut().insert(RawTarget { encoded, raw: Bytes::copy_from_slice(raw.as_bytes()) });
    Ok(request)
}

/// The head of a frame (RFC 9113 §4.1).
struct FrameHead {
    length: usize,
    kind: u8,
    flags: u8,
    stream: [u8; 4],
}

impl FrameHead {
    fn of(bytes: &[u8]) -> Option<Self> {
        let [a, b, c, kind, flags, stream @ ..] = bytes.first_chunk::<FRAME_HEAD_BYTES>()?;
        let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
        Some(Self { length, kind: *kind, flags: *flags, stream: *stream })
    }
}

/// Finds the block at the beginning of these bytes: HEADERS, and the CONTINUATIONs that must follow at once.
fn find_block(bytes: &[u8]) -> Found {
    let (mut at, mut payloads) = (0, Vec::new());
    let mut first = None::<FrameHead>;
    loop {
        let Some(head) = FrameHead::of(&bytes[at..]) else { return Found::Part };
        let expected = if first.is_none() { HEADERS } else { CONTINUATION };
        let is_of_stream = first.as_ref().is_none_or(|first| first.stream == head.stream);
        let fits = head.length <= MAX_FRAME_BYTES && payloads.len() < MAX_BLOCK_FRAMES;
        if head.kind != expected || !is_of_stream || !fits {
            return Found::Violation;
        }
        at += FRAME_HEAD_BYTES;
        let Some(payload) = bytes.get(at..at + head.length) else { return Found::Part };
        at += head.length;
        payloads.push(payload);
        let is_last = head.flags & END_HEADERS != 0;
        let first = first.get_or_insert(head);
        if is_last {
            let Some(fragment) = without_padding(payloads[0], first.flags) else { return Found::Violation };
            payloads[0] = fragment;
            let ends_stream = first.flags & END_STREAM != 0;
            return Found::Block { length: at, stream: first.stream, ends_stream, fragments: payloads.concat() };
        }
    }
}

/// The fragment in the payload of HEADERS (RFC 9113 §6.2): without padding and priority.
fn without_padding(payload: &[u8], flags: u8) -> Option<&[u8]> {
    let mut fragment = payload;
    let mut padding = 0;
    if flags & PADDED != 0 {
        let (length, rest) = fragment.split_first()?;
        (padding, fragment) = (usize::from(*length), rest);
    }
    if flags & PRIORITY != 0 {
        fragment = fragment.get(5..)?;
    }
    fragment.get(..fragment.len().checked_sub(padding)?)
}

impl AsyncRead for RawPathIo {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            if !this.ready.is_empty() {
                let length = this.ready.len().min(buf.remaining());
                buf.put_slice(&this.ready[..length]);
                this.ready.advance(length);
                if this.ready.is_empty() {
                    // A connection that waits for its next request keeps no memory for the last one.
                    this.ready = BytesMut::new();
                    this.held = BytesMut::from(&this.held[..]);
                }
                return Poll::Ready(Ok(()));
            }
            if buf.remaining() == 0 {
                return Poll::Ready(Ok(()));
            }
            let before = buf.filled().len();
            ready!(Pin::new(&mut this.inner).poll_read(cx, buf))?;
            let fresh = &buf.filled()[before..];
            if fresh.is_empty() {
                // The end: what is held will never be whole.
                this.ready.unsplit(this.held.split());
                this.mode = Mode::Ended;
                if this.ready.is_empty() {
                    return Poll::Ready(Ok(()));
                }
                continue;
            }
            // What is not looked at is not copied.
            let passing = if this.held.is_empty() { this.passing(fresh) } else { 0 };
            this.held.extend_from_slice(&fresh[passing..]);
            buf.set_filled(before + passing);
            this.pass_held();
            if passing > 0 {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

write_through!(RawPathIo);

/// The field that carries a target as it came to the other side of the HTTP library.
const RAW_PATH: &str = "tracewire-raw-path";
/// An index of 0, which is an error (RFC 7541 §6.1).
const INVALID_BLOCK: &[u8] = &[0x80];
/// As many as the library takes for its limit of fields, and one more, for which it ends the connection.
const MAX_BLOCK_FRAMES: usize = 13;
const PREFACE_BYTES: usize = 24;
const FRAME_HEAD_BYTES: usize = 9;
/// The first bit of a stream's number has no meaning (RFC 9113 §4.1).
const MAX_STREAM: u32 = u32::MAX >> 1;
/// SETTINGS_MAX_FRAME_SIZE, as no other is announced.
const MAX_FRAME_BYTES: usize = 16 * 1024;
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;
const PRIORITY: u8 = 0x20;

#[cfg(test)]
mod tests;

//! permessage-deflate (RFC 7692): decompresses the message payloads of one direction.

use crate::trace::exchange::Direction;
use flate2::{Decompress, FlushDecompress, Status};

/// What the endpoint agreed to in its `Sec-WebSocket-Extensions`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct DeflateAgreement {
    /// permessage-deflate is in use.
    pub(crate) deflate: bool,
    /// The client starts every message with an empty window.
    pub(crate) client_no_context_takeover: bool,
    /// The server starts every message with an empty window.
    pub(crate) server_no_context_takeover: bool,
}

impl DeflateAgreement {
    /// Reads the field. Other extensions are ignored.
    pub(crate) fn parse(field: &str) -> Self {
        let mut agreement = Self::default();
        for extension in field.split(',') {
            let mut words = extension.split(';').map(str::trim);
            if words.next() != Some("permessage-deflate") {
                continue;
            }
            agreement.deflate = true;
            for word in words {
                agreement.client_no_context_takeover |= word == "client_no_context_takeover";
                agreement.server_no_context_takeover |= word == "server_no_context_takeover";
            }
        }
        agreement
    }

    /// A decompressor of the messages of one direction.
    pub(crate) fn inflater(self, direction: Direction) -> Inflater {
        let resets = match direction {
            Direction::Request => self.client_no_context_takeover,
            Direction::Response => self.server_no_context_takeover,
        };
        Inflater { state: Decompress::new(false), resets, has_gap: false }
    }
}

/// Decompresses the messages of one direction, in order.
#[derive(Debug)]
pub(crate) struct Inflater {
    state: Decompress,
    // Each message starts with an empty window.
    resets: bool,
    // A message was missing or truncated: later ones may refer to its text.
    has_gap: bool,
}

impl Inflater {
    /// The first `max_bytes` of a message, decompressed. None if an earlier message that it may refer to is missing, or
    /// it is no deflate stream.
    pub(crate) fn inflate(&mut self, payload: &[u8], max_bytes: usize) -> Option<Vec<u8>> {
        // RFC 7692 §7.2.2: the tail that the sender removed.
        self.inflate_parts([payload, &[0x00, 0x00, 0xff, 0xff]], max_bytes)
    }

    /// The same for a message of which only the start was recorded. Those that refer to it can't be decompressed.
    pub(crate) fn inflate_truncated(&mut self, payload: &[u8], max_bytes: usize) -> Option<Vec<u8>> {
        let start = self.inflate_parts([payload, &[]], max_bytes);
        self.has_gap = true;
        start
    }

    fn inflate_parts(&mut self, parts: [&[u8]; 2], max_bytes: usize) -> Option<Vec<u8>> {
        if self.resets {
            self.state.reset(false);
            self.has_gap = false;
        }
        if self.has_gap {
            return None;
        }
        let mut text = Vec::new();
        for part in parts {
            if !self.feed(part, &mut text, max_bytes) {
                self.has_gap = true;
                return None;
            }
        }
        Some(text)
    }

    /// False if `part` is no deflate stream, or decompresses to too much.
    fn feed(&mut self, mut part: &[u8], text: &mut Vec<u8>, max_bytes: usize) -> bool {
        let mut buffer = [0; 16 * 1024];
        let mut produced = 0;
        loop {
            let (before_in, before_out) = (self.state.total_in(), self.state.total_out());
            let Ok(status) = self.state.decompress(part, &mut buffer, FlushDecompress::Sync) else { return false };
            let taken = usize::try_from(self.state.total_in() - before_in).unwrap_or(part.len());
            let made = usize::try_from(self.state.total_out() - before_out).unwrap_or(0);
            part = &part[taken.min(part.len())..];
            let room = max_bytes.saturating_sub(text.len()).min(made);
            text.extend_from_slice(&buffer[..room]);
            produced += made;
            if produced > MAX_INFLATED_BYTES {
                return false;
            }
            if status == Status::StreamEnd || (part.is_empty() && made < buffer.len()) || (taken == 0 && made == 0) {
                return true;
            }
        }
    }
}

/// A message that decompresses to more is taken for a decompression bomb.
const MAX_INFLATED_BYTES: usize = 256 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::{Compress, Compression, FlushCompress};

    fn deflate(state: &mut Compress, text: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(text.len() + 1024);
        state.compress_vec(text, &mut out, FlushCompress::Sync).unwrap();
        out.truncate(out.len() - 4);
        out
    }

    #[test]
    fn messages_refer_to_those_before_them() {
        let mut sender = Compress::new(Compression::best(), false);
        let mut reader = DeflateAgreement::default().inflater(Direction::Request);
        let text = b"the same words in every message, so that the window matters".repeat(3);
        for _ in 0..3 {
            let payload = deflate(&mut sender, &text);
            assert_eq!(reader.inflate(&payload, 1 << 20).unwrap(), text);
        }
        let payload = deflate(&mut sender, &text);
        assert!(reader.inflate_truncated(&payload[..payload.len() / 2], 1 << 20).is_some());
        assert_eq!(reader.inflate(&deflate(&mut sender, &text), 1 << 20), None, "a gap before it");
    }

    #[test]
    fn without_takeover_a_gap_heals_and_a_cap_holds() {
        let agreement = DeflateAgreement { client_no_context_takeover: true, ..DeflateAgreement::default() };
        let mut reader = agreement.inflater(Direction::Request);
        let text = vec![b'z'; 1 << 20];
        let payload = deflate(&mut Compress::new(Compression::best(), false), &text);
        reader.inflate_truncated(&payload[..3], 10);
        assert_eq!(reader.inflate(&payload, 10).unwrap(), b"zzzzzzzzzz");
        assert_eq!(reader.inflate(b"\xff\xff\xff", 10), None);
    }

    #[test]
    fn the_agreement_is_read() {
        let agreement = DeflateAgreement::parse(
            "x-other, permessage-deflate; server_no_context_takeover; client_max_window_bits=12",
        );
        let expected =
            DeflateAgreement { deflate: true, server_no_context_takeover: true, client_no_context_takeover: false };
        assert_eq!(agreement, expected);
        assert_eq!(DeflateAgreement::parse(""), DeflateAgreement::default());
    }
}

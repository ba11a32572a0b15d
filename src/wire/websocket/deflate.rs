//! permessage-deflate (RFC 7692), one direction: message payloads back to what was meant.

use flate2::{Decompress, FlushDecompress, Status};

/// What the endpoint agreed to, from its `Sec-WebSocket-Extensions`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Agreed {
    /// permessage-deflate is on.
    pub deflate: bool,
    /// The client starts every message with an empty window.
    pub client_no_context_takeover: bool,
    /// The server does.
    pub server_no_context_takeover: bool,
}

impl Agreed {
    /// Reads the field; anything but permessage-deflate is passed over.
    pub fn parse(field: &str) -> Self {
        let mut agreed = Self::default();
        for extension in field.split(',') {
            let mut words = extension.split(';').map(str::trim);
            if words.next() != Some("permessage-deflate") {
                continue;
            }
            agreed.deflate = true;
            for word in words {
                agreed.client_no_context_takeover |= word == "client_no_context_takeover";
                agreed.server_no_context_takeover |= word == "server_no_context_takeover";
            }
        }
        agreed
    }
}

/// Inflates the messages of one direction, in order.
#[derive(Debug)]
pub struct Inflater {
    state: Decompress,
    fresh_each: bool,
    // A message that was not seen whole: what follows may refer to what it held.
    broken: bool,
}

impl Inflater {
    /// `no_context_takeover`: each message stands alone.
    pub fn new(no_context_takeover: bool) -> Self {
        Self { state: Decompress::new(false), fresh_each: no_context_takeover, broken: false }
    }

    /// The first `keep_bytes` of what a payload says; `None` if that can't be told. `whole`: the payload is all there.
    pub fn inflate(&mut self, payload: &[u8], whole: bool, keep_bytes: usize) -> Option<Vec<u8>> {
        if self.fresh_each {
            self.state.reset(false);
            self.broken = false;
        }
        if self.broken {
            return None;
        }
        self.broken = !whole;
        let mut kept = Vec::new();
        // RFC 7692 §7.2.2: the tail that the sender took away.
        let tail: &[u8] = if whole { &[0x00, 0x00, 0xff, 0xff] } else { &[] };
        for part in [payload, tail] {
            if !self.feed(part, &mut kept, keep_bytes) {
                self.broken = true;
                return None;
            }
        }
        Some(kept)
    }

    fn feed(&mut self, mut part: &[u8], kept: &mut Vec<u8>, keep_bytes: usize) -> bool {
        let mut buffer = [0; 16 * 1024];
        let mut produced = 0;
        loop {
            let (before_in, before_out) = (self.state.total_in(), self.state.total_out());
            let Ok(status) = self.state.decompress(part, &mut buffer, FlushDecompress::Sync) else { return false };
            let taken = usize::try_from(self.state.total_in() - before_in).unwrap_or(part.len());
            let made = usize::try_from(self.state.total_out() - before_out).unwrap_or(0);
            part = &part[taken.min(part.len())..];
            let room = keep_bytes.saturating_sub(kept.len()).min(made);
            kept.extend_from_slice(&buffer[..room]);
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

/// What one message may inflate to before it is taken for an attack on whoever reads it.
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
        let (mut sender, mut reader) = (Compress::new(Compression::best(), false), Inflater::new(false));
        let text = b"the same words in every message, so that the window matters".repeat(3);
        for _ in 0..3 {
            let payload = deflate(&mut sender, &text);
            assert_eq!(reader.inflate(&payload, true, 1 << 20).unwrap(), text);
        }
        let payload = deflate(&mut sender, &text);
        assert!(reader.inflate(&payload[..payload.len() / 2], false, 1 << 20).is_some());
        assert_eq!(reader.inflate(&deflate(&mut sender, &text), true, 1 << 20), None, "a gap before it");
    }

    #[test]
    fn without_takeover_a_gap_heals_and_a_cap_holds() {
        let mut reader = Inflater::new(true);
        let text = vec![b'z'; 1 << 20];
        let payload = deflate(&mut Compress::new(Compression::best(), false), &text);
        reader.inflate(&payload[..3], false, 10);
        assert_eq!(reader.inflate(&payload, true, 10).unwrap(), b"zzzzzzzzzz");
        assert_eq!(reader.inflate(b"\xff\xff\xff", true, 10), None);
    }

    #[test]
    fn the_agreement_is_read() {
        let agreed =
            Agreed::parse("x-other, permessage-deflate; server_no_context_takeover; client_max_window_bits=12");
        let expected = Agreed { deflate: true, server_no_context_takeover: true, client_no_context_takeover: false };
        assert_eq!(agreed, expected);
        assert_eq!(Agreed::parse(""), Agreed::default());
    }
}

//! Frames to messages: reads headers, unmasks payloads, joins fragments, separates control frames.
//!
//! Bytes that are not WebSocket end the parsing, never the traffic. Messages with invalid content are parsed on.
//! Memory is bounded by the recorded payload of one message and one control frame.

use super::content::{TextCheck, close_fault};
use super::deflate::DeflateAgreement;
use crate::trace::exchange::{Direction, Message, MessageOpcode};
use std::time::Duration;

/// Parses one direction of a connection.
#[derive(Debug)]
pub(crate) struct FrameParser {
    direction: Direction,
    // permessage-deflate was agreed: a frame may say that it is compressed.
    allows_compression: bool,
    max_payload_bytes: usize,
    // The bytes of a frame header that is not complete yet.
    header: Vec<u8>,
    frame: Option<Frame>,
    message: Option<Message>,
    control: Option<Message>,
    text: TextCheck,
    // A close frame has passed: nothing may follow (RFC 6455 §5.5.1).
    is_closed: bool,
    fault: Option<&'static str>,
    // The bytes are not WebSocket frames.
    has_ended: bool,
}

#[derive(Debug)]
struct Frame {
    left: u64,
    mask: [u8; 4],
    at: usize,
    last: bool,
    control: bool,
}

impl FrameParser {
    /// A parser of one direction. At most `max_payload_bytes` of each payload are recorded, of a control frame all.
    pub(crate) fn new(direction: Direction, agreement: DeflateAgreement, max_payload_bytes: usize) -> Self {
        Self {
            direction,
            allows_compression: agreement.deflate,
            max_payload_bytes,
            header: Vec::with_capacity(MAX_HEADER_BYTES),
            frame: None,
            message: None,
            control: None,
            text: TextCheck::default(),
            is_closed: false,
            fault: None,
            has_ended: false,
        }
    }

    /// The first violation of RFC 6455.
    pub(crate) fn fault(&self) -> Option<&'static str> {
        self.fault
    }

    /// Parses `bytes` and calls `on_message` with every message that ends in them. Its time is left at zero.
    pub(crate) fn push(&mut self, mut bytes: &[u8], on_message: &mut dyn FnMut(Message)) {
        while !self.has_ended {
            if let Some(frame) = &mut self.frame {
                let taken = bytes.len().min(usize::try_from(frame.left).unwrap_or(usize::MAX));
                let message = if frame.control { &mut self.control } else { &mut self.message };
                if let Some(message) = message {
                    let unmasked = |(byte, at): (&u8, usize)| byte ^ frame.mask[at % 4];
                    let payload = || bytes[..taken].iter().zip(frame.at..).map(unmasked);
                    if message.opcode == MessageOpcode::Text && !message.compressed && !self.text.push(payload()) {
                        self.fault.get_or_insert(NOT_UTF8);
                    }
                    let room = self.max_payload_bytes.max(MAX_CONTROL_BYTES).saturating_sub(message.payload.len());
                    message.payload.extend(payload().take(room));
                    message.size_bytes += taken as u64;
                }
                frame.left -= taken as u64;
                frame.at = (frame.at + taken) % 4;
                bytes = &bytes[taken..];
                if frame.left > 0 {
                    return;
                }
                let (last, control) = (frame.last, frame.control);
                self.frame = None;
                let ended = if control { self.control.take() } else { self.message.take_if(|_| last) };
                if let Some(message) = ended {
                    self.check(&message);
                    on_message(Message { complete: true, ..message });
                }
                continue;
            }
            let Some((byte, rest)) = bytes.split_first() else { return };
            self.header.push(*byte);
            bytes = rest;
            if self.header.len() == header_length(&self.header) {
                match self.start_frame() {
                    Ok(frame) => self.frame = Some(frame),
                    Err(fault) => {
                        self.fault.get_or_insert(fault);
                        self.has_ended = true;
                    }
                }
                self.header.clear();
            }
        }
    }

    /// Checks a message that has ended.
    fn check(&mut self, message: &Message) {
        let fault = match message.opcode {
            MessageOpcode::Text if !self.text.finish() && !message.compressed => Some(NOT_UTF8),
            MessageOpcode::Close => {
                self.is_closed = true;
                close_fault(&message.payload)
            }
            _ => None,
        };
        self.fault = self.fault.or(fault);
    }

    /// The message that was incomplete when the connection ended.
    pub(crate) fn finish(&mut self) -> Option<Message> {
        self.message.take()
    }

    /// Starts the frame of the complete header.
    fn start_frame(&mut self) -> Result<Frame, &'static str> {
        if self.is_closed {
            return Err("data after a close frame");
        }
        let (first, second) = (self.header[0], self.header[1]);
        let (last, compressed, kind) = (first & 0x80 != 0, first & 0x40 != 0, first & 0x0f);
        let masked = second & 0x80 != 0;
        if first & 0x30 != 0 || (compressed && !self.allows_compression) {
            return Err("a reserved bit is set");
        }
        if masked != (self.direction == Direction::Request) {
            return Err(if masked { "a server's frame is masked" } else { "a client's frame is not masked" });
        }
        let rest = &self.header[2..];
        let (left, mask) = match second & 0x7f {
            126 => (u64::from(u16::from_be_bytes([rest[0], rest[1]])), &rest[2..]),
            127 => {
                let length = rest[..8].iter().fold(0, |length, byte| length << 8 | u64::from(*byte));
                (length, &rest[8..])
            }
            short => (u64::from(short), rest),
        };
        if left > u64::MAX / 2 {
            return Err("a frame length with its first bit set");
        }
        let mask = mask.try_into().unwrap_or([0; 4]);
        let control = kind & 0x08 != 0;
        if control && (!last || left > MAX_CONTROL_BYTES as u64 || compressed) {
            return Err("a control frame that is long, fragmented or compressed");
        }
        let message = |opcode| {
            let (direction, at) = (self.direction, Duration::ZERO);
            Some(Message { direction, at, opcode, size_bytes: 0, payload: Vec::new(), compressed, complete: false })
        };
        match (kind, self.message.is_some()) {
            (0, true) if !compressed => {}
            (0, _) => return Err("a continuation of nothing"),
            (1 | 2, true) => return Err("a message within a message"),
            (1, false) => self.message = message(MessageOpcode::Text),
            (2, false) => self.message = message(MessageOpcode::Binary),
            (8, _) => self.control = message(MessageOpcode::Close),
            (9, _) => self.control = message(MessageOpcode::Ping),
            (10, _) => self.control = message(MessageOpcode::Pong),
            _ => return Err("an unknown opcode"),
        }
        Ok(Frame { left, mask, at: 0, last, control })
    }
}

/// The length of the frame header that starts with these bytes; 2 while that is not known.
fn header_length(start: &[u8]) -> usize {
    let Some(second) = start.get(1) else { return 2 };
    let length = match second & 0x7f {
        126 => 2,
        127 => 8,
        _ => 0,
    };
    2 + length + if second & 0x80 != 0 { 4 } else { 0 }
}

const MAX_HEADER_BYTES: usize = 14;
const MAX_CONTROL_BYTES: usize = 125;
const NOT_UTF8: &str = "a text that is not UTF-8";

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A frame as a client sends it.
    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mask = [1, 2, 3, 4];
        let mut bytes = vec![first];
        match payload.len() {
            length @ 0..=125 => bytes.push(0x80 | u8::try_from(length).unwrap()),
            length if u16::try_from(length).is_ok() => {
                bytes.push(0x80 | 126);
                bytes.extend(u16::try_from(length).unwrap().to_be_bytes());
            }
            length => {
                bytes.push(0x80 | 127);
                bytes.extend((length as u64).to_be_bytes());
            }
        }
        bytes.extend(mask);
        bytes.extend(payload.iter().zip(0..).map(|(byte, at): (_, usize)| byte ^ mask[at % 4]));
        bytes
    }

    fn messages(pieces: &[&[u8]]) -> (Vec<Message>, Option<&'static str>) {
        let mut parser = FrameParser::new(Direction::Request, DeflateAgreement::default(), 1 << 20);
        let mut found = Vec::new();
        for piece in pieces {
            parser.push(piece, &mut |message| found.push(message));
        }
        (found, parser.fault())
    }

    proptest! {
        #[test]
        fn any_cut_gives_the_same_messages(
            lengths in prop::collection::vec(prop::sample::select(vec![0usize, 1, 125, 126, 300, 70_000]), 1..6),
            cuts in prop::collection::vec(any::<usize>(), 0..10),
        ) {
            let mut bytes = Vec::new();
            for length in &lengths {
                let payload = vec![b'x'; *length];
                let (start, end) = payload.split_at(length / 2);
                bytes.extend(frame(0x01, start));
                bytes.extend(frame(0x89, b"ping"));
                bytes.extend(frame(0x80, end));
            }
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % bytes.len()).chain([0, bytes.len()]).collect();
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect();
            let (found, fault) = messages(&pieces);
            prop_assert_eq!(fault, None);
            let texts: Vec<usize> =
                found.iter().filter(|found| found.opcode == MessageOpcode::Text).map(|found| found.payload.len()).collect();
            let pings = found.iter().filter(|found| found.opcode == MessageOpcode::Ping).count();
            prop_assert_eq!(pings, lengths.len());
            prop_assert_eq!(texts, lengths);
        }

        #[test]
        fn never_panics(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            messages(&[&bytes]);
        }
    }

    #[test]
    fn bytes_that_are_not_websocket_are_a_fault() {
        for (bytes, fault) in [
            (frame(0x91, b""), "a reserved bit is set"),
            (frame(0xc1, b""), "a reserved bit is set"),
            (vec![0x81, 0x01, b'x'], "a client's frame is not masked"),
            (frame(0x80, b"x"), "a continuation of nothing"),
            (frame(0x83, b"x"), "an unknown opcode"),
            (frame(0x09, b"x"), "a control frame that is long, fragmented or compressed"),
            ([frame(0x01, b"x"), frame(0x81, b"y")].concat(), "a message within a message"),
            (vec![0x82, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], "a frame length with its first bit set"),
        ] {
            assert_eq!(messages(&[&bytes]).1, Some(fault));
        }
    }

    #[test]
    fn content_that_breaks_the_protocol_is_a_fault_and_parsed_on() {
        let close = |code: u16, reason: &[u8]| frame(0x88, &[&code.to_be_bytes(), reason].concat());
        for (bytes, count, fault) in [
            (frame(0x81, b"\xff"), 1, Some(NOT_UTF8)),
            ([frame(0x81, b"\xe2\x82"), frame(0x81, b"\xac")].concat(), 2, Some(NOT_UTF8)),
            ([frame(0x01, b"\xe2"), frame(0x89, b"\xff"), frame(0x80, b"\x82\xac")].concat(), 2, None),
            (frame(0x82, b"\xff"), 1, None),
            ([frame(0x81, &[b'a'; 9000]), frame(0x81, "\u{20ac}".repeat(3000).as_bytes())].concat(), 2, None),
            ([close(1000, b""), frame(0x81, b"x")].concat(), 1, Some("data after a close frame")),
            (close(1000, b"bye"), 1, None),
            (close(4999, b""), 1, None),
            (frame(0x88, b""), 1, None),
            (frame(0x88, b"\x03"), 1, Some("a close frame with half a code")),
            (close(1005, b""), 1, Some("a close code that may not be sent")),
            (close(999, b""), 1, Some("a close code that may not be sent")),
            (close(5000, b""), 1, Some("a close code that may not be sent")),
            (close(1000, b"\xff"), 1, Some("a close reason that is not UTF-8")),
        ] {
            for pieces in [vec![&bytes[..]], bytes.chunks(1).collect()] {
                let (found, seen) = messages(&pieces);
                assert_eq!((found.len(), seen), (count, fault), "{bytes:?}");
            }
        }
    }

    #[test]
    fn a_payload_is_recorded_up_to_its_limit_and_counted_whole() {
        let mut parser = FrameParser::new(Direction::Request, DeflateAgreement::default(), 200);
        let mut found = Vec::new();
        parser.push(&frame(0x82, &[7; 1000]), &mut |message| found.push(message));
        assert_eq!((found[0].size_bytes, found[0].payload.len()), (1000, 200));
        parser.push(&frame(0x02, b"begun"), &mut |_| {});
        assert!(!parser.finish().unwrap().complete);
    }
}

//! A chunked body, followed byte by byte: where it ends, and where it is malformed (RFC 9112 §7.1).
//!
//! Nothing is held or changed: accepted bytes may pass at once.

use super::head::field;
use crate::error::{FramingFault, FramingRule};

/// The position of a scan within a chunked body.
#[derive(Debug, Default)]
pub(crate) struct Chunked {
    state: ChunkState,
}

#[derive(Debug, Default)]
enum ChunkState {
    #[default]
    SizeStart,
    Size {
        size: u64,
        digits: u8,
    },
    Extension {
        size: u64,
        length: usize,
    },
    SizeEnd(u64),
    Data(u64),
    DataEnd,
    DataEndLf,
    /// Within the trailer section: the current line so far, its CR included, and the bytes of the section.
    Trailer {
        line: Vec<u8>,
        total: usize,
    },
}

impl Chunked {
    /// Scans `bytes`. Returns how many belong to the body, and whether it ends with them; with a fault, how many are before it.
    pub(crate) fn scan(&mut self, bytes: &[u8]) -> Result<(usize, bool), (usize, FramingFault)> {
        let mut at = 0;
        while at < bytes.len() {
            if let ChunkState::Data(left) = &mut self.state {
                let taken = (bytes.len() - at).min(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= taken as u64;
                at += taken;
                if *left == 0 {
                    self.state = ChunkState::DataEnd;
                }
                continue;
            }
            let is_last = self.step(bytes[at]).map_err(|fault| (at, fault))?;
            at += 1;
            if is_last {
                return Ok((at, true));
            }
        }
        Ok((at, false))
    }

    /// Scans one byte outside chunk data. True if it was the last of the body.
    fn step(&mut self, byte: u8) -> Result<bool, FramingFault> {
        self.state = match (std::mem::take(&mut self.state), byte) {
            (ChunkState::SizeStart, _) => ChunkState::Size { size: digit(byte)?, digits: 1 },
            (ChunkState::Size { size, .. }, b'\r') => ChunkState::SizeEnd(size),
            (ChunkState::Size { size, .. }, b';' | b' ' | b'\t') => ChunkState::Extension { size, length: 1 },
            (ChunkState::Size { digits: MAX_DIGITS.., .. }, _) => return Err(fault("a chunk size that overflows")),
            (ChunkState::Size { size, digits }, _) => {
                ChunkState::Size { size: size << 4 | digit(byte)?, digits: digits + 1 }
            }
            (ChunkState::Extension { size, .. }, b'\r') => ChunkState::SizeEnd(size),
            (ChunkState::Extension { length: MAX_EXTENSION_BYTES.., .. }, _) => {
                return Err(fault("a chunk extension over 4 KiB"));
            }
            (ChunkState::Extension { size, length }, _) if byte == b'\t' || !byte.is_ascii_control() => {
                ChunkState::Extension { size, length: length + 1 }
            }
            (ChunkState::Extension { .. }, _) => return Err(fault("control characters in a chunk extension")),
            (ChunkState::SizeEnd(0), b'\n') => ChunkState::Trailer { line: Vec::new(), total: 0 },
            (ChunkState::SizeEnd(size), b'\n') => ChunkState::Data(size),
            (ChunkState::SizeEnd(_), _) => return Err(fault("a chunk size line that does not end in CRLF")),
            (ChunkState::DataEnd, b'\r') => ChunkState::DataEndLf,
            (ChunkState::DataEndLf, b'\n') => ChunkState::SizeStart,
            (ChunkState::DataEnd | ChunkState::DataEndLf, _) => return Err(fault("a chunk longer than its size")),
            (ChunkState::Trailer { line, total }, _) => return self.trailer(line, total, byte),
            (ChunkState::Data(left), _) => ChunkState::Data(left),
        };
        Ok(false)
    }

    fn trailer(&mut self, mut line: Vec<u8>, total: usize, byte: u8) -> Result<bool, FramingFault> {
        if total >= MAX_TRAILER_BYTES {
            return Err(FramingFault { rule: FramingRule::HeadTooLarge, cause: "trailers over 16 KiB" });
        }
        if byte != b'\n' {
            if line.last() == Some(&b'\r') {
                return Err(fault("a bare CR in the trailers"));
            }
            line.push(byte);
            self.state = ChunkState::Trailer { line, total: total + 1 };
            return Ok(false);
        }
        let Some(whole) = line.strip_suffix(b"\r") else { return Err(fault("a bare LF in the trailers")) };
        if whole.is_empty() {
            return Ok(true);
        }
        let (name, _) = field(whole)?;
        if FRAMING_FIELDS.iter().any(|framing| name.eq_ignore_ascii_case(framing.as_bytes())) {
            return Err(fault("a framing field in the trailers"));
        }
        line.clear();
        self.state = ChunkState::Trailer { line, total: total + 1 };
        Ok(false)
    }
}

fn digit(byte: u8) -> Result<u64, FramingFault> {
    char::from(byte).to_digit(16).map(u64::from).ok_or_else(|| fault("a chunk size that is not hexadecimal"))
}

fn fault(cause: &'static str) -> FramingFault {
    FramingFault { rule: FramingRule::Ambiguous, cause }
}

/// Sizes below 2^60: no sum of them overflows.
const MAX_DIGITS: u8 = 15;
const MAX_EXTENSION_BYTES: usize = 4096;
const MAX_TRAILER_BYTES: usize = 16 * 1024;
/// RFC 9110 §6.5.1: fields that must not be in trailers.
const FRAMING_FIELDS: [&str; 3] = ["transfer-encoding", "content-length", "host"];

//! The experts of a call's tokens as vLLM sends them: base64 of NumPy's file format (1.0), made while it is written.

use super::plan::Call;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;

/// The base64 text in pieces.
pub fn base64(call: Call) -> impl Iterator<Item = Bytes> + Send + Sync {
    let length = header(call).len() as u64 + data_bytes(call);
    (0..length.div_ceil(PIECE)).map(move |piece| {
        let (from, to) = (piece * PIECE, length.min((piece + 1) * PIECE));
        Bytes::from(STANDARD.encode(bytes(call, from, to)))
    })
}

/// The length of the base64 text.
pub fn base64_length(call: Call) -> u64 {
    (header(call).len() as u64 + data_bytes(call)).div_ceil(3) * 4
}

/// The file's bytes from one multiple of eight to another, the first of which is no other within the header than 0.
fn bytes(call: Call, from: u64, to: u64) -> Vec<u8> {
    let header = header(call);
    let mut out = if from == 0 { header.clone() } else { Vec::new() };
    let before = header.len() as u64;
    for position in (from.max(before) - before) / 8..(to - before) / 8 {
        out.extend_from_slice(&call.experts(position));
    }
    out
}

/// Tokens with experts: all but the last.
fn rows(call: Call) -> u64 {
    call.sampled().end - 1
}

fn data_bytes(call: Call) -> u64 {
    rows(call) * LAYERS * EXPERTS_PER_TOKEN * 2
}

fn header(call: Call) -> Vec<u8> {
    let rows = rows(call);
    let shape =
        format!("{{'descr': '<i2', 'fortran_order': False, 'shape': ({rows}, {LAYERS}, {EXPERTS_PER_TOKEN}), }}");
    let padding = 63 - (MAGIC.len() + 2 + shape.len()) % 64;
    let text = format!("{shape}{}\n", " ".repeat(padding));
    let mut header = MAGIC.to_vec();
    header.extend_from_slice(&u16::try_from(text.len()).unwrap_or(0).to_le_bytes());
    header.extend_from_slice(text.as_bytes());
    header
}

const MAGIC: &[u8] = b"\x93NUMPY\x01\x00";
const LAYERS: u64 = 48;
const EXPERTS_PER_TOKEN: u64 = 8;
/// A multiple of 3, for base64, and of 8.
const PIECE: u64 = 24 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::long::plan::{Kind, Plan};

    #[test]
    fn the_pieces_are_one_file() {
        let (kind, prompt_ids, sampled_ids) = (Kind::Experts, 90, 10);
        let plan = Plan { kind, rollouts: 1, turns: 1, prompt_ids, sampled_ids, delay_ms: 0, interval_ms: 0 };
        let call = plan.call(0, 0);
        let text: Vec<u8> = base64(call).flatten().collect();
        assert_eq!(text.len() as u64, base64_length(call));
        let file = STANDARD.decode(text).unwrap();
        let length = usize::from(u16::from_le_bytes([file[8], file[9]]));
        assert!(file.starts_with(b"\x93NUMPY\x01\x00") && (10 + length) % 64 == 0);
        let shape = std::str::from_utf8(&file[10..10 + length]).unwrap();
        assert!(shape.contains("(99, 48, 8)") && shape.ends_with('\n'));
        let data = &file[10 + length..];
        assert_eq!(data.len(), 99 * 48 * 8 * 2);
        for (position, experts) in (0..).zip(data.chunks(8)) {
            assert_eq!(experts, call.experts(position));
        }
    }
}

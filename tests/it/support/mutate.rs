//! Changes bytes as broken or hostile programs do: single bits, cuts, repetitions, pieces of other messages, long runs.

/// `bytes` with up to five changes; `other` is a source of foreign pieces.
pub fn mutated(bytes: &[u8], other: &[u8], random: &mut fastrand::Rng) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for _ in 0..random.usize(0..6) {
        if bytes.is_empty() {
            break;
        }
        let at = random.usize(0..bytes.len());
        match random.u8(0..8) {
            0 => bytes[at] = random.u8(..),
            1 => bytes.truncate(at),
            2 => drop(bytes.drain(at..(at + random.usize(0..20)).min(bytes.len()))),
            3 => {
                let part = bytes[at..(at + random.usize(0..200)).min(bytes.len())].to_vec();
                bytes.splice(at..at, part);
            }
            4 => bytes.splice(at..at, other[random.usize(0..=other.len())..].iter().copied()).for_each(drop),
            5 => bytes.splice(at..at, random.choice(WORDS).unwrap().iter().copied()).for_each(drop),
            6 => {
                let filler = vec![*random.choice(b"[{\"0 \r\n").unwrap(); random.usize(0..2000)];
                bytes.splice(at..at, filler).for_each(drop);
            }
            _ => bytes[at] ^= 1 << random.u8(0..8),
        }
    }
    bytes
}

const WORDS: &[&[u8]] = &[
    b"null,,",
    b"-1e999",
    b"\\ud800",
    b"\ndata: ",
    b"\r\n\r\n",
    b"NaN",
    b"9223372036854775807",
    b"[[[[",
    b"\xff\xfe",
    b"data: [DONE]\n\n",
    b"\xef\xbb\xbf",
];

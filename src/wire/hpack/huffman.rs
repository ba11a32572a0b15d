//! The Huffman code of HPACK strings (RFC 7541 Appendix B). Codes of one length are consecutive and in the order of their
//! symbols, so that the lengths define the code.

use std::sync::LazyLock;

/// Decodes a string. `None` if it is malformed: wrong padding, or the end-of-string symbol.
pub(super) fn decode(bytes: &[u8]) -> Option<Vec<u8>> {
    // The shortest code has 5 bits.
    let mut text = Vec::with_capacity(bytes.len() * 8 / 5);
    let (mut code, mut length) = (0_u32, 0_usize);
    for bit in bytes.iter().flat_map(|byte| (0..8).rev().map(move |at| byte >> at & 1)) {
        code = code << 1 | u32::from(bit);
        length += 1;
        let known = CODES.by_length.get(length)?;
        let at = code.wrapping_sub(known.first);
        if at < known.count {
            let symbol = CODES.symbols.get(known.start + at as usize)?;
            // Without this the end-of-string symbol does not fit into a byte.
            text.push(u8::try_from(*symbol).ok()?);
            (code, length) = (0, 0);
        }
    }
    // Padding is the beginning of the end-of-string symbol: ones, and less than a byte.
    (length < 8 && code == (1 << length) - 1).then_some(text)
}

/// The codes of one length.
#[derive(Clone, Copy, Default)]
struct CodesOfLength {
    first: u32,
    count: u32,
    /// Where their symbols start in [`Codes::symbols`].
    start: usize,
}

struct Codes {
    by_length: [CodesOfLength; MAX_LENGTH + 1],
    // All symbols, by length and then by value.
    symbols: Vec<u16>,
}

static CODES: LazyLock<Codes> = LazyLock::new(|| {
    let mut codes = Codes { by_length: [CodesOfLength::default(); MAX_LENGTH + 1], symbols: Vec::with_capacity(257) };
    let mut next = 0;
    for (length, of_length) in (0_u8..).zip(&mut codes.by_length) {
        next <<= 1;
        let symbols = (0_u16..).zip(LENGTHS).filter(|(_, of_symbol)| *of_symbol == length).map(|(symbol, _)| symbol);
        let start = codes.symbols.len();
        codes.symbols.extend(symbols);
        let count = u32::try_from(codes.symbols.len() - start).unwrap_or_default();
        *of_length = CodesOfLength { first: next, count, start };
        next += count;
    }
    codes
});

const MAX_LENGTH: usize = 30;

/// The length of each symbol's code in bits; the last is that of the end-of-string symbol.
#[rustfmt::skip]
const LENGTHS: [u8; 257] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28,
    28, 28, 28, 28, 28, 28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6,
    5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10, 13, 6, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7,
    7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23,
    24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22, 21, 20, 22, 22, 23, 23, 21,
    23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24,
    21, 21, 26, 26, 28, 27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23,
    26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26, 30,
];

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Encodes a string.
    fn encode(text: &[u8]) -> Vec<u8> {
        let mut bits = Vec::new();
        for byte in text {
            let length = usize::from(LENGTHS[usize::from(*byte)]);
            let of_length = CODES.by_length[length];
            let at = CODES.symbols[of_length.start..].iter().position(|symbol| *symbol == u16::from(*byte)).unwrap();
            let code = of_length.first + u32::try_from(at).unwrap();
            bits.extend((0..length).rev().map(|at| u8::from(code >> at & 1 == 1)));
        }
        bits.resize(bits.len().next_multiple_of(8), 1);
        bits.chunks(8).map(|bits| bits.iter().fold(0, |byte, bit| byte << 1 | bit)).collect()
    }

    #[test]
    fn the_examples_of_the_standard_are_decoded() {
        for (hex, text) in [
            ("f1e3c2e5f23a6ba0ab90f4ff", "www.example.com"),
            ("a8eb10649cbf", "no-cache"),
            ("25a849e95ba97d7f", "custom-key"),
            ("9d29ad171863c78f0b97c8e9ae82ae43d3", "https://www.example.com"),
        ] {
            assert_eq!(decode(&const_hex::decode(hex).unwrap()).unwrap(), text.as_bytes());
        }
        // Eight bits of padding, padding of zeros, and the end-of-string symbol.
        for malformed in [&[0xff][..], &[0x00], &[0xff; 4]] {
            assert_eq!(decode(malformed), None, "{malformed:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(text in prop::collection::vec(any::<u8>(), 0..60)) {
            prop_assert_eq!(decode(&encode(&text)), Some(text));
        }

        #[test]
        fn nothing_panics(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            decode(&bytes);
        }
    }
}

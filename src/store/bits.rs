//! Lists of numbers packed into as many bits as the largest of them needs: token ids of a vocabulary of 150,000 take 18.
//!
//! It must not know what the numbers mean. A list has at most 65,535 numbers.

/// First byte of a stored piece of packed numbers.
pub(super) const TAG: u8 = 8;

/// A little-endian number.
type Word = [u8; 4];

/// The bits of a number, the count of numbers as `u16`, then the numbers, from the lowest bit of the first byte on. `None`:
/// there are too many numbers.
pub(super) fn pack(words: &[Word]) -> Option<Vec<u8>> {
    let count = u16::try_from(words.len()).ok()?;
    let width = u32::BITS - words.iter().fold(0, |all, word| all | u32::from_le_bytes(*word)).leading_zeros();
    let mut data = Vec::with_capacity(HEADER_BYTES + packed_bytes(words.len(), width) + size_of::<u32>());
    data.push(u8::try_from(width).ok()?);
    data.extend_from_slice(&count.to_le_bytes());
    let (mut bits, mut filled) = (0_u64, 0);
    for word in words {
        bits |= u64::from(u32::from_le_bytes(*word)) << filled;
        filled += width;
        if filled >= u32::BITS {
            data.extend_from_slice(&bits.to_le_bytes()[..4]);
            bits >>= u32::BITS;
            filled -= u32::BITS;
        }
    }
    data.extend_from_slice(&bits.to_le_bytes()[..filled.div_ceil(8) as usize]);
    Some(data)
}

/// The numbers that were packed. `None`: `data` is not what [`pack`] makes.
pub(super) fn unpack(data: &[u8]) -> Option<Vec<Word>> {
    let (&[width, low, high], packed) = data.split_first_chunk::<HEADER_BYTES>()?;
    let (width, count) = (u32::from(width), usize::from(u16::from_le_bytes([low, high])));
    if width > u32::BITS || packed.len() != packed_bytes(count, width) {
        return None;
    }
    let mask = u32::MAX.checked_shr(u32::BITS - width).unwrap_or_default();
    // Each number is in the eight bytes from its first one on, so that the last ones need some more to read.
    let padded = [packed, &[0; size_of::<u64>()]].concat();
    let number = |at: usize| {
        let bit = at * width as usize;
        let window = padded.get(bit / 8..)?.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))?;
        Some(((window >> (bit % 8)) as u32 & mask).to_le_bytes())
    };
    let mut words = Vec::with_capacity(count);
    for at in 0..count {
        words.push(number(at)?);
    }
    Some(words)
}

fn packed_bytes(count: usize, width: u32) -> usize {
    (count * width as usize).div_ceil(8)
}

const HEADER_BYTES: usize = 3;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn numbers_are_restored_from_as_few_bits_as_they_need(
            width in 0..=32_u32,
            numbers in prop::collection::vec(any::<u32>(), 0..600),
        ) {
            let number = |number: u32| number.checked_shr(u32::BITS - width).unwrap_or(0);
            let words: Vec<Word> = numbers.into_iter().map(|all| number(all).to_le_bytes()).collect();
            let packed = pack(&words).unwrap();
            prop_assert!(packed.len() <= HEADER_BYTES + (words.len() * width as usize).div_ceil(8));
            prop_assert_eq!(unpack(&packed), Some(words));
            prop_assert_eq!(unpack(&packed[..packed.len() - 1]), None);
            prop_assert_eq!(unpack(&[&packed[..], &[0]].concat()), None);
        }

        #[test]
        fn any_bytes_are_no_danger(data in prop::collection::vec(any::<u8>(), 0..40)) {
            let numbers = unpack(&data);
            prop_assert!(numbers.is_none_or(|numbers| numbers.len() <= usize::from(u16::MAX)));
        }
    }
}

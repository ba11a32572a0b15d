//! Reads lists of token ids, which are most of what responses consist of: eight bytes at once.

/// Reads ids up to the last one that a comma follows at once. Returns how many bytes they take.
pub(super) fn read_ids(ids: &mut Vec<u32>, bytes: &[u8]) -> usize {
    let mut read = 0;
    loop {
        let mut at = read;
        while bytes.get(at) == Some(&b' ') {
            at += 1;
        }
        let Some((id, digits)) = read_id(&bytes[at..]) else { return read };
        if bytes.get(at + digits) != Some(&b',') {
            return read;
        }
        ids.push(id);
        read = at + digits + 1;
    }
}

/// The id at the start of `bytes`, and its number of digits. `None`: there is none of at most seven digits, or too few
/// bytes follow to know that. All digits are read at once: lists of ids are most of what is read.
fn read_id(bytes: &[u8]) -> Option<(u32, usize)> {
    let word = u64::from_le_bytes(*bytes.first_chunk()?);
    // Digits become 0 to 9. The highest bit of each byte tells that it is no digit.
    let values = word ^ 0x3030_3030_3030_3030;
    let others = (values.wrapping_add(0x7676_7676_7676_7676) | values) & 0x8080_8080_8080_8080;
    let digits = others.trailing_zeros() as usize / 8;
    if !(1..=7).contains(&digits) || (digits > 1 && bytes[0] == b'0') {
        return None;
    }
    // The first digit is the lowest byte: moved up, zeros stand before it. Neighbours are joined: two, four, eight digits.
    let eight = values << (64 - 8 * digits);
    let pairs = (eight * 10 + (eight >> 8)) & 0x00ff_00ff_00ff_00ff;
    let fours = (pairs * 100 + (pairs >> 16)) & 0x0000_ffff_0000_ffff;
    let id = (fours * 10_000 + (fours >> 32)) & 0xffff_ffff;
    Some((u32::try_from(id).ok()?, digits))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn ids_are_read_as_they_were_written(
            expected in prop::collection::vec(prop_oneof![0..=9_u32, 0..=200_000_u32, 0..=9_999_999_u32], 0..40),
            spaces in prop::collection::vec(0..3_usize, 40),
            rest in "[ 0-9a-z,.\\-]{0,12}",
        ) {
            let mut text: String =
                expected.iter().zip(spaces).map(|(id, spaces)| format!("{}{id},", " ".repeat(spaces))).collect();
            let written = text.len();
            text += &format!("x{rest}        ");
            let mut ids = Vec::new();
            prop_assert_eq!(read_ids(&mut ids, text.as_bytes()), written);
            prop_assert_eq!(ids, expected);
        }

        #[test]
        fn any_bytes_are_read_as_their_numbers(bytes in prop::collection::vec(any::<u8>(), 8), digits in "[0-9]{0,9}") {
            for bytes in [&bytes[..], &[digits.as_bytes(), &bytes].concat()] {
                let length = bytes.iter().take_while(|byte| byte.is_ascii_digit()).count();
                let text = std::str::from_utf8(&bytes[..length]).unwrap();
                let is_id = (1..=7).contains(&length) && (length == 1 || bytes[0] != b'0');
                let expected = is_id.then(|| (text.parse().unwrap(), length));
                prop_assert_eq!(read_id(bytes), expected);
            }
        }
    }
}

//! The elements of a list that is being built: values, or packed once there are enough of one kind.

use crate::wire::json::Json;
use crate::wire::json_value::{MIN_PACKED, Packed, Table};

/// The elements of a list that is being built.
#[derive(Debug)]
pub(super) enum Elements {
    Values(Vec<Json<'static>>),
    Packed(Packed),
}

impl Default for Elements {
    fn default() -> Self {
        Self::Values(Vec::new())
    }
}

impl Elements {
    /// Reads ids up to the last one that a comma follows at once, if this is a packed list of ids. Returns how many bytes
    /// those take, and the bytes of memory that this took.
    pub(super) fn push_ids(&mut self, bytes: &[u8]) -> (usize, usize) {
        let Self::Packed(Packed::Ids(ids)) = self else { return (0, 0) };
        let before = ids.len();
        let read = read_ids(ids, bytes);
        (read, (ids.len() - before) * size_of::<u32>())
    }

    /// The elements as one value: a list, or a packed list.
    pub(super) fn into_json(self) -> Json<'static> {
        match self {
            Self::Values(values) => Json::List(values),
            Self::Packed(packed) => Json::Packed(packed),
        }
    }

    /// Adds an element; with `is_table` alike ones become a table. Returns the bytes of memory that this took, and those that it freed.
    pub(super) fn push(&mut self, value: Json<'static>, is_table: bool) -> (usize, usize) {
        let value = match self {
            Self::Values(values) => {
                values.push(value);
                // Once: a list that can't be packed then stays as it is.
                if values.len() == MIN_PACKED {
                    let values = std::mem::take(values);
                    *self = pack(values, is_table);
                }
                return (VALUE_BYTES, 0);
            }
            Self::Packed(packed) => match push_packed(packed, value) {
                Ok(bytes) => return bytes,
                Err(value) => value,
            },
        };
        let Self::Packed(packed) = std::mem::replace(self, Self::Values(Vec::new())) else { return (0, 0) };
        let mut values = packed.into_elements();
        values.push(value);
        let bytes = values.len() * VALUE_BYTES;
        *self = Self::Values(values);
        (bytes, 0)
    }
}

fn pack(values: Vec<Json<'static>>, is_table: bool) -> Elements {
    let ids = values.iter().map(|value| if let Json::Int(id) = value { u32::try_from(*id).ok() } else { None });
    if let Some(ids) = ids.collect() {
        return Elements::Packed(Packed::Ids(ids));
    }
    let numbers = values.iter().map(|value| if let Json::Float(number) = value { Some(*number) } else { None });
    if let Some(numbers) = numbers.collect() {
        return Elements::Packed(Packed::Floats(numbers));
    }
    if is_table
        && let Some(mut table) = values.first().and_then(Table::of)
        && values[1..].iter().all(|row| table.push(row.clone()).is_ok())
    {
        return Elements::Packed(Packed::Table(table));
    }
    Elements::Values(values)
}

/// Adds an element to a packed list. Returns the bytes of memory that this took, and those that it freed; an error returns
/// an element that does not fit.
fn push_packed(packed: &mut Packed, value: Json<'static>) -> Result<(usize, usize), Json<'static>> {
    match packed {
        Packed::Ids(ids) => {
            let id = if let Json::Int(id) = value { u32::try_from(id).ok() } else { None };
            ids.push(id.ok_or(value)?);
            Ok((size_of::<u32>(), 0))
        }
        Packed::Floats(numbers) => {
            numbers.push(if let Json::Float(number) = value { Some(number) } else { None }.ok_or(value)?);
            Ok((size_of::<f64>(), 0))
        }
        Packed::Table(table) => {
            let bytes = (Table::row_bytes(&value), value.memory_bytes());
            table.push(value).map(|()| bytes)
        }
        // It is not built from elements.
        Packed::Array(_) => Err(value),
    }
}

/// Reads ids for [`Elements::push_ids`]; returns how many bytes they take.
fn read_ids(ids: &mut Vec<u32>, bytes: &[u8]) -> usize {
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

const VALUE_BYTES: usize = size_of::<Json<'_>>();

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

//! Decodes blocks of fields, one after the other, with the dynamic table of their connection.
//!
//! Bounds: the table has [`MAX_TABLE_BYTES`], and a block gives as many bytes of fields as its caller wants. A block may name
//! a long entry of the table in one byte.

use super::huffman;
use super::static_table::STATIC_TABLE;
use bytes::Bytes;
use std::collections::VecDeque;

/// A field of a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Field {
    /// The name. Lower case, unless the sender breaks RFC 9113 §8.2.
    pub(crate) name: Bytes,
    pub(crate) value: Bytes,
    /// True if the field is never to be indexed: no hop may put it into a table (RFC 7541 §6.2.3).
    pub(crate) is_sensitive: bool,
}

/// The fields of a block.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct DecodedBlock {
    /// The fields in the order of the block, as many as fit into the bound.
    pub(crate) fields: Vec<Field>,
    /// True if there are more, beyond the bound.
    pub(crate) is_too_long: bool,
}

/// The block breaks RFC 7541. What follows on the connection can't be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

/// The decoder of one direction of a connection. It expects the sender to keep to the table size of a new connection.
#[derive(Debug)]
pub(crate) struct Decoder {
    // The newest entry is the first.
    table: VecDeque<(Bytes, Bytes)>,
    table_bytes: usize,
    max_table_bytes: usize,
}

impl Default for Decoder {
    fn default() -> Self {
        Self { table: VecDeque::new(), table_bytes: 0, max_table_bytes: MAX_TABLE_BYTES }
    }
}

impl Decoder {
    /// Decodes a whole block. Of its fields it returns the first, of `max_bytes` in the measure of HTTP/2.
    pub(crate) fn decode(&mut self, mut block: &[u8], max_bytes: usize) -> Result<DecodedBlock, Malformed> {
        let (mut decoded, mut bytes) = (DecodedBlock::default(), 0);
        while let [first, ..] = *block {
            let field = match first {
                0x80.. => {
                    let (name, value) = self.entry(integer(&mut block, 7)?)?;
                    Field { name, value, is_sensitive: false }
                }
                0x40.. => {
                    let field = self.literal(&mut block, 6, false)?;
                    self.insert(field.name.clone(), field.value.clone());
                    field
                }
                0x20.. => {
                    let max = integer(&mut block, 5)?;
                    if max > MAX_TABLE_BYTES {
                        return Err(Malformed);
                    }
                    self.max_table_bytes = max;
                    self.evict();
                    continue;
                }
                first => self.literal(&mut block, 4, first & 0x10 != 0)?,
            };
            bytes += entry_bytes(&field.name, &field.value);
            decoded.is_too_long |= bytes > max_bytes;
            if !decoded.is_too_long {
                decoded.fields.push(field);
            }
        }
        Ok(decoded)
    }

    fn literal(&self, block: &mut &[u8], prefix: u32, is_sensitive: bool) -> Result<Field, Malformed> {
        let name = match integer(block, prefix)? {
            0 => string(block)?,
            index => self.entry(index)?.0,
        };
        Ok(Field { name, value: string(block)?, is_sensitive })
    }

    /// The entry at an index of both tables, which starts at 1.
    fn entry(&self, index: usize) -> Result<(Bytes, Bytes), Malformed> {
        let at = index.checked_sub(1).ok_or(Malformed)?;
        match STATIC_TABLE.get(at) {
            Some((name, value)) => Ok((Bytes::from_static(name.as_bytes()), Bytes::from_static(value.as_bytes()))),
            None => self.table.get(at - STATIC_TABLE.len()).cloned().ok_or(Malformed),
        }
    }

    fn insert(&mut self, name: Bytes, value: Bytes) {
        self.table_bytes += entry_bytes(&name, &value);
        self.table.push_front((name, value));
        self.evict();
    }

    fn evict(&mut self) {
        while self.table_bytes > self.max_table_bytes
            && let Some((name, value)) = self.table.pop_back()
        {
            self.table_bytes -= entry_bytes(&name, &value);
        }
    }
}

/// Encodes fields as literals that change no table.
pub(crate) fn encode(fields: &[Field]) -> Vec<u8> {
    let mut block = Vec::new();
    for Field { name, value, is_sensitive } in fields {
        block.push(if *is_sensitive { 0x10 } else { 0 });
        for text in [name, value] {
            encode_length(&mut block, text.len());
            block.extend_from_slice(text);
        }
    }
    block
}

/// Encodes the length of a string without Huffman code: an integer with a prefix of 7 bits (RFC 7541 §5.1).
fn encode_length(block: &mut Vec<u8>, length: usize) {
    match u8::try_from(length) {
        Ok(short @ 0..0x7f) => block.push(short),
        _ => {
            block.push(0x7f);
            let mut rest = length - 0x7f;
            while rest >= 0x80 {
                block.push((rest & 0x7f) as u8 | 0x80);
                rest >>= 7;
            }
            block.push(rest as u8);
        }
    }
}

/// Takes an integer with a prefix of so many bits (RFC 7541 §5.1).
fn integer(block: &mut &[u8], prefix: u32) -> Result<usize, Malformed> {
    let max = (1_usize << prefix) - 1;
    let mut value = usize::from(byte(block)?) & max;
    if value < max {
        return Ok(value);
    }
    for shift in (0..MAX_INTEGER_BITS).step_by(7) {
        let next = byte(block)?;
        value += usize::from(next & 0x7f) << shift;
        if next & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(Malformed)
}

fn byte(block: &mut &[u8]) -> Result<u8, Malformed> {
    let (first, rest) = block.split_first().ok_or(Malformed)?;
    *block = rest;
    Ok(*first)
}

/// Takes a string (RFC 7541 §5.2).
fn string(block: &mut &[u8]) -> Result<Bytes, Malformed> {
    let is_huffman = block.first().is_some_and(|first| first & 0x80 != 0);
    let length = integer(block, 7)?;
    let (text, rest) = block.split_at_checked(length).ok_or(Malformed)?;
    *block = rest;
    if is_huffman { huffman::decode(text).map(Bytes::from).ok_or(Malformed) } else { Ok(Bytes::copy_from_slice(text)) }
}

/// The size of an entry, of the table and of a list of fields (RFC 7541 §4.1).
fn entry_bytes(name: &[u8], value: &[u8]) -> usize {
    name.len() + value.len() + 32
}

/// SETTINGS_HEADER_TABLE_SIZE, if no other is announced.
const MAX_TABLE_BYTES: usize = 4096;
/// More than any length that fits into a block.
const MAX_INTEGER_BITS: u32 = 28;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn texts(block: &DecodedBlock) -> Vec<String> {
        let text = |field: &Field| format!("{}: {}", field.name.escape_ascii(), field.value.escape_ascii());
        block.fields.iter().map(text).collect()
    }

    #[test]
    fn the_examples_of_the_standard_are_decoded() {
        let mut decoder = Decoder::default();
        // RFC 7541 Appendix C.4, with the sizes of the table.
        for (hex, expected, size) in [
            (
                "828684418cf1e3c2e5f23a6ba0ab90f4ff",
                &[":method: GET", ":scheme: http", ":path: /", ":authority: www.example.com"][..],
                57,
            ),
            (
                "828684be5886a8eb10649cbf",
                &[
                    ":method: GET",
                    ":scheme: http",
                    ":path: /",
                    ":authority: www.example.com",
                    "cache-control: no-cache",
                ],
                110,
            ),
            (
                "828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf",
                &[
                    ":method: GET",
                    ":scheme: https",
                    ":path: /index.html",
                    ":authority: www.example.com",
                    "custom-key: custom-value",
                ],
                164,
            ),
        ] {
            let decoded = decoder.decode(&const_hex::decode(hex).unwrap(), usize::MAX).unwrap();
            assert_eq!(
                (texts(&decoded), decoder.table_bytes),
                (expected.iter().map(ToString::to_string).collect(), size)
            );
        }
        assert_eq!(decoder.decode(&[0x20], usize::MAX), Ok(DecodedBlock::default()));
        assert_eq!((decoder.table.len(), decoder.table_bytes), (0, 0), "a table of no size");
    }

    #[test]
    fn a_block_gives_no_more_than_its_bound_and_the_table_goes_on() {
        let mut decoder = Decoder::default();
        let entry = [&b"\x40\x01a\x7f\xd1\x0e"[..], &[b'x'; 2000]].concat();
        let many = [entry, vec![0xbe; 1000]].concat();
        let decoded = decoder.decode(&many, 10_000).unwrap();
        assert!(decoded.is_too_long && decoded.fields.len() == 4, "{}", decoded.fields.len());
        assert_eq!(decoder.decode(&[0xbe], 10_000).unwrap().fields[0].value.len(), 2000);
    }

    #[test]
    fn malformed_blocks_are_errors() {
        for block in [
            &b"\x80"[..],
            b"\xff\xff\xff\xff\xff\xff\x7f",
            b"\xbe",
            b"\x40",
            b"\x00\x05ab",
            b"\x3f\xff\xff\x7f",
            b"\x00\x81\x00\x00",
        ] {
            assert_eq!(Decoder::default().decode(block, usize::MAX), Err(Malformed), "{block:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(
            fields in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..200), prop::collection::vec(any::<u8>(), 0..500), any::<bool>()), 0..6),
        ) {
            let fields: Vec<Field> = fields
                .into_iter()
                .map(|(name, value, is_sensitive)| Field { name: name.into(), value: value.into(), is_sensitive })
                .collect();
            let decoded = Decoder::default().decode(&encode(&fields), usize::MAX).unwrap();
            prop_assert_eq!(decoded, DecodedBlock { fields, is_too_long: false });
        }

        #[test]
        fn nothing_panics_and_the_table_keeps_its_bound(
            blocks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 0..20),
        ) {
            let mut decoder = Decoder::default();
            for block in blocks {
                let _ = decoder.decode(&block, 1000);
                prop_assert!(decoder.table_bytes <= MAX_TABLE_BYTES);
            }
        }
    }
}

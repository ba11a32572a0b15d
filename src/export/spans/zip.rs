//! A ZIP file that is written from its start to its end: entries, then their directory. Sizes and places beyond 4 GiB, and more than
//! 65,535 entries, have the fields of ZIP64.

use flate2::Compression;
use flate2::write::DeflateEncoder;
use std::io::Write;

/// A file in progress. Its memory grows with the names of the entries.
#[derive(Default)]
pub(super) struct ZipFile {
    /// Bytes that were returned so far.
    written: u64,
    entries: u64,
    directory: Vec<u8>,
}

/// What an entry's two headers have in common.
struct Entry<'a> {
    name: &'a str,
    crc: u32,
    compressed: u64,
    size: u64,
}

impl ZipFile {
    /// The bytes of an entry, which come next in the file.
    pub(super) fn entry(&mut self, name: &str, content: &[u8]) -> Vec<u8> {
        let data = deflated(content);
        let entry =
            Entry { name, crc: crc32fast::hash(content), compressed: data.len() as u64, size: content.len() as u64 };
        let mut bytes = Vec::with_capacity(data.len() + name.len() + HEADER_BYTES);
        bytes.extend(LOCAL_HEADER);
        entry.write(&mut bytes, None);
        bytes.extend(name.as_bytes());
        bytes.extend(entry.large_fields(None));
        bytes.extend(data);
        self.directory.extend(DIRECTORY_HEADER);
        // Made by: the same version, and no attributes of files.
        self.directory.extend(VERSION.to_le_bytes());
        entry.write(&mut self.directory, Some(self.written));
        self.directory.extend([0; 10]);
        self.directory.extend(low(self.written).to_le_bytes());
        self.directory.extend(name.as_bytes());
        self.directory.extend(entry.large_fields(Some(self.written)));
        self.entries += 1;
        self.written += bytes.len() as u64;
        bytes
    }

    /// The directory, which ends the file.
    pub(super) fn finish(self) -> Vec<u8> {
        let (size, mut bytes) = (self.directory.len() as u64, self.directory);
        let is_large = self.entries >= u64::from(u16::MAX) || low(self.written) == u32::MAX || low(size) == u32::MAX;
        if is_large {
            let place = self.written + size;
            bytes.extend(LARGE_END);
            bytes.extend(44_u64.to_le_bytes());
            bytes.extend([VERSION.to_le_bytes(), VERSION.to_le_bytes()].concat());
            bytes.extend([0; 8]);
            for number in [self.entries, self.entries, size, self.written] {
                bytes.extend(number.to_le_bytes());
            }
            bytes.extend(LARGE_END_PLACE);
            bytes.extend([0; 4]);
            bytes.extend(place.to_le_bytes());
            bytes.extend(1_u32.to_le_bytes());
        }
        let entries = u16::try_from(self.entries).unwrap_or(u16::MAX).to_le_bytes();
        bytes.extend(END);
        bytes.extend([0; 4]);
        bytes.extend([entries, entries].concat());
        bytes.extend([low(size).to_le_bytes(), low(self.written).to_le_bytes()].concat());
        bytes.extend([0; 2]);
        bytes
    }
}

impl Entry<'_> {
    /// The part of a header from the version to the length of the extra field.
    fn write(&self, header: &mut Vec<u8>, place: Option<u64>) {
        let extra = u16::try_from(self.large_fields(place).len()).unwrap_or_default();
        // Names are UTF-8; the content is deflated; the date is 1980-01-01, so that the same spans give the same file.
        for number in [VERSION, 0x0800, 8, 0, 0x21] {
            header.extend(number.to_le_bytes());
        }
        // A local header has both sizes in the extra field, or none.
        let (compressed, size) = match place {
            None if self.is_large() => (u32::MAX, u32::MAX),
            _ => (low(self.compressed), low(self.size)),
        };
        for number in [self.crc, compressed, size] {
            header.extend(number.to_le_bytes());
        }
        header.extend(u16::try_from(self.name.len()).unwrap_or(u16::MAX).to_le_bytes());
        header.extend(extra.to_le_bytes());
    }

    /// True if one of the sizes has no room in a header.
    fn is_large(&self) -> bool {
        low(self.size) == u32::MAX || low(self.compressed) == u32::MAX
    }

    /// The extra field of ZIP64: the numbers that have no room in the header. Empty if all have.
    fn large_fields(&self, place: Option<u64>) -> Vec<u8> {
        let numbers = [Some(self.size), Some(self.compressed), place].into_iter().flatten();
        let is_in_it = |number: &u64| low(*number) == u32::MAX || (place.is_none() && self.is_large());
        let numbers: Vec<u8> = numbers.filter(is_in_it).flat_map(u64::to_le_bytes).collect();
        if numbers.is_empty() {
            return numbers;
        }
        let length = u16::try_from(numbers.len()).unwrap_or_default();
        [1_u16.to_le_bytes().as_slice(), &length.to_le_bytes(), &numbers].concat()
    }
}

/// A number for a field of four bytes. All bits set say that ZIP64 has it.
fn low(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn deflated(content: &[u8]) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::fast());
    // Writing to memory does not fail.
    let written = encoder.write_all(content);
    written.and_then(|()| encoder.finish()).unwrap_or_default()
}

const LOCAL_HEADER: [u8; 4] = *b"PK\x03\x04";
const DIRECTORY_HEADER: [u8; 4] = *b"PK\x01\x02";
const END: [u8; 4] = *b"PK\x05\x06";
const LARGE_END: [u8; 4] = *b"PK\x06\x06";
const LARGE_END_PLACE: [u8; 4] = *b"PK\x06\x07";
/// 4.5, which has ZIP64.
const VERSION: u16 = 45;
/// Of a local header without its name.
const HEADER_BYTES: usize = 30;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_local_header_has_both_sizes_in_the_fields_of_zip64_or_none() {
        let header = |compressed, size, place| {
            let (mut header, entry) = (Vec::new(), Entry { name: "a", crc: 7, compressed, size });
            entry.write(&mut header, place);
            (header[14..22].to_vec(), header[24..26].to_vec(), entry.large_fields(place))
        };
        let numbers = |all: &[u64]| all.iter().flat_map(|number| number.to_le_bytes()).collect::<Vec<u8>>();
        let (sizes, extra, fields) = header(9, 5_000_000_000, None);
        assert_eq!((sizes, extra), (vec![0xff; 8], vec![20, 0]));
        assert_eq!(fields, [vec![1, 0, 16, 0], numbers(&[5_000_000_000, 9])].concat());
        let (sizes, _, fields) = header(9, 5_000_000_000, Some(10));
        assert_eq!(sizes, [9_u32.to_le_bytes(), [0xff; 4]].concat());
        assert_eq!(fields, [vec![1, 0, 8, 0], numbers(&[5_000_000_000])].concat());
        assert_eq!(header(9, 8, None), ([9_u32.to_le_bytes(), 8_u32.to_le_bytes()].concat(), vec![0, 0], Vec::new()));
    }
}

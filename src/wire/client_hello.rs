//! What a TLS ClientHello says: the server name, and a fingerprint (JA4) that identifies the kind of client.
//!
//! It never fails a handshake: what can't be read has no name and no fingerprint.

use aws_lc_rs::digest::{SHA256, digest};

/// The length of the TLS record that starts with these bytes, its header included. None if they are too few.
pub(crate) fn record_bytes(start: &[u8]) -> Option<usize> {
    let length = start.get(3..5)?;
    Some(RECORD_HEADER_BYTES + usize::from(u16::from_be_bytes([length[0], length[1]])))
}

/// The host name in the ClientHello of a TLS record (SNI, RFC 6066 §3). None if it has none.
pub(crate) fn server_name(record: &[u8]) -> Option<&str> {
    let (_, _, mut rest) = parse(record)?;
    while let Some(kind) = rest.u16() {
        let mut data = rest.long_list()?;
        if kind == SERVER_NAME {
            let mut names = data.long_list()?;
            return (names.take(1)? == [HOST_NAME]).then(|| std::str::from_utf8(names.long_list()?.0).ok())?;
        }
    }
    None
}

/// Version, cipher suites and extensions of the ClientHello in a TLS record (RFC 8446 §4.1.2).
fn parse(record: &[u8]) -> Option<(u16, Reader<'_>, Reader<'_>)> {
    let mut hello = Reader(record.get(RECORD_HEADER_BYTES..)?);
    // Handshake type and length, then the version, the random, the session id.
    if hello.take(1)? != [CLIENT_HELLO] {
        return None;
    }
    hello.take(3)?;
    let version = hello.u16()?;
    hello.take(32)?;
    hello.short_list()?;
    let ciphers = hello.long_list()?;
    hello.short_list()?;
    Some((version, ciphers, hello.long_list().unwrap_or(Reader(&[]))))
}

/// The JA4 fingerprint of the ClientHello in a TLS record (<https://github.com/FoxIO-LLC/ja4>).
pub(crate) fn ja4(record: &[u8]) -> Option<String> {
    let (mut version, ciphers, mut rest) = parse(record)?;
    let ciphers: Vec<u16> = ciphers.u16s();
    let mut extensions = Vec::new();
    let (mut server_name, mut alpn, mut signatures) = (false, None, Vec::new());
    while let Some(kind) = rest.u16() {
        let mut data = rest.long_list()?;
        match kind {
            _ if is_grease(kind) => continue,
            SERVER_NAME => server_name = true,
            ALPN => alpn = data.long_list().and_then(|mut names| names.short_list()).map(|first| first.0.to_vec()),
            SIGNATURES => signatures = data.long_list()?.u16s(),
            VERSIONS => version = data.short_list()?.u16s().into_iter().max().unwrap_or(version),
            _ => {}
        }
        extensions.push(kind);
    }
    let head = format!(
        "t{}{}{:02}{:02}{}",
        version_code(version),
        if server_name { 'd' } else { 'i' },
        ciphers.len().min(99),
        extensions.len().min(99),
        alpn_code(alpn.as_deref().unwrap_or_default()),
    );
    let mut hashed = extensions;
    hashed.retain(|kind| *kind != SERVER_NAME && *kind != ALPN);
    let mut described = sorted(hashed);
    if !signatures.is_empty() {
        described = format!("{described}_{}", listed(&signatures));
    }
    Some(format!("{head}_{}_{}", short_hash(&sorted(ciphers)), short_hash(&described)))
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn u16(&mut self) -> Option<u16> {
        self.take(2).map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    /// The bytes behind a length of one byte.
    fn short_list(&mut self) -> Option<Self> {
        let length = usize::from(self.take(1)?[0]);
        self.take(length).map(Self)
    }

    /// The bytes behind a length of two bytes.
    fn long_list(&mut self) -> Option<Self> {
        let length = usize::from(self.u16()?);
        self.take(length).map(Self)
    }

    /// All numbers except GREASE values (RFC 8701).
    fn u16s(mut self) -> Vec<u16> {
        std::iter::from_fn(|| self.u16()).filter(|number| !is_grease(*number)).collect()
    }
}

fn is_grease(number: u16) -> bool {
    number & 0x0f0f == 0x0a0a && number >> 8 == number & 0xff
}

fn version_code(version: u16) -> &'static str {
    match version {
        0x0304 => "13",
        0x0303 => "12",
        0x0302 => "11",
        0x0301 => "10",
        0x0300 => "s3",
        _ => "00",
    }
}

fn alpn_code(name: &[u8]) -> String {
    match (name.first(), name.last()) {
        (Some(first), Some(last)) if first.is_ascii_alphanumeric() && last.is_ascii_alphanumeric() => {
            format!("{}{}", char::from(*first), char::from(*last))
        }
        (Some(first), Some(last)) => format!("{:x}{:x}", first >> 4, last & 0x0f),
        _ => "00".to_owned(),
    }
}

fn sorted(mut numbers: Vec<u16>) -> String {
    numbers.sort_unstable();
    listed(&numbers)
}

fn listed(numbers: &[u16]) -> String {
    numbers.iter().map(|number| format!("{number:04x}")).collect::<Vec<_>>().join(",")
}

fn short_hash(text: &str) -> String {
    if text.is_empty() {
        return "0".repeat(12);
    }
    const_hex::encode(&digest(&SHA256, text.as_bytes()).as_ref()[..6])
}

const HOST_NAME: u8 = 0;
const RECORD_HEADER_BYTES: usize = 5;
const CLIENT_HELLO: u8 = 1;
const SERVER_NAME: u16 = 0x0000;
const SIGNATURES: u16 = 0x000d;
const ALPN: u16 = 0x0010;
const VERSIONS: u16 = 0x002b;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn hello() -> Vec<u8> {
        let extension = |kind: u16, data: &[u8]| {
            [&kind.to_be_bytes()[..], &u16::try_from(data.len()).unwrap().to_be_bytes(), data].concat()
        };
        let extensions = [
            extension(0x1a1a, b""),
            extension(SERVER_NAME, b"\0\x04\0\0\x01a"),
            extension(ALPN, b"\0\x03\x02h2"),
            extension(SIGNATURES, b"\0\x04\x04\x03\x08\x04"),
            extension(VERSIONS, b"\x04\x03\x04\x03\x03"),
        ]
        .concat();
        let mut body = vec![3, 3];
        body.extend([7; 32]);
        body.push(0);
        body.extend([0, 6, 0x0a, 0x0a, 0x13, 0x02, 0x13, 0x01]);
        body.extend([1, 0]);
        body.extend(u16::try_from(extensions.len()).unwrap().to_be_bytes());
        body.extend(extensions);
        let mut record = vec![0x16, 3, 1];
        record.extend(u16::try_from(body.len() + 4).unwrap().to_be_bytes());
        record.extend([CLIENT_HELLO, 0]);
        record.extend(u16::try_from(body.len()).unwrap().to_be_bytes());
        record.extend(body);
        record
    }

    #[test]
    fn a_hello_has_its_fingerprint() {
        let record = hello();
        assert_eq!(record_bytes(&record), Some(record.len()));
        let expected = format!("t13d0204h2_{}_{}", short_hash("1301,1302"), short_hash("000d,002b_0403,0804"));
        assert_eq!(ja4(&record), Some(expected));
        assert_eq!(ja4(b"GET / HTTP/1.1"), None);
    }

    proptest! {
        #[test]
        fn a_truncated_or_damaged_hello_never_panics(end in 0usize..120, at in 0usize..120, byte in any::<u8>()) {
            let mut record = hello();
            let length = record.len();
            record[at % length] = byte;
            drop(ja4(&record[..end.min(length)]));
            drop(ja4(&record));
        }
    }
}

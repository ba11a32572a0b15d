//! What a TLS ClientHello says: the server name, and a fingerprint (JA4) that identifies the kind of client.
//!
//! Nothing here fails a handshake: a ClientHello that can't be read has no name and no fingerprint.

use aws_lc_rs::digest::{SHA256, digest};
use std::net::IpAddr;

/// What a ClientHello says that decides how its connection is treated.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ClientHello {
    /// The host name (SNI, RFC 6066 §3), without the dot at its end. `None` if there is none, or an address in its place.
    pub server_name: Option<String>,
    /// The protocols offered by ALPN (RFC 7301), in order.
    pub alpn: Vec<Vec<u8>>,
    /// The cipher suites offered, in order.
    pub cipher_suites: Vec<u16>,
    /// The groups for key exchange (RFC 8446 §4.2.7). `None` without this extension.
    pub groups: Option<Vec<u16>>,
    /// The signature schemes accepted (RFC 8446 §4.2.3).
    pub signature_schemes: Vec<u16>,
}

impl ClientHello {
    /// Reads the TLS records that a client starts with. `None` if they have no ClientHello.
    pub(crate) fn of_records(records: &[u8]) -> Option<Self> {
        let handshake = joined(records);
        let (_, ciphers, mut rest) = parse(&handshake)?;
        let mut hello = Self { cipher_suites: ciphers.u16s(), ..Self::default() };
        while let Some(kind) = rest.u16() {
            let mut data = rest.long_list()?;
            match kind {
                SERVER_NAME => hello.server_name = host_name(data),
                ALPN => hello.alpn = protocols(data),
                GROUPS => hello.groups = data.long_list().map(Reader::u16s),
                SIGNATURES => hello.signature_schemes = data.long_list().map(Reader::u16s).unwrap_or_default(),
                _ => {}
            }
        }
        Some(hello)
    }
}

/// True when TLS records contain a whole ClientHello, or can't become one.
pub(crate) fn is_whole(records: &[u8]) -> bool {
    let handshake = joined(records);
    let Some(length) = handshake.get(1..HANDSHAKE_HEADER_BYTES) else {
        return records.len() > MAX_HELLO_BYTES || !is_handshake(records);
    };
    let length = usize::from(length[0]) << 16 | usize::from(length[1]) << 8 | usize::from(length[2]);
    handshake[0] != CLIENT_HELLO
        || handshake.len() >= HANDSHAKE_HEADER_BYTES + length
        || records.len() > MAX_HELLO_BYTES
        || !is_handshake(records)
}

/// The handshake messages in TLS records (RFC 8446 §5.1), which may divide a message anywhere.
fn joined(mut records: &[u8]) -> Vec<u8> {
    let mut handshake = Vec::with_capacity(records.len());
    while let [HANDSHAKE_RECORD, _, _, high, low, rest @ ..] = records {
        let length = usize::from(u16::from_be_bytes([*high, *low])).min(rest.len());
        handshake.extend_from_slice(&rest[..length]);
        records = &rest[length..];
    }
    handshake
}

/// True while every record could be one of a handshake.
fn is_handshake(mut records: &[u8]) -> bool {
    while let [kind, _, _, high, low, rest @ ..] = records {
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        if *kind != HANDSHAKE_RECORD || length == 0 {
            return false;
        }
        records = rest.get(length..).unwrap_or_default();
    }
    true
}

fn host_name(mut data: Reader<'_>) -> Option<String> {
    let mut names = data.long_list()?;
    if names.take(1)? != [HOST_NAME] {
        return None;
    }
    let name = std::str::from_utf8(names.long_list()?.0).ok()?;
    let name = name.strip_suffix('.').unwrap_or(name);
    (!name.is_empty() && name.parse::<IpAddr>().is_err()).then(|| name.to_owned())
}

fn protocols(mut data: Reader<'_>) -> Vec<Vec<u8>> {
    let mut names = data.long_list().unwrap_or(Reader(&[]));
    std::iter::from_fn(|| names.short_list()).map(|name| name.0.to_vec()).collect()
}

/// Version, cipher suites and extensions of a ClientHello (RFC 8446 §4.1.2).
fn parse(handshake: &[u8]) -> Option<(u16, Reader<'_>, Reader<'_>)> {
    let mut hello = Reader(handshake);
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

/// The JA4 fingerprint of the ClientHello in TLS records (<https://github.com/FoxIO-LLC/ja4>).
pub(crate) fn ja4(records: &[u8]) -> Option<String> {
    let handshake = joined(records);
    let (mut version, ciphers, mut rest) = parse(&handshake)?;
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
const HANDSHAKE_RECORD: u8 = 0x16;
const HANDSHAKE_HEADER_BYTES: usize = 4;
/// The longest ClientHello that is read; rustls refuses longer ones.
const MAX_HELLO_BYTES: usize = 32 * 1024;
const CLIENT_HELLO: u8 = 1;
const SERVER_NAME: u16 = 0x0000;
const GROUPS: u16 = 0x000a;
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
        assert!(is_whole(&record) && !is_whole(&record[..record.len() - 1]));
        let expected = ClientHello {
            server_name: Some("a".to_owned()),
            alpn: vec![b"h2".to_vec()],
            cipher_suites: vec![0x1302, 0x1301],
            groups: None,
            signature_schemes: vec![0x0403, 0x0804],
        };
        assert_eq!(ClientHello::of_records(&record), Some(expected));
        let expected = format!("t13d0204h2_{}_{}", short_hash("1301,1302"), short_hash("000d,002b_0403,0804"));
        assert_eq!(ja4(&record), Some(expected));
        assert_eq!(ja4(b"GET / HTTP/1.1"), None);
    }

    proptest! {
        #[test]
        fn records_may_divide_it_anywhere(cuts in prop::collection::vec(1usize..40, 1..200)) {
            let whole = hello();
            let (mut message, mut divided) = (&whole[5..], Vec::new());
            for cut in cuts.iter().cycle() {
                let (part, rest) = message.split_at((*cut).min(message.len()));
                prop_assert!(!is_whole(&divided));
                divided.extend([HANDSHAKE_RECORD, 3, 1]);
                divided.extend(u16::try_from(part.len()).unwrap().to_be_bytes());
                divided.extend(part);
                message = rest;
                if message.is_empty() {
                    break;
                }
            }
            prop_assert!(is_whole(&divided));
            prop_assert_eq!(ClientHello::of_records(&divided), ClientHello::of_records(&whole));
            prop_assert_eq!(ja4(&divided), ja4(&whole));
        }

        #[test]
        fn a_truncated_or_damaged_hello_never_panics(end in 0usize..120, at in 0usize..120, byte in any::<u8>()) {
            let mut record = hello();
            let length = record.len();
            record[at % length] = byte;
            drop(ja4(&record[..end.min(length)]));
            drop(ja4(&record));
            drop(ClientHello::of_records(&record));
            let _ = is_whole(&record);
        }
    }
}

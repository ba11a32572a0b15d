//! HTTP content codings (RFC 9110 §8.4): gzip, deflate, br and zstd, for recorded bodies, gateway requests and OTLP.
//!
//! The output of every coding is bounded, and so is the number of codings. Forwarded bytes are never decoded. The
//! store's own compression and WebSocket's permessage-deflate are other formats, which this module does not handle.

use http::{HeaderMap, header};
use std::io::Read;

/// A body after decoding. Recording keeps what could be decoded, also of a damaged body.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Decoded {
    /// The decoded bytes, or the raw ones if a coding is not supported.
    pub bytes: Vec<u8>,
    /// True when the limit cut the output.
    pub truncated: bool,
    /// Why the bytes are not the whole body. `None` if only the limit cut it.
    pub error: Option<DecodeError>,
}

/// Why a body could not be decoded completely.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DecodeError {
    /// A coding that this module does not support, in lower case.
    #[error("unknown coding {0}")]
    Unknown(String),
    /// More codings than [`MAX_CODINGS`].
    #[error("more than {MAX_CODINGS} codings")]
    TooMany,
    /// The bytes end early, or are damaged.
    #[error("{0} data is cut or damaged")]
    Damaged(&'static str),
    /// The decoded body is larger than this limit in bytes. Only [`decode_whole`] reports it.
    #[error("the decoded body is larger than {0} bytes")]
    TooLarge(usize),
}

/// The most codings of a body, one applied after another. Real clients use one, rarely two; each more multiplies
/// the work that a small body can cause.
const MAX_CODINGS: usize = 4;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Coding {
    Gzip,
    Deflate,
    Brotli,
    Zstd,
}

impl Coding {
    /// Names are case-insensitive, and `x-gzip` means gzip (RFC 9110 §8.4.1.3).
    fn of(name: &str) -> Option<Self> {
        Some(match name.to_ascii_lowercase().as_str() {
            "gzip" | "x-gzip" => Self::Gzip,
            "deflate" => Self::Deflate,
            "br" => Self::Brotli,
            "zstd" => Self::Zstd,
            _ => return None,
        })
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
            Self::Brotli => "br",
            Self::Zstd => "zstd",
        }
    }

    fn decode(self, raw: &[u8], max_bytes: usize) -> Output {
        match self {
            // A gzip body may have several members (RFC 1952 §2.2).
            Self::Gzip => read(flate2::read::MultiGzDecoder::new(raw), max_bytes),
            Self::Deflate => {
                // The RFC means zlib; some servers send raw deflate.
                let zlib = read(flate2::read::ZlibDecoder::new(raw), max_bytes);
                if zlib.bytes.is_empty() && zlib.end == End::Damaged {
                    return read(flate2::read::DeflateDecoder::new(raw), max_bytes);
                }
                zlib
            }
            Self::Brotli => read(brotli_decompressor::Decompressor::new(raw, 4096), max_bytes),
            Self::Zstd => match zstd::stream::read::Decoder::new(raw) {
                Ok(decoder) => read(decoder, max_bytes),
                Err(_) => Output { bytes: Vec::new(), end: End::Damaged },
            },
        }
    }
}

/// Decodes a body by the `Content-Encoding` fields of its message, the last coding first, to at most `max_bytes`.
pub(crate) fn decode(headers: &HeaderMap, body: Vec<u8>, max_bytes: usize) -> Decoded {
    let codings = match codings(headers) {
        Ok(codings) => codings,
        Err(error) => return Decoded { bytes: body, truncated: false, error: Some(error) },
    };
    let mut decoded = Decoded { bytes: body, ..Decoded::default() };
    for coding in codings.into_iter().rev() {
        let output = coding.decode(&decoded.bytes, max_bytes);
        decoded.bytes = output.bytes;
        match output.end {
            End::Whole => {}
            End::Limit => decoded.truncated = true,
            End::Damaged => decoded.error = Some(DecodeError::Damaged(coding.as_str())),
        }
    }
    decoded
}

/// Decodes a body as [`decode`] does; a body that is damaged or larger than `max_bytes` is an error.
pub(crate) fn decode_whole(headers: &HeaderMap, body: Vec<u8>, max_bytes: usize) -> Result<Vec<u8>, DecodeError> {
    let decoded = decode(headers, body, max_bytes);
    match decoded.error {
        // The next coding cannot read a body that the limit cut.
        Some(_) | None if decoded.truncated => Err(DecodeError::TooLarge(max_bytes)),
        Some(error) => Err(error),
        None => Ok(decoded.bytes),
    }
}

/// True when the `Accept-Encoding` fields of a request allow a gzip response (RFC 9110 §12.5.3). A missing field counts
/// as no: an uncompressed response is always acceptable.
pub(crate) fn accepts_gzip(headers: &HeaderMap) -> bool {
    let fields = headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|field| field.to_str().ok());
    let mut any = false;
    for item in fields.flat_map(|field| field.split(',')) {
        let (name, parameters) = item.split_once(';').unwrap_or((item, ""));
        let weight = parameters.trim().strip_prefix("q=").or_else(|| parameters.trim().strip_prefix("Q="));
        let accepted = weight.is_none_or(|weight| weight.trim().parse::<f32>().is_ok_and(|weight| weight > 0.0));
        match Coding::of(name.trim()) {
            Some(Coding::Gzip) => return accepted,
            _ => any |= name.trim() == "*" && accepted,
        }
    }
    any
}

/// `body` compressed with gzip, fast rather than small.
pub fn gzip(body: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut compressed = Vec::new();
    flate2::read::GzEncoder::new(body, flate2::Compression::fast()).read_to_end(&mut compressed)?;
    Ok(compressed)
}

/// The codings of a message in the order in which they were applied.
fn codings(headers: &HeaderMap) -> Result<Vec<Coding>, DecodeError> {
    let mut codings = Vec::new();
    for field in headers.get_all(header::CONTENT_ENCODING) {
        let field = String::from_utf8_lossy(field.as_bytes());
        for name in field.split(',').map(str::trim) {
            if name.is_empty() || name.eq_ignore_ascii_case("identity") {
                continue;
            }
            codings.push(Coding::of(name).ok_or_else(|| DecodeError::Unknown(name.to_ascii_lowercase()))?);
        }
    }
    if codings.len() > MAX_CODINGS { Err(DecodeError::TooMany) } else { Ok(codings) }
}

struct Output {
    bytes: Vec<u8>,
    end: End,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Whole,
    Limit,
    Damaged,
}

fn read(mut decoder: impl Read, max_bytes: usize) -> Output {
    let mut bytes = Vec::new();
    let mut buffer = [0; 8192];
    loop {
        match decoder.read(&mut buffer) {
            Ok(0) => return Output { bytes, end: End::Whole },
            Ok(read) => {
                let room = max_bytes - bytes.len();
                bytes.extend_from_slice(&buffer[..read.min(room)]);
                if read > room {
                    return Output { bytes, end: End::Limit };
                }
            }
            Err(_) => return Output { bytes, end: End::Damaged },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use proptest::prelude::*;
    use std::io::Write;

    fn coded(fields: &[&str]) -> HeaderMap {
        let fields = fields.iter().map(|field| (header::CONTENT_ENCODING, field.parse().unwrap()));
        fields.collect()
    }

    fn zlib(data: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn members_lists_and_spellings() {
        let two_members = [gzip(b"a").unwrap(), gzip(b"b").unwrap()].concat();
        let nested = zstd::encode_all(&gzip(b"deep").unwrap()[..], 1).unwrap();
        for (fields, data, expected) in [
            (&["gzip"][..], two_members.clone(), &b"ab"[..]),
            (&["GZIP"], two_members.clone(), b"ab"),
            (&["X-Gzip"], two_members, b"ab"),
            (&["gzip, zstd"], nested.clone(), b"deep"),
            (&["gzip", " Zstd , identity,"], nested, b"deep"),
            (&[], b"raw".to_vec(), b"raw"),
            (&["identity"], b"raw".to_vec(), b"raw"),
        ] {
            assert_eq!(decode_whole(&coded(fields), data, 100).as_deref(), Ok(expected), "{fields:?}");
        }
    }

    #[test]
    fn unsupported_codings_leave_the_body_as_it_is() {
        for (fields, error) in [
            (vec!["Snappy"], DecodeError::Unknown("snappy".to_owned())),
            (vec!["gzip, snappy"], DecodeError::Unknown("snappy".to_owned())),
            (vec!["gzip"; MAX_CODINGS + 1], DecodeError::TooMany),
        ] {
            let decoded = decode(&coded(&fields), b"raw".to_vec(), 100);
            assert_eq!((decoded.bytes.as_slice(), decoded.error), (&b"raw"[..], Some(error)));
        }
    }

    #[test]
    fn output_is_bounded() {
        let bomb = gzip(&vec![0; 1 << 20]).unwrap();
        let decoded = decode(&coded(&["gzip"]), bomb.clone(), 1000);
        assert_eq!((decoded.bytes.len(), decoded.truncated, decoded.error), (1000, true, None));
        let nested = gzip(&bomb).unwrap();
        assert_eq!(decode_whole(&coded(&["gzip, gzip"]), nested, 1000), Err(DecodeError::TooLarge(1000)));
    }

    #[test]
    fn accept_encoding_names_weights_and_wildcards() {
        for (fields, expected) in [
            (&[][..], false),
            (&["gzip"], true),
            (&["br;q=1, X-GZIP ; q=0.5"], true),
            (&["gzip;q=0"], false),
            (&["gzip; q=0.0, *"], false),
            (&["br", "*;q=0.1"], true),
            (&["*;q=0"], false),
            (&["gzipped"], false),
        ] {
            let headers: HeaderMap =
                fields.iter().map(|field| (header::ACCEPT_ENCODING, HeaderValue::from_static(field))).collect();
            assert_eq!(accepts_gzip(&headers), expected, "{fields:?}");
        }
    }

    proptest! {
        #[test]
        fn a_cut_body_decodes_to_a_prefix(data in prop::collection::vec(any::<u8>(), 0..3000), cut in 0usize..3000) {
            let whole = [("gzip", gzip(&data).unwrap()), ("deflate", zlib(&data)), ("zstd", zstd::encode_all(&data[..], 1).unwrap())];
            for (coding, whole) in whole {
                prop_assert_eq!(&decode(&coded(&[coding]), whole.clone(), 1 << 20).bytes, &data);
                if coding != "deflate" {
                    let part = decode(&coded(&[coding]), whole[..cut.min(whole.len())].to_vec(), 1 << 20).bytes;
                    prop_assert!(data.starts_with(&part));
                }
            }
        }

        #[test]
        fn never_panics(data in prop::collection::vec(any::<u8>(), 0..300), names in "[a-z, ;=*-]{0,20}") {
            for coding in ["gzip", "deflate", "br", "zstd", &names] {
                let _ = decode(&coded(&[coding]), data.clone(), 1 << 16);
            }
            let accepted = HeaderMap::from_iter([(header::ACCEPT_ENCODING, names.parse().unwrap())]);
            let _ = accepts_gzip(&accepted);
        }
    }
}

//! Content codings of captured bodies, decoded after the fact and under a cap. What was forwarded is never touched.

use std::io::Read;

/// What came out.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Decoded {
    /// The decoded bytes, or the raw ones if the coding is unknown.
    pub bytes: Vec<u8>,
    /// True when the cap cut it.
    pub truncated: bool,
    /// Why it isn't whole.
    pub error: Option<DecodeError>,
}

/// Why a body could not be decoded, or not to its end.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// A coding we don't know.
    #[error("unknown coding {0}")]
    Unknown(String),
    /// The bytes end early, or are damaged.
    #[error("{0} data is cut or damaged")]
    Damaged(String),
}

/// Decodes `data` by a `Content-Encoding` value (RFC 9110 §8.4), the last coding first, to at most `max_decoded_bytes`.
pub fn decode(content_encoding: &str, data: Vec<u8>, max_decoded_bytes: usize) -> Decoded {
    if content_encoding.is_empty() {
        return Decoded { bytes: data, ..Decoded::default() };
    }
    let mut decoded = Decoded { bytes: data.clone(), ..Decoded::default() };
    for coding in content_encoding.rsplit(',').map(|coding| coding.trim().to_ascii_lowercase()) {
        if coding.is_empty() || coding == "identity" {
            continue;
        }
        let raw = std::mem::take(&mut decoded.bytes);
        let Some((bytes, truncated, whole)) = one(&coding, &raw, max_decoded_bytes) else {
            return Decoded { bytes: data, truncated: false, error: Some(DecodeError::Unknown(coding)) };
        };
        decoded.bytes = bytes;
        decoded.truncated |= truncated;
        if !whole {
            decoded.error = Some(DecodeError::Damaged(coding));
        }
    }
    decoded
}

fn one(coding: &str, raw: &[u8], cap: usize) -> Option<(Vec<u8>, bool, bool)> {
    Some(match coding {
        "gzip" | "x-gzip" => read(flate2::read::MultiGzDecoder::new(raw), cap),
        "deflate" => {
            // The RFC means zlib; some servers send raw deflate.
            let zlib = read(flate2::read::ZlibDecoder::new(raw), cap);
            if zlib.0.is_empty() && !zlib.2 { read(flate2::read::DeflateDecoder::new(raw), cap) } else { zlib }
        }
        "br" => read(brotli_decompressor::Decompressor::new(raw, 4096), cap),
        "zstd" => match zstd::stream::read::Decoder::new(raw) {
            Ok(decoder) => read(decoder, cap),
            Err(_) => (Vec::new(), false, false),
        },
        _ => return None,
    })
}

/// Bytes, whether the cap cut them, and whether the end was reached without an error.
fn read(mut decoder: impl Read, cap: usize) -> (Vec<u8>, bool, bool) {
    let mut bytes = Vec::new();
    let mut buffer = [0; 8192];
    loop {
        match decoder.read(&mut buffer) {
            Ok(0) => return (bytes, false, true),
            Ok(read) => {
                let room = cap - bytes.len();
                bytes.extend_from_slice(&buffer[..read.min(room)]);
                if read > room {
                    return (bytes, true, true);
                }
            }
            Err(_) => return (bytes, false, false),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Write;

    fn gzip(data: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn several_members_and_several_codings() {
        let both = [gzip(b"a"), gzip(b"b")].concat();
        assert_eq!(decode("gzip", both, 100).bytes, b"ab");
        let nested = zstd::encode_all(&gzip(b"deep")[..], 1).unwrap();
        assert_eq!(decode("gzip, zstd", nested, 100).bytes, b"deep");
        let unknown = decode("snappy", b"raw".to_vec(), 100);
        assert_eq!(
            (unknown.bytes.as_slice(), unknown.error),
            (&b"raw"[..], Some(DecodeError::Unknown("snappy".into())))
        );
    }

    #[test]
    fn a_bomb_is_capped() {
        let bomb = gzip(&vec![0; 1 << 20]);
        let decoded = decode("gzip", bomb, 1000);
        assert_eq!((decoded.bytes.len(), decoded.truncated), (1000, true));
    }

    proptest! {
        #[test]
        fn a_cut_body_decodes_to_a_prefix(data in prop::collection::vec(any::<u8>(), 0..3000), cut in 0usize..3000) {
            let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
            zlib.write_all(&data).unwrap();
            for (coding, whole) in [("gzip", gzip(&data)), ("deflate", zlib.finish().unwrap()), ("zstd", zstd::encode_all(&data[..], 1).unwrap())] {
                prop_assert_eq!(&decode(coding, whole.clone(), 1 << 20).bytes, &data);
                if coding != "deflate" {
                    let part = decode(coding, whole[..cut.min(whole.len())].to_vec(), 1 << 20).bytes;
                    prop_assert!(data.starts_with(&part));
                }
            }
        }

        #[test]
        fn never_panics(data in prop::collection::vec(any::<u8>(), 0..300)) {
            for coding in ["gzip", "deflate", "br", "zstd"] {
                let _ = decode(coding, data.clone(), 1 << 16);
            }
        }
    }
}

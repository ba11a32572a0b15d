//! Undoes a content coding of a body that arrives in pieces (RFC 9110 §8.4): gzip, br and zstd.
//!
//! What comes out is given in small pieces, so that no body can expand in memory. Bodies with several codings, and
//! deflate, of which two kinds are in use, are left to [`super::encoding`], which has the whole body.

use http::{HeaderMap, header};
use std::io::{self, Write};

/// Decodes a body piece by piece. What it decodes to is never held.
pub(crate) struct StreamDecoder {
    // None: the body has no coding.
    coding: Option<Coding>,
    is_damaged: bool,
}

enum Coding {
    Gzip(flate2::write::MultiGzDecoder<Vec<u8>>),
    Brotli(Box<brotli_decompressor::DecompressorWriter<Vec<u8>>>),
    Zstd(zstd::stream::write::Decoder<'static, Vec<u8>>),
}

impl StreamDecoder {
    /// A decoder for a body with these header fields. `None`: it can only be decoded whole, or not at all.
    pub(crate) fn of(headers: &HeaderMap) -> Option<Self> {
        let mut fields = headers.get_all(header::CONTENT_ENCODING).iter();
        let name = match (fields.next(), fields.next()) {
            (None, _) => "identity",
            (Some(field), None) => field.to_str().ok()?.trim(),
            (Some(_), Some(_)) => return None,
        };
        let coding = match name.to_ascii_lowercase().as_str() {
            "identity" | "" => return Some(Self { coding: None, is_damaged: false }),
            "gzip" | "x-gzip" => Coding::Gzip(flate2::write::MultiGzDecoder::new(Vec::new())),
            "br" => Coding::Brotli(Box::new(brotli_decompressor::DecompressorWriter::new(Vec::new(), BUFFER_BYTES))),
            "zstd" => Coding::Zstd(zstd::stream::write::Decoder::new(Vec::new()).ok()?),
            _ => return None,
        };
        Some(Self { coding: Some(coding), is_damaged: false })
    }

    /// Decodes the next bytes, and calls `on_decoded` with what they decode to. After damage nothing is decoded.
    pub(crate) fn push(&mut self, bytes: &[u8], on_decoded: &mut dyn FnMut(&[u8])) {
        let Some(coding) = &mut self.coding else { return on_decoded(bytes) };
        for piece in bytes.chunks(PIECE_BYTES) {
            if self.is_damaged {
                return;
            }
            self.is_damaged = coding.write(piece).is_err();
            let decoded = coding.decoded();
            on_decoded(decoded);
            decoded.clear();
        }
    }

    /// True once bytes were not valid in their coding.
    pub(crate) fn is_damaged(&self) -> bool {
        self.is_damaged
    }
}

impl Coding {
    fn write(&mut self, piece: &[u8]) -> io::Result<()> {
        match self {
            Self::Gzip(decoder) => decoder.write_all(piece).and_then(|()| decoder.flush()),
            Self::Brotli(decoder) => decoder.write_all(piece).and_then(|()| decoder.flush()),
            Self::Zstd(decoder) => decoder.write_all(piece).and_then(|()| decoder.flush()),
        }
    }

    fn decoded(&mut self) -> &mut Vec<u8> {
        match self {
            Self::Gzip(decoder) => decoder.get_mut(),
            Self::Brotli(decoder) => decoder.get_mut(),
            Self::Zstd(decoder) => decoder.get_mut(),
        }
    }
}

impl std::fmt::Debug for StreamDecoder {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("StreamDecoder").field("is_damaged", &self.is_damaged).finish_non_exhaustive()
    }
}

const BUFFER_BYTES: usize = 4096;
/// How many bytes are decoded at a time: if they expand a thousandfold, they become half a megabyte.
const PIECE_BYTES: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::encoding::{decode, gzip};
    use http::HeaderValue;
    use proptest::prelude::*;

    fn headers(coding: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(header::CONTENT_ENCODING, HeaderValue::from_static(coding))])
    }

    fn decoded(coding: &'static str, body: &[u8], cut: usize) -> (Vec<u8>, bool) {
        let (mut decoder, mut out) = (StreamDecoder::of(&headers(coding)).unwrap(), Vec::new());
        let (first, second) = body.split_at(cut % (body.len() + 1));
        for piece in [first, second] {
            decoder.push(piece, &mut |bytes| out.extend_from_slice(bytes));
        }
        (out, decoder.is_damaged())
    }

    #[test]
    fn what_cannot_be_decoded_in_pieces_has_no_decoder() {
        assert!(StreamDecoder::of(&HeaderMap::new()).is_some());
        for coding in ["deflate", "gzip, br", "other"] {
            assert!(StreamDecoder::of(&headers(coding)).is_none(), "{coding}");
        }
        assert!(decoded("gzip", b"no gzip at all, not even a little", 3).1);
        // "hello" in brotli, without compression.
        assert_eq!(decoded("BR", b"\x0b\x02\x80hello\x03", 4), (b"hello".to_vec(), false));
    }

    #[test]
    fn a_body_expands_piece_by_piece() {
        let (mut decoder, mut largest, mut sum) = (StreamDecoder::of(&headers("gzip")).unwrap(), 0, 0);
        decoder.push(&gzip(&vec![0; 50 << 20]).unwrap(), &mut |bytes| {
            largest = largest.max(bytes.len());
            sum += bytes.len();
        });
        assert_eq!(sum, 50 << 20);
        assert!(largest < 2 << 20, "{largest}");
    }

    proptest! {
        #[test]
        fn any_cut_decodes_as_the_whole(data in prop::collection::vec(any::<u8>(), 0..3000), cut in any::<usize>()) {
            let two_members = [gzip(&data).unwrap(), gzip(&data).unwrap()].concat();
            for (coding, body) in [("gzip", two_members), ("zstd", zstd::encode_all(&data[..], 1).unwrap())] {
                let expected = decode(&headers(coding), body.clone(), 1 << 20).bytes;
                prop_assert_eq!(decoded(coding, &body, cut), (expected, false));
            }
        }

        #[test]
        fn never_panics(data in prop::collection::vec(any::<u8>(), 0..300), cut in any::<usize>()) {
            for coding in ["gzip", "br", "zstd"] {
                let _ = decoded(coding, &data, cut);
            }
        }
    }
}

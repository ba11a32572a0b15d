//! A response that is read while it passes, with its content coding.

use super::response_reader::ResponseReader;
use crate::trace::SamplerArrays;
use crate::wire::stream_decoder::StreamDecoder;
use http::HeaderMap;

/// A response of which the beginning was read.
#[derive(Debug)]
pub(crate) struct BegunResponse {
    reader: ResponseReader,
    decoder: StreamDecoder,
}

impl BegunResponse {
    /// Begins to read the response to a request for `target`. `None`: it can only be read with its request, or its content
    /// coding only be undone at once. These arrays are kept of it.
    pub(crate) fn new(target: &str, response_headers: &HeaderMap, arrays: SamplerArrays) -> Option<Self> {
        let path = target.split('?').next().unwrap_or_default();
        Some(Self { reader: ResponseReader::for_path(path, arrays)?, decoder: StreamDecoder::of(response_headers)? })
    }

    /// Reads the next bytes, as transferred.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.decoder.push(bytes, &mut |decoded| self.reader.push(decoded));
    }

    /// An estimate of the bytes of memory in use.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.reader.memory_bytes()
    }

    /// Holds only so many bytes before they are read.
    #[cfg(test)]
    pub(super) fn holding(mut self, held_bytes: usize) -> Self {
        self.reader = self.reader.holding(held_bytes);
        self
    }

    /// The reader, when all bytes were read.
    pub(super) fn into_reader(mut self) -> ResponseReader {
        if self.decoder.is_damaged() {
            self.reader.note_damage();
        }
        self.reader
    }
}

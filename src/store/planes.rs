//! Numbers with the first bytes of all of them in front, then the second bytes, and so on: the higher bytes of logprobs are
//! alike, so that they compress far better side by side. Schema versions before bit packing stored ids so, too.

/// First byte of a compressed piece of the planes of ids, which is only read.
pub(super) const NUMBERS_TAG: u8 = 6;
/// First byte of a compressed piece of the planes of logprobs.
pub(super) const FLOATS_TAG: u8 = 7;
/// The bytes of a number.
pub(super) const WORD_BYTES: usize = 4;

/// The planes of these numbers.
pub(super) fn divide(raw: &[u8]) -> Vec<u8> {
    let length = raw.len() / WORD_BYTES;
    let mut planes = vec![0; length * WORD_BYTES];
    for plane in 0..WORD_BYTES {
        for (into, word) in planes[plane * length..].iter_mut().zip(raw.as_chunks::<WORD_BYTES>().0) {
            *into = word[plane];
        }
    }
    planes
}

/// The numbers of these planes.
pub(super) fn join(planes: &[u8]) -> Vec<u8> {
    let length = planes.len() / WORD_BYTES;
    let mut raw = vec![0; length * WORD_BYTES];
    for plane in 0..WORD_BYTES {
        for (word, byte) in raw.as_chunks_mut::<WORD_BYTES>().0.iter_mut().zip(&planes[plane * length..]) {
            word[plane] = *byte;
        }
    }
    raw
}

/// The numbers of some pieces, each of whole numbers.
pub(super) fn numbers<T>(pieces: &[&[u8]], number: impl Fn([u8; WORD_BYTES]) -> T) -> Vec<T> {
    let mut numbers = Vec::with_capacity(pieces.iter().map(|piece| piece.len() / WORD_BYTES).sum());
    pieces.iter().for_each(|piece| numbers.extend(piece.as_chunks().0.iter().map(|word| number(*word))));
    numbers
}

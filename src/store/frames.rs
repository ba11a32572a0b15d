//! zstd frames. Each thread keeps what it compresses and decompresses with, since making it takes longer than a text does.

use std::cell::RefCell;
use std::io::Read;

/// The fastest regular level of zstd. Higher levels need more time than all other work on a span.
const COMPRESSION_LEVEL: i32 = 1;

thread_local! {
    static COMPRESSOR: RefCell<Option<zstd::bulk::Compressor<'static>>> =
        RefCell::new(zstd::bulk::Compressor::new(COMPRESSION_LEVEL).ok());
    static DECOMPRESSOR: RefCell<zstd::zstd_safe::DCtx<'static>> = RefCell::new(zstd::zstd_safe::DCtx::create());
}

/// Compresses `text` into a frame, and returns the frame's length. `None` if `frame` is too short.
pub(super) fn compress_into(frame: &mut [u8], text: &[u8]) -> Option<usize> {
    COMPRESSOR.with_borrow_mut(|compressor| compressor.as_mut()?.compress_to_buffer(text, frame).ok())
}

/// The content of a zstd frame. It grows as it is read: the length that a damaged frame claims is not believed.
pub(super) fn decompressed(frame: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut text = Vec::with_capacity(frame.len() * 3);
    DECOMPRESSOR.with_borrow_mut(|context| {
        // A damaged frame would leave it in the middle of that frame.
        context.reset(zstd::zstd_safe::ResetDirective::SessionOnly).map_err(|_| std::io::ErrorKind::Other)?;
        zstd::Decoder::with_context(frame, context).read_to_end(&mut text)
    })?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_frame_leaves_the_next_one_readable() {
        let frame = zstd::encode_all(&b"text ".repeat(1000)[..], 3).unwrap();
        let mut changed = frame.clone();
        changed[frame.len() / 2] ^= 0xff;
        for damaged in [&frame[..frame.len() / 2], &frame[..frame.len() - 1], &changed] {
            let _ = decompressed(damaged);
            assert_eq!(decompressed(&frame).unwrap(), b"text ".repeat(1000));
        }
    }
}

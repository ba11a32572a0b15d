//! A stream whose first bytes were read already: they are read again, then the stream goes on.

use super::BoxedIo;
use bytes::{Buf, Bytes};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, ReadBuf};

/// `prefix`, then `inner`. Writes go straight through.
pub struct Prefixed {
    prefix: Bytes,
    inner: BoxedIo,
}

impl Prefixed {
    /// Puts `prefix` in front of what `inner` still holds.
    pub fn new(prefix: Bytes, inner: BoxedIo) -> Self {
        Self { prefix, inner }
    }
}

impl AsyncRead for Prefixed {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.prefix.is_empty() {
            return Pin::new(&mut self.inner).poll_read(cx, buf);
        }
        let length = self.prefix.len().min(buf.remaining());
        buf.put_slice(&self.prefix[..length]);
        self.prefix.advance(length);
        if self.prefix.is_empty() {
            // Even an empty slice keeps its buffer.
            self.prefix = Bytes::new();
        }
        Poll::Ready(Ok(()))
    }
}

write_through!(Prefixed);

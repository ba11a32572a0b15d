//! A stream that replays its first bytes, which were already consumed.

use super::io::{BoxedIo, flush_through, write_through};
use bytes::{Buf, Bytes};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, ReadBuf};

/// Reads `prefix`, then `inner`. Writes pass unchanged.
pub(crate) struct Prefixed {
    prefix: Bytes,
    inner: BoxedIo,
}

impl Prefixed {
    /// Replays `prefix` before the rest of `inner`.
    pub(crate) fn new(prefix: Bytes, inner: BoxedIo) -> Self {
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
            // An empty slice would keep its buffer allocated.
            self.prefix = Bytes::new();
        }
        Poll::Ready(Ok(()))
    }
}

write_through!(Prefixed);

//! Interim (1xx) responses to HTTP/1.1 clients, which hyper's server cannot send.
//!
//! A wrapper around the client's socket writes them between hyper's messages: only while hyper has flushed everything it
//! wrote, so that no byte lands inside a message. It must not interpret the bytes that pass.

use super::io::{BoxedIo, read_through};
use bytes::{Buf, Bytes, BytesMut};
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use tokio::io::AsyncWrite;

/// Queues interim responses for one connection. They are written the next time the connection's task is polled.
#[derive(Clone, Debug, Default)]
pub(crate) struct InterimSender(Arc<Mutex<BytesMut>>);

impl InterimSender {
    /// Queues one complete interim response head. Heads beyond 64 KiB of unsent ones are discarded.
    pub(crate) fn send(&self, head: &[u8]) {
        let mut queued = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if queued.len() + head.len() <= MAX_QUEUED_BYTES {
            queued.extend_from_slice(head);
        }
    }

    fn take(&self) -> Bytes {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).split().freeze()
    }
}

const MAX_QUEUED_BYTES: usize = 64 * 1024;

/// The client's socket, which takes interim responses between hyper's messages.
pub(crate) struct InterimIo {
    inner: BoxedIo,
    interim: InterimSender,
    writing: Bytes,
    // True once hyper has flushed after its last write: no part of a message is still buffered.
    between_messages: bool,
}

impl InterimIo {
    /// Wraps a socket. The sender queues responses for it.
    pub(crate) fn new(inner: BoxedIo) -> (Self, InterimSender) {
        let interim = InterimSender::default();
        (Self { inner, interim: interim.clone(), writing: Bytes::new(), between_messages: true }, interim)
    }

    fn poll_interim(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.writing.is_empty() && self.between_messages {
            self.writing = self.interim.take();
        }
        while !self.writing.is_empty() {
            match Pin::new(&mut self.inner).poll_write(cx, &self.writing) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(written)) => self.writing.advance(written),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(Ok(()))
    }
}

read_through!(InterimIo);

impl AsyncWrite for InterimIo {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        std::task::ready!(self.poll_interim(cx))?;
        self.between_messages = false;
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        std::task::ready!(self.poll_interim(cx))?;
        self.between_messages = false;
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // hyper flushes the socket only once its own buffer is empty.
        self.between_messages = true;
        std::task::ready!(self.poll_interim(cx))?;
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

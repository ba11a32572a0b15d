//! Writes request targets as they came, in place of those that the HTTP library holds for them.

use super::io::{BoxedIo, flush_through, read_through};
use bytes::{Buf, Bytes};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use tokio::io::AsyncWrite;

/// The start of a request line as the HTTP library writes it, and as it must be written.
#[derive(Debug)]
struct Substitution {
    written: Bytes,
    wanted: Bytes,
}

/// The handle of a [`RawTargetIo`] for the code that sends requests.
#[derive(Clone, Debug, Default)]
pub(crate) struct RawTargets(Arc<Mutex<Option<Substitution>>>);

impl RawTargets {
    /// Says how the line of the next request starts: it is written as `wanted` if the library writes `written`.
    pub(crate) fn substitute(&self, written: impl Into<Bytes>, wanted: impl Into<Bytes>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) =
            Some(Substitution { written: written.into(), wanted: wanted.into() });
    }
}

/// A socket that requests are written to. Reads pass unchanged.
pub(crate) struct RawTargetIo {
    inner: BoxedIo,
    targets: RawTargets,
    // What is left of the start of a line, and the number of bytes that it stands for.
    rest: Option<(Bytes, usize)>,
}

impl RawTargetIo {
    /// Wraps a socket.
    pub(crate) fn new(inner: BoxedIo) -> (Self, RawTargets) {
        let targets = RawTargets::default();
        (Self { inner, targets: targets.clone(), rest: None }, targets)
    }

    /// Writes the start of a line, if `buf` has one to be replaced. Ready(0) if there is none.
    fn poll_start(&mut self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.rest.is_none() && !buf.is_empty() {
            let next = self.targets.0.lock().unwrap_or_else(PoisonError::into_inner).take();
            self.rest =
                next.filter(|next| buf.starts_with(&next.written)).map(|next| (next.wanted, next.written.len()));
        }
        let Some((rest, length)) = &mut self.rest else { return Poll::Ready(Ok(0)) };
        while rest.has_remaining() {
            let written = ready!(Pin::new(&mut self.inner).poll_write(cx, rest))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            rest.advance(written);
        }
        let length = *length;
        self.rest = None;
        Poll::Ready(Ok(length))
    }
}

read_through!(RawTargetIo);

impl AsyncWrite for RawTargetIo {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match ready!(self.poll_start(cx, buf))? {
            0 => Pin::new(&mut self.inner).poll_write(cx, buf),
            length => Poll::Ready(Ok(length)),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let first = bufs.iter().find(|buf| !buf.is_empty()).map_or(&[][..], |buf| &**buf);
        match ready!(self.poll_start(cx, first))? {
            0 => Pin::new(&mut self.inner).poll_write_vectored(cx, bufs),
            length => Poll::Ready(Ok(length)),
        }
    }

    flush_through!();
}

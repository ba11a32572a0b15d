//! Sockets below HTTP: accepting, recognising a protocol by its first bytes, replaying bytes, draining.
//!
//! It must not know about TLS certificates, HTTP messages or spans.

pub mod drain;
pub mod glob;
pub mod guard;
pub mod interim;
pub mod listener;
pub mod peer;
pub mod prefixed;
pub mod sniff;

use tokio::io::{AsyncRead, AsyncWrite};

/// Any byte stream, TLS or not.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin + 'static {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Io for T {}

/// A boxed byte stream: one connection type everywhere, instead of generics everywhere.
pub type BoxedIo = Box<dyn Io>;

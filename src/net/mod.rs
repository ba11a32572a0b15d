//! Sockets and the server side of HTTP: accepting connections, detecting their protocol, judging HTTP/1 framing, draining.
//!
//! Both listeners are built from it. It must not know about certificates, spans, or what a request means.

pub(crate) mod deferred_error;
pub mod drain;
pub mod guard;
pub mod http_server;
pub mod interim;
mod io;
pub mod listener;
pub mod peer;
pub mod prefixed;
pub mod sniff;
mod timeout;

pub(crate) use io::write_through;
pub use io::{BoxedIo, Io};
pub use timeout::within;

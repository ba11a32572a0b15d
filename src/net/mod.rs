//! Sockets and the server side of HTTP: accepting connections, detecting their protocol, judging HTTP/1 framing, draining.
//!
//! Both listeners are built from it. It must not know about certificates, spans, or what a request means.

pub(crate) mod deferred_error;
pub(crate) mod drain;
pub(crate) mod guard;
mod http1_body;
pub(crate) mod http_server;
pub(crate) mod interim;
mod io;
pub(crate) mod listener;
pub(crate) mod peer;
pub(crate) mod prefixed;
mod raw_paths;
pub(crate) mod raw_target;
pub(crate) mod received_body;
pub(crate) mod sniff;
pub(crate) mod socket;
pub(crate) mod task;
mod timeout;
pub(crate) mod trailers;

pub(crate) use io::BoxedIo;
pub(crate) use io::{flush_through, write_through};
pub(crate) use timeout::within;

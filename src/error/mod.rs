//! What can go wrong with an exchange: who caused it, its status code, its error type and its fix.
//!
//! Error types are those of RFC 9209 (`Proxy-Status`) where it has one, so that spans, logs, metrics and the header
//! field agree. An error becomes a response in `forward::reply`, at the gateway in `gateway::error_response`, and nowhere else.

mod framing;
mod kind;
mod proxy_error;
mod side;

pub use framing::{FramingFault, FramingRule};
pub use kind::ErrorKind;
pub use proxy_error::{ProxyError, source_chain};
pub use side::Side;

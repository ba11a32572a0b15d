//! HTTP/1 framing, strictly: where a message ends, and what makes that ambiguous.
//!
//! RFC 9112 §6, read as narrowly as a proxy must: what two readers could frame differently is a fault and never
//! repaired. Bytes in, verdicts out; nothing is changed or held. [`Scanner`] follows a connection, [`head`] judges one
//! message head, `target` finds what the HTTP library can't hold, `chunked` follows a chunked body. Memory is bounded by one trailer line.

mod chunked;
pub(crate) mod head;
mod scanner;
pub(crate) mod target;
#[cfg(test)]
mod tests;

pub(crate) use scanner::{Next, Scanner};

//! Blocks of HTTP/2 header fields (HPACK, RFC 7541): decoded with all their state, encoded without any.
//!
//! The HTTP library has HPACK of its own and does not show it. This is for what must be read or changed in front of it.

mod decoder;
mod huffman;
mod static_table;

pub(crate) use decoder::{Decoder, Field, encode};

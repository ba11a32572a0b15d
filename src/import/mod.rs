//! Files of other programs as spans of rollouts: bytes in, values out. `cli::import` reads the files and stores what is
//! in them.
//!
//! Ids are kept where a file has some, and otherwise made from its content, so that the same file always gives the same
//! spans. What a file has and a span can't hold is counted by its name.

mod atif;
mod claude_code;
mod codex;
mod conversation;
mod har;
mod har_entry;
mod imported;
mod jaeger;
mod json;
mod mitmproxy;
mod options;
mod otlp;
mod reader;
mod rfc3339;
mod tnetstring;

pub(crate) use imported::Imported;
pub(crate) use options::ImportOptions;
pub(crate) use reader::parts;

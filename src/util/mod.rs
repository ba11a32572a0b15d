//! Small pure helpers that several layers share: patterns, bounded maps, secrets. Nothing here knows HTTP, LLMs or storage.

pub(crate) mod block_list;
pub(crate) mod cut;
pub(crate) mod glob;
pub(crate) mod host_name;
pub(crate) mod host_patterns;
pub(crate) mod in_flight;
pub(crate) mod listen_address;
pub(crate) mod lru;
pub(crate) mod paged_buffer;
pub(crate) mod panics;
pub(crate) mod secret;

//! The engines that sample, and the services that serve APIs: one file and one row each.
//!
//! How an engine is detected, how it is asked for token ids and in which combinations it must not be asked, how it is
//! probed and counts tokens. What was seen of an endpoint is not kept here: everything is data and pure functions.

mod anthropic;
mod gemini;
mod llama_cpp;
mod ollama;
mod openai;
mod other;
mod sglang;
pub(crate) mod spec;
pub(crate) mod table;
mod tgi;
mod transformers;
mod vllm;

pub(crate) use spec::{Credential, Tokenizer};
pub use table::{Engine, UnknownEngine};

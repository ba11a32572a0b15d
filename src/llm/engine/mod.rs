//! The engines that sample, and the services that serve APIs: one file and one row each.
//!
//! How an engine is detected, how token ids are requested from it and with which requests they must not be, how it is
//! probed, how it counts tokens. Data and pure functions only: what an endpoint has shown is stored elsewhere.

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

pub(crate) use spec::{Credential, TokenCounter, Tokenizer};
pub(crate) use table::{Engine, UnknownEngine, added_field, any_gives_token_ids};

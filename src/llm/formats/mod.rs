//! The formats of APIs of models and tools: bytes in, an [`LlmCall`](crate::llm::call::LlmCall) out.
//!
//! One file a format; which one reads a request is in the API's row ([`crate::llm::api`]). Pure. A request that is
//! recognised wrongly leaves a plain HTTP span, and no response can make this panic or run without end.

pub(super) mod anthropic;
mod any_json;
pub(super) mod bedrock;
pub(super) mod cohere;
pub(super) mod format;
pub(super) mod gemini;
pub(super) mod llama_cpp;
pub(super) mod mcp;
pub(super) mod ollama;
pub(super) mod openai_chat;
pub(super) mod openai_completions;
pub(super) mod openai_embeddings;
pub(super) mod openai_responses;
mod parts;
pub(super) mod read;
mod response_framing;
mod response_reader;
pub(super) mod sglang;
pub(super) mod vllm;

#[cfg(test)]
mod tests;

pub use read::{HttpExchangeView, read};
pub(crate) use read::{ReadCall, gaps, read_begun};
pub(crate) use response_reader::ResponseReader;

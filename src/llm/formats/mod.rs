//! The formats of APIs of models and tools: bytes in, an [`LlmCall`](crate::llm::call::LlmCall) out.
//!
//! One file a format; which one reads a request is in the API's row ([`crate::llm::api`]). Pure. A request that is
//! recognised wrongly leaves a plain HTTP span, and no response can make this panic or run without end.

pub(super) mod anthropic;
mod any_json;
pub(super) mod bedrock;
mod begun_response;
pub(super) mod cohere;
mod engine_answers;
mod event_reader;
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
mod read_call;
mod response_framing;
mod response_reader;
pub(super) mod sglang;
pub(super) mod vllm;

#[cfg(test)]
mod tests;

pub(crate) use begun_response::BegunResponse;
pub use read::{HttpExchangeView, read};
pub(crate) use read::{ResponseSource, read_from};
pub(crate) use read_call::{ReadCall, gaps};

//! OpenAI, and every server of its APIs without fields for token ids.

use super::spec::{COMMON, EngineSpec};
use crate::llm::api::table::{OPENAI_CHAT, OPENAI_COMPLETIONS, OPENAI_EMBEDDINGS, OPENAI_RESPONSES};

pub(super) static OPENAI: EngineSpec = EngineSpec {
    name: "openai",
    provider: "openai",
    owners: &["openai", "system"],
    apis: &[&OPENAI_CHAT, &OPENAI_COMPLETIONS, &OPENAI_EMBEDDINGS, &OPENAI_RESPONSES],
    chat_fields: Some(CHAT_FIELDS),
    ..COMMON
};

/// The fields that translated requests may have.
#[rustfmt::skip]
const CHAT_FIELDS: &[&str] = &[
    "frequency_penalty", "max_tokens", "messages", "model", "parallel_tool_calls", "presence_penalty",
    "reasoning_effort", "response_format", "seed", "stop", "stream", "stream_options", "temperature", "tool_choice",
    "tools", "top_p", "user", "verbosity",
];

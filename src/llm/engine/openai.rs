//! OpenAI, and every server of its APIs without fields for token ids.

use super::spec::{COMMON, EngineSpec};
use crate::llm::api::table::{OPENAI_CHAT, OPENAI_COMPLETIONS, OPENAI_EMBEDDINGS, OPENAI_RESPONSES};

pub(super) static OPENAI: EngineSpec = EngineSpec {
    name: "openai",
    provider: "openai",
    owners: &["openai", "system"],
    apis: &[&OPENAI_CHAT, &OPENAI_COMPLETIONS, &OPENAI_EMBEDDINGS, &OPENAI_RESPONSES],
    ..COMMON
};

//! Ollama: gives no token ids.

use super::spec::{COMMON, EngineSpec, Mark};
use crate::llm::api::table::{OLLAMA as OLLAMA_API, OPENAI_CHAT, OPENAI_COMPLETIONS, OPENAI_EMBEDDINGS};

pub(super) static OLLAMA: EngineSpec = EngineSpec {
    name: "ollama",
    provider: "ollama",
    marks: &[Mark::RootText("system_fingerprint", "fp_ollama")],
    apis: &[&OPENAI_CHAT, &OPENAI_COMPLETIONS, &OPENAI_EMBEDDINGS, &OLLAMA_API],
    ..COMMON
};

//! The setting `other`: an engine of which nothing is known, or nothing is to be requested.

use super::spec::{COMMON, EngineSpec};
use crate::llm::api::table::{OPENAI_CHAT, OPENAI_COMPLETIONS, OPENAI_EMBEDDINGS};

pub(super) static OTHER: EngineSpec =
    EngineSpec { name: "other", apis: &[&OPENAI_CHAT, &OPENAI_COMPLETIONS, &OPENAI_EMBEDDINGS], ..COMMON };

//! An engine of which nothing is known, or of which nothing is to be asked: the setting `other`.

use super::spec::{COMMON, EngineSpec};
use crate::llm::api::table::{OPENAI_CHAT, OPENAI_COMPLETIONS, OPENAI_EMBEDDINGS};

pub(super) static OTHER: EngineSpec =
    EngineSpec { name: "other", apis: &[&OPENAI_CHAT, &OPENAI_COMPLETIONS, &OPENAI_EMBEDDINGS], ..COMMON };

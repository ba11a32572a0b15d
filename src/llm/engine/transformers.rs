//! `transformers serve`: answers 400 "Unexpected fields" to requests for token ids, and ends a stream without
//! `[DONE]`.

use super::spec::{COMMON, EngineSpec};
use crate::llm::api::table::{OPENAI_CHAT, OPENAI_COMPLETIONS};

pub(super) static TRANSFORMERS: EngineSpec =
    EngineSpec { name: "transformers", apis: &[&OPENAI_CHAT, &OPENAI_COMPLETIONS], ..COMMON };

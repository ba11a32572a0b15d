//! Hugging Face's text-generation-inference: OpenAI's chat completions without token ids; nothing in them tells it.

use super::spec::{COMMON, EngineSpec};
use crate::llm::api::table::{OPENAI_CHAT, OPENAI_COMPLETIONS};

pub(super) static TGI: EngineSpec = EngineSpec { name: "tgi", apis: &[&OPENAI_CHAT, &OPENAI_COMPLETIONS], ..COMMON };

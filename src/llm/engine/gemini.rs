//! Google's Gemini API.

use super::spec::{COMMON, Credential, EngineSpec};
use crate::llm::api::table::GEMINI as GEMINI_API;

pub(super) static GEMINI: EngineSpec = EngineSpec {
    name: "gemini",
    provider: "gcp.gemini",
    apis: &[&GEMINI_API],
    credential: Credential::Header("x-goog-api-key"),
    ..COMMON
};

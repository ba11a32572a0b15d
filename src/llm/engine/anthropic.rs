//! Anthropic, and servers of its messages.

use super::spec::{COMMON, Credential, EngineSpec};
use crate::llm::api::table::ANTHROPIC_MESSAGES;

pub(super) static ANTHROPIC: EngineSpec = EngineSpec {
    name: "anthropic",
    provider: "anthropic",
    apis: &[&ANTHROPIC_MESSAGES],
    credential: Credential::Header("x-api-key"),
    ..COMMON
};

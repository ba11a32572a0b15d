//! llama.cpp's server: token ids at its native `/completion`.
//!
//! Its chat completions and completions name the id of each sampled token within `logprobs`, but not the prompt's.

use super::spec::{AddedField, COMMON, Combination, EngineSpec, Mark, Place, StripRule, TokenIdRequest};
use crate::llm::api::table::{LLAMA_CPP_COMPLETION, OPENAI_CHAT, OPENAI_COMPLETIONS, OPENAI_EMBEDDINGS};
use crate::wire::json_strip::Change;

pub(super) static LLAMA_CPP: EngineSpec = EngineSpec {
    name: "llama.cpp",
    provider: "llama_cpp",
    owners: &["llamacpp"],
    marks: &[Mark::Root("timings")],
    apis: &[&OPENAI_CHAT, &OPENAI_COMPLETIONS, &OPENAI_EMBEDDINGS, &LLAMA_CPP_COMPLETION],
    token_ids: &[TokenIdRequest {
        api: &LLAMA_CPP_COMPLETION,
        fields: &[AddedField::ids("return_tokens", "true"), AddedField::logprobs("n_probs", "1")],
        headers: &[],
        strip: &[
            StripRule {
                requested_by: &["return_tokens", "stream"],
                place: Place::Root,
                name: "tokens",
                change: Change::Remove,
            },
            StripRule {
                requested_by: &["n_probs"],
                place: Place::Root,
                name: "completion_probabilities",
                change: Change::Remove,
            },
        ],
        // These responses are lists, which nothing can be taken out of.
        not_for: &[Combination::SeveralPrompts("prompt"), Combination::All(&["n_cmpl"])],
    }],
    ..COMMON
};

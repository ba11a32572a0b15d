//! llama.cpp's server: token ids at its native `/completion`; in chat completions and completions, within the logprobs.
//!
//! Those name the id of each sampled token, but not of the prompt's.

use super::spec::{
    AddedField, COMMON, Combination, EngineSpec, Mark, Place, StripRule, TOP_ALONE, TokenCounter, TokenIdRequest,
};
use crate::llm::api::table::{LLAMA_CPP_COMPLETION, OPENAI_CHAT, OPENAI_COMPLETIONS, OPENAI_EMBEDDINGS};
use crate::wire::json_strip::Change;

pub(super) static LLAMA_CPP: EngineSpec = EngineSpec {
    name: "llama.cpp",
    provider: "llama_cpp",
    owners: &["llamacpp"],
    marks: &[Mark::Root("timings")],
    apis: &[&OPENAI_CHAT, &OPENAI_COMPLETIONS, &OPENAI_EMBEDDINGS, &LLAMA_CPP_COMPLETION],
    token_counter: Some(TokenCounter::CountTokens),
    token_ids: &[
        TokenIdRequest {
            api: &OPENAI_CHAT,
            fields: &[
                AddedField::logprobs("logprobs", "true").not_for(TOP_ALONE),
                // Twenty alternatives of each token would come unasked. An agent that asks for logprobs gets those.
                AddedField::logprob_detail("top_logprobs", "1").not_for(&[Combination::On("logprobs")]),
            ],
            headers: &[],
            strip: &[StripRule {
                requested_by: &["logprobs"],
                place: Place::Choice,
                name: "logprobs",
                change: Change::Remove,
            }],
            arrays: &[],
            // The server refuses them together.
            not_for: &[Combination::All(&["tools", "stream"])],
        },
        TokenIdRequest {
            api: &OPENAI_COMPLETIONS,
            fields: &[AddedField::logprobs("logprobs", "1").not_for(&[Combination::On("n_probs")])],
            headers: &[],
            strip: &[StripRule {
                requested_by: &["logprobs", "n_probs"],
                place: Place::Choice,
                name: "logprobs",
                change: Change::Null,
            }],
            arrays: &[],
            not_for: &[],
        },
        TokenIdRequest {
            api: &LLAMA_CPP_COMPLETION,
            fields: &[AddedField::ids("return_tokens", "true"), AddedField::logprobs("n_probs", "1")],
            headers: &[],
            strip: &[
                StripRule {
                    requested_by: &["return_tokens", "stream"],
                    place: Place::Root,
                    name: "tokens",
                    change: Change::Empty,
                },
                StripRule {
                    requested_by: &["n_probs"],
                    place: Place::Root,
                    name: "completion_probabilities",
                    change: Change::Remove,
                },
                StripRule { requested_by: &["n_probs"], place: Place::Settings, name: "n_probs", change: Change::Zero },
            ],
            arrays: &[],
            // These responses are lists, which nothing can be taken out of.
            not_for: &[Combination::SeveralPrompts("prompt"), Combination::All(&["n_cmpl"])],
        },
    ],
    ..COMMON
};

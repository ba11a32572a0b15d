//! vLLM: token ids in its chat completions, completions and responses.
//!
//! Observed with 0.32. It sends null for what was not requested, and leaves no field out.

use super::spec::{
    AddedField, ArrayRequest, COMMON, Combination, EngineSpec, Mark, Place, StripRule, TOP_ALONE, TokenCounter,
    TokenIdRequest, Tokenizer, USAGE_EVENT,
};
use crate::llm::api::table::{OPENAI_CHAT, OPENAI_COMPLETIONS, OPENAI_EMBEDDINGS, OPENAI_RESPONSES, VLLM_GENERATE};
use crate::trace::SamplerArray;
use crate::wire::json_strip::Change;

pub(super) static VLLM: EngineSpec = EngineSpec {
    name: "vllm",
    provider: "vllm",
    owners: &["vllm"],
    marks: &[
        Mark::Root("prompt_token_ids"),
        Mark::Root("kv_transfer_params"),
        Mark::Root("prompt_logprobs"),
        Mark::Root("output_messages"),
    ],
    // Servers of trainers add them.
    weight_versions: &[&["weight_version"], &["policy_version"], &["choices", "weight_versions"]],
    apis: &[&OPENAI_CHAT, &OPENAI_COMPLETIONS, &OPENAI_EMBEDDINGS, &OPENAI_RESPONSES, &VLLM_GENERATE],
    token_ids: &[
        TokenIdRequest {
            api: &OPENAI_CHAT,
            fields: &[
                AddedField::ids(IDS, "true"),
                // The server answers `top_logprobs` without `logprobs` with 400.
                AddedField::logprobs("logprobs", "true").not_for(TOP_ALONE),
                AddedField::logprob_detail("top_logprobs", "0").not_for(TOP_ALONE),
                AddedField::stream_usage(),
            ],
            headers: &[],
            strip: &[
                nulled(&[IDS], Place::Root, "prompt_token_ids"),
                nulled(&[IDS], Place::Choice, "token_ids"),
                nulled(&["logprobs"], Place::Choice, "logprobs"),
                USAGE_EVENT,
            ],
            arrays: ARRAYS,
            not_for: &[],
        },
        TokenIdRequest {
            api: &OPENAI_COMPLETIONS,
            fields: &[AddedField::ids(IDS, "true"), AddedField::logprobs("logprobs", "1"), AddedField::stream_usage()],
            headers: &[],
            strip: &[
                nulled(&[IDS], Place::Choice, "prompt_token_ids"),
                nulled(&[IDS], Place::Choice, "token_ids"),
                nulled(&["logprobs"], Place::Choice, "logprobs"),
                USAGE_EVENT,
            ],
            arrays: ARRAYS,
            // With ids the text would lack the prompt, with logprobs some streams would break off with a KeyError.
            not_for: &[Combination::On("echo")],
        },
        TokenIdRequest {
            api: &OPENAI_RESPONSES,
            fields: &[AddedField::ids(MESSAGES, "true")],
            headers: &[],
            strip: &[
                nulled(&[MESSAGES], Place::Root, "input_messages"),
                nulled(&[MESSAGES], Place::Root, "output_messages"),
            ],
            arrays: &[],
            not_for: &[],
        },
    ],
    token_counter: Some(TokenCounter::Tokenizer(Tokenizer {
        path: "/tokenize",
        fields: &["messages", "tools", "chat_template_kwargs"],
        count: "count",
    })),
    ..COMMON
};

/// Options of the server decide about them (`--enable-return-routed-experts`, `--return-sampling-mask`).
const ARRAYS: &[ArrayRequest] = &[
    ArrayRequest {
        array: SamplerArray::RoutedExperts,
        fields: &[],
        strip: &[nulled(&["routed_experts_prompt_start"], Place::Choice, "routed_experts")],
    },
    ArrayRequest {
        array: SamplerArray::SamplingMask,
        fields: &[],
        strip: &[nulled(&[], Place::Choice, "sampling_mask")],
    },
];

const IDS: &str = "return_token_ids";
const MESSAGES: &str = "enable_response_messages";

const fn nulled(requested_by: &'static [&'static str], place: Place, name: &'static str) -> StripRule {
    StripRule { requested_by, place, name, change: Change::Null }
}

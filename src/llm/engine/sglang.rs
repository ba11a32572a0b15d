//! SGLang: token ids by header fields, since it refuses vLLM's fields for streams.

use super::spec::{
    AddedField, ArrayRequest, COMMON, Combination, EngineSpec, Mark, Place, StripRule, TokenCounter, TokenIdRequest,
};
use crate::llm::api::table::{OPENAI_CHAT, OPENAI_COMPLETIONS, OPENAI_EMBEDDINGS, SGLANG_GENERATE};
use crate::trace::SamplerArray;
use crate::wire::json_strip::Change;

pub(super) static SGLANG: EngineSpec = EngineSpec {
    name: "sglang",
    provider: "sglang",
    owners: &["sglang"],
    marks: &[Mark::Root("sglext"), Mark::Choice("meta_info"), Mark::Root("meta_info")],
    weight_versions: &[&["choices", "meta_info", "weight_version"], &["meta_info", "weight_version"]],
    apis: &[&OPENAI_CHAT, &OPENAI_COMPLETIONS, &OPENAI_EMBEDDINGS, &SGLANG_GENERATE],
    token_ids: &[
        TokenIdRequest {
            api: &OPENAI_CHAT,
            fields: &[AddedField::logprobs("logprobs", "true")],
            headers: &[("x-sglext-return-input-ids", "1"), ("x-sglext-return-output-ids", "1")],
            strip: &[
                StripRule { requested_by: &[], place: Place::Root, name: "sglext", change: Change::Remove },
                LOGPROBS,
            ],
            arrays: &[EXPERTS, MASKS],
            not_for: &[],
        },
        TokenIdRequest {
            api: &OPENAI_COMPLETIONS,
            fields: &[AddedField::ids(IDS, "true"), AddedField::logprobs("logprobs", "1")],
            headers: &[],
            strip: &[
                StripRule {
                    requested_by: &[IDS],
                    place: Place::Choice,
                    name: "prompt_token_ids",
                    change: Change::Null,
                },
                StripRule { requested_by: &[IDS], place: Place::Choice, name: "token_ids", change: Change::Null },
                LOGPROBS,
            ],
            arrays: &[EXPERTS],
            not_for: &[],
        },
    ],
    affinity_header: Some("x-smg-routing-key"),
    token_counter: Some(TokenCounter::CountTokens),
    ..COMMON
};

/// In `sglext`, at the end of a stream as well. Only servers with `--enable-return-routed-experts` have them.
const EXPERTS: ArrayRequest = ArrayRequest {
    array: SamplerArray::RoutedExperts,
    fields: &[AddedField::array("return_routed_experts", "true")],
    strip: &[StripRule {
        requested_by: &["return_routed_experts"],
        place: Place::Root,
        name: "sglext",
        change: Change::Remove,
    }],
};

/// Not of streams, and only with a limit of the candidates: the server refuses others.
const MASKS: ArrayRequest = ArrayRequest {
    array: SamplerArray::SamplingMask,
    fields: &[
        AddedField::array("return_sampling_mask", "true").not_for(NO_MASK),
        AddedField::array("return_meta_info", "true").not_for(NO_MASK),
    ],
    strip: &[StripRule {
        requested_by: &["return_meta_info"],
        place: Place::Choice,
        name: "meta_info",
        change: Change::Remove,
    }],
};
const NO_MASK: &[Combination] = &[Combination::On("stream"), Combination::Off("top_k")];

const IDS: &str = "return_token_ids";
const LOGPROBS: StripRule =
    StripRule { requested_by: &["logprobs"], place: Place::Choice, name: "logprobs", change: Change::Null };

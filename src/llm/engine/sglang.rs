//! SGLang: token ids by header fields, since it refuses vLLM's fields for streams.

use super::spec::{AddedField, COMMON, EngineSpec, Mark, Place, StripRule, TokenIdRequest};
use crate::llm::api::table::{OPENAI_CHAT, OPENAI_COMPLETIONS, OPENAI_EMBEDDINGS, SGLANG_GENERATE};
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
            not_for: &[],
        },
    ],
    affinity_header: Some("x-smg-routing-key"),
    ..COMMON
};

const IDS: &str = "return_token_ids";
const LOGPROBS: StripRule =
    StripRule { requested_by: &["logprobs"], place: Place::Choice, name: "logprobs", change: Change::Null };

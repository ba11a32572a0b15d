//! Fields of LLM responses that are not kept, are kept as tables, or are so frequent that their names are not allocated.

use crate::trace::SamplerArray;

/// What becomes of the value of a field.
pub(super) enum Field {
    /// The value is built.
    Value,
    /// The value is skipped: no format reads it, and it may be most of a response.
    Unused,
    /// The value is read as an array of numbers, if this array is kept.
    Array(SamplerArray),
}

impl Field {
    /// `depth`: how deep its object is.
    pub(super) fn of(key: &str, is_in_logprobs: bool, depth: usize) -> Self {
        match key {
            "bytes" | "top_logprobs" if is_in_logprobs => Self::Unused,
            // Deeper, an argument of a tool may have the name.
            _ if depth > MAX_ARRAY_DEPTH => Self::Value,
            "prompt_logprobs" => Self::Unused,
            "routed_experts" => Self::Array(SamplerArray::RoutedExperts),
            "sampling_mask" | "output_token_sampling_mask" => Self::Array(SamplerArray::SamplingMask),
            _ => Self::Value,
        }
    }
}

/// How deep the object may be that has an array: the root, a choice, or an object within a choice.
const MAX_ARRAY_DEPTH: usize = 4;

/// A key without an allocation, if it is a frequent one.
pub(super) fn known_key(key: &str) -> Option<&'static str> {
    ["token", "logprob", "id", "bytes", "top_logprobs", "index", "content", "text", "type", "role", "delta"]
        .into_iter()
        .find(|known| *known == key)
}

/// Fields of a response with lists that are kept as tables.
pub(super) const LOGPROBS: [&str; 3] = ["logprobs", "output_token_logprobs", "completion_probabilities"];

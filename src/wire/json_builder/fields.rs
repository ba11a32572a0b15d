//! Fields of LLM responses that are not kept, are kept as tables, or are so frequent that their names are not allocated.

/// True for a field that no format reads and that may be most of a response. `depth`: how deep its object is.
pub(super) fn is_unused(key: &str, is_in_logprobs: bool, depth: usize) -> bool {
    let unused_in_logprobs = is_in_logprobs && matches!(key, "bytes" | "top_logprobs");
    // At the root or in a choice; deeper, an argument of a tool may have the name.
    unused_in_logprobs || depth <= 3 && matches!(key, "routed_experts" | "prompt_logprobs" | "sampling_mask")
}

/// A key without an allocation, if it is a frequent one.
pub(super) fn known_key(key: &str) -> Option<&'static str> {
    ["token", "logprob", "id", "bytes", "top_logprobs", "index", "content", "text", "type", "role", "delta"]
        .into_iter()
        .find(|known| *known == key)
}

/// Fields of a response with lists that are kept as tables.
pub(super) const LOGPROBS: [&str; 3] = ["logprobs", "output_token_logprobs", "completion_probabilities"];

//! The servers that give token ids.

use serde::{Deserialize, Serialize};

/// A server that gives token ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Engine {
    /// vLLM.
    #[serde(rename = "vllm")]
    Vllm,
    /// SGLang: ids by header, since it refuses the fields for streams.
    #[serde(rename = "sglang")]
    Sglang,
    /// llama.cpp.
    #[serde(rename = "llama.cpp")]
    LlamaCpp,
    /// None: nothing is asked for.
    #[serde(rename = "other")]
    Other,
}

impl Engine {
    /// The engine that the GenAI conventions' name of a provider means; none for those that give no ids.
    pub fn of_provider(name: &str) -> Option<Self> {
        match name {
            "vllm" => Some(Self::Vllm),
            "sglang" => Some(Self::Sglang),
            "llama_cpp" => Some(Self::LlamaCpp),
            _ => None,
        }
    }
}

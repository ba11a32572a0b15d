//! Who serves an API: by its host, by its port, by the marks of its answer. Names by the GenAI conventions.

use super::Asked;
use super::call::LlmCall;
use http::HeaderMap;
use std::borrow::Cow;

/// The provider of a call.
pub(super) fn of(asked: &Asked<'_>, response: &HeaderMap, call: &LlmCall) -> Cow<'static, str> {
    Cow::Borrowed(
        by_host(asked).or_else(|| by_marks(response, call)).unwrap_or_else(|| by_dialect(asked, call.dialect)),
    )
}

fn by_host(asked: &Asked<'_>) -> Option<&'static str> {
    let host = asked.host;
    let under = |domain: &str| host == domain || host.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.'));
    if under("services.ai.azure.com") && !asked.path.starts_with("/openai/") {
        return Some("azure.ai.inference");
    }
    if host.starts_with("bedrock") && (under("amazonaws.com") || under("api.aws")) {
        return Some("aws.bedrock");
    }
    HOSTS
        .iter()
        .find(|(domain, _)| under(domain) || domain.strip_prefix('*').is_some_and(|end| host.ends_with(end)))
        .map(|(_, name)| *name)
}

const HOSTS: &[(&str, &str)] = &[
    ("api.openai.com", "openai"),
    ("openai.azure.com", "azure.ai.openai"),
    ("cognitiveservices.azure.com", "azure.ai.openai"),
    ("services.ai.azure.com", "azure.ai.openai"),
    ("inference.ai.azure.com", "azure.ai.inference"),
    ("api.anthropic.com", "anthropic"),
    ("generativelanguage.googleapis.com", "gcp.gemini"),
    ("aiplatform.googleapis.com", "gcp.vertex_ai"),
    ("*-aiplatform.googleapis.com", "gcp.vertex_ai"),
    ("api.mistral.ai", "mistral_ai"),
    ("codestral.mistral.ai", "mistral_ai"),
    ("api.cohere.com", "cohere"),
    ("api.cohere.ai", "cohere"),
    ("api.groq.com", "groq"),
    ("api.together.xyz", "together_ai"),
    ("api.together.ai", "together_ai"),
    ("api.fireworks.ai", "fireworks_ai"),
    ("api.deepseek.com", "deepseek"),
    ("api.x.ai", "x_ai"),
    ("openrouter.ai", "openrouter"),
    ("api.perplexity.ai", "perplexity"),
    ("api.moonshot.ai", "moonshot_ai"),
    ("api.moonshot.cn", "moonshot_ai"),
    ("api.hyperbolic.xyz", "hyperbolic"),
    ("router.huggingface.co", "huggingface"),
    ("api-inference.huggingface.co", "huggingface"),
];

/// What a server gives away of itself in its answer.
fn by_marks(response: &HeaderMap, call: &LlmCall) -> Option<&'static str> {
    let extra = |name: &str| call.extras.iter().find(|(known, _)| *known == name).map(|(_, value)| value.as_str());
    let fingerprint = extra("openai.response.system_fingerprint").unwrap_or_default();
    match () {
        () if response.contains_key("openai-processing-ms") => Some("openai"),
        () if response.contains_key("apim-request-id") => Some("azure.ai.openai"),
        () if response.contains_key("x-generation-id") => Some("openrouter"),
        () if fingerprint == "fp_ollama" => Some("ollama"),
        () if call.dialect.starts_with("openai.") && call.prompt_ids.ids.is_some() => Some("vllm"),
        () => None,
    }
}

fn by_dialect(asked: &Asked<'_>, dialect: &str) -> &'static str {
    match dialect.split('.').next().unwrap_or_default() {
        "anthropic" if asked.path.starts_with("/model/") => "aws.bedrock",
        "anthropic" if asked.path.contains("/publishers/") => "gcp.vertex_ai",
        "anthropic" => "anthropic",
        "bedrock" => "aws.bedrock",
        "cohere" => "cohere",
        "gemini" if asked.path.contains("/publishers/") => "gcp.vertex_ai",
        "gemini" => "gcp.gen_ai",
        "ollama" => "ollama",
        "sglang" => "sglang",
        "vllm" => "vllm",
        "llama_cpp" => "llama_cpp",
        "mcp" => "",
        _ if asked.port == 11434 => "ollama",
        _ => "openai",
    }
}

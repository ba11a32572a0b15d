//! Who serves an API: by its host, by its port, by the marks of its answer. Names by the GenAI conventions.

use crate::llm::call::LlmCall;
use crate::llm::formats::CallRequest;
use crate::wire::json::Json;
use http::HeaderMap;
use std::borrow::Cow;

/// The provider of a call.
pub(super) fn of(asked: &CallRequest<'_>, response: &HeaderMap, call: &LlmCall) -> Cow<'static, str> {
    let known = by_host(asked).or(call.mark).or_else(|| by_header(response));
    Cow::Borrowed(known.unwrap_or_else(|| by_dialect(asked, call.dialect)))
}

fn by_host(asked: &CallRequest<'_>) -> Option<&'static str> {
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

/// What a server of OpenAI's API gives away of itself in an answer or an event.
pub(super) fn mark(body: &Json<'_>) -> Option<&'static str> {
    let first = body.get("choices").list().first().unwrap_or(&Json::Null);
    match () {
        () if body.has("sglext") || first.has("meta_info") || body.has("meta_info") => Some("sglang"),
        () if ["prompt_token_ids", "kv_transfer_params", "prompt_logprobs", "output_messages"]
            .iter()
            .any(|name| body.has(name)) =>
        {
            Some("vllm")
        }
        () if body.has("x_groq") => Some("groq"),
        () if body.has("prompt_filter_results") => Some("azure.ai.openai"),
        () if body.has("timings") => Some("llama_cpp"),
        () if body.get("system_fingerprint").text() == Some("fp_ollama") => Some("ollama"),
        () => None,
    }
}

fn by_header(response: &HeaderMap) -> Option<&'static str> {
    let marks =
        [("openai-processing-ms", "openai"), ("apim-request-id", "azure.ai.openai"), ("x-generation-id", "openrouter")];
    marks.iter().find(|(name, _)| response.contains_key(*name)).map(|(_, provider)| *provider)
}

fn by_dialect(asked: &CallRequest<'_>, dialect: &str) -> &'static str {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_tell_providers() {
        let (headers, body) = (HeaderMap::new(), Json::Null);
        for (host, port, path, expected) in [
            ("api.openai.com", 443, "/v1/chat/completions", "openai"),
            ("eu.api.openai.com", 443, "/v1/chat/completions", "openai"),
            ("notapi.openai.com.evil.test", 443, "/v1/chat/completions", "openai"),
            ("mine.openai.azure.com", 443, "/openai/deployments/x/chat/completions", "azure.ai.openai"),
            ("mine.services.ai.azure.com", 443, "/models/chat/completions", "azure.ai.inference"),
            ("europe-west4-aiplatform.googleapis.com", 443, "/v1/x", "gcp.vertex_ai"),
            ("bedrock-runtime.us-east-1.amazonaws.com", 443, "/model/x/converse", "aws.bedrock"),
            ("api.groq.com", 443, "/openai/v1/chat/completions", "groq"),
            ("localhost", 11434, "/v1/chat/completions", "ollama"),
        ] {
            let asked = CallRequest { host, port, path, query: "", headers: &headers, body: &body };
            let call = LlmCall { dialect: "openai.chat", ..LlmCall::default() };
            assert_eq!(of(&asked, &headers, &call), expected, "{host}");
        }
    }
}

//! The provider that serves a call, by its host, by marks of its response, or by its API.
//!
//! Names follow the GenAI conventions.

use crate::llm::api::detect::ApiCall;
use crate::llm::api::error::ErrorShape;
use crate::llm::api::spec::ApiSpec;
use crate::llm::engine::table::Engine;
use crate::util::glob::name_matches;
use crate::wire::json::Json;
use http::HeaderMap;
use std::borrow::Cow;

/// Where a call was sent.
pub(super) struct Service<'a> {
    /// The host that the call was sent to, lower case.
    pub(super) host: &'a str,
    /// The port, which tells some engines apart where the host says nothing.
    pub(super) port: u16,
    /// The path, without query.
    pub(super) path: &'a str,
    /// The API that the call was detected as.
    pub(super) api: &'a ApiSpec,
}

/// The provider of a call. `shown`: the one that its response shows, see [`of_response`].
pub(super) fn of(service: &Service<'_>, response: &HeaderMap, shown: Option<&'static str>) -> Cow<'static, str> {
    let known = by_host(service).or(shown).or_else(|| by_header(response));
    Cow::Borrowed(known.unwrap_or_else(|| by_api(service)))
}

/// True for the host of a service of models.
pub(crate) fn is_model_service(host: &str) -> bool {
    service_at(host, None).is_some()
}

/// The shape of the errors that clients of a host and path expect.
pub(crate) fn error_shape(host: &str, path: &str) -> ErrorShape {
    match (ApiCall::of_path(path), service_at(host, None)) {
        (Some(call), _) => call.api.error_shape,
        (None, Some("anthropic")) => ErrorShape::Anthropic,
        (None, Some("gcp.gemini" | "gcp.vertex_ai")) => ErrorShape::Google,
        (None, _) => ErrorShape::OpenAi,
    }
}

/// The provider that a response of OpenAI's shape, or one of its events, shows: its engine or its service.
pub(super) fn of_response(body: &Json<'_>) -> Option<&'static str> {
    let engine = Engine::of_marks(body).map(|engine| engine.spec().provider);
    let service = || MARKS.iter().find(|(name, _)| body.has(name)).map(|(_, provider)| *provider);
    engine.or_else(service)
}

/// Fields that only one service sends.
const MARKS: [(&str, &str); 2] = [("x_groq", "groq"), ("prompt_filter_results", "azure.ai.openai")];

fn by_host(service: &Service<'_>) -> Option<&'static str> {
    service_at(service.host, Some(service.path))
}

/// The provider at a host; `path`: of a request, where it tells providers of one host apart.
fn service_at(host: &str, path: Option<&str>) -> Option<&'static str> {
    let under = |domain: &str| host == domain || host.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.'));
    if host.starts_with("bedrock") && (under("amazonaws.com") || under("api.aws")) {
        return Some("aws.bedrock");
    }
    let is_there = |domain: &str| under(domain) || name_matches(domain, host);
    let fits = |prefix: &str| path.is_none_or(|path| path.starts_with(prefix));
    let (_, _, provider) = HOSTS.iter().find(|(domain, prefix, _)| is_there(domain) && fits(prefix))?;
    Some(provider)
}

/// Domains, the path prefix that they need, and the provider there. The first that fits counts; `*` stands for any
/// prefix of the name.
const HOSTS: &[(&str, &str, &str)] = &[
    ("api.openai.com", "", "openai"),
    ("openai.azure.com", "", "azure.ai.openai"),
    ("cognitiveservices.azure.com", "", "azure.ai.openai"),
    ("services.ai.azure.com", "/openai/", "azure.ai.openai"),
    ("services.ai.azure.com", "", "azure.ai.inference"),
    ("inference.ai.azure.com", "", "azure.ai.inference"),
    ("chatgpt.com", "/backend-api/codex/", "openai"),
    ("api.anthropic.com", "", "anthropic"),
    ("generativelanguage.googleapis.com", "", "gcp.gemini"),
    ("aiplatform.googleapis.com", "", "gcp.vertex_ai"),
    ("*-aiplatform.googleapis.com", "", "gcp.vertex_ai"),
    ("api.mistral.ai", "", "mistral_ai"),
    ("codestral.mistral.ai", "", "mistral_ai"),
    ("api.cohere.com", "", "cohere"),
    ("api.cohere.ai", "", "cohere"),
    ("api.groq.com", "", "groq"),
    ("api.together.xyz", "", "together_ai"),
    ("api.together.ai", "", "together_ai"),
    ("api.fireworks.ai", "", "fireworks_ai"),
    ("api.deepseek.com", "", "deepseek"),
    ("api.x.ai", "", "x_ai"),
    ("openrouter.ai", "", "openrouter"),
    ("api.perplexity.ai", "", "perplexity"),
    ("api.moonshot.ai", "", "moonshot_ai"),
    ("api.moonshot.cn", "", "moonshot_ai"),
    ("api.hyperbolic.xyz", "", "hyperbolic"),
    ("router.huggingface.co", "", "huggingface"),
    ("api-inference.huggingface.co", "", "huggingface"),
];

fn by_header(response: &HeaderMap) -> Option<&'static str> {
    let marks =
        [("openai-processing-ms", "openai"), ("apim-request-id", "azure.ai.openai"), ("x-generation-id", "openrouter")];
    marks.iter().find(|(name, _)| response.contains_key(*name)).map(|(_, provider)| *provider)
}

fn by_api(service: &Service<'_>) -> &'static str {
    let hosted = service.api.hosted.iter().find(|(part, _)| service.path.contains(part));
    match (hosted, service.api.provider) {
        (Some((_, provider)), _) => provider,
        // Ollama's port: it serves OpenAI's APIs too.
        (None, "openai") if service.port == 11434 => "ollama",
        (None, provider) => provider,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::llm::api::table::OPENAI_CHAT;

    #[test]
    fn hosts_have_providers() {
        let headers = HeaderMap::new();
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
            let service = Service { host, port, path, api: &OPENAI_CHAT };
            assert_eq!(of(&service, &headers, None), expected, "{host}");
        }
    }
}

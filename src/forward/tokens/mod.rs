//! Token ids on the agent's behalf: asked for where the route allows it, and taken out of what the agent sees again.
//!
//! What is recorded is what the agent sent and what the endpoint answered. What can't be changed without doubt passes as
//! it is.

use crate::llm::api::ApiCall;
use crate::llm::engine::Engine;
use crate::llm::token_ids::{Stripping, TokenIdPlan};
use crate::shared_state::DetectedEngines;
use crate::util::glob::any_matches;
use http::{HeaderMap, HeaderName, Method, header};
use serde::{Deserialize, Serialize};

mod strip;

pub use strip::stripped;

/// `[tokens]` of the settings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TokenSettings {
    /// When ids are asked for on behalf of an agent that does not ask itself.
    pub inject: Inject,
    /// Take out of answers what the agent did not ask for.
    pub strip: bool,
    /// Which engines serve which hosts; the first entry that names a host counts.
    pub engines: Vec<EngineHosts>,
}

impl Default for TokenSettings {
    fn default() -> Self {
        Self { inject: Inject::default(), strip: true, engines: Vec::new() }
    }
}

/// When ids are asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Inject {
    /// Toward the hosts of `engines`, and toward those whose answers have shown what serves there.
    #[default]
    Auto,
    /// Never.
    Off,
    /// Also toward hosts that `engines` does not name, as vLLM wants it. Endpoints that don't know the fields may refuse.
    Always,
}

/// One of `[[tokens.engines]]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EngineHosts {
    /// The endpoints (patterns).
    pub hosts: Vec<String>,
    /// What serves there.
    pub engine: Engine,
}

impl TokenSettings {
    /// What to do with a request; nothing for most. `known` is what the endpoint's answers gave away.
    pub(super) fn plan(
        &self,
        (host, port): (&str, u16),
        known: &DetectedEngines,
        method: &Method,
        path: &str,
        headers: &HeaderMap,
    ) -> Option<TokenIdPlan> {
        if self.inject == Inject::Off || method != Method::POST || !is_plain_json(headers) {
            return None;
        }
        let named = self.engines.iter().find(|entry| any_matches(&entry.hosts, host, port)).map(|entry| entry.engine);
        let always = || (self.inject == Inject::Always).then_some(Engine::VLLM);
        let engine = named.or_else(|| known.at(host, port)).or_else(always)?;
        let stripping = if self.strip { Stripping::Strip } else { Stripping::Keep };
        TokenIdPlan::of(engine, ApiCall::of_path(path)?.api, stripping)
    }
}

/// A JSON body that may be changed: not compressed, not signed (SigV4 covers the body), not waited for, its length known.
fn is_plain_json(headers: &HeaderMap) -> bool {
    let has = |name: HeaderName, word: &str| {
        headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .is_some_and(|value| value.to_ascii_lowercase().contains(word))
    };
    let length = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    has(header::CONTENT_TYPE, "json")
        && length.is_some_and(|length| length <= MAX_WHOLE_BYTES)
        && !headers.contains_key(header::CONTENT_ENCODING)
        && !headers.contains_key(header::EXPECT)
        && !has(header::AUTHORIZATION, "aws4-")
        && !headers.contains_key("x-amz-content-sha256")
        && !headers.contains_key("content-digest")
}

/// The largest body that is read whole to be changed.
pub const MAX_WHOLE_BYTES: usize = 64 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn headers() -> HeaderMap {
        let fields = [(header::CONTENT_TYPE, "application/json"), (header::CONTENT_LENGTH, "100")];
        HeaderMap::from_iter(fields.map(|(name, value)| (name, HeaderValue::from_static(value))))
    }

    fn settings() -> TokenSettings {
        let engines = vec![
            EngineHosts { hosts: vec!["vllm".into()], engine: Engine::VLLM },
            EngineHosts { hosts: vec!["sgl".into()], engine: Engine::of_name("sglang").unwrap() },
        ];
        TokenSettings { engines, ..TokenSettings::default() }
    }

    #[test]
    fn only_what_the_route_allows_is_asked_for() {
        let plan = |settings: &TokenSettings, host, path, headers: &HeaderMap| {
            settings.plan((host, 80), &DetectedEngines::default(), &Method::POST, path, headers).is_some()
        };
        let (auto, chat) = (settings(), "/v1/chat/completions");
        assert!(plan(&auto, "vllm", chat, &headers()) && plan(&auto, "sgl", "/v1/completions", &headers()));
        assert!(!plan(&auto, "api.openai.com", chat, &headers()) && !plan(&auto, "vllm", "/v1/embeddings", &headers()));
        let off = TokenSettings { inject: Inject::Off, ..settings() };
        let always = TokenSettings { inject: Inject::Always, ..settings() };
        assert!(!plan(&off, "vllm", chat, &headers()) && plan(&always, "anybody", chat, &headers()));
        for (name, value) in
            [("content-encoding", "zstd"), ("authorization", "AWS4-HMAC-SHA256 x"), ("expect", "100-continue")]
        {
            let mut signed = headers();
            signed.insert(name, HeaderValue::from_static(value));
            assert!(!plan(&auto, "vllm", chat, &signed), "{name}");
        }
    }

    #[test]
    fn an_engine_that_gave_itself_away_is_asked_until_it_refuses() {
        let known = DetectedEngines::default();
        let plan = |settings: &TokenSettings| {
            let path = "/v1/chat/completions";
            settings.plan(("gpu", 80), &known, &Method::POST, path, &headers()).is_some()
        };
        let named = TokenSettings {
            engines: vec![EngineHosts { hosts: vec!["gpu".into()], engine: Engine::OTHER }],
            ..TokenSettings::default()
        };
        assert!(!plan(&settings()));
        known.detected("gpu", 80, Engine::VLLM);
        assert!(plan(&settings()) && !plan(&named));
        known.rejected_token_ids("gpu", 80);
        known.detected("gpu", 80, Engine::VLLM);
        assert!(!plan(&settings()));
    }
}

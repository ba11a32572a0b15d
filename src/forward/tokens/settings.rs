//! `[tokens]` of the settings, and which requests they change.

use crate::llm::api::ApiCall;
use crate::llm::engine::{Engine, any_gives_token_ids};
use crate::llm::token_ids::{Stripping, TokenIdPlan};
use crate::shared_state::DetectedEngines;
use crate::trace::SamplerArrays;
use crate::upstream::Origin;
use crate::util::glob::any_matches;
use http::request::Parts;
use http::{HeaderMap, HeaderName, Method, header};
use serde::{Deserialize, Serialize};

/// `[tokens]` of the settings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct TokenSettings {
    /// When token ids are requested on behalf of agents that do not request them.
    pub inject: Inject,
    /// Ask an endpoint with an unknown engine for its list of models, once, beside its first call.
    pub probe: bool,
    /// Remove from responses what the agent did not request.
    pub strip: bool,
    /// The engines of hosts. The first entry that names a host counts.
    pub engines: Vec<EngineHosts>,
}

impl Default for TokenSettings {
    fn default() -> Self {
        Self { inject: Inject::default(), probe: true, strip: true, engines: Vec::new() }
    }
}

/// When token ids are requested.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Inject {
    /// From the hosts in `engines`, and from hosts with responses that show their engine.
    #[default]
    Auto,
    /// From no host.
    Off,
    /// From all other hosts as well, with the fields of vLLM. Endpoints that do not know the fields may reject them.
    Always,
}

/// One of `[[tokens.engines]]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct EngineHosts {
    /// The hosts, as patterns with an optional port.
    #[serde(deserialize_with = "crate::util::host_patterns::deserialize_non_empty")]
    pub hosts: Vec<String>,
    /// The engine that serves there.
    pub engine: Engine,
}

impl TokenSettings {
    /// True for a call that is changed if an engine serves at its endpoint that returns token ids, and no setting says which.
    pub(crate) fn depends_on_engine(&self, origin: &Origin, request: &Parts) -> bool {
        let gives_ids = || ApiCall::of_path(request.uri.path()).is_some_and(|call| any_gives_token_ids(call.api));
        self.inject == Inject::Auto
            && self.probe
            && request.method == Method::POST
            && is_plain_json(&request.headers)
            && self.engine_of(&origin.host, origin.port).is_none()
            && gives_ids()
    }

    /// The engine of a host by these settings.
    fn engine_of(&self, host: &str, port: u16) -> Option<Engine> {
        self.engines.iter().find(|entry| any_matches(&entry.hosts, host, port)).map(|entry| entry.engine)
    }

    /// How a request is changed to request token ids, and these arrays. None for most requests.
    pub(crate) fn plan(
        &self,
        (host, port): (&str, u16),
        detected: &DetectedEngines,
        method: &Method,
        path: &str,
        headers: &HeaderMap,
        arrays: SamplerArrays,
    ) -> Option<TokenIdPlan> {
        if self.inject == Inject::Off || method != Method::POST || !is_plain_json(headers) {
            return None;
        }
        let always = || (self.inject == Inject::Always).then_some(Engine::VLLM);
        let engine = self.engine_of(host, port).or_else(|| detected.at(host, port)).or_else(always)?;
        let stripping = if self.strip { Stripping::Strip } else { Stripping::Keep };
        let plan = TokenIdPlan::of(engine, ApiCall::of_path(path)?.api, stripping, arrays)?;
        Some(plan.without(detected.rejected_at(host, port)))
    }
}

/// True for a JSON body that may be changed: its length is known, it is not compressed, not signed (SigV4 covers the
/// body), and not held back by `Expect`.
fn is_plain_json(headers: &HeaderMap) -> bool {
    let has = |name: HeaderName, word: &str| {
        headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .is_some_and(|value| value.to_ascii_lowercase().contains(word))
    };
    let length = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    has(header::CONTENT_TYPE, "json")
        && length.is_some_and(|length| length <= MAX_REQUEST_BYTES)
        && !headers.contains_key(header::CONTENT_ENCODING)
        && !headers.contains_key(header::EXPECT)
        && !has(header::AUTHORIZATION, "aws4-")
        && !headers.contains_key("x-amz-content-sha256")
        && !headers.contains_key("content-digest")
}

/// Maximum size of a request that fields are added to: its text is in memory while it is searched. A larger request passes
/// unchanged.
const MAX_REQUEST_BYTES: usize = 64 << 20;

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
    fn only_plain_json_for_known_engines_is_changed() {
        let plan = |settings: &TokenSettings, host, path, headers: &HeaderMap| {
            let (engines, arrays) = (DetectedEngines::default(), SamplerArrays::default());
            settings.plan((host, 80), &engines, &Method::POST, path, headers, arrays).is_some()
        };
        let (auto, chat) = (settings(), "/v1/chat/completions");
        assert!(plan(&auto, "vllm", chat, &headers()) && plan(&auto, "sgl", "/v1/completions", &headers()));
        assert!(!plan(&auto, "api.openai.com", chat, &headers()) && !plan(&auto, "vllm", "/v1/embeddings", &headers()));
        let off = TokenSettings { inject: Inject::Off, ..settings() };
        let always = TokenSettings { inject: Inject::Always, ..settings() };
        assert!(!plan(&off, "vllm", chat, &headers()) && plan(&always, "other", chat, &headers()));
        for (name, value) in
            [("content-encoding", "zstd"), ("authorization", "AWS4-HMAC-SHA256 x"), ("expect", "100-continue")]
        {
            let mut signed = headers();
            signed.insert(name, HeaderValue::from_static(value));
            assert!(!plan(&auto, "vllm", chat, &signed), "{name}");
        }
    }

    #[test]
    fn a_detected_engine_is_asked_for_what_it_does_not_reject() {
        let detected = DetectedEngines::default();
        let added = |settings: &TokenSettings| {
            let (path, arrays) = ("/v1/chat/completions", SamplerArrays::default());
            let plan = settings.plan(("gpu", 80), &detected, &Method::POST, path, &headers(), arrays)?;
            Some(plan.apply(b"{}", &mut headers()).ok()?.injection.fields)
        };
        let named = |engine: Engine| TokenSettings {
            engines: vec![EngineHosts { hosts: vec!["gpu".into()], engine }],
            ..TokenSettings::default()
        };
        assert_eq!(added(&settings()), None);
        detected.detected("gpu", 80, Engine::VLLM);
        let all = ["return_token_ids", "logprobs", "top_logprobs"];
        assert_eq!((added(&settings()).unwrap(), added(&named(Engine::OTHER))), (all.to_vec(), None));
        detected.rejected("gpu", 80, &["logprobs"]);
        detected.detected("gpu", 80, Engine::OTHER);
        for settings in [settings(), named(Engine::VLLM)] {
            assert_eq!(added(&settings).unwrap(), ["return_token_ids"]);
        }
        assert_eq!(detected.rejections().load(std::sync::atomic::Ordering::Relaxed), 1);
    }
}

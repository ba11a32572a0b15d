//! Token ids on the agent's behalf: asked for where the route allows it, and taken out of what the agent sees again.
//!
//! What is recorded is what the agent sent and what the endpoint answered. What can't be changed without doubt passes as
//! it is.

use crate::capture::Engines;
use crate::trace::Engine;
use crate::trace::exchange::Injection;
use crate::util::glob::any_matches;
use crate::wire::json_edit::{Change, Changes, asks, insert};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
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

/// What is asked for, and taken out again.
#[derive(Clone, Debug)]
pub struct Plan {
    fields: &'static [(&'static str, &'static str)],
    headers: &'static [(&'static str, &'static str)],
    strip: Strip,
    strips: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Root,
    Choice,
}

use Change::{Null, Remove};
use Place::{Choice, Root};

const IDS: &str = "return_token_ids";
/// vLLM writes null where it was not asked, and leaves no field out.
/// What is taken out, unless the agent asked by one of the fields that are named first; without any, by a header.
type Strip = &'static [(&'static [&'static str], Place, &'static str, Change)];
const CHAT_STRIP: Strip = &[
    (&[IDS], Root, "prompt_token_ids", Null),
    (&[IDS], Choice, "token_ids", Null),
    (&["logprobs"], Choice, "logprobs", Null),
];
const COMPLETIONS_STRIP: Strip = &[
    (&[IDS], Choice, "prompt_token_ids", Null),
    (&[IDS], Choice, "token_ids", Null),
    (&["logprobs"], Choice, "logprobs", Null),
];
const RESPONSES_STRIP: Strip = &[
    (&["enable_response_messages"], Root, "input_messages", Remove),
    (&["enable_response_messages"], Root, "output_messages", Remove),
];
const SGLEXT_STRIP: Strip = &[(&[], Root, "sglext", Remove), (&["logprobs"], Choice, "logprobs", Null)];
const LLAMA_STRIP: Strip =
    &[(&["return_tokens", "stream"], Root, "tokens", Remove), (&["n_probs"], Root, "completion_probabilities", Remove)];

impl TokenSettings {
    /// What to do with a request; nothing for most. `known` is what the endpoint's answers gave away.
    pub(super) fn plan(
        &self,
        (host, port): (&str, u16),
        known: &Engines,
        method: &Method,
        path: &str,
        headers: &HeaderMap,
    ) -> Option<Plan> {
        if self.inject == Inject::Off || method != Method::POST || !is_plain_json(headers) {
            return None;
        }
        let named = self.engines.iter().find(|entry| any_matches(&entry.hosts, host, port)).map(|entry| entry.engine);
        let always = || (self.inject == Inject::Always).then_some(Engine::Vllm);
        let engine = named.or_else(|| known.at(host, port)).or_else(always)?;
        Plan::of(engine, path, self.strip)
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

/// A request with what was added, and what its answer loses.
pub struct InjectedRequest {
    /// The body.
    pub body: Bytes,
    /// What was added.
    pub injection: Injection,
    /// What is taken out of the answer.
    pub changes: Changes,
}

impl Plan {
    /// What is asked of an engine at a path, if there is something to ask for.
    pub fn of(engine: Engine, path: &str, strips: bool) -> Option<Self> {
        let path = path.trim_end_matches('/');
        let (chat, completions) = (path.ends_with("/chat/completions"), path.ends_with("/completions"));
        let plan = |fields, headers, strip| Some(Self { fields, headers, strip, strips });
        match engine {
            Engine::Vllm if chat => {
                plan(&[(IDS, "true"), ("logprobs", "true"), ("top_logprobs", "0")], &[], CHAT_STRIP)
            }
            Engine::Vllm if path.ends_with("/responses") => {
                plan(&[("enable_response_messages", "true")], &[], RESPONSES_STRIP)
            }
            Engine::Vllm | Engine::Sglang if completions && !chat => {
                plan(&[(IDS, "true"), ("logprobs", "1")], &[], COMPLETIONS_STRIP)
            }
            Engine::Sglang if chat => plan(
                &[("logprobs", "true")],
                &[("x-sglext-return-input-ids", "1"), ("x-sglext-return-output-ids", "1")],
                SGLEXT_STRIP,
            ),
            Engine::LlamaCpp if path.ends_with("/completion") => {
                plan(&[("return_tokens", "true"), ("n_probs", "1")], &[], LLAMA_STRIP)
            }
            _ => None,
        }
    }

    /// Adds the plan's fields to a request. `None`: it is no JSON object, or has them all.
    pub fn apply(&self, body: &[u8], headers: &mut HeaderMap) -> Option<InjectedRequest> {
        let changed = insert(body, self.fields)?;
        let missing = self.headers.iter().filter(|(name, _)| !headers.contains_key(*name)).collect::<Vec<_>>();
        if changed.len() == body.len() && missing.is_empty() {
            return None;
        }
        let mut changes = Changes::default();
        if self.strips {
            for (asked_by, place, name, change) in self.strip {
                let wanted = match *asked_by {
                    [] => missing.len() < self.headers.len(),
                    fields => fields.iter().any(|field| asks(body, field)),
                };
                match (wanted, place) {
                    (true, _) => {}
                    (false, Root) => changes.root.push((name, *change)),
                    (false, Choice) => changes.choice.push((name, *change)),
                }
            }
        }
        let mut names: Vec<&'static str> =
            self.fields.iter().map(|(name, _)| *name).filter(|name| !crate::wire::json_edit::has(body, name)).collect();
        for (name, value) in missing {
            names.push(name);
            headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        if headers.contains_key(header::CONTENT_LENGTH) {
            headers.insert(header::CONTENT_LENGTH, HeaderValue::from(changed.len()));
        }
        let strips = changes != Changes::default();
        Some(InjectedRequest { body: changed.into(), injection: Injection { fields: names, strips }, changes })
    }
}

/// The largest body that is read whole to be changed.
pub const MAX_WHOLE_BYTES: usize = 64 << 20;
#[cfg(test)]
mod tests {
    use super::*;

    fn headers() -> HeaderMap {
        let fields = [(header::CONTENT_TYPE, "application/json"), (header::CONTENT_LENGTH, "100")];
        HeaderMap::from_iter(fields.map(|(name, value)| (name, HeaderValue::from_static(value))))
    }

    fn settings() -> TokenSettings {
        let engines = vec![
            EngineHosts { hosts: vec!["vllm".into()], engine: Engine::Vllm },
            EngineHosts { hosts: vec!["sgl".into()], engine: Engine::Sglang },
        ];
        TokenSettings { engines, ..TokenSettings::default() }
    }

    #[test]
    fn only_what_the_route_allows_is_asked_for() {
        let plan = |settings: &TokenSettings, host, path, headers: &HeaderMap| {
            settings.plan((host, 80), &Engines::default(), &Method::POST, path, headers).is_some()
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
        let known = Engines::default();
        let plan = |settings: &TokenSettings| {
            let path = "/v1/chat/completions";
            settings.plan(("gpu", 80), &known, &Method::POST, path, &headers()).map(|plan| plan.fields.len())
        };
        let named = TokenSettings {
            engines: vec![EngineHosts { hosts: vec!["gpu".into()], engine: Engine::Other }],
            ..TokenSettings::default()
        };
        assert_eq!(plan(&settings()), None);
        known.saw("gpu", 80, Engine::Vllm);
        assert_eq!((plan(&settings()), plan(&named)), (Some(3), None));
        known.refused("gpu", 80);
        known.saw("gpu", 80, Engine::Vllm);
        assert_eq!(plan(&settings()), None);
    }

    #[test]
    fn what_the_agent_asked_for_stays_in_its_answer() {
        let plan = settings()
            .plan(("vllm", 80), &Engines::default(), &Method::POST, "/v1/chat/completions", &headers())
            .unwrap();
        let asked = plan.apply(br#"{"model":"m","logprobs":true}"#, &mut headers()).unwrap();
        assert_eq!(asked.body, r#"{"return_token_ids":true,"top_logprobs":0,"model":"m","logprobs":true}"#);
        assert_eq!(asked.injection.fields, ["return_token_ids", "top_logprobs"]);
        assert_eq!(asked.changes.choice, [("token_ids", Null)]);
        assert!(plan.apply(b"not json", &mut headers()).is_none());
        let all = br#"{"return_token_ids":true,"logprobs":true,"top_logprobs":5}"#;
        assert!(plan.apply(all, &mut headers()).is_none());
    }
}

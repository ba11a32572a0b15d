//! Asking an engine for token ids on an agent's behalf, and what its response must lose again.
//!
//! Pure. What an engine takes and returns is in its row ([`crate::llm::engine`]); a request that can't be changed stays
//! as it is.

use crate::llm::api::spec::ApiSpec;
use crate::llm::engine::spec::{AddedField, ArrayRequest, Combination, Place, Purpose, TokenIdRequest};
use crate::llm::engine::table::Engine;
use crate::trace::exchange::{Injection, Withheld};
use crate::trace::{SamplerArray, SamplerArrays};
use crate::wire::json::{Json, parse};
use crate::wire::json_edit::{Edits, Object};
use crate::wire::json_strip::{Changes, UsageEvent};
use http::{HeaderMap, HeaderName, HeaderValue};

/// How an engine is asked for token ids at an API.
#[derive(Clone, Debug)]
pub(crate) struct TokenIdPlan {
    request: &'static TokenIdRequest,
    stripping: Stripping,
    /// The further arrays that are wanted.
    arrays: SamplerArrays,
    /// Fields that are not added: the endpoint rejects them.
    rejected: Vec<&'static str>,
}

/// Whether a response loses what was asked for on the agent's behalf.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stripping {
    /// The agent sees what it would have seen without us.
    Strip,
    /// It sees everything.
    Keep,
}

/// A request that asks for token ids.
pub(crate) struct InjectedRequest {
    /// How the body is changed.
    pub edits: Edits,
    /// What was added to body and header.
    pub injection: Injection,
    /// What is taken out of the response.
    pub changes: Changes,
}

impl TokenIdPlan {
    /// How an engine is asked at an API. `None`: it gives no ids there.
    pub(crate) fn of(engine: Engine, api: &ApiSpec, stripping: Stripping, arrays: SamplerArrays) -> Option<Self> {
        Some(Self { request: engine.token_id_request(api)?, stripping, arrays, rejected: Vec::new() })
    }

    /// The same without fields that the endpoint rejects.
    pub(crate) fn without(self, rejected: Vec<&'static str>) -> Self {
        Self { rejected, ..self }
    }

    /// True for a field that is not added: it is rejected, or alone it would be.
    fn is_rejected(&self, field: &AddedField) -> bool {
        // Without ids nothing else is of use, and details of no logprobs would be refused.
        let needs = |other: &&AddedField| {
            other.purpose == Purpose::Ids
                || field.purpose == Purpose::LogprobDetail && other.purpose == Purpose::Logprobs
        };
        self.request.fields.iter().filter(needs).any(|other| self.rejected.contains(&other.name))
            || self.rejected.contains(&field.name)
    }

    /// The requests for the arrays that are wanted.
    fn array_requests(&self) -> impl Iterator<Item = &'static ArrayRequest> {
        let arrays = self.arrays;
        self.request.arrays.iter().filter(move |request| arrays.contains(request.array))
    }

    /// Adds the fields to a request. The length in the header stays that of the unchanged body. An error: nothing is added,
    /// because the body is no JSON object, has them all, or for the reason in it.
    pub(crate) fn apply(&self, body: &[u8], headers: &mut HeaderMap) -> Result<InjectedRequest, Option<Withheld>> {
        let object = Object::find(body).ok_or(None)?;
        if self.request.not_for.iter().any(|combination| combination.is_in(&object)) {
            return Err(self.withheld(&object));
        }
        let all = self.request.fields.iter().chain(self.array_requests().flat_map(|request| request.fields));
        let all = all.filter(|field| !self.is_rejected(field));
        let allowed = all.filter(|field| !field.not_for.iter().any(|not| not.is_in(&object)));
        let fields: Vec<(&'static str, &'static str)> =
            allowed.filter(|field| !object.has(field.name)).map(|field| (field.name, field.value)).collect();
        let is_missing = |name: &str| !headers.contains_key(name) && !self.rejected.contains(&name);
        let missing = self.request.headers.iter().filter(|(name, _)| is_missing(name)).collect::<Vec<_>>();
        let mut arrays = SamplerArrays::default();
        for request in self.array_requests() {
            match request.array {
                SamplerArray::RoutedExperts => arrays.routed_experts = true,
                SamplerArray::SamplingMask => arrays.sampling_masks = true,
            }
        }
        if fields.is_empty() && missing.is_empty() && arrays.is_empty() {
            return Err(self.withheld(&object));
        }
        let changes = match self.stripping {
            Stripping::Strip => self.changes(&object, missing.len() < self.request.headers.len()),
            Stripping::Keep => Changes::default(),
        };
        let edits = object.insert(&fields);
        let mut names: Vec<&'static str> = fields.iter().map(|(name, _)| *name).collect();
        for (name, value) in missing {
            names.push(name);
            headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        let strips = changes != Changes::default();
        Ok(InjectedRequest { edits, injection: Injection { fields: names, arrays, strips, withheld: None }, changes })
    }

    /// Why the ids of a request are not requested. `None`: the agent does so itself.
    fn withheld(&self, object: &Object<'_>) -> Option<Withheld> {
        let fields = &self.request.fields;
        // Where no field is for the ids alone, they are in the logprobs.
        let has_own = fields.iter().any(|field| field.purpose == Purpose::Ids);
        let purpose = if has_own { Purpose::Ids } else { Purpose::Logprobs };
        let mut sources = fields.iter().filter(|field| field.purpose == purpose);
        if sources.clone().any(|field| object.requests(field.name)) {
            return None;
        }
        if self.request.not_for.iter().any(|combination| combination.is_in(object)) {
            return Some(Withheld::Combination);
        }
        sources.any(|field| self.is_rejected(field)).then_some(Withheld::Rejected)
    }

    /// What the response loses. `has_own_header`: the agent sent one of the request's headers itself.
    fn changes(&self, object: &Object<'_>, has_own_header: bool) -> Changes {
        let mut changes = Changes::default();
        let rules = self.request.strip.iter().chain(self.array_requests().flat_map(|request| request.strip));
        for rule in rules {
            let is_requested = match rule.requested_by {
                [] => has_own_header,
                fields => fields.iter().any(|field| object.requests(field)),
            };
            match (is_requested, rule.place) {
                (true, _) => {}
                (false, Place::Root) => changes.root.push((rule.name, rule.change)),
                (false, Place::Choice) => changes.choice.push((rule.name, rule.change)),
                (false, Place::Settings) => changes.settings.push((rule.name, rule.change)),
                (false, Place::LastEvent) => changes.usage_event = UsageEvent::Removed,
            }
        }
        changes
    }
}

/// True if an engine takes the fields of [`open_request`], as far as it is known. SGLang refuses them for streams, and OpenAI's
/// servers refuse every field that they do not know.
pub(crate) fn takes_open_request(api: &ApiSpec, known: Option<Engine>) -> bool {
    known.is_none_or(|engine| {
        let own = engine.token_id_request(api).map_or(&[][..], |request| request.fields);
        let open = open_request(api, known, Logprobs::No);
        open.iter().all(|(name, _)| own.iter().any(|field| field.name == *name))
    })
}

/// The fields by which token ids are requested openly, so that the agent gets them as well: vLLM's, which Agent Lightning
/// sends to every engine. `known`: the engine, where it is known; only vLLM gets those that refine the logprobs.
pub(crate) fn open_request(
    api: &ApiSpec,
    known: Option<Engine>,
    logprobs: Logprobs,
) -> Vec<(&'static str, &'static str)> {
    let own = known.and_then(|engine| engine.token_id_request(api));
    let takes = |name: &str| own.is_some_and(|request| request.fields.iter().any(|field| field.name == name));
    let fields = Engine::VLLM.token_id_request(api).map_or(&[][..], |request| request.fields);
    let wanted = fields.iter().filter(|field| match (field.purpose, logprobs) {
        (Purpose::Ids, _) => true,
        (_, Logprobs::No) | (Purpose::Usage | Purpose::Array, _) => false,
        (Purpose::Logprobs, Logprobs::Yes) => true,
        (Purpose::LogprobDetail, Logprobs::Yes) => takes(field.name),
    });
    wanted.map(|field| (field.name, field.value)).collect()
}

/// Whether logprobs are requested beside token ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Logprobs {
    /// Logprobs are requested.
    Yes,
    /// Only token ids are requested.
    No,
}

impl Combination {
    fn is_in(self, object: &Object<'_>) -> bool {
        match self {
            Self::Without(field, other) => object.requests(field) && !object.has(other),
            Self::Off(field) => !Self::On(field).is_in(object),
            Self::On(field) => object.value(field).is_some_and(|value| !matches!(value, b"null" | b"false")),
            Self::All(fields) => fields.iter().all(|field| {
                object.value(field).is_some_and(|value| !matches!(value, b"null" | b"false" | b"0" | b"1"))
            }),
            Self::SeveralPrompts(field) => {
                let Some(Ok(Json::List(prompts))) = object.value(field).map(parse) else { return false };
                prompts.iter().any(|prompt| prompt.int().is_none())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::llm::api::table::{LLAMA_CPP_COMPLETION, OPENAI_CHAT, OPENAI_COMPLETIONS};
    use crate::wire::json_edit::edited;
    use crate::wire::json_strip::Change::Null;

    fn apply(engine: Engine, api: &ApiSpec, body: &str) -> Option<InjectedRequest> {
        TokenIdPlan::of(engine, api, Stripping::Strip, SamplerArrays::default())?
            .apply(body.as_bytes(), &mut HeaderMap::new())
            .ok()
    }

    #[test]
    fn a_known_engine_with_a_way_of_its_own_is_not_asked_openly() {
        let takes = |engine: &str, api| takes_open_request(api, Engine::of_name(engine));
        assert!(takes("vllm", &OPENAI_CHAT) && takes("sglang", &OPENAI_COMPLETIONS));
        assert!(!takes("sglang", &OPENAI_CHAT) && !takes("openai", &OPENAI_CHAT));
        assert!(takes_open_request(&OPENAI_CHAT, None), "Agent Lightning asks every engine");
    }

    /// What is added to a request.
    fn added(engine: &str, api: &ApiSpec, body: &str) -> Vec<&'static str> {
        let engine = Engine::of_name(engine).unwrap();
        apply(engine, api, body).map_or_else(Vec::new, |injected| injected.injection.fields)
    }

    #[test]
    fn what_the_agent_asked_for_stays_in_its_answer() {
        let body = r#"{"model":"m","logprobs":true}"#;
        let injected = apply(Engine::VLLM, &OPENAI_CHAT, body).unwrap();
        let sent = edited(body.as_bytes(), &injected.edits);
        assert_eq!(sent, br#"{"return_token_ids":true,"top_logprobs":0,"model":"m","logprobs":true}"#);
        assert_eq!(injected.injection.fields, ["return_token_ids", "top_logprobs"]);
        assert_eq!(injected.changes.choice, [("token_ids", Null)]);
        assert!(apply(Engine::VLLM, &OPENAI_CHAT, "not json").is_none());
        let all = r#"{"return_token_ids":true,"logprobs":true,"top_logprobs":5}"#;
        assert!(apply(Engine::VLLM, &OPENAI_CHAT, all).is_none());
        assert!(apply(Engine::OPENAI, &OPENAI_CHAT, "{}").is_none());
    }

    #[test]
    fn engines_are_not_asked_in_combinations_that_they_fail_in() {
        let ids_only = ["return_token_ids"];
        for (body, expected) in [
            (r#"{"prompt":"p","echo":true,"stream":true}"#, &[][..]),
            (r#"{"prompt":"p","ech\u006f":true}"#, &[]),
            (r#"{"prompt":"p","echo":false,"stream":true}"#, &["return_token_ids", "logprobs"]),
        ] {
            let mut added = added("vllm", &OPENAI_COMPLETIONS, body);
            added.retain(|name| *name != "stream_options");
            assert_eq!(added, expected, "{body}");
        }
        assert_eq!(added("vllm", &OPENAI_CHAT, r#"{"top_logprobs":2}"#), ids_only);
        assert_eq!(added("vllm", &OPENAI_CHAT, r#"{"top_logprobs":null}"#), ["return_token_ids", "logprobs"]);
        assert_eq!(added("vllm", &OPENAI_CHAT, r#"{"top_logprobs":2,"logprobs":true}"#), ids_only);
        for (body, asks) in [
            (r#"{"prompt":"p"}"#, true),
            (r#"{"prompt":[1,2]}"#, true),
            (r#"{"prompt":["p","q"]}"#, false),
            (r#"{"prompt":[[1],[2]]}"#, false),
            (r#"{"prompt":"p","n_cmpl":2}"#, false),
        ] {
            assert_eq!(!added("llama.cpp", &LLAMA_CPP_COMPLETION, body).is_empty(), asks, "{body}");
        }
        for (body, expected) in [
            ("{}", &["logprobs", "top_logprobs"][..]),
            (r#"{"logprobs":true}"#, &[]),
            (r#"{"top_logprobs":3}"#, &[]),
            (r#"{"stream":true,"tools":[{}]}"#, &[]),
            (r#"{"stream":false,"tools":[{}]}"#, &["logprobs", "top_logprobs"]),
        ] {
            assert_eq!(added("llama.cpp", &OPENAI_CHAT, body), expected, "{body}");
        }
        assert!(added("llama.cpp", &OPENAI_COMPLETIONS, r#"{"n_probs":2}"#).is_empty());
    }

    #[test]
    fn a_request_that_is_not_asked_has_the_reason() {
        let plan = |engine: &str, api| {
            let engine = Engine::of_name(engine).unwrap();
            TokenIdPlan::of(engine, api, Stripping::Strip, SamplerArrays::default()).unwrap()
        };
        for (engine, api, body, expected) in [
            ("vllm", &OPENAI_COMPLETIONS, r#"{"echo":true}"#, Some(Withheld::Combination)),
            ("vllm", &OPENAI_COMPLETIONS, r#"{"echo":true,"return_token_ids":true}"#, None),
            ("vllm", &OPENAI_COMPLETIONS, r#"{"echo":false}"#, None),
            ("llama.cpp", &OPENAI_CHAT, r#"{"stream":true,"tools":[{}]}"#, Some(Withheld::Combination)),
            ("llama.cpp", &OPENAI_CHAT, r#"{"stream":true,"tools":[{}],"logprobs":true}"#, None),
            ("llama.cpp", &LLAMA_CPP_COMPLETION, r#"{"prompt":["p","q"]}"#, Some(Withheld::Combination)),
        ] {
            let reason = plan(engine, api).apply(body.as_bytes(), &mut HeaderMap::new()).err().flatten();
            assert_eq!(reason, expected, "{engine} {body}");
        }
        let rejecting = |name| {
            let plan = plan("vllm", &OPENAI_CHAT).without(vec![name]);
            plan.apply(b"{}", &mut HeaderMap::new()).err().flatten()
        };
        assert_eq!([rejecting("return_token_ids"), rejecting("logprobs")], [Some(Withheld::Rejected), None]);
    }

    #[test]
    fn fields_that_an_endpoint_rejects_are_not_added() {
        let plan = TokenIdPlan::of(Engine::VLLM, &OPENAI_CHAT, Stripping::Strip, SamplerArrays::default()).unwrap();
        let added = |rejected: &[&'static str]| {
            let plan = plan.clone().without(rejected.to_vec());
            plan.apply(b"{}", &mut HeaderMap::new()).map_or_else(|_| Vec::new(), |injected| injected.injection.fields)
        };
        assert_eq!(added(&["logprobs"]), ["return_token_ids"]);
        assert!(added(&["return_token_ids"]).is_empty());
    }

    #[test]
    fn usage_is_requested_of_streams_that_would_have_none() {
        for (body, asks) in [
            (r#"{"stream":true}"#, true),
            (r#"{"stream":false}"#, false),
            (r#"{"stream":null}"#, false),
            ("{}", false),
            (r#"{"stream":true,"stream_options":{"include_usage":true}}"#, false),
        ] {
            assert_eq!(added("vllm", &OPENAI_CHAT, body).contains(&"stream_options"), asks, "{body}");
        }
        let own = r#"{"stream":true,"stream_options":{"include_usage":true}}"#;
        assert_eq!(apply(Engine::VLLM, &OPENAI_CHAT, own).unwrap().changes.usage_event, UsageEvent::Kept);
    }
}

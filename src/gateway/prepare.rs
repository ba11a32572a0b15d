//! A call as its backend takes it: the model's name there, sampling parameters, token ids asked for, and the backend's
//! dialect if the agent speaks another.
//!
//! Pure. What the agent wrote stays byte for byte, but for the fields that are set.

use super::backends::Backend;
use super::handle::Call;
use super::routing::{ApiSurface, Mode};
use super::settings::{GatewaySettings, Sampling};
use crate::error::{ErrorKind, ProxyError};
use crate::llm::api::{ANTHROPIC_MESSAGES, ApiCall, ErrorShape, OPENAI_CHAT, OPENAI_COMPLETIONS};
use crate::llm::engine::{Credential, Tokenizer};
use crate::llm::operation::Operation;
use crate::llm::token_ids::{InjectedRequest, Logprobs, Stripping, TokenIdPlan, open_request};
use crate::llm::translate::{self, GeminiPath, SourceApi, source_of, to_chat};
use crate::wire::json_edit::{Object, set};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use serde_json::{Value as JsonValue, json};

/// A call, ready for one backend.
pub(super) struct Prepared {
    /// Path and query.
    pub(super) target: String,
    /// The body as it is recorded: without what is only asked for on the agent's behalf.
    pub(super) body: Bytes,
    /// The body with that.
    pub(super) asked: Option<InjectedRequest>,
    /// Fields of the header.
    pub(super) headers: HeaderMap,
    /// What becomes of the answer.
    pub(super) turn: ResponseHandling,
}

/// What becomes of an answer.
pub(super) enum ResponseHandling {
    /// It goes to the agent as it is.
    AsItIs,
    /// It is translated; errors get this shape.
    Translated(ErrorShape, translate::Answer),
    /// It is a count of tokens, for Anthropic's clients.
    Count(Tokenizer),
}

impl Prepared {
    /// The call for a backend.
    pub(super) fn of(call: &Call, backend: &Backend, settings: &GatewaySettings) -> Result<Self, ProxyError> {
        let mut headers = fields_for(call, backend);
        let asked = &call.route.api;
        let (body, mut target, turn) = if backend.speaks(asked.api) {
            (call.body.clone(), asked.clone(), ResponseHandling::AsItIs)
        } else if asked.api == &ANTHROPIC_MESSAGES && asked.operation() == Operation::CountTokens {
            return count(call, backend, headers);
        } else {
            let (source, gemini) = source_of(asked, &call.route.query).ok_or_else(|| no_way(asked, backend))?;
            let translated = to_chat(source, &call.body, gemini)
                .map_err(|fault| ProxyError::new(ErrorKind::Untranslatable, "", fault.to_string()))?;
            let body = serde_json::to_vec(&translated.body).unwrap_or_default();
            headers.retain_others();
            let turn = ResponseHandling::Translated(asked.api.error_shape, translated.answer);
            (body.into(), ApiCall::chat_completions(), turn)
        };
        let body = if target.has_model_in_path() {
            target.model = Some(model_of(call, backend));
            body
        } else if target.operation() == Operation::CountTokens {
            body
        } else {
            let no_object = || malformed("the body is no JSON object");
            let object = Object::find(&body).ok_or_else(no_object)?;
            let fields = fields(call, &target, &object, backend, settings);
            set(&body, &fields).ok_or_else(no_object)?.into()
        };
        let path = target.path();
        let query =
            if matches!(turn, ResponseHandling::AsItIs) { shown_query(&call.route.query) } else { String::new() };
        let mut headers = headers.0;
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
        let asked = plan(call, &target, backend, settings).and_then(|plan| plan.apply(&body, &mut headers));
        Ok(Self { target: format!("{}{path}{query}", backend.base_path), body, asked, headers, turn })
    }

    /// The body as it is sent.
    pub(super) fn sent(&self) -> Bytes {
        self.asked.as_ref().map_or_else(|| self.body.clone(), |asked| asked.body.clone())
    }

    /// The same without anything asked for: a backend refused that.
    pub(super) fn without_asking(mut self) -> Self {
        if let Some(asked) = self.asked.take() {
            for name in asked.injection.fields {
                self.headers.remove(name);
            }
            self.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(self.body.len()));
        }
        self
    }
}

/// The fields of a request's header that go to a backend.
struct Fields(HeaderMap);

impl Fields {
    /// Without those that belong to the agent's dialect.
    fn retain_others(&mut self) {
        let foreign =
            |name: &HeaderName| name.as_str().starts_with("anthropic-") || name.as_str().starts_with("x-goog-");
        let names: Vec<HeaderName> = self.0.keys().filter(|name| foreign(name)).cloned().collect();
        for name in names {
            self.0.remove(name);
        }
    }
}

/// What of the agent's fields means something to a model server. Others may be credentials, of whatever name.
fn fields_for(call: &Call, backend: &Backend) -> Fields {
    let mut headers = HeaderMap::new();
    // Agent Lightning 1.0 passes none on.
    if call.route.contract != ApiSurface::V1 {
        for name in PASSED {
            headers.extend(call.headers.get(*name).map(|value| (HeaderName::from_static(name), value.clone())));
        }
    }
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let key = backend.key();
    let engine = backend.engine().assumed().spec();
    if !key.is_empty() {
        let (name, text) = match engine.credential {
            Credential::Header(name) => (HeaderName::from_static(name), key.expose().to_owned()),
            Credential::Bearer => (header::AUTHORIZATION, format!("Bearer {}", key.expose())),
        };
        if let Ok(mut value) = HeaderValue::from_str(&text) {
            value.set_sensitive(true);
            headers.insert(name, value);
        }
    }
    if let Some(affinity) = engine.affinity_header
        && let Ok(rollout) = HeaderValue::from_str(call.begun.identity.rollout_id.as_str())
    {
        headers.insert(affinity, rollout);
    }
    Fields(headers)
}

/// What is set in a body, as JSON.
fn fields(
    call: &Call,
    target: &ApiCall,
    body: &Object<'_>,
    backend: &Backend,
    settings: &GatewaySettings,
) -> Vec<(String, String)> {
    let mut fields: Vec<(&str, String)> = Vec::new();
    // One that serves any model is asked for the one that the agent named.
    let model = model_of(call, backend);
    if !model.is_empty() {
        fields.push(("model", json!(model).to_string()));
    }
    let sampling = match call.mode {
        Some(Mode::Train) => settings.train,
        Some(Mode::Val) => settings.val,
        None => Sampling::default(),
    };
    if target.operation().samples() {
        let defaults = (call.route.contract == ApiSurface::V1).then_some(()).and(call.mode).map(|mode| match mode {
            Mode::Train => TRAIN_TEMPERATURE,
            Mode::Val => VAL_TEMPERATURE,
        });
        let float = |value: f64| json!(value).to_string();
        fields.extend(sampling.temperature.or(defaults).map(|value| ("temperature", float(value))));
        fields.extend(sampling.top_p.map(|value| ("top_p", float(value))));
        fields.extend(sampling.max_tokens.into_iter().flat_map(|max| target.api.limit_length(body, max)));
        for (name, value) in &call.registration.sampling {
            fields.retain(|(set, _)| set != name);
            fields.push((name, value.to_string()));
        }
    }
    if is_open(call, target) {
        let wanted = call.mode == Some(Mode::Train) && settings.include_log_probs;
        let logprobs = if wanted { Logprobs::Yes } else { Logprobs::No };
        let open = open_request(target.api, backend.engine().known(), logprobs);
        fields.extend(open.into_iter().map(|(name, value)| (name, value.to_owned())));
    }
    fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// The model as the backend calls it.
fn model_of(call: &Call, backend: &Backend) -> String {
    if backend.model.is_empty() { call.model.clone() } else { backend.model.clone() }
}

/// True for a call that asks for token ids in the open: the routes of Agent Lightning 1.0 do, for the APIs that it has,
/// and leave what they asked for in the answer.
fn is_open(call: &Call, target: &ApiCall) -> bool {
    call.route.contract == ApiSurface::V1 && [&OPENAI_CHAT, &OPENAI_COMPLETIONS].contains(&target.api)
}

/// What is asked for on the agent's behalf.
fn plan(call: &Call, target: &ApiCall, backend: &Backend, settings: &GatewaySettings) -> Option<TokenIdPlan> {
    if is_open(call, target) {
        return None;
    }
    let strips = settings.strip && call.route.contract != ApiSurface::V1;
    let stripping = if strips { Stripping::Strip } else { Stripping::Keep };
    TokenIdPlan::of(backend.engine().assumed(), target.api, stripping)
}

/// Anthropic's count of a prompt's tokens, asked of the engine's tokenizer.
fn count(call: &Call, backend: &Backend, headers: Fields) -> Result<Prepared, ProxyError> {
    let tokenizer = backend.engine().assumed().spec().tokenizer.ok_or_else(|| no_way(&call.route.api, backend))?;
    let mut headers = headers;
    headers.retain_others();
    let translated = to_chat(SourceApi::Messages, &call.body, GeminiPath::default())
        .map_err(|fault| ProxyError::new(ErrorKind::Untranslatable, "", fault.to_string()))?;
    let mut asked = serde_json::Map::new();
    asked.insert("model".to_owned(), json!(model_of(call, backend)));
    for name in tokenizer.fields {
        asked.extend(translated.body.get(*name).map(|value| ((*name).to_owned(), value.clone())));
    }
    let body: Bytes = JsonValue::Object(asked).to_string().into();
    let root = backend.base_path.strip_suffix("/v1").unwrap_or(&backend.base_path);
    let mut headers = headers.0;
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
    Ok(Prepared {
        target: format!("{root}{}", tokenizer.path),
        body,
        asked: None,
        headers,
        turn: ResponseHandling::Count(tokenizer),
    })
}

fn no_way(api: &ApiCall, backend: &Backend) -> ProxyError {
    let cause = format!(
        "the backend {} ({}) has no {} and it can't be translated",
        backend.url,
        backend.engine().as_str(),
        api.path()
    );
    ProxyError::new(ErrorKind::Untranslatable, "", cause)
}

pub(super) fn malformed(cause: &str) -> ProxyError {
    ProxyError::new(ErrorKind::CallMalformed, "", cause)
}

/// What of a query goes on: clients put keys there too.
fn shown_query(query: &str) -> String {
    let is_known = |pair: &&str| PASSED_QUERY.contains(&pair.split('=').next().unwrap_or_default());
    let kept: Vec<&str> = query.split('&').filter(is_known).collect();
    if kept.is_empty() { String::new() } else { format!("?{}", kept.join("&")) }
}

/// Agent Lightning 1.0's.
const TRAIN_TEMPERATURE: f64 = 1.0;
const VAL_TEMPERATURE: f64 = 0.7;
const PASSED: &[&str] = &[
    "accept",
    "user-agent",
    "anthropic-version",
    "anthropic-beta",
    "openai-beta",
    "traceparent",
    "tracestate",
    "x-request-id",
    "x-client-request-id",
];
/// Names of a query that are no credentials.
const PASSED_QUERY: [&str; 3] = ["alt", "api-version", "beta"];

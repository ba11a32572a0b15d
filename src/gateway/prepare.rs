//! A call as its backend takes it: the model's name there, sampling parameters, token ids asked for, and the backend's
//! dialect if the agent speaks another.
//!
//! Pure. What the agent wrote stays byte for byte, but for the fields that are set.

use super::backends::Backend;
use super::handle::Call;
use super::routing::{Api, ApiSurface, Mode};
use super::settings::{BackendEngine, GatewaySettings, Sampling};
use crate::error::{ErrorKind, ProxyError};
use crate::forward::tokens::{InjectedRequest, Plan};
use crate::llm::translate::{self, Client, GeminiPath, to_chat};
use crate::trace::Engine;
use crate::wire::json_edit::{set, value};
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
    /// It is translated.
    Translated(Client, translate::Answer),
    /// It is a count of tokens, for Anthropic's clients.
    Count,
}

impl Prepared {
    /// The call for a backend.
    pub(super) fn of(call: &Call, backend: &Backend, settings: &GatewaySettings) -> Result<Self, ProxyError> {
        let engine = backend.engine();
        let mut headers = fields_for(call, backend);
        let native = backend.speaks(&call.route.api);
        let (body, api, turn) = match &call.route.api {
            Api::CountTokens if !native => return count(call, backend, headers),
            api if native => (call.body.clone(), api.clone(), ResponseHandling::AsItIs),
            api => {
                let (client, gemini) = translated_from(api, &call.route.query).ok_or_else(|| no_way(api, backend))?;
                let translated = to_chat(client, &call.body, gemini)
                    .map_err(|fault| ProxyError::new(ErrorKind::Untranslatable, "", fault.to_string()))?;
                let body = serde_json::to_vec(&translated.body).unwrap_or_default();
                headers.retain_others();
                (body.into(), Api::Chat, ResponseHandling::Translated(client, translated.answer))
            }
        };
        let body = match &api {
            Api::Gemini { .. } | Api::Models(_) | Api::CountTokens => body,
            api => {
                let fields = fields(call, api, &body, backend, settings);
                set(&body, &fields).ok_or_else(|| malformed("the body is no JSON object"))?.into()
            }
        };
        let path = match &api {
            Api::Gemini { method, .. } => Api::Gemini { model: model_of(call, backend), method: method.clone() }.path(),
            api => api.path(),
        };
        let query =
            if matches!(turn, ResponseHandling::AsItIs) { shown_query(&call.route.query) } else { String::new() };
        let mut headers = headers.0;
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
        let asked = plan(call, engine, &path, settings).and_then(|plan| plan.apply(&body, &mut headers));
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
    let engine = backend.engine();
    if !key.is_empty() {
        let (name, text) = match engine {
            BackendEngine::Anthropic => (HeaderName::from_static("x-api-key"), key.expose().to_owned()),
            BackendEngine::Gemini => (HeaderName::from_static("x-goog-api-key"), key.expose().to_owned()),
            _ => (header::AUTHORIZATION, format!("Bearer {}", key.expose())),
        };
        if let Ok(mut value) = HeaderValue::from_str(&text) {
            value.set_sensitive(true);
            headers.insert(name, value);
        }
    }
    if engine == BackendEngine::Sglang
        && let Ok(rollout) = HeaderValue::from_str(call.begun.identity.rollout_id.as_str())
    {
        // SGLang's router keeps what has one key together.
        headers.insert("x-smg-routing-key", rollout);
    }
    Fields(headers)
}

/// What is set in a body, as JSON.
fn fields(call: &Call, api: &Api, body: &[u8], backend: &Backend, settings: &GatewaySettings) -> Vec<(String, String)> {
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
    let samples = matches!(api, Api::Chat | Api::Completions | Api::Responses | Api::Messages);
    if samples {
        let defaults = (call.route.contract == ApiSurface::V1).then_some(()).and(call.mode).map(|mode| match mode {
            Mode::Train => TRAIN_TEMPERATURE,
            Mode::Val => VAL_TEMPERATURE,
        });
        let float = |value: f64| json!(value).to_string();
        fields.extend(sampling.temperature.or(defaults).map(|value| ("temperature", float(value))));
        fields.extend(sampling.top_p.map(|value| ("top_p", float(value))));
        fields.extend(sampling.max_tokens.and_then(|most| limited(api, body, most)));
        for (name, value) in &call.registration.sampling {
            fields.retain(|(set, _)| set != name);
            fields.push((name, value.to_string()));
        }
    }
    if call.route.contract == ApiSurface::V1 && matches!(api, Api::Chat | Api::Completions) {
        fields.push(("return_token_ids", "true".to_owned()));
        if call.mode == Some(Mode::Train) && settings.include_log_probs {
            // Completions take a number; Agent Lightning sends `true` there too, which vLLM reads as 1.
            fields.push(("logprobs", if *api == Api::Chat { "true" } else { "1" }.to_owned()));
            if *api == Api::Chat && backend.engine() == BackendEngine::Vllm {
                // Without it vLLM may leave the list of log-probabilities out.
                fields.push(("top_logprobs", "0".to_owned()));
            }
        }
    }
    fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// The model as the backend calls it.
fn model_of(call: &Call, backend: &Backend) -> String {
    if backend.model.is_empty() { call.model.clone() } else { backend.model.clone() }
}

/// The limit of an answer's length, if the agent asks for more, or for none.
fn limited(api: &Api, body: &[u8], most: u64) -> Option<(&'static str, String)> {
    let names: &[&'static str] = match api {
        Api::Chat => &["max_completion_tokens", "max_tokens"],
        Api::Responses => &["max_output_tokens"],
        _ => &["max_tokens"],
    };
    let asked = names.iter().find_map(|name| Some((*name, serde_json::from_slice::<u64>(value(body, name)?).ok()?)));
    match asked {
        Some((_, asked)) if asked <= most => None,
        Some((name, _)) => Some((name, most.to_string())),
        None => names.last().map(|name| (*name, most.to_string())),
    }
}

/// What is asked for on the agent's behalf. The routes of Agent Lightning 1.0 ask in the open, for the APIs that it has, and
/// leave what they asked for in the answer.
fn plan(call: &Call, engine: BackendEngine, path: &str, settings: &GatewaySettings) -> Option<Plan> {
    let is_v1 = call.route.contract == ApiSurface::V1;
    if is_v1 && path.ends_with("/completions") {
        return None;
    }
    // One that nobody knows is asked as vLLM is, until it refuses.
    let engine = if engine == BackendEngine::Auto { Some(Engine::Vllm) } else { engine.gives_ids() };
    Plan::of(engine?, path, settings.strip && !is_v1)
}

/// Anthropic's count of a prompt's tokens, asked of vLLM's tokenizer.
fn count(call: &Call, backend: &Backend, headers: Fields) -> Result<Prepared, ProxyError> {
    if !matches!(backend.engine(), BackendEngine::Vllm | BackendEngine::Auto) {
        return Err(no_way(&Api::CountTokens, backend));
    }
    let mut headers = headers;
    headers.retain_others();
    let translated = to_chat(Client::Messages, &call.body, GeminiPath::default())
        .map_err(|fault| ProxyError::new(ErrorKind::Untranslatable, "", fault.to_string()))?;
    let mut asked = serde_json::Map::new();
    asked.insert("model".to_owned(), json!(model_of(call, backend)));
    for name in ["messages", "tools", "chat_template_kwargs"] {
        asked.extend(translated.body.get(name).map(|value| (name.to_owned(), value.clone())));
    }
    let body: Bytes = JsonValue::Object(asked).to_string().into();
    let root = backend.base_path.strip_suffix("/v1").unwrap_or(&backend.base_path);
    let mut headers = headers.0;
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
    Ok(Prepared { target: format!("{root}/tokenize"), body, asked: None, headers, turn: ResponseHandling::Count })
}

/// From which dialect a call is translated, if it is one of those.
fn translated_from(api: &Api, query: &str) -> Option<(Client, GeminiPath)> {
    match api {
        Api::Messages => Some((Client::Messages, GeminiPath::default())),
        Api::Responses => Some((Client::Responses, GeminiPath::default())),
        Api::Gemini { method, .. } => {
            let streams = method == "streamGenerateContent";
            let sse = query.split('&').any(|pair| pair == "alt=sse");
            (streams || method == "generateContent").then_some((Client::Gemini, GeminiPath { streams, sse }))
        }
        _ => None,
    }
}

/// The dialect that a call's span names as its agent's, where that is translated.
pub(super) fn dialect_of(api: &Api) -> &'static str {
    match api {
        Api::Messages | Api::CountTokens => "anthropic.messages",
        Api::Responses => "openai.responses",
        Api::Gemini { .. } => "gemini",
        _ => "openai.chat",
    }
}

fn no_way(api: &Api, backend: &Backend) -> ProxyError {
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

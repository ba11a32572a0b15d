//! The request to a backend, made from an agent's call: with the backend's name of the model, sampling parameters, and a request
//! for token ids. It is translated if the backend does not have the agent's API.
//!
//! Without translation the body is the agent's, except for the fields that are set. Only what differs from the agent's body is
//! held a second time.

use super::backends::Backend;
use super::call::GatewayCall;
use super::routing::{ApiSurface, CallMode};
use super::settings::{GatewaySettings, Sampling, Translate};
use super::stored_responses::UnansweredRequest;
use crate::capture::{EditedBytes, HeldBytes, Memory, MemoryUse};
use crate::error::{ErrorKind, ProxyError};
use crate::llm::api::{ANTHROPIC_MESSAGES, ApiCall, ErrorShape, OPENAI_CHAT, OPENAI_COMPLETIONS};
use crate::llm::engine::Tokenizer;
use crate::llm::operation::Operation;
use crate::llm::token_ids::{InjectedRequest, Logprobs, Stripping, TokenIdPlan, open_request, takes_open_request};
use crate::llm::translate::{self, GeminiPath, SourceApi, TranslatedRequest, TranslationOptions, source_of, to_chat};
use crate::trace::SamplerArrays;
use crate::wire::json_edit::{Object, edited};
use crate::wire::json_strip::Changes;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use serde_json::{Value as JsonValue, json};
use std::sync::Arc;

/// A request to one backend.
pub(super) struct BackendRequest {
    /// Path and query, with the path of the backend's base URL.
    pub(super) target: String,
    /// The body as it is recorded: without the fields that only Tracewire asks for.
    pub(super) body: EditedBytes,
    /// The fields that only Tracewire asks for, and what the response loses because of them; `None` if there are none.
    pub(super) injected: Option<InjectedRequest>,
    /// The header fields to send, without `Content-Length`.
    pub(super) headers: HeaderMap,
    pub(super) handling: ResponseHandling,
    /// The places of what a translation left out because it has no effect on the response.
    pub(super) dropped: Vec<String>,
    /// The line about billing that a translation left out of the system prompt.
    pub(super) billing_line: Option<String>,
    /// Stores the response, so that later requests can continue it.
    pub(super) unanswered: Option<UnansweredRequest>,
}

/// What is done with a backend's response.
pub(super) enum ResponseHandling {
    /// It is passed on, without the fields that only Tracewire asked for.
    PassOn,
    /// It is translated into the agent's API; errors get this shape.
    Translate(ErrorShape, translate::ResponseTranslator),
    /// It holds the number of tokens of a prompt, for `count_tokens` of Anthropic's API.
    CountTokens(Tokenizer),
}

impl BackendRequest {
    /// The request for `backend`; an error if the call can't be expressed in an API that the backend has. The text of the body
    /// is in memory only while this runs.
    pub(super) fn new(
        call: &GatewayCall,
        backend: &Backend,
        settings: &GatewaySettings,
        arrays: SamplerArrays,
        memory: &Memory,
    ) -> Result<Self, ProxyError> {
        let requested = &call.route.api;
        let mut text = call.body.to_vec()?;
        let (mut dropped, mut billing_line, mut unanswered) = (Vec::new(), None, None);
        let (mut body, mut target, handling) =
            if backend.speaks(requested.api) && !is_translated(call, backend, settings) {
                (EditedBytes::from(Arc::clone(&call.body)), requested.clone(), ResponseHandling::PassOn)
            } else if requested.api == &ANTHROPIC_MESSAGES && requested.operation() == Operation::CountTokens {
                return count_tokens(call, &text, backend, settings, memory);
            } else {
                let (source, gemini) =
                    source_of(requested, &call.route.query).ok_or_else(|| unsupported(requested, backend))?;
                if source == SourceApi::Responses {
                    let complete = call.stored_responses.complete(&call.exchange.identity.rollout_id, &text)?;
                    text = complete.body.unwrap_or(text);
                    unanswered = complete.request;
                }
                let mut translated = translated(source, &text, gemini, settings)?;
                if let Some(fields) = backend.engine().assumed().spec().chat_fields {
                    translated.keep_only(fields);
                }
                (dropped, billing_line) = (translated.dropped, translated.billing_line);
                text = serde_json::to_vec(&translated.body).unwrap_or_default();
                let body = HeldBytes::of(memory, MemoryUse::GatewayRequest, &text);
                let handling = ResponseHandling::Translate(requested.api.error_shape, translated.response);
                (body.into(), ApiCall::chat_completions(), handling)
            };
        if target.has_model_in_path() {
            target.model = Some(model_at(call, backend));
        } else if target.operation() != Operation::CountTokens {
            let object = Object::find(&text).ok_or_else(|| malformed("the body is not a JSON object"))?;
            let mut fields = body_fields(call, &target, &object, backend, settings);
            if target.operation().samples() && settings.limit_to_context {
                let beyond = limits_beyond_context(&target, &object, &fields, backend, text.len());
                dropped.extend(beyond.iter().map(|name| (*name).to_owned()));
                fields.retain(|(name, _)| !beyond.contains(&name.as_str()));
                // Engines then sample up to the end of the context.
                fields.extend(beyond.into_iter().map(|name| (name.to_owned(), "null".to_owned())));
            }
            let edits = object.set(&fields);
            (text, body) = (edited(&text, &edits), body.edited(&edits));
        }
        let path = target.path();
        let query = if matches!(handling, ResponseHandling::PassOn) {
            forwarded_query(&call.route.query)
        } else {
            String::new()
        };
        let mut headers = headers_for(call, backend, target.api.request_headers);
        let plan = token_id_plan(call, &target, backend, settings, arrays);
        let injected = plan.and_then(|plan| plan.apply(&text, &mut headers));
        Ok(Self {
            target: format!("{}{path}{query}", backend.base_path),
            body,
            injected,
            headers,
            handling,
            dropped,
            billing_line,
            unanswered,
        })
    }

    /// The body that is sent.
    pub(super) fn sent_body(&self) -> EditedBytes {
        self.injected.as_ref().map_or_else(|| self.body.clone(), |injected| self.body.edited(&injected.edits))
    }

    /// What the response loses of what only Tracewire asked for.
    pub(super) fn changes(&self) -> Option<Changes> {
        let changes = self.injected.as_ref().map(|injected| injected.changes.clone());
        changes.filter(|changes| *changes != Changes::default())
    }

    /// The same request without the fields that only Tracewire asks for.
    pub(super) fn without_injection(mut self) -> Self {
        if let Some(injected) = self.injected.take() {
            // The names of body fields are among them; no header has those.
            for name in injected.injection.fields {
                self.headers.remove(name);
            }
        }
        self
    }
}

/// True for a call that is translated although the backend has its API.
fn is_translated(call: &GatewayCall, backend: &Backend, settings: &GatewaySettings) -> bool {
    settings.translate == Translate::Always
        && backend.speaks(&OPENAI_CHAT)
        && source_of(&call.route.api, &call.route.query).is_some()
}

/// Headers of the agent that model servers use, with those of the API that is called, and those for the backend. Any other
/// header of the agent may be a credential.
fn headers_for(call: &GatewayCall, backend: &Backend, api_headers: &[&'static str]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    // Agent Lightning 1.0 forwards none.
    if call.route.surface != ApiSurface::V1 {
        for name in FORWARDED_HEADERS.iter().chain(api_headers) {
            headers.extend(call.headers.get(*name).map(|value| (HeaderName::from_static(name), value.clone())));
        }
    }
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Some((name, key)) = backend.credential() {
        headers.insert(name, key);
    }
    if let Some(affinity) = backend.engine().assumed().spec().affinity_header
        && let Ok(rollout) = HeaderValue::from_str(call.exchange.identity.rollout_id.as_str())
    {
        headers.insert(affinity, rollout);
    }
    headers
}

/// The fields that are set in a body: names, and values as JSON.
fn body_fields(
    call: &GatewayCall,
    target: &ApiCall,
    body: &Object<'_>,
    backend: &Backend,
    settings: &GatewaySettings,
) -> Vec<(String, String)> {
    let mut fields: Vec<(&str, String)> = Vec::new();
    let model = model_at(call, backend);
    if !model.is_empty() {
        fields.push(("model", json!(model).to_string()));
    }
    let sampling = match call.mode {
        Some(CallMode::Train) => settings.train,
        Some(CallMode::Val) => settings.val,
        None => Sampling::default(),
    };
    if target.operation().samples() {
        let defaults = (call.route.surface == ApiSurface::V1).then_some(()).and(call.mode).map(|mode| match mode {
            CallMode::Train => V1_TRAIN_TEMPERATURE,
            CallMode::Val => V1_VAL_TEMPERATURE,
        });
        let float = |value: f64| json!(value).to_string();
        fields.extend(sampling.temperature.or(defaults).map(|value| ("temperature", float(value))));
        fields.extend(sampling.top_p.map(|value| ("top_p", float(value))));
        fields.extend(sampling.max_tokens.into_iter().flat_map(|max| target.api.limit_length(body, max)));
        for (name, value) in &call.registration.sampling {
            fields.retain(|(earlier, _)| earlier != name);
            fields.push((name, value.to_string()));
        }
    }
    if asks_openly(call, target, backend) {
        let wants_logprobs = call.mode == Some(CallMode::Train) && settings.include_log_probs;
        let logprobs = if wants_logprobs { Logprobs::Yes } else { Logprobs::No };
        let token_id_fields = open_request(target.api, backend.engine().known(), logprobs);
        fields.extend(token_id_fields.into_iter().map(|(name, value)| (name, value.to_owned())));
    }
    fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// The limits of the answer's length that, with the prompt, exceed the backend's context: engines refuse such calls. The
/// length of the prompt is estimated.
fn limits_beyond_context(
    target: &ApiCall,
    body: &Object<'_>,
    fields: &[(String, String)],
    backend: &Backend,
    body_bytes: usize,
) -> Vec<&'static str> {
    let Some(context) = backend.context_tokens() else { return Vec::new() };
    let prompt = body_bytes as u64 / BYTES_PER_TOKEN;
    let is_beyond = |name: &&&'static str| {
        let set = fields.iter().rev().find(|(field, _)| field == **name).map(|(_, value)| value.as_bytes());
        let limit = set.or_else(|| body.value(name)).and_then(|value| serde_json::from_slice::<u64>(value).ok());
        limit.is_some_and(|limit| limit.saturating_add(prompt) >= context)
    };
    target.api.length_limits.iter().filter(is_beyond).copied().collect()
}

/// The bytes of a request's JSON that are counted as one token. Most texts have more bytes a token, so that the estimate is
/// rather too high.
const BYTES_PER_TOKEN: u64 = 4;

/// The model, as the backend calls it. A backend for any model gets the name that the call was matched by.
fn model_at(call: &GatewayCall, backend: &Backend) -> String {
    if backend.model.is_empty() { call.model.clone() } else { backend.model.clone() }
}

/// True for a call on the routes and APIs of Agent Lightning 1.0. Token ids are then requested as if the agent did, and stay in
/// the response.
fn asks_openly(call: &GatewayCall, target: &ApiCall, backend: &Backend) -> bool {
    call.route.surface == ApiSurface::V1
        && [&OPENAI_CHAT, &OPENAI_COMPLETIONS].contains(&target.api)
        && takes_open_request(target.api, backend.engine().known())
}

/// How token ids and `arrays` are requested on the agent's behalf. `None`: the engine returns none in this API, or they are
/// requested openly ([`asks_openly`]).
fn token_id_plan(
    call: &GatewayCall,
    target: &ApiCall,
    backend: &Backend,
    settings: &GatewaySettings,
    arrays: SamplerArrays,
) -> Option<TokenIdPlan> {
    if asks_openly(call, target, backend) {
        return None;
    }
    let strips = settings.strip && call.route.surface != ApiSurface::V1;
    let stripping = if strips { Stripping::Strip } else { Stripping::Keep };
    let plan = TokenIdPlan::of(backend.engine().assumed(), target.api, stripping, arrays)?;
    Some(plan.without(backend.rejected_fields()))
}

/// A request to the engine's tokenizer, for `count_tokens` of Anthropic's API.
fn count_tokens(
    call: &GatewayCall,
    text: &[u8],
    backend: &Backend,
    settings: &GatewaySettings,
    memory: &Memory,
) -> Result<BackendRequest, ProxyError> {
    let tokenizer = backend.engine().assumed().spec().tokenizer.ok_or_else(|| unsupported(&call.route.api, backend))?;
    let translated = translated(SourceApi::Messages, text, GeminiPath::default(), settings)?;
    let mut request = serde_json::Map::new();
    request.insert("model".to_owned(), json!(model_at(call, backend)));
    for name in tokenizer.fields {
        request.extend(translated.body.get(*name).map(|value| ((*name).to_owned(), value.clone())));
    }
    let body = JsonValue::Object(request).to_string();
    let root = OPENAI_CHAT.without_base_path(&backend.base_path);
    Ok(BackendRequest {
        target: format!("{root}{}", tokenizer.path),
        body: HeldBytes::of(memory, MemoryUse::GatewayRequest, body.as_bytes()).into(),
        injected: None,
        headers: headers_for(call, backend, &[]),
        handling: ResponseHandling::CountTokens(tokenizer),
        dropped: translated.dropped,
        billing_line: translated.billing_line,
        unanswered: None,
    })
}

fn translated(
    source: SourceApi,
    text: &[u8],
    gemini: GeminiPath,
    settings: &GatewaySettings,
) -> Result<TranslatedRequest, ProxyError> {
    let options = TranslationOptions { turns: settings.turns, server_tools: settings.server_tools };
    to_chat(source, text, gemini, options)
        .map_err(|error| ProxyError::new(ErrorKind::Untranslatable, "", error.to_string()))
}

fn unsupported(api: &ApiCall, backend: &Backend) -> ProxyError {
    let (url, engine, path) = (&backend.url, backend.engine(), api.path());
    let cause =
        format!("the backend {url} ({}) does not have {path}, and a call of it can't be translated", engine.as_str());
    ProxyError::new(ErrorKind::Untranslatable, "", cause)
}

pub(super) fn malformed(cause: &str) -> ProxyError {
    ProxyError::new(ErrorKind::CallMalformed, "", cause)
}

/// The parameters of a query that are forwarded. Clients also put API keys there.
fn forwarded_query(query: &str) -> String {
    let is_forwarded = |pair: &&str| FORWARDED_PARAMETERS.contains(&pair.split('=').next().unwrap_or_default());
    let pairs: Vec<&str> = query.split('&').filter(is_forwarded).collect();
    if pairs.is_empty() { String::new() } else { format!("?{}", pairs.join("&")) }
}

/// The sampling temperatures that Agent Lightning 1.0 sets by default.
const V1_TRAIN_TEMPERATURE: f64 = 1.0;
const V1_VAL_TEMPERATURE: f64 = 0.7;
const FORWARDED_HEADERS: &[&str] =
    &["accept", "user-agent", "traceparent", "tracestate", "x-request-id", "x-client-request-id"];
const FORWARDED_PARAMETERS: [&str; 3] = ["alt", "api-version", "beta"];

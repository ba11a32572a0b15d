//! The request to a backend, made from an agent's call: with the backend's name of the model, sampling parameters, and a request
//! for token ids. It is translated if the backend does not have the agent's API.
//!
//! Without translation the body is the agent's, except for the fields that are set. Only what differs from the agent's body is
//! held a second time.

use super::backends::Backend;
use super::body_edits::{SamplingEdits, asks_openly, body_edits, model_at};
use super::call::GatewayCall;
use super::routing::ApiSurface;
use super::settings::{GatewaySettings, Translate};
use super::stored_responses::UnansweredRequest;
use crate::capture::{EditedBytes, HeldBytes, Memory, MemoryUse};
use crate::error::{ErrorKind, ProxyError};
use crate::llm::api::{ANTHROPIC_MESSAGES, ApiCall, ErrorShape, OPENAI_CHAT};
use crate::llm::engine::{Engine, TokenCounter, Tokenizer};
use crate::llm::operation::Operation;
use crate::llm::token_ids::{InjectedRequest, Stripping, TokenIdPlan};
use crate::llm::translate::{self, GeminiPath, SourceApi, TranslatedRequest, TranslationOptions, source_of, to_chat};
use crate::trace::SamplerArrays;
use crate::trace::exchange::{Injection, Withheld};
use crate::wire::json_edit::edited;
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
    /// Why token ids are not asked for, though the backend's engine gives some.
    pub(super) withheld: Option<Withheld>,
    /// The header fields to send, without `Content-Length`.
    pub(super) headers: HeaderMap,
    pub(super) handling: ResponseHandling,
    /// The places of what a translation left out because it has no effect on the response.
    pub(super) dropped: Vec<String>,
    /// The line about billing that a translation left out of the system prompt.
    pub(super) billing_line: Option<String>,
    /// Nothing is to be sampled, and the translation can't express that.
    pub(super) is_warmup: bool,
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
        let (mut dropped, mut billing_line, mut is_warmup, mut unanswered) = (Vec::new(), None, false, None);
        let (mut body, mut target, handling) =
            if passes_unchanged(requested, backend) && !is_translated(call, &text, backend, settings) {
                (EditedBytes::from(Arc::clone(&call.body)), requested.clone(), ResponseHandling::PassOn)
            } else if counts_tokens(requested) {
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
                is_warmup = translated.is_warmup;
                text = serde_json::to_vec(&translated.body).unwrap_or_default();
                let body = HeldBytes::of(memory, MemoryUse::GatewayRequest, &text);
                let handling = ResponseHandling::Translate(requested.api.error_shape, translated.response);
                (body.into(), ApiCall::chat_completions(), handling)
            };
        if target.has_model_in_path() {
            target.model = Some(model_at(call, backend));
        }
        // The one token of a warm-up call is thrown away.
        let sampling = if is_warmup { SamplingEdits::Keep } else { SamplingEdits::Set };
        let (edits, beyond) = body_edits(call, &target, (&text, sampling), backend, settings)?;
        dropped.extend(beyond);
        (text, body) = (edited(&text, &edits), body.edited(&edits));
        let path = target.path();
        let query = if matches!(handling, ResponseHandling::PassOn) {
            forwarded_query(&call.route.query)
        } else {
            String::new()
        };
        let mut headers = headers_for(call, backend, target.api.request_headers);
        let plan = token_id_plan(call, &target, backend, settings, arrays);
        let (injected, withheld) = match plan.map(|plan| plan.apply(&text, &mut headers)) {
            Some(Ok(injected)) => (Some(injected), None),
            Some(Err(reason)) => (None, reason),
            None => (None, None),
        };
        Ok(Self {
            target: format!("{}{path}{query}", target.api.base_path_at(&backend.base_path)),
            body,
            injected,
            withheld,
            headers,
            handling,
            dropped,
            billing_line,
            is_warmup,
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

    /// What was added to the request, for its span.
    pub(super) fn injection(&self) -> Injection {
        let injection = self.injected.as_ref().map(|injected| injected.injection.clone());
        injection.unwrap_or_else(|| Injection::withheld(self.withheld))
    }

    /// The same request without the fields that only Tracewire asks for, which the backend rejected.
    pub(super) fn without_injection(mut self) -> Self {
        self.withheld = Some(Withheld::Rejected);
        if let Some(injected) = self.injected.take() {
            // The names of body fields are among them; no header has those.
            for name in injected.injection.fields {
                self.headers.remove(name);
            }
        }
        self
    }
}

/// True for an API of which a backend gets the calls as they are. Nothing is translated from an engine's own API: a backend
/// of another engine answers that it does not have it.
fn passes_unchanged(call: &ApiCall, backend: &Backend) -> bool {
    let counts = counts_tokens(call) && token_counter(backend) == Some(TokenCounter::CountTokens);
    counts || call.api.is_at_root() || backend.speaks(call.api)
}

fn counts_tokens(call: &ApiCall) -> bool {
    call.api == &ANTHROPIC_MESSAGES && call.operation() == Operation::CountTokens
}

fn token_counter(backend: &Backend) -> Option<TokenCounter> {
    backend.engine().assumed().spec().token_counter
}

/// True for a call that is translated although the backend has its API.
fn is_translated(call: &GatewayCall, text: &[u8], backend: &Backend, settings: &GatewaySettings) -> bool {
    let Some((source, _)) = source_of(&call.route.api, &call.route.query).filter(|_| backend.speaks(&OPENAI_CHAT))
    else {
        return false;
    };
    match settings.translate {
        Translate::Always => !counts_tokens(&call.route.api),
        Translate::Missing => {
            source == SourceApi::Responses
                && backend.engine().assumed() != Engine::OPENAI
                && translate::is_for_service_only(text)
        }
    }
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
    let Some(TokenCounter::Tokenizer(tokenizer)) = token_counter(backend) else {
        return Err(unsupported(&call.route.api, backend));
    };
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
        withheld: None,
        headers: headers_for(call, backend, &[]),
        handling: ResponseHandling::CountTokens(tokenizer),
        dropped: translated.dropped,
        billing_line: translated.billing_line,
        is_warmup: false,
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

/// The parameters of a query that are forwarded. Clients also put API keys there.
fn forwarded_query(query: &str) -> String {
    let is_forwarded = |pair: &&str| FORWARDED_PARAMETERS.contains(&pair.split('=').next().unwrap_or_default());
    let pairs: Vec<&str> = query.split('&').filter(is_forwarded).collect();
    if pairs.is_empty() { String::new() } else { format!("?{}", pairs.join("&")) }
}

const FORWARDED_HEADERS: &[&str] =
    &["accept", "user-agent", "traceparent", "tracestate", "x-request-id", "x-client-request-id"];
const FORWARDED_PARAMETERS: [&str; 3] = ["alt", "api-version", "beta"];

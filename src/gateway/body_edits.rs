//! The fields that are set in the body of a call: the backend's name of the model, sampling parameters, limits of the answer's
//! length, and requests for token ids that the agent sees.

use super::backends::Backend;
use super::call::GatewayCall;
use super::routing::{ApiSurface, CallMode};
use super::settings::{GatewaySettings, Sampling};
use crate::error::{ErrorKind, ProxyError};
use crate::llm::api::{ApiCall, OPENAI_CHAT, OPENAI_COMPLETIONS};
use crate::llm::token_ids::{Logprobs, open_request, takes_open_request};
use crate::wire::json_edit::{Edits, Object, edited};
use serde_json::json;

/// A field, and its value as JSON.
type Field = (String, String);

/// Whether the sampling parameters of settings and registrations are set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SamplingEdits {
    /// They are set.
    Set,
    /// The call keeps its own: nothing is sampled, or what is sampled is thrown away.
    Keep,
}

/// What changes in the body of a call, and the names of limits that are lifted.
pub(super) fn body_edits(
    call: &GatewayCall,
    target: &ApiCall,
    (body, sampling): (&[u8], SamplingEdits),
    backend: &Backend,
    settings: &GatewaySettings,
) -> Result<(Edits, Vec<String>), ProxyError> {
    let root = Object::find(body).ok_or_else(|| malformed("the body is not a JSON object"))?;
    let mut fields = open_fields(call, target, backend, settings);
    let model = model_at(call, backend);
    // Servers with an API of their own have one model, and some have no field for it.
    let takes_model = !target.has_model_in_path() && (!target.api.is_at_root() || root.has("model"));
    if !model.is_empty() && takes_model {
        fields.push(("model".to_owned(), json!(model).to_string()));
    }
    if sampling == SamplingEdits::Keep || !target.operation().samples() {
        return Ok((root.set(&fields), Vec::new()));
    }
    let objects = target.api.sampling.objects;
    let Some(inner) = objects.iter().find(|name| root.has(name)).or(objects.first()) else {
        let (mut sampling, lifted) = sampling_fields(call, target, &root, (backend, body.len()), settings)?;
        // What the gateway asks for itself wins.
        sampling.retain(|(name, _)| fields.iter().all(|(own, _)| own != name));
        fields.extend(sampling);
        return Ok((root.set(&fields), lifted));
    };
    let before = root.value(inner).filter(|value| *value != b"null").unwrap_or(b"{}");
    let not_an_object = || malformed(&format!("{inner} is not a JSON object"));
    // SGLang takes a list, with an object for each prompt. It passes if nothing is to be set.
    let is_list = before.starts_with(b"[");
    let object = Object::find(if is_list { b"{}" } else { before }).ok_or_else(not_an_object)?;
    let (sampling, lifted) = sampling_fields(call, target, &object, (backend, body.len()), settings)?;
    if is_list && !sampling.is_empty() {
        return Err(not_an_object());
    }
    if !sampling.is_empty() {
        let after = String::from_utf8(edited(before, &object.set(&sampling)));
        fields.push(((*inner).to_owned(), after.map_err(|_| malformed("the body is not UTF-8"))?));
    }
    Ok((root.set(&fields), lifted))
}

/// The sampling parameters that are set, and the names of limits that are lifted. An error if the API has no equivalent of one.
fn sampling_fields(
    call: &GatewayCall,
    target: &ApiCall,
    object: &Object<'_>,
    (backend, body_bytes): (&Backend, usize),
    settings: &GatewaySettings,
) -> Result<(Vec<Field>, Vec<String>), ProxyError> {
    let sampling = match call.mode {
        Some(CallMode::Train) => settings.train,
        Some(CallMode::Val) => settings.val,
        None => Sampling::default(),
    };
    let defaults = (call.route.surface == ApiSurface::V1).then_some(()).and(call.mode).map(|mode| match mode {
        CallMode::Train => V1_TRAIN_TEMPERATURE,
        CallMode::Val => V1_VAL_TEMPERATURE,
    });
    let mut fields: Vec<(&str, String)> = Vec::new();
    let float = |value: f64| json!(value).to_string();
    fields.extend(sampling.temperature.or(defaults).map(|value| ("temperature", float(value))));
    fields.extend(sampling.top_p.map(|value| (target.api.sampling.name("top_p"), float(value))));
    fields.extend(sampling.max_tokens.into_iter().flat_map(|max| target.api.limit_length(object, max)));
    for (requested, value) in &call.registration.sampling {
        let name = target.api.sampling.name(requested);
        if !target.api.sampling.has(name) {
            let cause = format!("sampling_params.{requested} of the rollout has no equivalent in {}", target.api.name);
            return Err(ProxyError::new(ErrorKind::Untranslatable, "", cause));
        }
        fields.retain(|(earlier, _)| *earlier != name);
        fields.push((name, value.to_string()));
    }
    let mut fields: Vec<Field> = fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    let mut lifted = Vec::new();
    if settings.limit_to_context {
        lifted = limits_beyond_context(target, object, &fields, backend, body_bytes);
        fields.retain(|(name, _)| !lifted.contains(name));
        // Engines then sample up to the end of the context.
        fields.extend(lifted.iter().map(|name| (name.clone(), "null".to_owned())));
    }
    Ok((fields, lifted))
}

/// The fields that ask for token ids as if the agent did.
fn open_fields(call: &GatewayCall, target: &ApiCall, backend: &Backend, settings: &GatewaySettings) -> Vec<Field> {
    if !asks_openly(call, target, backend) {
        return Vec::new();
    }
    let wants_logprobs = call.mode == Some(CallMode::Train) && settings.include_log_probs;
    let logprobs = if wants_logprobs { Logprobs::Yes } else { Logprobs::No };
    let fields = open_request(target.api, backend.engine().known(), logprobs);
    fields.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// The limits of the answer's length that, with the prompt, exceed the backend's context: engines refuse such calls. The
/// length of the prompt is estimated.
fn limits_beyond_context(
    target: &ApiCall,
    object: &Object<'_>,
    fields: &[Field],
    backend: &Backend,
    body_bytes: usize,
) -> Vec<String> {
    let Some(context) = backend.context_tokens() else { return Vec::new() };
    let prompt = body_bytes as u64 / BYTES_PER_TOKEN;
    let is_beyond = |name: &&&'static str| {
        let set = fields.iter().rev().find(|(field, _)| field == **name).map(|(_, value)| value.as_bytes());
        let limit = set.or_else(|| object.value(name)).and_then(|value| serde_json::from_slice::<u64>(value).ok());
        limit.is_some_and(|limit| limit.saturating_add(prompt) >= context)
    };
    target.api.length_limits.iter().filter(is_beyond).map(|name| (*name).to_owned()).collect()
}

/// The model, as the backend calls it. A backend for any model gets the name that the call was matched by.
pub(super) fn model_at(call: &GatewayCall, backend: &Backend) -> String {
    if backend.model.is_empty() { call.model.clone() } else { backend.model.clone() }
}

/// True for a call on the routes and APIs of Agent Lightning 1.0. Token ids are then requested as if the agent did, and stay in
/// the response.
pub(super) fn asks_openly(call: &GatewayCall, target: &ApiCall, backend: &Backend) -> bool {
    call.route.surface == ApiSurface::V1
        && [&OPENAI_CHAT, &OPENAI_COMPLETIONS].contains(&target.api)
        && takes_open_request(target.api, backend.engine().known())
}

pub(super) fn malformed(cause: &str) -> ProxyError {
    ProxyError::new(ErrorKind::CallMalformed, "", cause)
}

/// The bytes of a request's JSON that are counted as one token. Most texts have more bytes a token, so that the estimate is
/// rather too high.
const BYTES_PER_TOKEN: u64 = 4;

/// The sampling temperatures that Agent Lightning 1.0 sets by default.
const V1_TRAIN_TEMPERATURE: f64 = 1.0;
const V1_VAL_TEMPERATURE: f64 = 0.7;

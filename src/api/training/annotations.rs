//! Values for the tokens of a call, such as a trainer's advantages: stored as a span below the call's, and listed with the calls.

use crate::api::posted_span::{self, PostedSpanPlace};
use crate::api::request_json::read;
use crate::api::respond::{ApiError, ApiResult, ok};
use crate::api::state::ApiState;
use crate::trace::semconv as names;
use crate::trace::{Span, Value};
use axum::extract::{Path, State};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::time::SystemTime;
use utoipa::ToSchema;

/// Values for the tokens of a call.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewAnnotation {
    /// What they are, such as `advantage`, at most 64 characters. Of annotations with one name, the latest is shown.
    name: String,
    /// One for each sampled token, or one for each token of the prompt and each sampled one.
    values: Vec<f64>,
    /// Which answer of the call, if it has several; from 0.
    #[serde(default)]
    choice: usize,
}

/// An annotation that was stored.
#[derive(Serialize, ToSchema)]
pub(super) struct StoredAnnotation {
    /// The span that has it.
    span_id: String,
}

/// `POST /v1/tracewire/rollouts/{rollout}/attempts/{attempt}/spans/{span}/annotations`
pub(super) async fn add(
    State(state): State<ApiState>,
    Path((rollout, attempt, span)): Path<(String, String, String)>,
    body: Bytes,
) -> ApiResult {
    let annotation: NewAnnotation = read(&body)?;
    let call = state.rollouts.store().span(rollout.as_str().into(), attempt.as_str().into(), span.clone()).await?;
    let call = call.ok_or_else(|| ApiError::NotFoundPlain(format!("Span {span} not found")))?;
    annotation.check(&call)?;
    let span = annotation.into_span(&call, &state).await;
    let stored = StoredAnnotation { span_id: span.span_id.clone() };
    posted_span::store(&state, span).await?;
    ok(stored)
}

impl NewAnnotation {
    /// Checks the values against the tokens that the span of the call has.
    fn check(&self, call: &Span) -> ApiResult<()> {
        if self.name.trim().is_empty() || self.name.chars().count() > MAX_NAME_CHARACTERS {
            let message = format!("a name has 1 to {MAX_NAME_CHARACTERS} characters");
            return Err(ApiError::of_value(&["body", "name"], message, self.name.as_str()));
        }
        let tokens = |name: &str| match call.attributes.get(name) {
            Some(Value::Ints(ids)) => ids.len(),
            _ => 0,
        };
        let suffix = if self.choice == 0 { String::new() } else { format!(".{}", self.choice) };
        let sampled = tokens(&format!("{}{suffix}", names::RESPONSE_TOKEN_IDS));
        let prompt = tokens(&format!("{}{suffix}", names::PROMPT_TOKEN_IDS));
        let prompt = if prompt == 0 { tokens(names::PROMPT_TOKEN_IDS) } else { prompt };
        if sampled == 0 {
            let message = "the span has no sampled tokens of this answer";
            return Err(ApiError::of_value(&["body", "choice"], message, self.choice));
        }
        if ![sampled, prompt + sampled].contains(&self.values.len()) {
            let found = self.values.len();
            let message = format!(
                "there are {found} values; the call has {sampled} sampled tokens, {} with its prompt: send one for each",
                prompt + sampled
            );
            return Err(ApiError::of_value(&["body", "values"], message, found));
        }
        match self.values.iter().position(|value| !value.is_finite()) {
            Some(at) => Err(ApiError::of_value(&["body", "values"], format!("value {at} is no finite number"), at)),
            None => Ok(()),
        }
    }

    async fn into_span(self, call: &Span, state: &ApiState) -> Span {
        let place = PostedSpanPlace {
            rollout: &call.rollout_id,
            attempt: &call.attempt_id,
            trace_id: call.trace_id.clone(),
            parent_id: call.span_id.clone(),
        };
        let mut span = place.annotation(state, SystemTime::now().into()).await;
        span.set(names::ANNOTATION_NAME, self.name);
        span.set(names::ANNOTATION_CHOICE, i64::try_from(self.choice).unwrap_or(i64::MAX));
        span.set(names::ANNOTATION_VALUES, Value::Floats(self.values));
        span
    }
}

/// An annotation in the list of calls.
#[derive(Serialize)]
pub(super) struct AnnotationRef {
    name: String,
    span_id: String,
}

/// The annotations of an attempt, by the span of their call and its answer: of each name the latest.
pub(super) fn annotations(spans: &[Span]) -> HashMap<(String, usize), Vec<AnnotationRef>> {
    let mut found: HashMap<_, Vec<AnnotationRef>> = HashMap::new();
    for span in spans {
        let Some(name) = span.attributes.get(names::ANNOTATION_NAME).and_then(Value::as_str) else { continue };
        let Some(call) = &span.parent_id else { continue };
        let choice = span.attributes.get(names::ANNOTATION_CHOICE).and_then(Value::as_int).unwrap_or_default();
        let of_call = found.entry((call.clone(), usize::try_from(choice).unwrap_or_default())).or_default();
        of_call.retain(|other| other.name != name);
        if of_call.len() < MAX_ANNOTATIONS {
            of_call.push(AnnotationRef { name: name.to_owned(), span_id: span.span_id.clone() });
        }
    }
    found
}

const MAX_NAME_CHARACTERS: usize = 64;
/// Annotations of one answer that are listed.
const MAX_ANNOTATIONS: usize = 32;

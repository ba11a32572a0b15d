//! Views of one rollout: of its latest attempt.

use super::annotations::annotations;
use super::attempts::latest;
use crate::api::respond::{ApiResult, ok};
use crate::api::state::ApiState;
use crate::export::sample::{AttemptSample, SampleOptions};
use crate::export::shapes::shape_named;
use crate::trace::{AttemptedRollout, Span};
use axum::extract::{Path, State};
use axum::response::Response;
use serde_json::{Value as JsonValue, json};

/// `GET /v1/tracewire/rollouts/{rollout}/trajectory`
pub(super) async fn trajectory(State(state): State<ApiState>, Path(rollout): Path<String>) -> ApiResult {
    let sample = sample(&state, &rollout).await?;
    ok(json!({
        "rollout_id": sample.rollout.rollout_id,
        "attempt_id": sample.attempt_id,
        "calls": calls_json(&sample),
        "rows": sample.rows,
        "proof": sample.proof(),
        "verdict": verdict_json(&sample),
    }))
}

/// `GET /v1/tracewire/rollouts/{rollout}/calls`
pub(super) async fn calls(State(state): State<ApiState>, Path(rollout): Path<String>) -> ApiResult {
    let (found, spans) = latest(&state, &rollout).await?;
    let annotations = annotations(&spans);
    let sample = sample_of(found, &spans, &state);
    let mut calls = calls_json(&sample);
    for (json, call) in calls.iter_mut().zip(&sample.tree.calls) {
        let of_call = annotations.get(&(call.span_id.clone(), call.choice));
        json["annotations"] = json!(of_call.map(Vec::as_slice).unwrap_or_default());
    }
    ok(json!({
        "rollout_id": sample.rollout.rollout_id,
        "attempt_id": sample.attempt_id,
        "calls": calls,
        "verdict": verdict_json(&sample),
    }))
}

/// The tree: each call with its parent and its break, without its tokens.
fn calls_json(sample: &AttemptSample) -> Vec<JsonValue> {
    let (calls, nodes) = (&sample.tree.calls, &sample.tree.nodes);
    let node = |(call, node): (&crate::trajectory::Call, &crate::trajectory::CallNode)| {
        json!({
            "span_id": call.span_id,
            "sequence_id": call.sequence_id,
            "choice": call.choice,
            "role": call.role.as_str(),
            "parent": node.parent,
            "prompt_tokens": call.prompt.len(),
            "sampled_tokens": call.sampled.len(),
            "trained_tokens": if call.exclusion.is_none() { node.trainable } else { 0 },
            "exclusion": call.exclusion,
            "n_siblings": node.n_siblings,
            "break": node.diagnosis,
        })
    };
    calls.iter().zip(nodes).map(node).collect()
}

/// `GET /v1/tracewire/rollouts/{rollout}/triplets`
pub(super) async fn triplets(State(state): State<ApiState>, Path(rollout): Path<String>) -> ApiResult {
    shaped(&state, &rollout, "agent-lightning-0.3").await
}

/// `GET /v1/tracewire/rollouts/{rollout}/messages`
pub(super) async fn messages(State(state): State<ApiState>, Path(rollout): Path<String>) -> ApiResult {
    shaped(&state, &rollout, "messages").await
}

/// `GET /v1/tracewire/rollouts/{rollout}/reward`
pub(super) async fn reward(State(state): State<ApiState>, Path(rollout): Path<String>) -> ApiResult {
    let sample = sample(&state, &rollout).await?;
    let last = crate::trajectory::final_reward(&sample.record.rewards).map(|reward| reward.value);
    ok(json!({ "reward": last, "rewards": sample.record.rewards }))
}

/// `GET /v1/tracewire/rollouts/{rollout}/verdict`
pub(super) async fn verdict(State(state): State<ApiState>, Path(rollout): Path<String>) -> ApiResult {
    ok(verdict_json(&sample(&state, &rollout).await?))
}

fn verdict_json(sample: &AttemptSample) -> JsonValue {
    json!({ "sound": sample.verdict.is_sound(), "reasons": sample.verdict.reasons })
}

async fn shaped(state: &ApiState, rollout: &str, shape: &str) -> ApiResult<Response> {
    let sample = sample(state, rollout).await?;
    ok(shape_named(shape).map(|shape| shape.lines(&sample)).unwrap_or_default())
}

/// The latest attempt of a rollout.
async fn sample(state: &ApiState, rollout: &str) -> ApiResult<AttemptSample> {
    let (found, spans) = latest(state, rollout).await?;
    Ok(sample_of(found, &spans, state))
}

/// Makes the sample of an attempt, on a thread where that may take its time.
fn sample_of(found: AttemptedRollout, spans: &[Span], state: &ApiState) -> AttemptSample {
    let AttemptedRollout { rollout, attempt } = found;
    let options = sample_options(state);
    tokio::task::block_in_place(|| AttemptSample::of(rollout, attempt.as_ref(), spans, &options))
}

/// How samples are made, by the settings.
pub(super) fn sample_options(state: &ApiState) -> SampleOptions {
    SampleOptions { verdict: (*state.verdict).clone(), ..SampleOptions::default() }
}

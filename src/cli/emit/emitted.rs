//! The spans of `emit`, `reward` and `worker`, and how a server gets them.

use crate::cli::client::{ServerClient, ServerResponse};
use crate::trace::span::Resource;
use crate::trace::{AttemptId, RolloutId, Span, SpanId, TraceId};
use crate::tracer::NewSpan;
use anyhow::{Context, Result};
use http::Method;
use serde_json::json;
use std::time::SystemTime;

/// A span of an attempt that starts and ends now, without a sequence id and without a parent.
pub(crate) fn emitted_span(rollout: &str, attempt: &str, new: NewSpan) -> Span {
    let (rollout_id, attempt_id) = (RolloutId::from(rollout), AttemptId::from(attempt));
    let (name, attributes, status) = new.into_parts();
    let now = Some(SystemTime::now().into());
    Span {
        sequence_id: 0,
        trace_id: TraceId::of_attempt(&rollout_id, &attempt_id).to_string(),
        span_id: SpanId::from_random(fastrand::u64(..)).to_string(),
        parent_id: None,
        name,
        kind: Some(crate::trace::SpanKind::Internal),
        status,
        attributes,
        events: Vec::new(),
        links: Vec::new(),
        start_time: now,
        end_time: now,
        context: None,
        parent: None,
        resource: Resource::default(),
        rollout_id,
        attempt_id,
    }
}

/// Stores a span with the next sequence id of its rollout. Retries for at most two minutes.
pub(crate) async fn send_span(server: &ServerClient, span: Span) -> Result<ServerResponse> {
    let ids = json!({ "rollout_id": span.rollout_id, "attempt_id": span.attempt_id });
    let next = server.call_with_retries(Method::POST, "/v1/agl/spans/next", Some(&ids)).await?.into_success()?;
    let sequence_id = next.body["sequence_id"]
        .as_u64()
        .context("the server returned no sequence id; check that it speaks Agent Lightning 0.3")?;
    let span = serde_json::to_value(Span { sequence_id, ..span })?;
    server.call_with_retries(Method::POST, "/v1/agl/spans", Some(&span)).await?.into_success()
}

#[derive(Debug, thiserror::Error)]
#[error("a reward must be a finite number")]
pub(crate) struct NotFinite;

/// Parses a reward.
pub(crate) fn finite_number(text: &str) -> Result<f64, NotFinite> {
    text.parse::<f64>().ok().filter(|number| number.is_finite()).ok_or(NotFinite)
}

/// The name of the reward that trainers use.
pub(crate) const PRIMARY: &str = "primary";

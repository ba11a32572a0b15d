//! The spans that handlers make of what clients post about an attempt, such as rewards and values for tokens.

use super::respond::ApiResult;
use super::state::ApiState;
use crate::trace::semconv::SCHEMA_URL;
use crate::trace::span::{Resource, SpanContext};
use crate::trace::{AttemptId, RolloutId, Span, SpanId, SpanKind, Status, StatusCode, Timestamp};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Where a posted span belongs.
pub(super) struct PostedSpanPlace<'a> {
    pub(super) rollout: &'a RolloutId,
    pub(super) attempt: &'a AttemptId,
    pub(super) trace_id: String,
    /// The id of the span above it.
    pub(super) parent_id: String,
}

impl PostedSpanPlace<'_> {
    /// An annotation at this place, without duration and attributes. Limits and sampling keep spans of this name.
    pub(super) async fn annotation(self, state: &ApiState, now: Timestamp) -> Span {
        let Self { rollout, attempt, trace_id, parent_id } = self;
        let span_id = SpanId::from_random(fastrand::u64(..)).to_string();
        let context = |span_id: &str| SpanContext {
            trace_id: trace_id.clone(),
            span_id: span_id.to_owned(),
            is_remote: false,
            trace_state: BTreeMap::new(),
        };
        Span {
            rollout_id: rollout.clone(),
            attempt_id: attempt.clone(),
            sequence_id: state.sequences.next(rollout).await,
            name: "agentlightning.annotation".to_owned(),
            kind: Some(SpanKind::Internal),
            status: Status { status_code: StatusCode::Ok, description: None },
            attributes: BTreeMap::new(),
            events: Vec::new(),
            links: Vec::new(),
            start_time: Some(now),
            end_time: Some(now),
            context: Some(context(&span_id)),
            parent: Some(context(&parent_id)),
            resource: Resource { schema_url: SCHEMA_URL.to_owned(), ..Resource::default() },
            trace_id,
            span_id,
            parent_id: Some(parent_id),
        }
    }
}

/// Stores a span that a handler has made.
pub(super) async fn store(state: &ApiState, mut span: Span) -> ApiResult<()> {
    state.adopt(&mut span);
    state.rollouts.append(vec![Arc::new(span)]).await?;
    Ok(())
}

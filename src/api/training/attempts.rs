//! Reads the latest attempt of a rollout.

use crate::api::respond::{ApiError, ApiResult};
use crate::api::state::ApiState;
use crate::store::{RolloutFilter, StoreExt};
use crate::trace::{AttemptedRollout, RolloutId, Span};

/// A rollout with its latest attempt, and the attempt's spans.
pub(super) async fn latest(state: &ApiState, rollout: &str) -> ApiResult<(AttemptedRollout, Vec<Span>)> {
    let filter = RolloutFilter::of_ids(vec![RolloutId::from(rollout)]);
    let store = state.rollouts.store();
    let found = store.attempted_rollouts(filter).await?.into_iter().next();
    let found = found.ok_or_else(|| ApiError::NotFoundPlain(format!("Rollout {rollout} not found")))?;
    let attempt_id = found.attempt.as_ref().map(|attempt| attempt.attempt_id.clone());
    let spans = store.spans(found.rollout.rollout_id.clone(), attempt_id).await?;
    Ok((found, spans))
}

//! Where two rollouts part, in messages and in tokens.

use super::attempts::latest;
use crate::api::access::CallerAccess;
use crate::api::request_json::read_query;
use crate::api::respond::{ApiResult, ok};
use crate::api::state::ApiState;
use crate::export::spans::{Difference, TokenDifference};
use axum::Extension;
use axum::extract::{Path, RawQuery, State};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// The query of a comparison.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(super) struct DifferenceQuery {
    /// The rollout to compare with.
    other: String,
}

/// Where the conversations of the main agents of two rollouts part.
#[derive(Serialize, ToSchema)]
pub(super) struct DifferenceView {
    /// Messages that both begin with.
    common_messages: usize,
    /// Whether neither has a message after these.
    same_messages: bool,
    /// The first token that differs; null if the calls that both have, have the same ids or none.
    #[schema(value_type = Option<Object>)]
    tokens: Option<TokenDifference>,
}

/// `GET /v1/tracewire/rollouts/{rollout}/difference`
pub(super) async fn difference(
    State(state): State<ApiState>,
    Extension(caller): Extension<CallerAccess>,
    Path(rollout): Path<String>,
    RawQuery(query): RawQuery,
) -> ApiResult {
    let DifferenceQuery { other } = read_query(query.as_deref())?;
    caller.require(&other)?;
    let (_, one) = latest(&state, &rollout).await?;
    let (_, other) = latest(&state, &other).await?;
    let Difference { common_messages, same_messages, tokens, .. } =
        tokio::task::block_in_place(|| Difference::of([&one, &other]));
    ok(DifferenceView { common_messages, same_messages, tokens })
}

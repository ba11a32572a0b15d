//! What a person needs to send an agent's traffic through Tracewire.

use crate::api::respond::{ApiResult, ok};
use crate::api::state::ApiState;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

/// How to reach the proxy.
#[derive(Serialize, ToSchema)]
pub(super) struct ConnectView {
    /// Address of the proxy listener. Its path `/ca.pem` has the public CA certificate.
    proxy: String,
    /// Version of this program.
    version: &'static str,
    /// Whether callers of the API need a token.
    needs_token: bool,
}

/// `GET /v1/tracewire/connect`
pub(super) async fn view(State(state): State<ApiState>) -> ApiResult {
    ok(ConnectView {
        proxy: state.proxy_address.to_string(),
        version: env!("CARGO_PKG_VERSION"),
        needs_token: !state.tokens.is_empty(),
    })
}

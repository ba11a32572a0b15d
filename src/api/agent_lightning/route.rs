//! A row of the route table: it makes both the router and the OpenAPI document.

use crate::api::state::ApiState;
use axum::routing::MethodRouter;

/// A path with its handlers and their description.
pub(super) struct Route {
    pub(super) path: &'static str,
    pub(super) methods: MethodRouter<ApiState>,
    pub(super) operations: &'static [Operation],
}

/// The description of one method of a route.
pub(super) struct Operation {
    pub(super) method: &'static str,
    pub(super) summary: &'static str,
    /// The name of the request body's schema; empty without a body.
    pub(super) body: &'static str,
    /// The status code of success.
    pub(super) status: u16,
    /// The name of the response's schema.
    pub(super) answer: &'static str,
}

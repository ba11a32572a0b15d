//! The routes that trainers use.

use super::backends::{BackendView, Info, RemovedBackends};
use super::keys::{NewKey, RolloutKey};
use super::models::{Cleared, ModelView, NewModel};
use super::pause::{DrainRequest, PauseRequest};
use super::{backends, keys, models, pause};
use crate::api::access::RouteRollouts::{All, ByHandler};
use crate::api::route::{Route, delete, get, post, put};
use crate::api::schema::{list, one, one_or_list};
use crate::gateway::{BackendSettings, GateState, Reroute};
use axum::http::StatusCode;

/// The rows of the table.
pub(crate) fn routes() -> Vec<Route> {
    vec![
        get("/v1/tracewire/info", backends::info).read(All, "Get what a worker must know").returns(one::<Info>),
        get("/v1/tracewire/backends", backends::list).read(All, "List backends").returns(list::<BackendView>),
        post("/v1/tracewire/backends", backends::register)
            .admin(All, "Register backends, or change those with the same model and URL")
            .body(one_or_list::<BackendSettings>)
            .returns(list::<BackendView>),
        delete("/v1/tracewire/backends/{*id}", backends::remove)
            .admin(All, "Remove backends by id or URL")
            .returns(one::<RemovedBackends>),
        get("/v1/tracewire/reroutes", backends::reroutes).read(All, "List reroutes").returns(list::<Reroute>),
        put("/v1/tracewire/reroutes", backends::set_reroutes)
            .admin(All, "Replace all reroutes")
            .body(list::<Reroute>)
            .returns(list::<Reroute>),
        post("/v1/tracewire/keys", keys::create)
            .write(ByHandler, "Make an API key that names a rollout")
            .body(one::<NewKey>)
            .returns(one::<RolloutKey>),
        post("/proxy/pause", pause::pause)
            .admin(All, "Pause LLM calls")
            .body(one::<PauseRequest>)
            .returns(one::<GateState>),
        post("/proxy/resume", pause::resume).admin(All, "Resume LLM calls").returns(one::<GateState>),
        post("/proxy/drain", pause::drain)
            .admin(All, "Wait until no call is in flight; 504 at the timeout")
            .body(one::<DrainRequest>)
            .returns(one::<GateState>)
            .returns_as(StatusCode::GATEWAY_TIMEOUT, &["application/json"], one::<GateState>),
        get("/proxy/state", pause::state).read(All, "Get the state of the pause").returns(one::<GateState>),
        get("/api/models", models::list).read(All, "List models").returns(list::<ModelView>),
        post("/api/models", models::register)
            .admin(All, "Register models and their endpoints")
            .body(list::<NewModel>)
            .creates(list::<ModelView>),
        delete("/api/models", models::clear).admin(All, "Remove all backends").returns(one::<Cleared>),
    ]
}

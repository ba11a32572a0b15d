//! The routes of the page and of its data.

use super::assets;
use super::connect::{self, ConnectView};
use super::rollouts::{self, RolloutPage, RolloutPageQuery, RolloutRow};
use super::spans::{self, SpanPage, SpanPageQuery};
use crate::api::access::RouteRollouts::{All, ByHandler, InPath};
use crate::api::route::{Route, get};
use crate::api::schema::{one, text};
use crate::trace::Span;
use axum::http::StatusCode;

/// The files of the page. They contain nothing of what is stored.
pub(crate) fn page_routes() -> Vec<Route> {
    let types = &["text/html", "text/javascript", "text/css", "image/svg+xml"];
    vec![
        get("/ui", assets::redirect).open("Go to the web page").returns_as(StatusCode::SEE_OTHER, &[], text),
        get("/ui/", assets::index).open("Get the web page").returns_as(StatusCode::OK, &["text/html"], text),
        get("/ui/{file}", assets::file).open("Get a file of the web page").returns_as(StatusCode::OK, types, text),
    ]
}

/// What the page reads.
pub(crate) fn routes() -> Vec<Route> {
    let rollout = InPath("rollout");
    vec![
        get("/v1/tracewire/rollouts", rollouts::list)
            .read(ByHandler, "List the rollouts that match a query, newest first, with counts")
            .query::<RolloutPageQuery>()
            .returns(one::<RolloutPage>),
        get("/v1/tracewire/rollouts/{rollout}", rollouts::one_rollout)
            .read(rollout, "Get a rollout with counts")
            .returns(one::<RolloutRow>),
        get("/v1/tracewire/rollouts/{rollout}/spans", spans::list)
            .read(rollout, "List outlines of the spans of a rollout, in the order in which they were stored")
            .query::<SpanPageQuery>()
            .returns(one::<SpanPage>),
        get("/v1/tracewire/rollouts/{rollout}/attempts/{attempt}/spans/{span}", spans::one_span)
            .read(rollout, "Get a span with all its attributes")
            .returns(one::<Span>),
        get("/v1/tracewire/connect", connect::view)
            .read(All, "Get the address of the proxy and the public CA certificate, to set up agents")
            .returns(one::<ConnectView>),
    ]
}

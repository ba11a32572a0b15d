//! The routes of training data.

use super::annotations::{NewAnnotation, StoredAnnotation};
use super::difference::{DifferenceQuery, DifferenceView};
use super::quality::{Quality, QualityQuery};
use super::stream::ExportQuery;
use super::{annotations, difference, handlers, quality, stream};
use crate::api::access::RouteRollouts::{All, ByHandler, InPath};
use crate::api::route::{Route, get, post};
use crate::api::schema::{object, one, text};
use axum::http::StatusCode;

/// The rows of the table.
pub(crate) fn routes() -> Vec<Route> {
    let rollout = InPath("rollout");
    vec![
        get("/v1/tracewire/rollouts/{rollout}/trajectory", handlers::trajectory)
            .read(rollout, "Get the tree of a rollout's latest attempt, and its rows")
            .returns(object),
        get("/v1/tracewire/rollouts/{rollout}/calls", handlers::calls)
            .read(rollout, "Get the tree of a rollout's latest attempt without its tokens")
            .returns(object),
        get("/v1/tracewire/rollouts/{rollout}/triplets", handlers::triplets)
            .read(rollout, "Get the trained calls with their rewards, as Agent Lightning 0.3 has them")
            .returns(object),
        get("/v1/tracewire/rollouts/{rollout}/messages", handlers::messages)
            .read(rollout, "Get the conversations as chat messages with their tools")
            .returns(object),
        get("/v1/tracewire/rollouts/{rollout}/reward", handlers::reward)
            .read(rollout, "Get the rewards")
            .returns(object),
        get("/v1/tracewire/rollouts/{rollout}/verdict", handlers::verdict)
            .read(rollout, "Get whether the rollout is sound enough to train on, with the reasons against it")
            .returns(object),
        get("/v1/tracewire/rollouts/{rollout}/difference", difference::difference)
            .read(rollout, "Get where a rollout and another one part, in messages and in tokens")
            .query::<DifferenceQuery>()
            .returns(one::<DifferenceView>),
        post("/v1/tracewire/rollouts/{rollout}/attempts/{attempt}/spans/{span}/annotations", annotations::add)
            .write(rollout, "Add values for the tokens of a call, such as advantages")
            .body(one::<NewAnnotation>)
            .returns(one::<StoredAnnotation>),
        get("/v1/tracewire/quality", quality::quality)
            .read(
                All,
                "Get token ids by client, model and engine, breaks and reasons against training of the newest rollouts",
            )
            .query::<QualityQuery>()
            .returns(one::<Quality>),
        get("/v1/tracewire/export", stream::export)
            .read(ByHandler, "Export rollouts as training data, or their spans in the formats of other programs")
            .query::<ExportQuery>()
            .returns_as(StatusCode::OK, &["application/x-ndjson", "application/vnd.apache.parquet"], text),
    ]
}

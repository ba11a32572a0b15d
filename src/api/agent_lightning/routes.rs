//! The routes of the protocol.

use super::page::Paging;
use super::resources::ResourcesConditions;
use super::rollouts::{DequeueRequest, NewRollouts, RolloutConditions, StartedBy, WaitRequest};
use super::server::{Health, StoreStatistics};
use super::spans::{NextSequenceId, SequenceId, SpanConditions};
use super::workers::WorkerConditions;
use super::{resources, rollouts, server, spans, workers};
use crate::api::access::RouteRollouts::{All, ByHandler, InPath};
use crate::api::route::{Route, get, post};
use crate::api::schema::{both, list, nullable, object, one, page};
use crate::rollout::{AttemptChange, NewRollout, RolloutChange};
use crate::trace::{Attempt, AttemptedRollout, ResourcesUpdate, Rollout, Span, Worker};

/// The rows of the table.
pub(crate) fn routes() -> Vec<Route> {
    let [rollout_routes, other_routes] = [rollout_routes(), other_routes()];
    rollout_routes.into_iter().chain(other_routes).collect()
}

fn rollout_routes() -> Vec<Route> {
    let rollout = InPath("rollout");
    vec![
        post("/v1/agl/queues/rollouts/enqueue", rollouts::enqueue)
            .write(All, "Put new rollouts at the end of the queue")
            .body(one::<NewRollouts>)
            .creates(list::<Rollout>)
            .deduplicated(),
        post("/v1/agl/queues/rollouts/dequeue", rollouts::dequeue)
            .write(All, "Take rollouts from the front of the queue, each with a new attempt")
            .body(one::<DequeueRequest>)
            .returns(list::<AttemptedRollout>),
        get("/v1/agl/rollouts", rollouts::list)
            .read(All, "List rollouts")
            .query::<RolloutConditions>()
            .query::<Paging>()
            .returns(page::<AttemptedRollout>),
        post("/v1/agl/rollouts", rollouts::start)
            .write(All, "Start a rollout without the queue")
            .body(both::<NewRollout, StartedBy>)
            .creates(one::<AttemptedRollout>)
            .deduplicated(),
        post("/v1/agl/rollouts/search", rollouts::search)
            .read(All, "List rollouts")
            .body(both::<RolloutConditions, Paging>)
            .returns(page::<AttemptedRollout>),
        get("/v1/agl/rollouts/{rollout}", rollouts::one)
            .read(rollout, "Get a rollout")
            .returns(one::<AttemptedRollout>),
        post("/v1/agl/rollouts/{rollout}", rollouts::update)
            .write(rollout, "Change a rollout")
            .body(one::<RolloutChange>)
            .returns(one::<Rollout>),
        get("/v1/agl/rollouts/{rollout}/attempts", rollouts::attempts)
            .read(rollout, "List the attempts of a rollout")
            .query::<Paging>()
            .returns(page::<Attempt>),
        post("/v1/agl/rollouts/{rollout}/attempts", rollouts::start_attempt)
            .write(rollout, "Start another attempt")
            .body(one::<StartedBy>)
            .creates(one::<AttemptedRollout>)
            .deduplicated(),
        post("/v1/agl/rollouts/{rollout}/attempts/search", rollouts::search_attempts)
            .read(rollout, "List the attempts of a rollout")
            .body(one::<Paging>)
            .returns(page::<Attempt>),
        get("/v1/agl/rollouts/{rollout}/attempts/latest", rollouts::latest_attempt)
            .read(rollout, "Get the latest attempt")
            .returns(nullable::<Attempt>),
        post("/v1/agl/rollouts/{rollout}/attempts/latest", rollouts::update_attempt_latest)
            .write(rollout, "Change the latest attempt")
            .body(one::<AttemptChange>)
            .returns(one::<Attempt>),
        post("/v1/agl/rollouts/{rollout}/attempts/{attempt}", rollouts::update_attempt)
            .write(rollout, "Change an attempt; its rollout and worker follow")
            .body(one::<AttemptChange>)
            .returns(one::<Attempt>),
        post("/v1/agl/waits/rollouts", rollouts::wait)
            .read(All, "Wait until rollouts have ended")
            .body(one::<WaitRequest>)
            .returns(list::<Rollout>),
    ]
}

fn other_routes() -> Vec<Route> {
    vec![
        get("/v1/agl/health", server::health).open("Check that the server responds").returns(one::<Health>),
        get("/v1/agl/statistics", server::statistics)
            .read(All, "Get counts of the store")
            .returns(one::<StoreStatistics>),
        get("/v1/agl/workers", workers::list)
            .read(All, "List workers")
            .query::<WorkerConditions>()
            .query::<Paging>()
            .returns(page::<Worker>),
        post("/v1/agl/workers/search", workers::search)
            .read(All, "List workers")
            .body(both::<WorkerConditions, Paging>)
            .returns(page::<Worker>),
        get("/v1/agl/workers/{worker}", workers::one).read(All, "Get a worker").returns(nullable::<Worker>),
        post("/v1/agl/workers/{worker}", workers::update)
            .write(All, "Report a worker's heartbeat, with the optional field heartbeat_stats")
            .body(object)
            .returns(one::<Worker>),
        get("/v1/agl/resources", resources::list)
            .read(All, "List sets of resources")
            .query::<ResourcesConditions>()
            .query::<Paging>()
            .returns(page::<ResourcesUpdate>),
        post("/v1/agl/resources", resources::add)
            .write(All, "Add a set of resources by name, each with a resource_type: llm, proxy_llm or prompt_template")
            .body(object)
            .creates(one::<ResourcesUpdate>)
            .deduplicated(),
        get("/v1/agl/resources/latest", resources::latest)
            .read(All, "Get the set that was changed last")
            .returns(nullable::<ResourcesUpdate>),
        get("/v1/agl/resources/{resources}", resources::one)
            .read(All, "Get a set of resources")
            .returns(nullable::<ResourcesUpdate>),
        post("/v1/agl/resources/{resources}", resources::update)
            .write(All, "Add the next version of a set")
            .body(object)
            .returns(one::<ResourcesUpdate>),
        get("/v1/agl/spans", spans::list)
            .read(ByHandler, "List the spans of a rollout")
            .query::<SpanConditions>()
            .query::<Paging>()
            .returns(page::<Span>),
        post("/v1/agl/spans", spans::add)
            .agent(ByHandler, "Add a span; null for one that is stored already")
            .body(one::<Span>)
            .creates(nullable::<Span>),
        post("/v1/agl/spans/search", spans::search)
            .read(ByHandler, "List the spans of a rollout")
            .body(both::<SpanConditions, Paging>)
            .returns(page::<Span>),
        post("/v1/agl/spans/next", spans::next)
            .agent(ByHandler, "Allocate the next sequence id of a rollout")
            .body(one::<NextSequenceId>)
            .returns(one::<SequenceId>)
            .deduplicated(),
    ]
}

//! The routes of rLLM's gateway.

use super::records::TraceRecord;
use super::session::{CreatedSession, DeletedTraces, SessionPage, SessionView};
use super::workers::{RemovedWorker, RllmStatus, WeightVersion, WorkerView, WorkersHealth};
use super::{session, traces, workers};
use crate::api::access::RouteRollouts::{All, InPath};
use crate::api::gateway::backends::{NewWorker, RegisteredWorker};
use crate::api::route::{Route, delete, get, post};
use crate::api::schema::{list, object, one};

/// The rows of the table.
pub(crate) fn routes() -> Vec<Route> {
    let session_rollout = InPath("session");
    vec![
        get("/sessions", session::list)
            .read(All, "List sessions, newest first")
            .query::<SessionPage>()
            .returns(list::<SessionView>),
        post("/sessions", session::create)
            .write(All, "Create a session, with the optional fields session_id, metadata and sampling_params")
            .body(object)
            .returns(one::<CreatedSession>),
        post("/sessions/batch_delete", session::remove_many)
            .admin(All, "Delete the sessions in session_ids")
            .body(object)
            .returns(one::<DeletedTraces>),
        get("/sessions/{session}", session::one).read(session_rollout, "Get a session").returns(one::<SessionView>),
        delete("/sessions/{session}", session::remove)
            .admin(session_rollout, "Delete a session")
            .returns(one::<DeletedTraces>),
        get("/sessions/{session}/traces", traces::list)
            .read(session_rollout, "List the LLM calls of a session")
            .query::<SessionPage>()
            .returns(list::<TraceRecord>),
        post("/traces/query", traces::query)
            .write(All, "List the LLM calls of the sessions in session_ids")
            .body(one::<SessionPage>)
            .returns(list::<TraceRecord>),
        get("/traces/{*trace}", traces::one).read(All, "Get an LLM call").returns(one::<TraceRecord>),
        get("/admin/workers", workers::list).read(All, "List workers").returns(list::<WorkerView>),
        post("/admin/workers", workers::add)
            .admin(All, "Add a worker, or change the one with its id")
            .body(one::<NewWorker>)
            .returns(one::<RegisteredWorker>),
        delete("/admin/workers/{worker}", workers::remove).admin(All, "Remove a worker").returns(one::<RemovedWorker>),
        post("/admin/flush", workers::flush).write(All, "Wait until all calls are stored").returns(one::<RllmStatus>),
        post("/admin/reload", workers::reload).admin(All, "Reload caches").returns(one::<RllmStatus>),
        get("/admin/weight_version", workers::weight_version)
            .read(All, "Get the version of the weights")
            .returns(one::<WeightVersion>),
        post("/admin/weight_version", workers::set_weight_version)
            .admin(All, "Set the version of the weights of all workers")
            .body(one::<WeightVersion>)
            .returns(one::<WeightVersion>),
        get("/health", workers::health).open("Check that the server responds").returns(one::<RllmStatus>),
        get("/health/workers", workers::workers_health)
            .read(All, "Get the health of the workers")
            .returns(one::<WorkersHealth>),
    ]
}

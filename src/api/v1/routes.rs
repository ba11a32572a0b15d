//! The routes of the API.

use super::event_list::EventView;
use super::events::{EventQuery, NewEvent};
use super::model::{NewRolloutV1, RolloutChangeV1, RolloutView};
use super::rollouts::{ListQuery, RolloutWithAttempts, TerminalQuery, TerminalRollouts};
use super::{events, rollouts};
use crate::api::access::RouteRollouts::{All, InPath};
use crate::api::route::{Route, delete, get, patch, post};
use crate::api::schema::{list, one};

/// The rows of the table.
pub(crate) fn routes() -> Vec<Route> {
    let rollout = InPath("rollout");
    vec![
        get("/api/rollouts", rollouts::list)
            .read(All, "List rollouts in some states")
            .query::<ListQuery>()
            .returns(list::<RolloutView>),
        post("/api/rollouts", rollouts::create)
            .write(All, "Enqueue rollouts; those that exist are returned unchanged")
            .body(list::<NewRolloutV1>)
            .creates(list::<RolloutView>),
        get("/api/rollouts/terminal", rollouts::terminal)
            .read(All, "Read the log of ended rollouts")
            .query::<TerminalQuery>()
            .returns(one::<TerminalRollouts>),
        get("/api/rollouts/{rollout}", rollouts::one)
            .read(rollout, "Get a rollout, with the attempts that have events")
            .returns(one::<RolloutWithAttempts>),
        patch("/api/rollouts/{rollout}", rollouts::change)
            .write(rollout, "Change the status of a rollout")
            .body(one::<RolloutChangeV1>)
            .returns(one::<RolloutView>),
        delete("/api/rollouts/{rollout}", rollouts::remove).admin(rollout, "Delete a rollout").returns_nothing(),
        post("/api/rollouts/{rollout}/attempt/{attempt}/events", events::add)
            .agent(rollout, "Add an event")
            .body(one::<NewEvent>)
            .returns(one::<EventView<'_>>),
        get("/api/rollouts/{rollout}/events", events::list)
            .read(rollout, "List the events of the attempt that a controller named last")
            .query::<EventQuery>()
            .returns(list::<EventView<'_>>),
    ]
}

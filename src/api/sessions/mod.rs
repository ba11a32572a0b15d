//! rLLM's gateway API: sessions, which are rollouts, and traces, which are their LLM calls.

mod records;
mod routes;
mod session;
mod traces;
mod workers;

pub(super) use routes::routes;

//! The gateway in the API: LLM calls of agents, and the routes that trainers use to manage backends and pauses.

pub(super) mod backends;
pub(super) mod calls;
mod keys;
mod models;
mod pause;
mod routes;

pub(super) use routes::routes;

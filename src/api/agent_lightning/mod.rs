//! Agent Lightning's store protocol (0.3) under `/v1/agl`: its unmodified clients work with this URL.
//!
//! Where its server responds with 500 to a request for something that does not exist, this one responds with 404 and the
//! same text: its clients read the text, and do not retry.

mod body;
mod extra;
mod page;
mod resources;
mod rollout_list;
mod rollouts;
mod routes;
mod server;
mod span_list;
mod spans;
mod workers;

pub(super) use routes::routes;

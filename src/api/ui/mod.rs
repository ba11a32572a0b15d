//! The web page, and what it reads: pages of rollouts, outlines of spans, and single spans.
//!
//! No response grows with the number of spans that a rollout has: lists come in pages, and a span without its long attributes
//! until it is asked for. `page/` has the files of the page; it needs no build step.

mod assets;
mod connect;
mod outline;
mod rollouts;
mod routes;
mod spans;

pub(super) use routes::{page_routes, routes};

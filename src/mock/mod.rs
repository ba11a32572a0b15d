//! A mock LLM endpoint, for tests, experiments without an API key, and load tests.
//!
//! Responses are computed from the request: the same request always gets the same response. The only state is a bounded
//! list of received requests. With a script ([`Script`]) it plays that instead, and keeps a
//! bounded number of its answers, which requests of the responses API may refer to. It listens on loopback unless told otherwise, and checks no credentials.

mod amazon;
mod answered;
mod anthropic;
mod behavior;
mod content;
mod google;
mod openai;
mod options;
mod recorded_requests;
mod response;
mod responses;
mod script;
mod scripted;
mod server;
mod state;
mod tools;
mod websocket;

pub(crate) use options::MockOptions;
pub(crate) use script::Script;
pub(crate) use server::Mock;

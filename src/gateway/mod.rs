//! The LLM gateway: agents call it as if it were an LLM API, and it sends their calls to the model servers (backends) that a
//! trainer registered.
//!
//! Start with [`Gateway`], in `service`. A call takes this way:
//!
//! 1. `handle` receives it; `routing` and `caller` find out its API and its rollout, `read_call` reads it.
//! 2. `coalescing` gives a retry the response of the call that it repeats.
//! 3. `admission` checks the pause gate (`pause`) and the budget (`rollout_state`).
//! 4. `retry` selects a backend (`backend_selection`) and tries it (`backend_request`, `backend_try`, `backend_response`).
//! 5. `deliver` responds to the agent.
//!
//! This module must not import the store, the exporters or `llm::formats`. It reads what it has to know about rollouts through a
//! [`RolloutLookup`].

mod admission;
mod backend_request;
mod backend_response;
mod backend_selection;
mod backend_try;
mod backends;
mod body_edits;
mod cached_bytes;
mod cached_response;
mod call;
mod caller;
mod coalescing;
mod deliver;
mod error_response;
mod handle;
mod interceptor;
mod keepalive;
mod models;
mod own_answers;
mod pause;
mod probe;
mod read_call;
mod response_bodies;
mod retry;
mod retry_sign;
mod rollout_key;
mod rollout_lookup;
mod rollout_state;
mod routing;
mod service;
mod settings;
mod stored_responses;

pub(crate) use crate::forward::NamedRollout;
pub(crate) use backends::Backend;
pub(crate) use caller::rollout_of_key;
pub(crate) use pause::GateState;
pub(crate) use rollout_key::{PREFIX as KEY_PREFIX, issue as issue_key};
pub(crate) use rollout_lookup::{RolloutLookup, RolloutLookupError, RolloutLookupFuture, RolloutRegistration};
pub(crate) use routing::CallMode;
pub(crate) use service::Gateway;
pub(crate) use service::ReroutedCallers;
pub(crate) use settings::{BackendEngine, BackendSettings, GatewaySettings, PauseForm, Reroute};

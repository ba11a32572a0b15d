//! The hot path: one request in, one response out, recorded on the way.
//!
//! Start with [`Forwarder::handle`]. It never imports a store or an exporter, and uses only functions of `llm` that look
//! at each byte of a frame at most once. A disk can slow only an exchange that memory has no room for. Per exchange it
//! buffers what the HTTP library buffers, except for bodies that are changed: those are held within the memory budget or on disk.

mod connection_context;
mod continue_gate;
mod early_response;
mod errors;
mod exchange_start;
mod first_look;
mod forwarder;
mod handle;
pub(crate) mod identity;
mod interceptor;
mod interim;
mod local_export;
mod model_list;
mod plain_request;
pub(crate) mod replay;
pub(crate) mod reply;
pub(crate) mod rewrite;
mod settings;
mod target;
pub(crate) mod tokens;
pub(crate) mod upgrade;

pub(crate) use connection_context::{ConnectionContext, NamedRollout, Tunnel};
pub(crate) use errors::response_error;
pub(crate) use exchange_start::{ActiveExchange, RetentionOverride, request_head};
pub(crate) use forwarder::Forwarder;
pub(crate) use handle::record_response;
pub(crate) use interceptor::RequestInterceptor;
pub(crate) use model_list::{ModelList, model_list};
pub(crate) use settings::TraceSettings;
pub(crate) use tokens::TokenSettings;

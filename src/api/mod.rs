//! The API server: REST APIs of the store and the gateway, OTLP, health, metrics and LLM calls.
//!
//! `table` declares every route once, with the access that it requires; the router and the OpenAPI document follow from
//! it. LLM calls go to the gateway unread.

mod access;
mod agent_lightning;
mod gateway;
mod health;
mod idempotency;
mod metrics;
mod openapi;
mod otlp;
mod page;
mod posted_span;
mod request_ids;
mod request_json;
mod respond;
mod route;
mod router;
mod schema;
mod server;
mod sessions;
mod settings;
mod state;
mod streamed;
mod table;
mod token;
mod training;
mod ui;
mod v1;

pub(crate) use metrics::METRICS_PREFIX;
pub(crate) use otlp::IngestCounters;
pub(crate) use server::ApiServer;
pub(crate) use settings::ServerSettings;
pub(crate) use state::{ApiState, MetricsSource, Sequences, WarningsSource};
pub(crate) use token::{Token, TokenError};

//! The API listener: REST APIs of the store and of the gateway, OTLP, health and metrics.
//!
//! It does what trainers and runners request of the store, and hands LLM calls to the gateway without reading them.

mod access;
mod agent_lightning;
mod gateway;
mod idempotency;
mod metrics;
mod metrics_source;
mod otlp;
mod router;
mod server;
mod sessions;
mod settings;
mod state;
mod token;
mod v1;

pub(crate) use metrics_source::MetricsSource;
pub(crate) use otlp::counters::IngestCounters;
pub(crate) use server::ApiServer;
pub(crate) use settings::ServerSettings;
pub(crate) use state::{ApiState, Sequences};

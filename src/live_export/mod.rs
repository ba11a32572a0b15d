//! Live export: sends what is stored to other services, as it is stored.
//!
//! An export reads the store from a cursor, which the store keeps, so that nothing is written twice, and a receiver that is
//! away costs neither memory nor traffic: what waits is in the store anyway, within its retention. The cursor moves on after a
//! receiver has accepted; a program that is killed between the two sends the last batch again. Metrics are not stored: each request has all.
//!
//! It must not know exchanges: its own requests are sent beside the recorder.

mod counters;
mod cursor;
mod delivery;
mod endpoint;
mod environment;
mod grpc;
mod http;
mod json_lines;
mod metrics;
mod otlp;
mod otlp_client;
mod otlp_settings;
mod outcome;
mod reader;
mod retry;
mod service;
mod settings;
mod settings_error;
mod webhook;

pub(crate) use counters::ExportCounters;
pub(crate) use environment::otlp_of_environment;
pub(crate) use json_lines::JsonLinesPlace;
pub(crate) use metrics::MetricsReader;
pub(crate) use service::LiveExports;
pub(crate) use settings::ExportSettings;
pub(crate) use settings_error::ExportSettingsError;

//! Running a command behind the proxy: CA files, environment variables, and the process.
//!
//! It must not know more about the proxy than its URL, and must not print.

pub(crate) mod bundle;
pub(crate) mod child;
pub(crate) mod environment;
mod extras;
mod folder;
pub(crate) mod processes;
mod program;
pub(crate) mod render;
pub(crate) mod runtime;
mod settings;
pub(crate) mod signals;
mod truststore;
mod user_environment;

pub(crate) use folder::RunFolder;
pub(crate) use program::ChildError;
pub(crate) use runtime::{ATTEMPT_VARIABLE, ROLLOUT_VARIABLE, STORE_VARIABLE, TRACEPARENT_VARIABLE};
pub(crate) use settings::{Loopback, RunSettings};

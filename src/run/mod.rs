//! Running a command behind the proxy: CA files, environment variables, and the process.
//!
//! It must not know more about the proxy than its URL, and must not print.

pub mod bundle;
pub mod child;
pub mod environment;
mod extras;
pub mod render;
pub mod runtime;
mod settings;
mod truststore;
mod user_environment;

pub use settings::{Loopback, RunSettings};

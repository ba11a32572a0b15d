//! Running a command behind the proxy: its certificates, its environment, its process.
//!
//! It must not know about proxies beyond their URL, nor print.

pub mod bundle;
pub mod child;
pub mod environment;
pub mod extras;
pub mod render;
pub mod runtime;
pub mod truststore;
pub mod user_environment;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// `[run]` of the settings: what is done to a command's environment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RunSettings {
    /// Whether calls to this machine itself are traced.
    pub loopback: Loopback,
    /// Load a module into Node and Python programs whose HTTP libraries read no proxy from the environment.
    pub hooks: bool,
}

/// Whether calls to this machine itself are traced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Loopback {
    /// Yes, unless the user's NO_PROXY names it.
    #[default]
    Auto,
    /// Yes, whatever NO_PROXY says.
    Trace,
    /// No.
    Leave,
}

impl Default for RunSettings {
    fn default() -> Self {
        Self { loopback: Loopback::Auto, hooks: true }
    }
}

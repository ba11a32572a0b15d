//! `[run]` of the settings.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// `[run]` of the settings: how the environment of a command is changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct RunSettings {
    /// Whether requests to this machine itself are traced.
    pub loopback: Loopback,
    /// Load a module into Node and Python programs, for HTTP libraries that ignore the proxy of the environment.
    pub hooks: bool,
}

/// Whether requests to this machine itself are traced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Loopback {
    /// Traced unless the user's NO_PROXY excludes it
    #[default]
    Auto,
    /// Traced whatever NO_PROXY says
    Trace,
    /// Not traced
    Leave,
}

impl Default for RunSettings {
    fn default() -> Self {
        Self { loopback: Loopback::Auto, hooks: true }
    }
}

//! Reads the settings file and the environment of this process.

use crate::config::Config;
use crate::live_export::otlp_of_environment;
use crate::util::secret::Secret;
use anyhow::{Context, Result};
use std::ffi::OsString;
use std::path::Path;

/// The settings of a file, or the defaults without one. `TRACEWIRE_TOKEN` overrides `proxy.token`.
pub(super) fn read_config(path: Option<&Path>) -> Result<Config> {
    let mut config = match path {
        Some(path) => Config::read(path).context("cannot use the settings file (--config)")?,
        None => Config::default(),
    };
    if let Some(token) = std::env::var("TRACEWIRE_TOKEN").ok().filter(|token| !token.is_empty()) {
        config.proxy.token = Secret::new(token);
    }
    Ok(config)
}

/// Adds the exports that OpenTelemetry's variables configure. They may be meant for another program, so that one that
/// can't be used is no error.
pub(super) fn add_export_of_environment(config: &mut Config) {
    match otlp_of_environment(&|name| std::env::var(name).ok()) {
        Ok(exports) => config.export.add(exports),
        Err(error) => tracing::error!(%error, "nothing is exported as the environment says"),
    }
}

/// An environment variable of this process.
pub(super) fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name)
}

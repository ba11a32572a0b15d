//! Arguments that several subcommands have.

use super::settings::read_config;
use crate::config::{Config, StoreSettings};
use crate::run::Loopback;
use crate::trace::{InvalidId, check_id};
use anyhow::Result;
use clap::Args;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// Where traces are stored.
#[derive(Args, Clone, Debug)]
pub(crate) struct StoreArgs {
    /// The trace store: a file, `memory:`, or a PostgreSQL URL [default: traces.db in the data folder]
    #[arg(long, global = true, value_name = "PATH|memory:|postgres://…")]
    store: Option<PathBuf>,
}

impl StoreArgs {
    pub(super) fn apply(&self, settings: &mut StoreSettings) {
        if let Some(path) = &self.store {
            settings.path = Some(path.clone());
        }
    }

    /// True if `--store` was not given.
    pub(super) fn is_default(&self) -> bool {
        self.store.is_none()
    }

    pub(super) fn settings(&self) -> StoreSettings {
        let mut settings = StoreSettings::default();
        self.apply(&mut settings);
        settings
    }
}

/// Settings of the proxy that a command runs behind, and of the command's environment.
#[derive(Args, Clone, Debug)]
pub(crate) struct ProxyArgs {
    /// Whether to trace requests to this machine itself [default: auto]
    #[arg(long, value_enum)]
    loopback: Option<Loopback>,
    /// Do not load the hooks into Node.js and Python programs
    #[arg(long)]
    no_hooks: bool,
    /// The settings file
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// PEM file with further root certificates for endpoints (repeatable)
    #[arg(long, value_name = "PEM")]
    upstream_ca: Vec<PathBuf>,
    /// Connect to another address for a host and port, as in curl (repeatable)
    #[arg(long, value_name = "HOST:PORT:HOST:PORT")]
    connect_to: Vec<String>,
}

impl ProxyArgs {
    /// The settings file with these arguments applied.
    pub(super) fn config(&self) -> Result<Config> {
        let mut config = read_config(self.config.as_deref())?;
        config.tls.upstream_ca.extend_from_slice(&self.upstream_ca);
        config.upstream.connect_to.extend_from_slice(&self.connect_to);
        config.run.loopback = self.loopback.unwrap_or(config.run.loopback);
        config.run.hooks &= !self.no_hooks;
        Ok(config)
    }
}

/// Parses the id of a rollout or an attempt.
pub(crate) fn id(text: &str) -> Result<String, InvalidId> {
    check_id(text).map(|()| text.to_owned())
}

/// A limit in seconds, with or without a fraction; 0 means no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TimeLimit(Option<Duration>);

impl TimeLimit {
    /// `None` if there is no limit.
    pub(super) fn duration(self) -> Option<Duration> {
        self.0
    }
}

impl FromStr for TimeLimit {
    type Err = InvalidLimit;

    fn from_str(text: &str) -> Result<Self, InvalidLimit> {
        let limit = duration(text).ok_or(InvalidLimit)?;
        Ok(Self((!limit.is_zero()).then_some(limit)))
    }
}

#[derive(Debug, thiserror::Error)]
#[error("expected a number of seconds, such as 600 or 0.5; 0 means no limit")]
pub(crate) struct InvalidLimit;

#[derive(Debug, thiserror::Error)]
#[error("expected a number of seconds greater than 0")]
pub(crate) struct InvalidSeconds;

/// Parses a positive number of seconds, with or without a fraction.
pub(crate) fn seconds(text: &str) -> Result<Duration, InvalidSeconds> {
    duration(text).filter(|duration| !duration.is_zero()).ok_or(InvalidSeconds)
}

fn duration(text: &str) -> Option<Duration> {
    Duration::try_from_secs_f64(text.parse().ok()?).ok()
}

#[derive(Debug, thiserror::Error)]
#[error("expected a time such as 90s, 30m, 2h or 7d")]
pub(crate) struct InvalidAge;

/// Parses a whole number with a unit of time.
pub(crate) fn age(text: &str) -> Result<Duration, InvalidAge> {
    let unit = text.chars().last().ok_or(InvalidAge)?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 60 * 60,
        'd' => 24 * 60 * 60,
        _ => return Err(InvalidAge),
    };
    let number: u64 = text[..text.len() - 1].parse().map_err(|_| InvalidAge)?;
    Ok(Duration::from_secs(number.saturating_mul(seconds)))
}

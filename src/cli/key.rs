//! `tracewire key`: an API key that names a rollout, signed by the server.

use super::client::ServerArgs;
use super::{read_config, show};
use anyhow::{Context, Result};
use clap::Args;
use http::Method;
use serde_json::json;
use std::path::PathBuf;
use std::process::ExitCode;

/// Arguments of `key`.
#[derive(Args)]
#[command(after_help = "Example:
  OPENAI_BASE_URL=http://127.0.0.1:4747/v1 OPENAI_API_KEY=$(tracewire key ro-0123456789ab) python3 agent.py")]
pub(super) struct KeyArgs {
    /// The rollout whose calls are made with it
    #[arg(value_name = "ROLLOUT")]
    rollout: String,
    /// The attempt [default: one that belongs to the rollout]
    #[arg(long, value_name = "ID")]
    attempt: Option<String>,
    /// For how long it is good; 0: for ever. Only keys that are signed (gateway.signing_key) expire
    #[arg(long, value_name = "SECS", default_value_t = 0)]
    expires: u64,
    #[command(flatten)]
    server: ServerArgs,
    /// The settings file
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

pub(super) async fn run(args: KeyArgs) -> Result<ExitCode> {
    let server = args.server.client(&read_config(args.config.as_ref())?)?;
    let asked = json!({ "rollout_id": args.rollout, "attempt_id": args.attempt, "expires_in_seconds": args.expires });
    let answer = server.call(Method::POST, "/v1/tracewire/keys", Some(&asked)).await?.success()?;
    let key = answer.body["key"].as_str().context("the server gave no key; it may be an older tracewire")?;
    show::out(&format!("{key}\n"));
    Ok(ExitCode::SUCCESS)
}

//! `tracewire key`: asks the server for an API key that identifies a rollout.

use super::args::id;
use super::client::ServerArgs;
use super::settings::read_config;
use super::show;
use anyhow::{Context, Result};
use clap::Args;
use http::Method;
use serde_json::json;
use std::path::PathBuf;
use std::process::ExitCode;

/// Arguments of `key`.
#[derive(Args)]
#[command(after_help = "Example:
  export OPENAI_BASE_URL=http://127.0.0.1:4747/v1
  export OPENAI_API_KEY=$(tracewire key ro-0123456789ab)")]
pub(super) struct KeyArgs {
    /// The rollout that calls with this key belong to
    #[arg(value_name = "ROLLOUT", value_parser = id)]
    rollout: String,
    /// The attempt [default: the server chooses one of the rollout]
    #[arg(long, value_name = "ID", value_parser = id)]
    attempt: Option<String>,
    /// Time until the key expires; 0 means never. Requires signed keys (gateway.signing_key)
    #[arg(long, value_name = "SECS", default_value_t = 0)]
    expires: u64,
    #[command(flatten)]
    server: ServerArgs,
    /// The settings file
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

pub(super) async fn run(args: KeyArgs) -> Result<ExitCode> {
    let server = args.server.client(&read_config(args.config.as_deref())?)?;
    let request = json!({ "rollout_id": args.rollout, "attempt_id": args.attempt, "expires_in_seconds": args.expires });
    let response = server.call(Method::POST, "/v1/tracewire/keys", Some(&request)).await?.into_success()?;
    let key = response.body["key"]
        .as_str()
        .context("the server returned no key; check that --server is a current `tracewire serve`")?;
    show::out(format!("{key}\n"))?;
    Ok(ExitCode::SUCCESS)
}

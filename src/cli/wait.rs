//! `tracewire wait`: waits until rollouts have ended, and prints each with its status.

use super::client::ServerArgs;
use super::settings::read_config;
use super::show;
use anyhow::{Context, Result, bail};
use clap::Args;
use http::Method;
use serde_json::{Value as JsonValue, json};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::ExitCode;

/// Arguments of `wait`.
#[derive(Args)]
#[command(after_help = "The exit code is 0 if all succeeded, 1 otherwise.

Examples:
  tracewire wait ro-0123456789ab
  tracewire enqueue tasks.jsonl | tracewire wait -")]
pub(super) struct WaitArgs {
    /// Ids of rollouts; `-` reads them from stdin, one a line
    #[arg(value_name = "ROLLOUT", required = true)]
    rollouts: Vec<String>,
    #[command(flatten)]
    server: ServerArgs,
    /// The settings file
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

pub(super) async fn run(args: WaitArgs) -> Result<ExitCode> {
    let server = args.server.client(&read_config(args.config.as_deref())?)?;
    let mut waiting: BTreeSet<String> = args.rollouts.iter().filter(|id| *id != "-").cloned().collect();
    if args.rollouts.iter().any(|id| id == "-") {
        let text = std::io::read_to_string(std::io::stdin()).context("cannot read stdin")?;
        waiting.extend(text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned));
    }
    let mut code = ExitCode::SUCCESS;
    while !waiting.is_empty() {
        let body = json!({ "rollout_ids": waiting, "timeout": POLL_SECONDS });
        let response = server.call_with_retries(Method::POST, "/v1/agl/waits/rollouts", Some(&body)).await?;
        let ended = response.into_success()?.body;
        let ended: Vec<&JsonValue> = ended.as_array().into_iter().flatten().collect();
        if ended.is_empty() {
            require_existing(&server, &waiting).await?;
        }
        for rollout in ended {
            let (id, status) = (rollout["rollout_id"].as_str().unwrap_or_default(), rollout["status"].as_str());
            let status = status.unwrap_or("unknown");
            if waiting.remove(id) {
                show::out(format!("{id} {status}\n"))?;
            }
            if status != "succeeded" {
                code = ExitCode::from(1);
            }
        }
    }
    Ok(code)
}

/// An error if one of the rollouts does not exist: it would never end.
async fn require_existing(server: &super::client::ServerClient, ids: &BTreeSet<String>) -> Result<()> {
    for id in ids {
        let path = format!("/v1/agl/rollouts/{}", super::client::encoded(id));
        let found = server.call(Method::GET, &path, None).await?;
        if found.is_not_found() || found.into_success()?.body.is_null() {
            bail!("rollout {id} does not exist at {}", server.address.url());
        }
    }
    Ok(())
}

const POLL_SECONDS: f64 = 5.0;

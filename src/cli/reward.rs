//! `tracewire reward`: gives a rollout a reward, which is stored as a span.

use super::args::id;
use super::client::{ServerArgs, ServerClient, ServerResponse, encoded};
use super::emit::{PRIMARY, emitted_span, finite_number, send_span};
use super::settings::read_config;
use super::show;
use crate::trace::Span;
use crate::tracer::emit::spans;
use anyhow::{Context, Result, bail};
use clap::Args;
use http::Method;
use std::path::PathBuf;
use std::process::ExitCode;

/// Arguments of `reward`.
#[derive(Args)]
#[command(after_help = "Examples:
  tracewire reward ro-0123456789ab 0.75
  tracewire reward ro-0123456789ab -1 --name safety --attempt at-01234567")]
pub(super) struct RewardArgs {
    /// The rollout's id
    #[arg(value_name = "ROLLOUT", value_parser = id)]
    rollout: String,
    /// The reward, a finite number
    #[arg(value_name = "VALUE", allow_negative_numbers = true, value_parser = finite_number)]
    value: f64,
    /// The name of the reward; trainers use `primary`
    #[arg(long, default_value = PRIMARY)]
    name: String,
    /// The attempt [default: the latest attempt]
    #[arg(long, value_name = "ID", value_parser = id)]
    attempt: Option<String>,
    #[command(flatten)]
    server: ServerArgs,
    /// The settings file
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

pub(super) async fn run(args: RewardArgs) -> Result<ExitCode> {
    let server = args.server.client(&read_config(args.config.as_deref())?)?;
    let rollout = &args.rollout;
    let attempt = match args.attempt {
        Some(attempt) => attempt,
        None => latest_attempt(&server, rollout).await?,
    };
    let rewards = [(args.name, args.value)];
    send_reward_span(&server, rollout, &attempt, &rewards)
        .await
        .with_context(|| format!("cannot store the reward of rollout {rollout}"))?;
    let [(name, value)] = &rewards;
    show::out(format!("{name} {value} for rollout {rollout}, attempt {attempt}\n"))?;
    Ok(ExitCode::SUCCESS)
}

async fn latest_attempt(server: &ServerClient, rollout: &str) -> Result<String> {
    let path = format!("/v1/agl/rollouts/{}", encoded(rollout));
    let latest = server.call(Method::GET, &format!("{path}/attempts/latest"), None).await?;
    if let Some(id) = latest.body["attempt_id"].as_str() {
        return Ok(id.to_owned());
    }
    let known = server.call(Method::GET, &path, None).await?;
    if known.is_not_found() || known.into_success()?.body.is_null() {
        let url = server.address.url();
        bail!("rollout {rollout} does not exist at {url}; check its spelling, or set --server");
    }
    latest.into_success()?;
    bail!("rollout {rollout} has no attempt yet; wait until one has started, or name one with --attempt")
}

/// Stores rewards of an attempt as one span, the primary reward first. Retries for at most two minutes.
pub(super) async fn send_reward_span(
    server: &ServerClient,
    rollout: &str,
    attempt: &str,
    rewards: &[(String, f64)],
) -> Result<ServerResponse> {
    send_span(server, reward_span(rollout, attempt, rewards)?).await
}

/// The span that Agent Lightning's adapters read rewards from.
fn reward_span(rollout: &str, attempt: &str, rewards: &[(String, f64)]) -> Result<Span> {
    let rewards = rewards.iter().map(|(name, value)| (name, *value));
    Ok(emitted_span(rollout, attempt, spans::rewards(rewards)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use serde_json::{Value as JsonValue, json};

    #[derive(Parser)]
    struct CommandLine {
        #[command(flatten)]
        args: RewardArgs,
    }

    #[test]
    fn a_reward_span_has_the_shape_that_adapters_read() {
        let rewards = [(PRIMARY.to_owned(), 1.0), ("style".to_owned(), -0.5)];
        let json = serde_json::to_value(reward_span("ro-1", "at-1", &rewards).unwrap()).unwrap();
        let expected = json!({ "agentlightning.reward.0.name": "primary", "agentlightning.reward.0.value": 1.0,
            "agentlightning.reward.1.name": "style", "agentlightning.reward.1.value": -0.5 });
        assert_eq!((&json["name"], &json["attributes"]), (&json!("agentlightning.annotation"), &expected));
        assert_eq!(json["status"], json!({ "status_code": "OK", "description": null }));
        assert_eq!(json["start_time"], json["end_time"]);
        assert_eq!((json["trace_id"].as_str().unwrap().len(), json["span_id"].as_str().unwrap().len()), (32, 16));
        for key in ["parent_id", "context", "parent"] {
            assert_eq!(json.get(key), Some(&JsonValue::Null), "{key}");
        }
        assert_eq!(json["resource"], json!({ "attributes": {}, "schema_url": "" }));
    }

    #[test]
    fn only_finite_numbers_are_rewards() {
        let read =
            |value: &str| CommandLine::try_parse_from(["reward", "ro-1", value]).map(|line| line.args.value).ok();
        assert_eq!(["-0.5", "1", "1e-3"].map(read), [Some(-0.5), Some(1.0), Some(0.001)]);
        assert_eq!(["NaN", "inf", "1e999", "good"].map(read), [None; 4]);
    }
}

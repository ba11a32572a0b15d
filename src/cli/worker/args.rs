//! The arguments of `tracewire worker`.

use crate::cli::args::{ProxyArgs, TimeLimit, id, seconds};
use crate::cli::client::ServerArgs;
use clap::{Args, ValueEnum};
use std::ffi::OsString;
use std::time::Duration;

/// Arguments of `worker`.
#[derive(Args)]
#[command(after_help = "Examples:
  tracewire worker -- python3 agent.py
  tracewire worker --server http://trainer:4747 --jobs 8 --timeout 600 -- ./agent

Input:   JSON, on stdin and in the file TRACEWIRE_INPUT
Success: exit code 0
Reward:  a last line such as {\"reward\": 1.0}, or the content of the file TRACEWIRE_REWARD")]
pub(crate) struct WorkerArgs {
    #[command(flatten)]
    pub(super) server: ServerArgs,
    /// The Agent Lightning protocol that the server speaks
    #[arg(long, value_enum, default_value_t = ApiVersion::Auto)]
    pub(super) api: ApiVersion,
    /// Number of commands that run at once
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    pub(super) jobs: u16,
    /// Stop a command and all processes that it started after this time; 0 means no limit [default: the rollout's
    /// timeout_seconds]
    #[arg(long, value_name = "SECS")]
    pub(super) timeout: Option<TimeLimit>,
    /// Time between two requests for a rollout while none is waiting
    #[arg(long, value_name = "SECS", default_value = "1.0", value_parser = seconds)]
    pub(super) poll: Duration,
    /// Time between two heartbeats of a running command
    #[arg(long, value_name = "SECS", default_value = "10", value_parser = seconds)]
    pub(super) heartbeat: Duration,
    /// Stop after this many rollouts
    #[arg(long, value_name = "N")]
    pub(super) max_rollouts: Option<usize>,
    /// Stop when no rollout is waiting
    #[arg(long, visible_alias = "once")]
    pub(super) until_empty: bool,
    /// The worker's id on the server [default: worker- and eight hex digits]
    #[arg(long, value_name = "ID", value_parser = id)]
    pub(super) worker_id: Option<String>,
    /// The proxy that records the commands' traffic [default: the server's own proxy]
    #[arg(long, value_name = "URL")]
    pub(super) proxy: Option<String>,
    /// The token of the proxy [default: TRACEWIRE_PROXY_TOKEN]
    #[arg(long, value_name = "TOKEN")]
    pub(super) proxy_token: Option<String>,
    /// The API key of all commands, for servers other than `tracewire serve` that want one [default: tracewire serve makes
    /// one for each attempt; never the worker's token]
    #[arg(long, value_name = "KEY")]
    pub(super) agent_key: Option<String>,
    /// When to set OPENAI_BASE_URL and similar variables to the server's gateway
    #[arg(long, value_enum, default_value_t = BaseUrlMode::Auto)]
    pub(super) base_url: BaseUrlMode,
    /// Print one JSON line per rollout to stdout; the commands' stdout goes to stderr
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    pub(super) proxy_args: ProxyArgs,
    /// The command and its arguments
    #[arg(required = true, trailing_var_arg = true, value_name = "CMD")]
    pub(super) command: Vec<OsString>,
}

/// Which protocol to speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum ApiVersion {
    /// The queue of Agent Lightning 0.3, under /v1/agl
    #[value(name = "v0.3")]
    V03,
    /// The rollouts of Agent Lightning 1.0, under /api
    #[value(name = "v1.0")]
    V10,
    /// v0.3 if the server has it, otherwise v1.0
    Auto,
}

/// When commands call their model through the server's gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum BaseUrlMode {
    /// If the server has a backend
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct CommandLine {
        #[command(flatten)]
        args: WorkerArgs,
    }

    #[test]
    fn valid_arguments_are_parsed_and_invalid_ones_rejected() {
        let parse = |line: &str| CommandLine::try_parse_from(line.split(' ')).map(|line| line.args).ok();
        let args = parse("worker --once --jobs 2 --poll 0.25 --api v1.0 -- agent --json -x").unwrap();
        assert!(args.until_empty && !args.json && args.api == ApiVersion::V10);
        assert_eq!((args.jobs, args.poll, args.heartbeat), (2, Duration::from_millis(250), Duration::from_secs(10)));
        let command: Vec<_> = args.command.iter().map(|word| word.to_str().unwrap()).collect();
        assert_eq!(command, ["agent", "--json", "-x"]);
        for invalid in [
            "worker",
            "worker --jobs 0 -- a",
            "worker --poll 0 -- a",
            "worker --timeout soon -- a",
            "worker --onec -- a",
        ] {
            assert!(parse(invalid).is_none(), "{invalid}");
        }
    }
}

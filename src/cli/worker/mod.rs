//! `tracewire worker -- CMD`: one command a rollout, in any language, its result back to the server.
//!
//! Everything that was taken is told about: what can't be delivered is printed, and the exit code says so.

mod environment;
mod jobs;
mod process;
mod report;
mod rewards;
mod source;
mod v03;
mod v10;

use super::client::ServerArgs;
use super::{DoorArgs, show};
use anyhow::{Context, Result, anyhow};
use clap::Args;
use environment::{BaseUrl, Surroundings};
use jobs::{END, FINISH, GO_ON, LEAVE, Worker};
use source::{Api, Source};
use std::ffi::OsString;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Arguments of `worker`.
#[derive(Args)]
#[command(after_help = "Examples:
  tracewire worker -- python3 agent.py
  tracewire worker --server http://trainer:4747 --jobs 8 --timeout 600 -- ./agent

The command finds the rollout's input as JSON on stdin and in the file TRACEWIRE_INPUT. Its exit code is the attempt's end;
a last line like {\"reward\": 1.0}, or what it writes to the file TRACEWIRE_REWARD, is the reward.")]
pub(super) struct WorkerArgs {
    #[command(flatten)]
    server: ServerArgs,
    /// Which of Agent Lightning's protocols the server speaks
    #[arg(long, value_enum, default_value_t = Api::Auto)]
    api: Api,
    /// How many commands run at once
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    jobs: u16,
    /// End a command and all it started after so many seconds [default: as its rollout says]
    #[arg(long, value_name = "SECS", value_parser = seconds)]
    timeout: Option<Duration>,
    /// How long to wait when there is nothing to do
    #[arg(long, value_name = "SECS", default_value = "1.0", value_parser = seconds)]
    poll: Duration,
    /// How often the server hears that a command still runs
    #[arg(long, value_name = "SECS", default_value = "10", value_parser = seconds)]
    heartbeat: Duration,
    /// Stop after so many rollouts
    #[arg(long, value_name = "N")]
    max_rollouts: Option<usize>,
    /// Stop when no rollout waits
    #[arg(long, visible_alias = "once")]
    until_empty: bool,
    /// What the server calls this worker [default: worker- and eight digits]
    #[arg(long, value_name = "ID")]
    worker_id: Option<String>,
    /// The proxy door that records what the commands do [default: the server's own]
    #[arg(long, value_name = "URL")]
    proxy: Option<String>,
    /// The token of that door [default: TRACEWIRE_PROXY_TOKEN]
    #[arg(long, value_name = "TOKEN")]
    proxy_token: Option<String>,
    /// Send the commands' model calls to the server, by OPENAI_BASE_URL and its like
    #[arg(long, value_enum, default_value_t = BaseUrl::Auto)]
    base_url: BaseUrl,
    /// Print one JSON line a rollout; what the commands print goes to stderr then
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    door: DoorArgs,
    /// The command and its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "CMD")]
    command: Vec<OsString>,
}

pub(super) async fn run(args: WorkerArgs) -> Result<ExitCode> {
    let config = args.door.config()?;
    let source = Source::find(args.server.client(&config)?, args.api).await?;
    let (proxy, token) = (args.proxy.as_deref(), args.proxy_token.clone());
    let surroundings = Surroundings::find(&source.server, args.base_url, proxy, token, &config).await?;
    let id = args.worker_id.clone().unwrap_or_else(|| format!("worker-{:08x}", fastrand::u32(..)));
    let stop = watch::Sender::new(GO_ON);
    listen(&stop)?;
    let worker = Arc::new(Worker { args, source, surroundings, stop, state: Mutex::default() });
    worker.greet(&id);
    let mut jobs = JoinSet::new();
    for number in 1..=worker.args.jobs {
        // The server ties one attempt to each worker, so each job is a worker to it.
        let id = if worker.args.jobs == 1 { id.clone() } else { format!("{id}-{number}") };
        jobs.spawn(Arc::clone(&worker).work(id));
    }
    let all = async {
        while let Some(ended) = jobs.join_next().await {
            if let Err(error) = ended {
                worker.fail(anyhow!(error).context("a job of this worker broke"));
            }
        }
    };
    tokio::select! {
        () = all => {}
        () = worker.told(LEAVE) => worker.leave_behind(),
    }
    worker.close()
}

/// Counts the signals that ask for an end: `jobs` knows what each means.
fn listen(stop: &watch::Sender<u32>) -> Result<()> {
    // `nohup` means that a hangup is nothing to us.
    let hangup = (!hangups_are_ignored()).then(SignalKind::hangup);
    for kind in [SignalKind::terminate(), SignalKind::interrupt()].into_iter().chain(hangup) {
        let mut signals = signal(kind).context("signals can't be taken")?;
        let stop = stop.clone();
        tokio::spawn(async move {
            while signals.recv().await.is_some() {
                stop.send_modify(|level| *level = level.saturating_add(1));
                let level = *stop.borrow();
                match level {
                    FINISH => show::note("tracewire: waiting for what runs; a second signal ends it"),
                    END => show::note("tracewire: ending what runs; one more leaves at once"),
                    _ => {}
                }
            }
        });
    }
    Ok(())
}

/// By the kernel's word, where it can be had.
fn hangups_are_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & 1 == 1)
}

fn seconds(text: &str) -> Result<Duration, String> {
    let length = text.parse::<f64>().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    length.filter(|length| !length.is_zero()).ok_or_else(|| "this is a number of seconds above 0".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: WorkerArgs,
    }

    #[test]
    fn arguments_are_read_and_refused() {
        let read = |line: &str| Line::try_parse_from(line.split(' ')).map(|line| line.args).ok();
        let args = read("worker --once --jobs 2 --poll 0.25 --api v1.0 -- agent --json -x").unwrap();
        assert!(args.until_empty && !args.json && args.api == Api::V10);
        assert_eq!((args.jobs, args.poll, args.heartbeat), (2, Duration::from_millis(250), Duration::from_secs(10)));
        let command: Vec<_> = args.command.iter().map(|word| word.to_str().unwrap()).collect();
        assert_eq!(command, ["agent", "--json", "-x"]);
        for wrong in ["worker", "worker --jobs 0 -- a", "worker --poll 0 -- a", "worker --timeout soon -- a"] {
            assert!(read(wrong).is_none(), "{wrong}");
        }
    }
}

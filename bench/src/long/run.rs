//! The scenarios with long calls: every candidate in rounds, side by side.

use super::check::Expected;
use super::load;
use super::plan::{KINDS, Kind, Plan};
use super::processes::{Candidate, Overrides, Running, candidates};
use super::spans::{self, Record};
use super::table::{self, Figures};
use crate::client::Ask;
use crate::drive::{self, Load};
use crate::gateways;
use crate::process::Served;
use crate::report::Cell;
use crate::run::{RunArgs, around};
use crate::tls::Ca;
use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Arguments of the scenarios `long-json`, `long-sse` and `long-experts`, which run only if they are named.
#[derive(Args, Clone, Debug)]
pub struct LongArgs {
    /// long-*: rollouts, each with one call in flight
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u64).range(1..))]
    calls: u64,
    /// long-json, long-sse: ids of each prompt
    #[arg(long, default_value_t = 128_000)]
    prompt_ids: u64,
    /// long-*: ids of each response
    #[arg(long, default_value_t = 4096)]
    sampled_ids: u64,
    /// long-json, long-sse: several calls in each rollout, whose prompts continue each other
    #[arg(long)]
    shared_prompts: bool,
    /// With --shared-prompts: calls in each rollout
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..))]
    turns: u64,
    /// long-experts: ids of prompt and response together
    #[arg(long, default_value_t = 40_000)]
    expert_tokens: u64,
    /// long-experts: calls at once
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    expert_calls: u64,
    /// long-*: how long the endpoint waits before it responds
    #[arg(long, default_value_t = 2000)]
    delay_ms: u64,
    /// long-sse: time between two events, each with eight ids
    #[arg(long, default_value_t = 40)]
    interval_ms: u64,
    /// long-*: also measure small calls, 200 a second, without long calls and beside them
    #[arg(long)]
    beside: bool,
    /// long-*: a file with further settings of Tracewire. It may not have `tokens.engines`
    #[arg(long, value_name = "FILE")]
    settings: Option<PathBuf>,
    /// long-*: a variable of Tracewire's environment
    #[arg(long, value_name = "NAME=VALUE")]
    env: Vec<String>,
}

impl LongArgs {
    fn plan(&self, kind: Kind) -> Result<Plan> {
        let (rollouts, turns, prompt_ids) = match kind {
            Kind::Json | Kind::Sse => (self.calls, if self.shared_prompts { self.turns } else { 1 }, self.prompt_ids),
            Kind::Experts => (self.expert_calls, 1, self.expert_tokens.saturating_sub(self.sampled_ids)),
        };
        let Self { sampled_ids, delay_ms, interval_ms, .. } = *self;
        let plan = Plan { kind, rollouts, turns, prompt_ids, sampled_ids, delay_ms, interval_ms };
        plan.check()?;
        Ok(plan)
    }

    /// What Tracewire is started with: these settings, and those of the arguments.
    fn overrides(&self, set: &[String]) -> Result<Overrides> {
        let text = match &self.settings {
            Some(file) => std::fs::read_to_string(file).with_context(|| file.display().to_string())?,
            None => String::new(),
        };
        let pair = |text: &String| {
            let (name, value) = text.split_once('=').with_context(|| format!("--env {text}: no `=`"))?;
            anyhow::Ok((name.to_owned(), value.to_owned()))
        };
        Ok(Overrides { lines: set.to_vec(), text, variables: self.env.iter().map(pair).collect::<Result<_>>()? })
    }
}

/// Measures the scenarios that are named, and prints their tables.
pub async fn run(args: &RunArgs) -> Result<()> {
    let named: Vec<_> = KINDS.iter().filter(|(name, _)| args.scenario.iter().any(|one| one == name)).collect();
    if named.is_empty() {
        return Ok(());
    }
    let overrides = args.long.overrides(&args.set)?;
    let folder = std::env::temp_dir().join(format!("tracewire-long-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    Ca::create(&folder)?;
    let mut rows = Vec::new();
    for round in 0..args.rounds {
        for (name, kind) in &named {
            let plan = args.long.plan(*kind).context(*name)?;
            for candidate in candidates(&args.tracewire) {
                let label = &candidate.label;
                if !args.proxy.is_empty() && !args.proxy.contains(label) {
                    continue;
                }
                eprintln!("round {} of {}: {name}, {label}", round + 1, args.rounds);
                let seconds = args.long.beside.then_some(args.seconds);
                let trial = Trial { candidate: &candidate, plan, folder: &folder, overrides: &overrides };
                match trial.measure(seconds).await {
                    Ok(figures) => table::add(&mut rows, name, &candidate, figures),
                    Err(error) => eprintln!("{name}, {label}: {error:#}"),
                }
            }
        }
        // What was measured is not lost with what comes after it.
        rows.sort_by_key(|row| KINDS.iter().position(|(name, _)| *name == row.scenario));
        eprintln!("{}", table::table(&rows));
        if let Some(path) = &args.json {
            std::fs::write(path.with_extension("long.json"), serde_json::to_string_pretty(&rows)?)?;
        }
    }
    let _ = std::fs::remove_dir_all(&folder);
    print!("{}", table::table(&rows));
    if rows.is_empty() {
        bail!("nothing could be measured");
    }
    Ok(())
}

/// One candidate in one scenario and round.
struct Trial<'a> {
    candidate: &'a Candidate,
    plan: Plan,
    folder: &'a Path,
    overrides: &'a Overrides,
}

/// What runs for it.
struct Started {
    running: Running,
    endpoint: Served,
    place: PathBuf,
}

impl Trial<'_> {
    async fn measure(&self, seconds_beside: Option<u64>) -> Result<Figures> {
        let mut figures = self.long_calls().await?;
        if let Some(seconds) = seconds_beside {
            let (alone, beside) = self.small_calls(Duration::from_secs(seconds)).await?;
            (figures.alone_p50_ms, figures.alone_p99_ms) = (Some(alone.p50_us / 1e3), Some(alone.p99_us / 1e3));
            (figures.beside_p50_ms, figures.beside_p99_ms) = (Some(beside.p50_us / 1e3), Some(beside.p99_us / 1e3));
        }
        Ok(figures)
    }

    /// Processes of its own, called some times: certificates, pools and caches are made before the clock starts.
    async fn start(&self) -> Result<Started> {
        let place = self.folder.join(&self.candidate.label);
        let _ = std::fs::remove_dir_all(&place);
        std::fs::create_dir_all(&place)?;
        let mut command = Command::new(std::env::current_exe()?);
        let endpoint = match self.candidate.mode {
            super::processes::Mode::Proxy => Served::start(command.arg("upstream").arg(self.folder)),
            super::processes::Mode::Gateway => Served::start(command.arg("endpoint")),
        };
        let endpoint = endpoint.context("the endpoint")?;
        let running = self.candidate.start(self.folder, endpoint.address, &place, self.overrides).await?;
        drive::at_once(&running.way, &Ask::Json, 4).await?;
        running.served.settled().await?;
        Ok(Started { running, endpoint, place })
    }

    fn expected(&self) -> Expected {
        if self.candidate.binary.is_some() { Expected::WithoutIds } else { Expected::Same }
    }

    async fn long_calls(&self) -> Result<Figures> {
        let Started { mut running, endpoint, place } = self.start().await?;
        let (endpoint_before, disk_before) = (endpoint.usage()?, disk_bytes(&place));
        let mut wall = Duration::ZERO;
        let calls = async {
            let load = load::run(&running.way, self.plan, self.expected()).await?;
            wall = load.elapsed;
            anyhow::Ok((load, Vec::new()))
        };
        let cell = around(Some(&running.served), calls).await?;
        let endpoint_cpu_us = endpoint.usage()?.cpu_us - endpoint_before.cpu_us;
        let calls = self.plan.calls() as f64;
        let mut figures = Figures {
            calls,
            errors: cell.errors,
            rest_mb: cell.before_mb,
            above_rest_mb: (cell.peak_mb - cell.before_mb).max(0.0),
            cpu_ms: cell.cpu_us / 1e3,
            endpoint_cpu_ms: endpoint_cpu_us as f64 / 1e3 / calls,
            wall_s: wall.as_secs_f64(),
            ..Figures::default()
        };
        if let Some(server) = running.served.server {
            let metrics = all_stored(server).await?;
            figures.spilled_mb = spilled_bytes(&metrics).map(|bytes| bytes / 1e6);
            let record = spans::read(server, self.plan).await?;
            let percent = |count: u64| Some(100.0 * count as f64 / calls);
            figures.exact = percent(record.exact);
            (figures.ids_equal, figures.logprobs_equal) = (percent(record.ids_equal), percent(record.logprobs_equal));
            say_what_is_missing(&record, self.plan);
            // Without the store's log.
            running.served.stop().await?;
            let grown = disk_bytes(&place).saturating_sub(disk_before);
            figures.bytes_per_id = Some(grown as f64 / self.plan.distinct_ids() as f64);
        }
        let _ = std::fs::remove_dir_all(&place);
        Ok(figures)
    }

    /// Small calls without long ones, and beside them.
    async fn small_calls(&self, lasting: Duration) -> Result<(Cell, Cell)> {
        let Started { running, endpoint, place } = self.start().await?;
        let alone = drive::paced(&running.way, SMALL_CALLS_PER_S, lasting).await?;
        let is_over = AtomicBool::new(false);
        let long = async {
            let load = load::run(&running.way, self.plan, self.expected()).await;
            is_over.store(true, Ordering::Relaxed);
            load
        };
        let is_wanted = |_| !is_over.load(Ordering::Relaxed);
        let (long, beside) = tokio::join!(long, drive::paced_while(&running.way, SMALL_CALLS_PER_S, is_wanted));
        let (long, beside) = (long?, beside?);
        for (what, load) in [("long", &long), ("small", &alone), ("small", &beside)] {
            say_what_failed(what, load);
        }
        drop((running, endpoint));
        let _ = std::fs::remove_dir_all(&place);
        Ok((Cell::of(&alone), Cell::of(&beside)))
    }
}

fn say_what_failed(what: &str, load: &Load) {
    if let Some(why) = &load.why {
        eprintln!("{} {what} calls failed, the first: {why}", load.errors);
    }
}

fn say_what_is_missing(record: &Record, plan: Plan) {
    if record.found < plan.calls() {
        eprintln!(
            "{} of {} calls have no span with a response id and a status",
            plan.calls() - record.found,
            plan.calls()
        );
    }
    for (reason, count) in &record.reasons {
        eprintln!("{count} spans: {reason}");
    }
}

/// What a folder takes on the disk.
fn disk_bytes(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let bytes = entries.map(|entry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => disk_bytes(&entry.path()),
        Ok(metadata) => metadata.blocks() * 512,
        Err(_) => 0,
    });
    bytes.sum()
}

/// The total of bytes that metrics name as spilled, if they name any.
fn spilled_bytes(metrics: &str) -> Option<f64> {
    sum(metrics, |name| name.contains("spill") && name.contains("bytes_total"))
}

/// The sum of the samples of these names; `None` if there are none.
fn sum(metrics: &str, is_wanted: impl Fn(&str) -> bool) -> Option<f64> {
    let samples = metrics.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.rsplit_once(' '));
    let values = samples.filter(|(name, _)| is_wanted(name));
    values.filter_map(|(_, value)| value.parse().ok()).reduce(|one: f64, other| one + other)
}

/// Waits until no exchange is still to be stored, and returns the metrics: a process that waits for a busy disk looks idle.
async fn all_stored(server: SocketAddr) -> Result<String> {
    let deadline = Instant::now() + STORE_LIMIT;
    loop {
        let metrics = gateways::get(server, "/metrics").await?;
        // Older programs don't have it.
        let unstored = sum(&metrics, |name| name.ends_with("_exchanges_unstored")).unwrap_or(0.0);
        if unstored == 0.0 {
            return Ok(metrics);
        }
        ensure!(Instant::now() < deadline, "{unstored} exchanges are not stored after {STORE_LIMIT:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Small calls beside the long ones.
const SMALL_CALLS_PER_S: u32 = 200;
/// How long the store may take for what is left when the calls are over.
const STORE_LIMIT: Duration = Duration::from_secs(120);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spilled_bytes_are_read_from_metrics_that_have_them() {
        let metrics = "# HELP a_spilled_bytes_total x\na_spilled_bytes_total 12\nb_bytes_total 5\na_spills_total 3\n";
        assert_eq!(spilled_bytes(metrics), Some(12.0));
        assert_eq!(spilled_bytes("b_bytes_total 5\n"), None);
    }
}

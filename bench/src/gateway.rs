//! The LLM gateway beside others: CPU of a call, added time, streams in flight, a backend that dies.

use crate::client::Ask;
use crate::drive;
use crate::failover::{self, Failover};
use crate::gateways::{self, Gateway, Who};
use crate::process::Served;
use crate::report::{self, Results};
use crate::run::around;
use crate::upstream::CALLS_SO_FAR;
use anyhow::{Context, Result};
use clap::Args;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Arguments of `gateway`.
#[derive(Args, Clone, Debug)]
pub struct GatewayArgs {
    /// The tracewire binary
    #[arg(long)]
    tracewire: PathBuf,
    /// Agent Lightning 1.0's `agl-server`
    #[arg(long)]
    agl: Option<PathBuf>,
    /// The `rllm-model-gateway` program
    #[arg(long)]
    rllm: Option<PathBuf>,
    /// The `litellm` program
    #[arg(long)]
    litellm: Option<PathBuf>,
    /// Rounds; medians are reported. Streams have one
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Seconds of each measurement
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Streams in flight
    #[arg(long, default_value_t = 500)]
    streams: usize,
    /// Seconds that each stream takes
    #[arg(long, default_value_t = 60)]
    stream_seconds: u64,
    /// One short round
    #[arg(long)]
    quick: bool,
    /// Only these scenarios: paced, calls, streams, failover
    #[arg(long, value_delimiter = ',')]
    scenario: Vec<String>,
    /// Only these gateways: direct, tracewire, tracewire-commit, agentlightning, rllm, litellm
    #[arg(long, value_delimiter = ',')]
    gateway: Vec<String>,
    /// Where the results go as JSON
    #[arg(long)]
    json: Option<PathBuf>,
}

/// What was found.
#[derive(Default)]
struct Found {
    results: Results,
    /// Calls that the endpoint answered, and spans that were stored of them.
    recorded: Vec<(u64, u64)>,
    failovers: Vec<Failover>,
}

/// Measures, and prints the tables.
pub async fn run(mut args: GatewayArgs) -> Result<()> {
    if args.quick {
        (args.rounds, args.seconds, args.stream_seconds) = (1, 2, 8);
    }
    let folder = std::env::temp_dir().join(format!("tracewire-gateway-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let endpoint = endpoint()?;
    let mut found = Found::default();
    for round in 0..args.rounds {
        for (label, who) in &everybody(&args) {
            if !chosen(label, &args.gateway) {
                continue;
            }
            eprintln!("round {} of {}: {label}", round + 1, args.rounds);
            let place = folder.join(format!("{label}-{round}"));
            if let Err(error) = measure(&args, who, label, round, endpoint.address, &place, &mut found).await {
                eprintln!("{label}: {error:#}");
            }
            let _ = std::fs::remove_dir_all(&place);
        }
        if chosen("failover", &args.scenario) {
            eprintln!("round {} of {}: failover", round + 1, args.rounds);
            let place = folder.join(format!("failover-{round}"));
            std::fs::create_dir_all(&place)?;
            let who = Who::Tracewire { binary: args.tracewire.clone(), registered: false };
            found.failovers.push(failover::run(&who, &place, Duration::from_secs(args.seconds.max(4))).await?);
        }
        if let Some(path) = &args.json {
            std::fs::write(path, serde_json::to_string_pretty(&found.results)?)?;
        }
    }
    let _ = std::fs::remove_dir_all(&folder);
    print!("{}", report::table(&found.results, OURS));
    print!("{}{}", failover::table(&found.failovers), verdicts(&found, &args));
    Ok(())
}

/// An endpoint of its own process.
pub fn endpoint() -> Result<Served> {
    Served::start(Command::new(std::env::current_exe()?).arg("endpoint")).context("the endpoint")
}

/// True when nothing was chosen, or this.
fn chosen(name: &str, list: &[String]) -> bool {
    list.is_empty() || list.iter().any(|wanted| wanted == name)
}

fn everybody(args: &GatewayArgs) -> Vec<(&'static str, Who)> {
    let tracewire = |registered| Who::Tracewire { binary: args.tracewire.clone(), registered };
    let mut all = vec![("direct", Who::Direct), (OURS, tracewire(false)), (COMMIT, tracewire(true))];
    all.extend(args.agl.clone().map(|program| ("agentlightning", Who::AgentLightning(program))));
    all.extend(args.rllm.clone().map(|program| ("rllm", Who::Rllm(program))));
    all.extend(args.litellm.clone().map(|program| ("litellm", Who::LiteLlm(program))));
    all
}

/// One gateway in one round.
async fn measure(
    args: &GatewayArgs,
    who: &Who,
    label: &str,
    round: usize,
    endpoint: SocketAddr,
    place: &Path,
    found: &mut Found,
) -> Result<()> {
    let lasting = Duration::from_secs(args.seconds);
    let short = ["paced", "calls"].into_iter().filter(|name| chosen(name, &args.scenario)).collect::<Vec<_>>();
    if !short.is_empty() {
        let (gateway, before) = ready(who, endpoint, place).await?;
        for scenario in short {
            let load = async {
                let load = match scenario {
                    "paced" => drive::paced(&gateway.way, RATE, lasting).await?,
                    _ => drive::closed_loop(&gateway.way, &Ask::Json, CALLERS, lasting).await?,
                };
                anyhow::Ok((load, Vec::new()))
            };
            let cell = around(gateway.served.as_ref(), load).await.context(scenario)?;
            found.results.add(scenario, label, cell);
        }
        found.recorded.extend(recorded(&gateway, endpoint, before).await?);
    }
    if matches!(who, Who::Tracewire { .. }) && round == 0 && chosen("streams", &args.scenario) {
        // On its own: memory is of the streams alone.
        let _ = std::fs::remove_dir_all(place);
        let (gateway, before) = ready(who, endpoint, place).await?;
        let ask = Ask::Sse { chunks: args.stream_seconds * CHUNKS_PER_S, interval_ms: INTERVAL_MS };
        let load = async { anyhow::Ok((drive::at_once(&gateway.way, &ask, args.streams).await?, Vec::new())) };
        let cell = around(gateway.served.as_ref(), load).await.context("streams")?;
        found.results.add("streams", label, cell);
        found.recorded.extend(recorded(&gateway, endpoint, before).await?);
    }
    Ok(())
}

/// A gateway that has been called some times, and how many calls the endpoint had had before.
async fn ready(who: &Who, endpoint: SocketAddr, place: &Path) -> Result<(Gateway, u64)> {
    std::fs::create_dir_all(place)?;
    let before = calls(endpoint).await?;
    let gateway = who.start(&[endpoint], place).await?;
    let load = drive::at_once(&gateway.way, &Ask::Json, CALLERS).await?;
    if let Some(why) = load.why {
        anyhow::bail!("{} of {CALLERS} first calls failed: {why}", load.errors);
    }
    Ok((gateway, before))
}

/// How many model calls an endpoint has had.
pub async fn calls(endpoint: SocketAddr) -> Result<u64> {
    gateways::get(endpoint, CALLS_SO_FAR).await?.trim().parse::<u64>().context("no number of calls")
}

/// The calls since then that the endpoint had, and the spans that Tracewire has stored. `None`: it is another gateway.
async fn recorded(gateway: &Gateway, endpoint: SocketAddr, before: u64) -> Result<Option<(u64, u64)>> {
    let Some(server) = gateway.served.as_ref().and_then(|served| served.server) else { return Ok(None) };
    let metrics = gateways::get(server, "/metrics").await?;
    let stored: Option<u64> =
        metrics.lines().find_map(|line| line.strip_prefix("tracewire_spans_stored_total ")?.trim().parse().ok());
    Ok(Some((calls(endpoint).await? - before, stored.context("no count of spans")?)))
}

/// What must be, and what is.
fn verdicts(found: &Found, args: &GatewayArgs) -> String {
    let mut text = "\n### against what it must be\n\n| | must | measured | |\n|---|---|---|---|\n".to_owned();
    let mut row = |what: &str, must: &str, measured: &str, is_met: bool| {
        let _ = writeln!(text, "| {what} | {must} | {measured} | {} |", if is_met { "met" } else { "missed" });
    };
    let cell = |scenario, label| found.results.median(scenario, label);
    let rivals = everybody(args).into_iter().filter(|(_, who)| who.is_rival());
    let costs =
        rivals.filter_map(|(label, _)| Some((label, cell("calls", label)?.cpu_us))).filter(|(_, cpu)| *cpu > 0.0);
    if let Some((best, theirs)) = costs.min_by(|(_, one), (_, other)| one.total_cmp(other)) {
        for label in [OURS, COMMIT] {
            let Some(ours) = cell("calls", label).map(|cell| cell.cpu_us).filter(|cpu| *cpu > 0.0) else { continue };
            let measured = format!("1/{:.1} of {best}: {ours:.0} of {theirs:.0} µs", theirs / ours);
            row(
                &format!("CPU per JSON call, {label}"),
                "≤ 1/40 of the best Python gateway",
                &measured,
                theirs >= 40.0 * ours,
            );
        }
    }
    for (label, p50, p99) in [(OURS, 0.4, 2.0), (COMMIT, 1.0, 5.0)] {
        let (Some(ours), Some(direct)) = (cell("paced", label), cell("paced", "direct")) else { continue };
        let (added50, added99) = ((ours.p50_us - direct.p50_us) / 1e3, (ours.p99_us - direct.p99_us) / 1e3);
        let what = format!("added p50 / p99 at {RATE} calls/s, {label}");
        let measured = format!("{added50:.2} / {added99:.2} ms");
        row(&what, &format!("≤ {p50} / {p99} ms"), &measured, added50 <= p50 && added99 <= p99);
    }
    for label in [OURS, COMMIT] {
        let Some(streams) = cell("streams", label) else { continue };
        let share = streams.cpu_us * streams.exchanges_per_s / 1e6;
        let (cut, peak) = (streams.errors, streams.peak_mb);
        let what = format!("{} streams of {} s, {label}", args.streams, args.stream_seconds);
        let measured = format!("{cut} cut, {:.0} % of a core, {peak:.0} MB", share * 100.0);
        row(&what, "none cut, < 50 % of a core, ≤ 150 MB", &measured, cut == 0.0 && share < 0.5 && peak <= 150.0);
    }
    if !found.failovers.is_empty() {
        let failed: u64 = found.failovers.iter().map(Failover::failed).sum();
        row("calls that failed before their answer began, a backend killed", "0", &failed.to_string(), failed == 0);
    }
    if !found.recorded.is_empty() {
        let (calls, spans) = found.recorded.iter().fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
        row("spans stored of calls", "all", &format!("{spans} of {calls}"), spans >= calls);
    }
    text
}

/// As the tables name them.
const OURS: &str = "tracewire";
const COMMIT: &str = "tracewire-commit";
/// Calls a second of the paced load.
const RATE: u32 = 200;
/// Connections of the load that goes as fast as it can.
const CALLERS: usize = 32;
const CHUNKS_PER_S: u64 = 20;
/// What makes twenty chunks a second, with what a timer adds.
const INTERVAL_MS: u64 = 49;

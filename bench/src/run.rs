//! One run: every scenario through every proxy, in rounds, side by side; medians and ratios.

use crate::client::{Ask, Client, Way};
use crate::drive::{self, Load};
use crate::gateways;
use crate::long::{self, LongArgs};
use crate::process::{self, Cores, Served, Usage};
use crate::recording::Recording;
use crate::report::{self, Cell, Results};
use crate::tls::Ca;
use anyhow::{Context, Result};
use clap::Args;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// Arguments of `measure`.
#[derive(Args, Clone, Debug)]
pub struct RunArgs {
    /// The tracewire binary; a second one is measured beside it
    #[arg(long, required = true)]
    pub tracewire: Vec<PathBuf>,
    /// The mitmdump program
    #[arg(long)]
    mitmdump: Option<PathBuf>,
    /// Rounds; medians are reported
    #[arg(long, default_value_t = 3)]
    pub rounds: usize,
    /// Seconds of each measurement
    #[arg(long, default_value_t = 5)]
    pub seconds: u64,
    /// Only these scenarios
    #[arg(long, value_delimiter = ',')]
    pub scenario: Vec<String>,
    /// Only these proxies
    #[arg(long, value_delimiter = ',')]
    pub proxy: Vec<String>,
    /// Run each proxy on this many cores, and the load and the endpoint on the others
    #[arg(long)]
    pub cores: Option<usize>,
    /// json, sse, json-ids, sse-ids: kept-alive connections
    #[arg(long, default_value_t = 32)]
    pub connections: usize,
    /// A setting of Tracewire, as `capture.workers=4`
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Where the results go as JSON
    #[arg(long)]
    pub json: Option<PathBuf>,
    /// What long calls are like
    #[command(flatten)]
    pub long: LongArgs,
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scenario {
    Json,
    Sse,
    JsonIds,
    SseIds,
    ChunksIds,
    PacedLong,
    Connect,
    Paced,
    Bulk,
    Chunks,
    Streams,
    Idle,
    H2,
}

const SCENARIOS: &[(&str, Scenario)] = &[
    ("json", Scenario::Json),
    ("sse", Scenario::Sse),
    ("json-ids", Scenario::JsonIds),
    ("sse-ids", Scenario::SseIds),
    ("chunks-ids", Scenario::ChunksIds),
    ("connect", Scenario::Connect),
    ("paced", Scenario::Paced),
    ("paced-long", Scenario::PacedLong),
    ("bulk", Scenario::Bulk),
    ("chunks", Scenario::Chunks),
    ("streams", Scenario::Streams),
    ("idle", Scenario::Idle),
    ("h2", Scenario::H2),
];

/// Who is measured.
#[derive(Clone, Debug)]
enum Who {
    Direct,
    Floor,
    Tracewire { binary: PathBuf, recording: Recording },
    Hudsucker,
    Mitmproxy(PathBuf),
}

/// Runs everything and prints the table.
pub async fn run(args: RunArgs) -> Result<()> {
    let folder = std::env::temp_dir().join(format!("tracewire-bench-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let ca = Ca::create(&folder)?;
    let own = std::env::current_exe()?;
    let cores = args.cores.map(Cores::divide).transpose()?;
    let mut endpoint = Command::new(&own);
    endpoint.arg("upstream").arg(&folder);
    let upstream = Served::start(&mut endpoint).context("the endpoint")?;
    let chosen = |name: &str, list: &[String]| list.is_empty() || list.iter().any(|wanted| wanted == name);
    let bench = Bench { args: &args, own, ca, folder, cores };
    let mut results = Results::default();
    for round in 0..args.rounds {
        for (name, scenario) in SCENARIOS.iter().filter(|(name, _)| chosen(name, &args.scenario)) {
            for (label, who) in everybody(&args).iter().filter(|(label, _)| chosen(label, &args.proxy)) {
                if skipped(*scenario, who) {
                    continue;
                }
                eprint!("\r\x1b[2Kround {} of {}: {name}, {label}", round + 1, args.rounds);
                let place = bench.folder.join(format!("{label}-{name}-{round}"));
                std::fs::create_dir_all(&place)?;
                let served = start(who, &bench, &place, *scenario)?;
                let measured = measure(*scenario, served.as_ref(), upstream.address, &args).await;
                match measured {
                    Ok(cell) => results.add(name, label, cell),
                    Err(error) => eprintln!("\n{name}, {label}: {error:#}"),
                }
                drop(served);
                let _ = std::fs::remove_dir_all(&place);
            }
        }
        // What was measured is not lost with what comes after it.
        eprintln!("\r\x1b[2K{}", report::table(&results, "floor"));
        if let Some(path) = &args.json {
            std::fs::write(path, serde_json::to_string_pretty(&results)?)?;
        }
    }
    let _ = std::fs::remove_dir_all(&bench.folder);
    print!("{}", report::table(&results, "floor"));
    if chosen("start", &args.scenario) {
        let bare = median_ms(&mut || Command::new("true").status().map(drop))?;
        let store = std::env::temp_dir();
        let recorded = median_ms(&mut || {
            let mut run = Command::new(&args.tracewire[0]);
            run.env("TRACEWIRE_HOME", &store).args(["run", "--store", "memory:", "--", "true"]);
            run.stderr(std::process::Stdio::null()).status().map(drop)
        })?;
        println!("\n### start\n\n`true`: {bare:.1} ms, `tracewire run -- true`: {recorded:.1} ms (medians of 21)");
    }
    long::run(&args).await
}

/// How long a command takes, in milliseconds.
fn median_ms(command: &mut dyn FnMut() -> std::io::Result<()>) -> Result<f64> {
    let mut times = Vec::new();
    for _ in 0..21 {
        let began = Instant::now();
        command()?;
        times.push(began.elapsed().as_secs_f64() * 1000.0);
    }
    times.sort_by(f64::total_cmp);
    Ok(times[times.len() / 2])
}

fn everybody(args: &RunArgs) -> Vec<(String, Who)> {
    let mut all = vec![("direct".to_owned(), Who::Direct), ("floor".to_owned(), Who::Floor)];
    for (number, binary) in args.tracewire.iter().enumerate() {
        let label = if number == 0 { "tracewire".to_owned() } else { "other".to_owned() };
        for recording in Recording::ALL {
            all.push((recording.label(&label), Who::Tracewire { binary: binary.clone(), recording }));
        }
    }
    all.push(("hudsucker".to_owned(), Who::Hudsucker));
    if let Some(mitmdump) = &args.mitmdump {
        all.push(("mitmproxy".to_owned(), Who::Mitmproxy(mitmdump.clone())));
    }
    all
}

/// What would only cost time: memory of nobody, and a thousand streams through a proxy that takes seconds for them.
fn skipped(scenario: Scenario, who: &Who) -> bool {
    match who {
        Who::Tracewire { recording, .. } => {
            recording.is_ablation() && !matches!(scenario, Scenario::Json | Scenario::Sse)
        }
        Who::Direct => matches!(scenario, Scenario::Streams | Scenario::Idle),
        Who::Mitmproxy(_) => matches!(
            scenario,
            Scenario::Streams
                | Scenario::Idle
                | Scenario::Chunks
                | Scenario::Bulk
                | Scenario::JsonIds
                | Scenario::SseIds
                | Scenario::ChunksIds
                | Scenario::PacedLong
        ),
        Who::Hudsucker => matches!(scenario, Scenario::JsonIds | Scenario::SseIds | Scenario::ChunksIds),
        _ => false,
    }
}

/// What every measurement has in common.
struct Bench<'a> {
    args: &'a RunArgs,
    /// This program.
    own: PathBuf,
    ca: Ca,
    /// Of the certificates and the stores.
    folder: PathBuf,
    cores: Option<Cores>,
}

/// Starts what is measured, with its data in `place`.
fn start(who: &Who, bench: &Bench<'_>, place: &Path, scenario: Scenario) -> Result<Option<Served>> {
    let Bench { args, own, ca, folder, cores } = bench;
    let cores = cores.as_ref();
    let command = match who {
        Who::Direct => return Ok(None),
        Who::Floor => {
            let mut command = Command::new(own);
            command.arg("relay").arg(folder);
            command
        }
        Who::Hudsucker => {
            let mut command = Command::new(own);
            command.arg("rival").arg(folder);
            if scenario == Scenario::H2 {
                command.arg("--http2");
            }
            command
        }
        Who::Tracewire { binary, recording } => {
            let pool = format!("upstream.pool_idle_timeout_ms = {POOL_IDLE_MS}\n");
            let idle = if scenario == Scenario::Streams { pool.as_str() } else { "" };
            // Ids are asked for and taken out again; the endpoint sends them to everybody.
            let ids = matches!(scenario, Scenario::JsonIds | Scenario::SseIds | Scenario::ChunksIds);
            let tokens = match ids {
                true => "tokens.engines = [{ hosts = [\"127.0.0.1\"], engine = \"vllm\" }]",
                false => "tokens.inject = \"off\"",
            };
            let settings = format!("{tokens}\n{}{idle}{}\n", recording.settings(), args.set.join("\n"));
            std::fs::write(place.join("proxy.toml"), settings)?;
            let mut command = Command::new(binary);
            command.env("TRACEWIRE_HOME", place).env("TRACEWIRE_LOG", "error").args(["serve", "--json"]);
            command.args(["--proxy", "127.0.0.1:0", "--server", "127.0.0.1:0", "--upstream-ca"]).arg(ca.path());
            command.arg("--config").arg(place.join("proxy.toml")).arg("--store").arg(recording.store(place));
            command
        }
        Who::Mitmproxy(mitmdump) => {
            let address = process::free_address()?;
            let mut command = Command::new(mitmdump);
            command
                .args(["-q", "--listen-host", "127.0.0.1", "--ssl-insecure"])
                .arg("--listen-port")
                .arg(address.port().to_string());
            command.arg("--set").arg(format!("confdir={}", place.display()));
            command.arg("-w").arg(place.join("flows"));
            return Ok(Some(Served::start_at(&mut Cores::pinned(cores, command), address)?));
        }
    };
    Ok(Some(Served::start(&mut Cores::pinned(cores, command))?))
}

async fn measure(scenario: Scenario, served: Option<&Served>, upstream: SocketAddr, args: &RunArgs) -> Result<Cell> {
    let way = Way::new(upstream, served.map(|served| served.address), "ro-bench")?.of_connections(args.connections);
    // Certificates, pools and caches are made before the clock starts.
    drive::at_once(&way, &Ask::Json, 4).await?;
    let mut cell = around(served, load(scenario, &way, args)).await?;
    if scenario == Scenario::Idle {
        cell.kb_each = (cell.after_mb - cell.before_mb).max(0.0) * 1024.0 / IDLE as f64;
    }
    Ok(cell)
}

/// What a load did, and what it cost a process. Connections that are still there stay until that is counted.
pub async fn around(served: Option<&Served>, load: impl Future<Output = Result<(Load, Vec<Client>)>>) -> Result<Cell> {
    let before = served.map(Served::usage).transpose()?.unwrap_or_default();
    let counted = Counted::of(served).await?;
    if let Some(served) = served {
        served.forget_peak();
    }
    let (load, held) = load.await?;
    // What a proxy puts off is part of what it costs.
    let after = match served {
        Some(served) => served.settled().await?,
        None => Usage::default(),
    };
    drop(held);
    if let Some(why) = &load.why {
        eprintln!("\n{} exchanges failed, the first: {why}", load.errors);
    }
    let mut cell = Cell::of(&load);
    let exchanges = load.latencies_us.len().max(1) as f64;
    cell.cpu_us = (after.cpu_us.saturating_sub(before.cpu_us)) as f64 / exchanges;
    cell.peak_mb = after.peak_kb as f64 / 1024.0;
    cell.before_mb = before.resident_kb as f64 / 1024.0;
    cell.after_mb = after.resident_kb as f64 / 1024.0;
    if let (Some(before), Some(after)) = (counted, Counted::of(served).await?) {
        cell.recorded_pct = before.recorded_pct(&after, load.latencies_us.len() as f64);
    }
    Ok(cell)
}

/// Counters of Tracewire.
struct Counted {
    /// Exchanges of which spans were stored.
    stored: f64,
    /// Exchanges that were left out, because the queue was full or a setting says so, and spans that were lost.
    missing: f64,
}

impl Counted {
    /// `None`: it is another proxy.
    async fn of(served: Option<&Served>) -> Result<Option<Self>> {
        let Some(server) = served.and_then(|served| served.server) else { return Ok(None) };
        let metrics = gateways::get(server, "/metrics").await?;
        let number = |name: &str| {
            let mut lines = metrics.lines().filter_map(|line| line.strip_prefix("tracewire_")?.strip_prefix(name));
            lines.find_map(|rest| rest.strip_prefix("_total ")?.trim().parse::<f64>().ok()).unwrap_or(0.0)
        };
        let stored = number("spans_stored") - number("spans_inferred");
        let missing = number("exchanges_dropped") + number("exchanges_filtered") + number("spans_lost");
        Ok(Some(Self { stored, missing }))
    }

    /// How many of the exchanges of a load are in the store, in percent. CONNECTs have spans too, so that what is missing
    /// counts, too, and not only what is there.
    fn recorded_pct(&self, after: &Self, exchanges: f64) -> f64 {
        let missing = (after.missing - self.missing).max(exchanges - (after.stored - self.stored));
        100.0 * (1.0 - missing.clamp(0.0, exchanges) / exchanges.max(1.0))
    }
}

async fn load(scenario: Scenario, way: &Way, args: &RunArgs) -> Result<(Load, Vec<Client>)> {
    let (lasting, connections) = (Duration::from_secs(args.seconds), args.connections);
    let sse = |chunks, interval_ms| Ask::Sse { chunks, interval_ms };
    Ok(match scenario {
        Scenario::Json | Scenario::JsonIds => {
            (drive::closed_loop(way, &Ask::Json, connections, lasting).await?, Vec::new())
        }
        Scenario::PacedLong => (drive::paced_beside_long_answers(way, 200, lasting).await?, Vec::new()),
        Scenario::Sse | Scenario::SseIds => {
            (drive::closed_loop(way, &sse(64, 1), connections, lasting).await?, Vec::new())
        }
        Scenario::Connect => (drive::handshakes(way, 8, lasting).await?, Vec::new()),
        Scenario::Paced => (drive::paced(way, 200, lasting).await?, Vec::new()),
        Scenario::Bulk => {
            let mut load = drive::at_once(way, &Ask::Upload(BULK), 2).await?;
            let down = drive::at_once(way, &Ask::Download(BULK), 2).await?;
            load.elapsed += down.elapsed;
            load.latencies_us.extend(down.latencies_us);
            load.bytes += down.bytes;
            load.errors += down.errors;
            (load, Vec::new())
        }
        Scenario::Chunks | Scenario::ChunksIds => (drive::at_once(way, &sse(200, 25), 100).await?, Vec::new()),
        Scenario::Streams => {
            let load = drive::at_once(way, &sse(20, 250), 2000).await?;
            // Until the connections to the endpoint have been idle for too long.
            tokio::time::sleep(Duration::from_millis(3 * POOL_IDLE_MS)).await;
            (load, Vec::new())
        }
        Scenario::Idle => {
            let held = drive::used_connections(way, IDLE).await?;
            tokio::time::sleep(Duration::from_secs(2)).await;
            (Load::default(), held)
        }
        Scenario::H2 => (drive::multiplexed(way, 100, lasting).await?, Vec::new()),
    })
}

const BULK: u64 = 100_000_000;
const IDLE: usize = 10_000;
const POOL_IDLE_MS: u64 = 5000;

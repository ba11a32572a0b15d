//! The store as a service: our server beside Agent Lightning's own, which keeps everything in memory.

use crate::process::{self, Served, Usage};
use anyhow::{Context, Result, bail};
use bytes::Bytes;
use clap::Args;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// Arguments of `service`.
#[derive(Args, Clone, Debug)]
pub struct ServiceArgs {
    /// The tracewire binary
    #[arg(long)]
    tracewire: PathBuf,
    /// Agent Lightning's `agl` program
    #[arg(long)]
    agl: Option<PathBuf>,
    /// An empty database of a PostgreSQL server on this machine: Tracewire is also measured with it as its store
    #[arg(long)]
    postgres: Option<String>,
    /// Seconds of each measurement
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Spans in the store when pages are read
    #[arg(long, default_value_t = 1_000_000)]
    spans: u64,
    /// Only these scenarios: span, otlp, rollouts, next, page
    #[arg(long, value_delimiter = ',')]
    scenario: Vec<String>,
}

/// Measures, and prints the table.
pub async fn run(args: ServiceArgs) -> Result<()> {
    let chosen = |name: &str| args.scenario.is_empty() || args.scenario.iter().any(|wanted| wanted == name);
    let lasting = Duration::from_secs(args.seconds);
    let mut table =
        "| | | per second | p50 ms | p99 ms | CPU µs each | memory MB |\n|---|---|--:|--:|--:|--:|--:|\n".to_owned();
    for (scenario, ours_only) in [("span", false), ("next", false), ("rollouts", false), ("otlp", true), ("page", true)]
    {
        if !chosen(scenario) {
            continue;
        }
        for side in [Side::Tracewire, Side::TracewirePostgres, Side::AgentLightning] {
            let is_there = match side {
                Side::Tracewire => true,
                Side::TracewirePostgres => args.postgres.is_some(),
                Side::AgentLightning => !ours_only && args.agl.is_some(),
            };
            if !is_there {
                continue;
            }
            let label = side.label();
            eprintln!("{scenario}, {label}");
            let folder = std::env::temp_dir().join(format!("tracewire-service-{}", std::process::id()));
            std::fs::create_dir_all(&folder)?;
            let (served, address) = start(&args, side, &folder)?;
            let (before, server_before) = (served.usage()?, process::cpu_us_of("postgres"));
            let measured = match scenario {
                "span" => spans(address, lasting).await,
                "next" => next(address, lasting).await,
                "rollouts" => rollouts(address, lasting).await,
                "otlp" => otlp(address, lasting).await,
                _ => pages(address, args.spans, lasting).await,
            };
            let (after, server_after) = (served.usage()?, process::cpu_us_of("postgres"));
            let server_us = (side == Side::TracewirePostgres).then(|| server_after.saturating_sub(server_before));
            drop(served);
            std::fs::remove_dir_all(&folder)?;
            let measured = measured.with_context(|| format!("{scenario}, {label}"))?;
            row(&mut table, [scenario, label], measured, [before, after], server_us);
        }
    }
    print!("{table}");
    Ok(())
}

/// What is measured.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Tracewire,
    TracewirePostgres,
    AgentLightning,
}

impl Side {
    fn label(self) -> &'static str {
        match self {
            Self::Tracewire => "tracewire",
            Self::TracewirePostgres => "tracewire, PostgreSQL",
            Self::AgentLightning => "agentlightning",
        }
    }
}

fn start(args: &ServiceArgs, side: Side, folder: &std::path::Path) -> Result<(Served, SocketAddr)> {
    let free = process::free_address()?;
    let mut command = match (&args.agl, side) {
        (Some(agl), Side::AgentLightning) => {
            let mut command = Command::new(agl);
            command
                .args(["store", "--host", "127.0.0.1", "--log-level", "ERROR", "--port"])
                .arg(free.port().to_string());
            command
        }
        _ => {
            let mut command = Command::new(&args.tracewire);
            command.env("TRACEWIRE_HOME", folder).env("TRACEWIRE_LOG", "error");
            command.args(["serve", "--proxy", "127.0.0.1:0", "--server"]).arg(free.to_string());
            if let (Some(url), Side::TracewirePostgres) = (&args.postgres, side) {
                command.arg("--store").arg(url);
            }
            command
        }
    };
    Ok((Served::start_at(&mut command, free)?, free))
}

/// What a scenario did: how often, how long each took, and how many of them count.
struct Measured {
    latencies_us: Vec<u64>,
    each: u64,
    elapsed: Duration,
}

/// `server_us` is the CPU time of a PostgreSQL server's processes.
fn row(
    table: &mut String,
    [scenario, label]: [&str; 2],
    mut measured: Measured,
    [before, after]: [Usage; 2],
    server_us: Option<u64>,
) {
    measured.latencies_us.sort_unstable();
    let at = |share: f64| {
        let place = (measured.latencies_us.len() as f64 * share) as usize;
        measured.latencies_us.get(place).copied().unwrap_or(0) as f64 / 1000.0
    };
    let count = measured.latencies_us.len() as u64 * measured.each;
    let each = |us: u64| us as f64 / count.max(1) as f64;
    let mut cpu = format!("{:.1}", each(after.cpu_us.saturating_sub(before.cpu_us)));
    if let Some(us) = server_us {
        let _ = write!(cpu, " + {:.1}", each(us));
    }
    let rate = count as f64 / measured.elapsed.as_secs_f64();
    let memory = after.resident_kb / 1024;
    let _ =
        writeln!(table, "| {scenario} | {label} | {rate:.0} | {:.2} | {:.2} | {cpu} | {memory} |", at(0.5), at(0.99));
}

/// A connection without TLS.
pub struct Client {
    sender: SendRequest<Full<Bytes>>,
    host: String,
}

impl Client {
    pub async fn connect(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(Self { sender, host: address.to_string() })
    }

    pub async fn send(&mut self, method: Method, path: &str, kind: &str, body: Bytes) -> Result<Bytes> {
        self.sender.ready().await?;
        let request =
            Request::builder().method(method).uri(path).header("host", &self.host).header("content-type", kind);
        let response = self.sender.send_request(request.body(Full::new(body))?).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        if !status.is_success() {
            bail!("{path}: {status} {}", String::from_utf8_lossy(&body));
        }
        Ok(body)
    }

    async fn post(&mut self, path: &str, body: &Value) -> Result<Value> {
        let answer =
            self.send(Method::POST, &format!("/v1/agl{path}"), "application/json", body.to_string().into()).await?;
        Ok(serde_json::from_slice(&answer)?)
    }
}

/// Between two ids that one asks for: all together a thousand a second, which neither side is short of.
const PAUSE: Duration = Duration::from_millis(64);

/// `workers` tasks that do one thing again and again, with a pause between.
async fn repeat<F, W>(workers: usize, pause: Duration, lasting: Duration, each: u64, make: F) -> Result<Measured>
where
    F: Fn(usize) -> W,
    W: Worker + Send + 'static,
{
    let began = Instant::now();
    let mut tasks = JoinSet::new();
    for number in 0..workers {
        let mut worker = make(number);
        tasks.spawn(async move {
            worker.begin().await?;
            let mut latencies = Vec::new();
            while began.elapsed() < lasting {
                let started = Instant::now();
                worker.once().await?;
                latencies.push(u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX));
                if !pause.is_zero() {
                    tokio::time::sleep(pause).await;
                }
            }
            anyhow::Ok(latencies)
        });
    }
    let mut latencies_us = Vec::new();
    while let Some(done) = tasks.join_next().await {
        latencies_us.extend(done??);
    }
    Ok(Measured { latencies_us, each, elapsed: began.elapsed() })
}

trait Worker {
    fn begin(&mut self) -> impl Future<Output = Result<()>> + Send;
    fn once(&mut self) -> impl Future<Output = Result<()>> + Send;
}

/// A connection with a rollout of its own.
struct Runner {
    address: SocketAddr,
    client: Option<Client>,
    rollout: Value,
    number: u64,
    work: Work,
}

#[derive(Clone, Copy)]
enum Work {
    Span,
    Next,
    Rollout,
}

impl Runner {
    fn new(address: SocketAddr, work: Work) -> Self {
        Self { address, client: None, rollout: Value::Null, number: 0, work }
    }

    fn client(&mut self) -> Result<&mut Client> {
        self.client.as_mut().context("no connection")
    }
}

static NUMBER: AtomicU64 = AtomicU64::new(1);

fn span(rollout: &Value, sequence_id: u64) -> Value {
    let id = NUMBER.fetch_add(1, Ordering::Relaxed);
    json!({ "rollout_id": rollout["rollout_id"], "attempt_id": rollout["attempt"]["attempt_id"], "sequence_id": sequence_id,
            "trace_id": format!("{id:032x}"), "span_id": format!("{id:016x}"), "parent_id": null, "name": "openai.chat.completion",
            "status": { "status_code": "OK", "description": null },
            "attributes": { "gen_ai.request.model": "m", "gen_ai.usage.input_tokens": 20, "gen_ai.prompt.0.role": "user",
                "gen_ai.prompt.0.content": format!("question {id}"), "gen_ai.completion.0.role": "assistant",
                "gen_ai.completion.0.content": "an answer of some words", "response_token_ids": [1, 2, 3, 4, 5, 6, 7, 8] },
            "events": [], "links": [], "start_time": 1700000000.0, "end_time": 1700000001.0, "context": null, "parent": null,
            "resource": { "attributes": { "service.name": "bench" }, "schema_url": "" } })
}

impl Worker for Runner {
    async fn begin(&mut self) -> Result<()> {
        let mut client = Client::connect(self.address).await?;
        if !matches!(self.work, Work::Rollout) {
            self.rollout = client.post("/rollouts", &json!({ "input": "bench" })).await?;
        }
        self.client = Some(client);
        Ok(())
    }

    async fn once(&mut self) -> Result<()> {
        self.number += 1;
        let (number, work, rollout) = (self.number, self.work, self.rollout.clone());
        let client = self.client()?;
        match work {
            Work::Span => drop(client.post("/spans", &span(&rollout, number)).await?),
            Work::Next => {
                let whose =
                    json!({ "rollout_id": rollout["rollout_id"], "attempt_id": rollout["attempt"]["attempt_id"] });
                client.post("/spans/next", &whose).await?;
            }
            Work::Rollout => {
                client.post("/queues/rollouts/enqueue", &json!({ "rollouts": [{ "input": { "n": number } }] })).await?;
                let taken = client.post("/queues/rollouts/dequeue", &json!({ "limit": 1 })).await?;
                let taken = &taken[0];
                if taken.is_null() {
                    return Ok(());
                }
                for sequence_id in 1..=2 {
                    client.post("/spans", &span(taken, sequence_id)).await?;
                }
                let (rollout, attempt) = (&taken["rollout_id"], &taken["attempt"]["attempt_id"]);
                let path = format!(
                    "/rollouts/{}/attempts/{}",
                    rollout.as_str().context("no id")?,
                    attempt.as_str().context("no id")?
                );
                client.post(&path, &json!({ "status": "succeeded" })).await?;
            }
        }
        Ok(())
    }
}

async fn spans(address: SocketAddr, lasting: Duration) -> Result<Measured> {
    repeat(32, Duration::ZERO, lasting, 1, |_| Runner::new(address, Work::Span)).await
}

async fn next(address: SocketAddr, lasting: Duration) -> Result<Measured> {
    repeat(64, PAUSE, lasting, 1, |_| Runner::new(address, Work::Next)).await
}

async fn rollouts(address: SocketAddr, lasting: Duration) -> Result<Measured> {
    repeat(256, Duration::ZERO, lasting, 1, |_| Runner::new(address, Work::Rollout)).await
}

struct Exporter {
    address: SocketAddr,
    client: Option<Client>,
    rollout: String,
}

const BATCH: u64 = 512;

fn batch(rollout: &str) -> Bytes {
    let text = |text: &str| Some(AnyValue { value: Some(any_value::Value::StringValue(text.to_owned())) });
    let pair = |key: &str, value: Option<AnyValue>| KeyValue { key: key.to_owned(), value, ..KeyValue::default() };
    let spans = (0..BATCH).map(|_| {
        let id = NUMBER.fetch_add(1, Ordering::Relaxed);
        Span {
            trace_id: u128::from(id).to_be_bytes().to_vec(),
            span_id: id.to_be_bytes().to_vec(),
            name: "chat m".to_owned(),
            kind: 3,
            start_time_unix_nano: 1_700_000_000_000_000_000 + id,
            end_time_unix_nano: 1_700_000_001_000_000_000 + id,
            attributes: vec![
                pair("gen_ai.operation.name", text("chat")),
                pair("gen_ai.request.model", text("m")),
                pair("gen_ai.response.id", text(&format!("chatcmpl-{id}"))),
                pair("server.address", text("api.example")),
            ],
            ..Span::default()
        }
    });
    let named = vec![pair("service.name", text("bench")), pair("agentlightning.rollout_id", text(rollout))];
    let request = ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(Resource { attributes: named, ..Resource::default() }),
            scope_spans: vec![ScopeSpans { spans: spans.collect(), ..ScopeSpans::default() }],
            schema_url: String::new(),
        }],
    };
    request.encode_to_vec().into()
}

impl Worker for Exporter {
    async fn begin(&mut self) -> Result<()> {
        self.client = Some(Client::connect(self.address).await?);
        Ok(())
    }

    async fn once(&mut self) -> Result<()> {
        let body = batch(&self.rollout);
        let client = self.client.as_mut().context("no connection")?;
        client.send(Method::POST, "/v1/traces", "application/x-protobuf", body).await.map(drop)
    }
}

async fn otlp(address: SocketAddr, lasting: Duration) -> Result<Measured> {
    repeat(4, Duration::ZERO, lasting, BATCH, |number| Exporter {
        address,
        client: None,
        rollout: format!("ro-{number}"),
    })
    .await
}

struct Reader {
    address: SocketAddr,
    client: Option<Client>,
    rollouts: u64,
}

impl Worker for Reader {
    async fn begin(&mut self) -> Result<()> {
        self.client = Some(Client::connect(self.address).await?);
        Ok(())
    }

    async fn once(&mut self) -> Result<()> {
        let rollout = NUMBER.fetch_add(7919, Ordering::Relaxed) % self.rollouts;
        let path = format!("/v1/agl/spans?rollout_id=ro-{rollout}&limit=100&offset=200");
        let client = self.client.as_mut().context("no connection")?;
        client.send(Method::GET, &path, "application/json", Bytes::new()).await.map(drop)
    }
}

/// A page of one rollout's spans, 512 a rollout, one at a time.
async fn pages(address: SocketAddr, spans: u64, lasting: Duration) -> Result<Measured> {
    let rollouts = (spans / BATCH).max(1);
    let next = Arc::new(AtomicU64::new(0));
    let mut tasks = JoinSet::new();
    for _ in 0..4 {
        let next = Arc::clone(&next);
        tasks.spawn(async move {
            let mut client = Client::connect(address).await?;
            loop {
                let rollout = next.fetch_add(1, Ordering::Relaxed);
                if rollout >= rollouts {
                    return anyhow::Ok(());
                }
                let body = batch(&format!("ro-{rollout}"));
                client.send(Method::POST, "/v1/traces", "application/x-protobuf", body).await?;
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    repeat(1, Duration::ZERO, lasting, 1, |_| Reader { address, client: None, rollouts }).await
}

//! The composition root: the only file that names concrete stores and puts the parts together.

use crate::api::metrics::Metric;
use crate::api::otlp::IngestCounters;
use crate::api::{self, ApiState, Sequences};
use crate::capture::{Absorb, Calls, Engines, Recorder, Seed, SeedSource, Sequencer};
use crate::config::{Config, StorePlace, StoreSettings, data_folder};
use crate::dialect::tokens::Fault;
use crate::forward::Forwarder;
use crate::net::drain::Drain;
use crate::net::listener::accept;
use crate::pipeline::Pipeline;
use crate::pipeline::span::SpanOptions;
use crate::proxy::{Distrust, Proxy, serve_connection};
use crate::rollout::{Rollouts, lifecycle};
use crate::run::runtime::advice;
use crate::store::memory::MemoryStore;
use crate::store::postgres::{PostgresOptions, PostgresStore};
use crate::store::spool::Spooled;
use crate::store::sqlite::{SqliteOptions, SqliteStore};
use crate::store::{BoxFuture, SharedStore, StoreError};
use crate::tls::{CertAuthority, LeafCache, UpstreamTls};
use crate::trace::span::SpanContext;
use crate::trace::{AttemptId, RolloutId};
use crate::upstream::Upstream;
use crate::wire::redact::Redactor;
use anyhow::{Context, Result};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

/// A running program: its doors, its pipeline, its store.
pub struct App {
    /// Where the proxy door listens.
    pub proxy_address: SocketAddr,
    /// Where the server door listens, if there is one.
    pub server_address: Option<SocketAddr>,
    /// Where OTLP is taken over gRPC, if it is.
    pub otlp_grpc_address: Option<SocketAddr>,
    /// The store.
    pub store: SharedStore,
    recorder: Recorder,
    pipeline: Pipeline,
    distrust: Arc<Distrust>,
    drain: Drain,
    drain_timeout: Duration,
    watchdog: Option<tokio::task::JoinHandle<()>>,
}

/// What of a program is not settings.
pub struct Parts {
    /// The CA that agents trust.
    pub authority: CertAuthority,
    /// The store.
    pub store: SharedStore,
    /// The rollout that the proxy door is bound to.
    pub binding: Option<(RolloutId, AttemptId)>,
    /// False: no server door.
    pub with_server: bool,
}

/// What the end of a program has to say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ended {
    /// False when exchanges were cut off at the deadline.
    pub drained: bool,
    /// Spans that could not be stored.
    pub lost: u64,
    /// Exchanges that passed unrecorded because the queue was full.
    pub dropped: u64,
}

impl App {
    /// Binds the doors and starts everything.
    pub async fn start(config: &Config, parts: Parts) -> Result<Self> {
        config.check()?;
        let Parts { authority, store, binding, with_server } = parts;
        let (recorder, queue) = Recorder::new(config.capture.clone());
        let (engines, calls) = (Engines::default(), Calls::default());
        let pipeline = Pipeline::start(queue, Arc::clone(&store), span_options(config, engines.clone(), calls.clone()))
            .context("the pipeline's thread can't be started")?;
        let tls = UpstreamTls::new(&config.tls)?;
        let upstream = Upstream::new(config.upstream.clone(), tls, &|name| std::env::var(name).ok());
        let upstream = upstream.map_err(anyhow::Error::msg)?;
        let sequencer = Sequencer::new(seeds(&store));
        let rollouts = Rollouts::new(Arc::clone(&store));
        let service = Service {
            rollouts: rollouts.clone(),
            sequencer: sequencer.clone(),
            calls,
            counts_alone: !matches!(config.store.place(), StorePlace::Postgres(_)),
            reserved: Mutex::default(),
        };
        let (trace, tokens) = (config.trace.clone(), config.tokens.clone());
        let forwarder = Forwarder::new(upstream.clone(), recorder.clone(), sequencer, trace, tokens, engines);
        let distrust = Arc::new(Distrust::new(advice));
        let leaves = Arc::new(LeafCache::new(authority)?);
        let proxy = Proxy::new(config.proxy.clone(), forwarder, leaves, binding, Arc::clone(&distrust));
        let listener = bind(config.proxy.listen, "proxy.listen", "--proxy").await?;
        let proxy_address = listener.local_addr()?;
        upstream.dialler().refuse(proxy_address);
        let drain = Drain::new();
        let mut app = Self {
            proxy_address,
            server_address: None,
            otlp_grpc_address: None,
            store,
            recorder,
            pipeline,
            distrust,
            drain,
            drain_timeout: config.shutdown.drain_timeout,
            watchdog: None,
        };
        if with_server {
            let address = app.start_server(config, service).await?;
            app.watchdog = Some(tokio::spawn(rollouts.watch()));
            upstream.dialler().refuse(address);
            if let Some(address) = app.otlp_grpc_address {
                upstream.dialler().refuse(address);
            }
            app.server_address = Some(address);
        }
        let permits = Arc::new(Semaphore::new(config.proxy.max_connections.clamp(1, Semaphore::MAX_PERMITS)));
        tokio::spawn(accept(listener, permits, app.drain.guard(), move |stream, peer, guard| {
            serve_connection(proxy.clone(), stream, peer, guard)
        }));
        Ok(app)
    }

    /// Stops accepting, lets exchanges in flight finish up to the deadline, stores everything, closes the store.
    pub async fn stop(self) -> Ended {
        self.stop_with(std::future::ready(())).await.0
    }

    /// As `stop`; `last_look` runs when everything is stored and the store still open.
    pub async fn stop_with<T>(self, last_look: impl Future<Output = T>) -> (Ended, T) {
        let drained = self.drain.drain(self.drain_timeout).await;
        let dropped = self.recorder.counters().dropped.load(Ordering::Relaxed);
        let lost = self.pipeline.finish(&self.recorder.counters().begun).await;
        let looked = last_look.await;
        if let Some(watchdog) = self.watchdog {
            watchdog.abort();
        }
        if let Err(error) = self.store.close().await {
            tracing::error!(%error, "the store could not be closed");
        }
        if dropped > 0 {
            tracing::error!(dropped, "exchanges passed unrecorded because the capture queue was full");
        }
        (Ended { drained, lost, dropped }, looked)
    }

    async fn start_server(&mut self, config: &Config, service: Service) -> Result<SocketAddr> {
        let listener = bind(config.server.listen, "server.listen", "--server").await?;
        let address = listener.local_addr()?;
        let ingest = Arc::new(IngestCounters::default());
        let state = ApiState {
            rollouts: service.rollouts.clone(),
            sequences: Arc::new(service),
            redactor: Arc::new(Redactor::new(config.redact.clone())),
            started: Instant::now(),
            counts: counts(self.recorder.clone(), &self.pipeline, Arc::clone(&self.distrust), Arc::clone(&ingest)),
            ingest,
            allowed_hosts: config.server.allowed_hosts.clone().into(),
            tokens: config.server.tokens.clone().into(),
            cors_origins: config.server.cors_origins.clone().into(),
        };
        if let Some(listen) = config.server.otlp_grpc_listen {
            let listener = bind(listen, "server.otlp_grpc_listen", "--otlp-grpc").await?;
            self.otlp_grpc_address = Some(listener.local_addr()?);
            self.serve(listener, api::grpc(state.clone()));
        }
        self.serve(listener, api::router(state));
        Ok(address)
    }

    /// Serves until the end.
    fn serve(&self, listener: TcpListener, router: axum::Router) {
        let mut guard = self.drain.guard();
        let serving = axum::serve(listener, router);
        tokio::spawn(async move {
            // Requests here are short: ending them at once is kinder than to make a shutdown wait.
            tokio::select! {
                _ = serving => {}
                () = guard.started() => {}
            }
        });
    }
}

/// Opens the store that the settings name.
pub async fn open_store(config: &Config) -> Result<SharedStore, StoreError> {
    let settings = &config.store;
    match settings.place() {
        StorePlace::Memory => Ok(Arc::new(MemoryStore::new(settings.retention).hearing(lifecycle::heard))),
        StorePlace::File(_) => {
            let options = SqliteOptions {
                retention: settings.retention,
                synchronous: settings.synchronous,
                heard: lifecycle::heard,
                ..SqliteOptions::default()
            };
            Ok(Arc::new(SqliteStore::open(&store_path(settings), options)?))
        }
        StorePlace::Postgres(url) => {
            let tls = UpstreamTls::new(&config.tls).map_err(|error| StoreError::Other(error.to_string()))?;
            let options = PostgresOptions { retention: settings.retention, heard: lifecycle::heard };
            let server = Arc::new(PostgresStore::open(&url, tls.plain_config(), options).await?);
            Ok(Arc::new(Spooled::new(server, &home().join("spool"), settings.max_spool_bytes)?))
        }
    }
}

/// The file that the settings name, or the one under the data folder.
pub fn store_path(settings: &StoreSettings) -> PathBuf {
    settings.path.clone().unwrap_or_else(|| home().join("traces.db"))
}

/// What the store is called in front of people: without a password.
pub fn place_name(settings: &StoreSettings) -> String {
    match settings.place() {
        StorePlace::Memory => "memory, gone with the program".to_owned(),
        StorePlace::File(_) => store_path(settings).display().to_string(),
        StorePlace::Postgres(url) => crate::store::postgres::without_password(&url),
    }
}

/// The folder of the CA.
pub fn ca_folder(config: &Config) -> PathBuf {
    config.tls.ca_dir.clone().unwrap_or_else(|| home().join("ca"))
}

fn home() -> PathBuf {
    data_folder(&|name| std::env::var_os(name)).unwrap_or_else(|| PathBuf::from(".tracewire"))
}

async fn bind(address: SocketAddr, setting: &str, flag: &str) -> Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| {
        format!(
            "{address} can't be listened on; choose another address with {flag} or {setting} (port 0 takes a free one)"
        )
    })
}

fn span_options(config: &Config, engines: Engines, calls: Calls) -> SpanOptions {
    SpanOptions {
        include_headers: config.capture.include_headers,
        include_bodies: config.capture.include_bodies,
        llm_content: config.capture.llm_content,
        max_body_bytes: usize::try_from(config.capture.max_body_bytes).unwrap_or(usize::MAX),
        header_allow: config.capture.header_allow.clone(),
        header_deny: config.capture.header_deny.clone(),
        absorb: config.capture.absorb_telemetry != Absorb::Off,
        redactor: Redactor::new(config.redact.clone()),
        calls,
        engines,
    }
}

/// What the server door does with rollouts; the sequence ids are those that the proxy door gives out too.
struct Service {
    rollouts: Rollouts,
    sequencer: Sequencer,
    calls: Calls,
    // Nobody else gives out ids: the store need not be asked for each.
    counts_alone: bool,
    // Up to which id the store knows that they are given out, so that a restart goes on behind them.
    reserved: Mutex<HashMap<RolloutId, u64>>,
}

impl Service {
    /// Has the store know of this id, and of some to come.
    async fn reserve(&self, rollout: &RolloutId, id: u64) {
        {
            let reserved = self.reserved.lock().unwrap_or_else(PoisonError::into_inner);
            if !self.counts_alone || reserved.get(rollout).is_some_and(|known| *known >= id) {
                return;
            }
        }
        let (of, to) = (rollout.clone(), id + RESERVED_AT_ONCE);
        if let Err(error) = self.rollouts.quietly(move |records, _| Ok(records.raise_sequence(&of, to)?)).await {
            return tracing::warn!(%error, rollout_id = %rollout, "the store could not be told which ids are given out");
        }
        let mut reserved = self.reserved.lock().unwrap_or_else(PoisonError::into_inner);
        if reserved.len() >= MOST_RESERVED {
            reserved.clear();
        }
        let known = reserved.entry(rollout.clone()).or_default();
        *known = to.max(*known);
    }
}

const RESERVED_AT_ONCE: u64 = 64;
const MOST_RESERVED: usize = 16 * 1024;

impl Sequences for Service {
    fn next<'a>(&'a self, rollout: &'a RolloutId) -> BoxFuture<'a, u64> {
        Box::pin(async move {
            let (id, _) = self.sequencer.next(rollout, None).await;
            self.reserve(rollout, id).await;
            id
        })
    }

    fn recorded(&self, rollout: &RolloutId, response_id: &str) -> Option<SpanContext> {
        self.calls.of(rollout, response_id)
    }

    fn raise<'a>(&'a self, rollout: &'a RolloutId, to: u64) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            let _ = self.sequencer.next(rollout, Some(to)).await;
        })
    }
}

fn seeds(store: &SharedStore) -> SeedSource {
    let store = Arc::clone(store);
    Arc::new(move |id| {
        let store = Arc::clone(&store);
        Box::pin(async move {
            let (standing, shared) = match store.next_sequence(id.clone()).await.ok()? {
                Some(standing) => (standing, true),
                None => (store.standing(id).await.ok()?, false),
            };
            Some(Seed { last_sequence_id: standing.last_sequence_id, registered: standing.registered, shared })
        })
    })
}

fn counts(
    recorder: Recorder,
    pipeline: &Pipeline,
    distrust: Arc<Distrust>,
    ingest: Arc<IngestCounters>,
) -> api::metrics::Counts {
    let stored = Arc::clone(pipeline.counters());
    Arc::new(move || {
        let captured = recorder.counters();
        let counter = |name, help, value: &std::sync::atomic::AtomicU64| Metric {
            name,
            help,
            kind: "counter",
            reason: None,
            value: value.load(Ordering::Relaxed),
        };
        let unproved = Fault::ALL.iter().zip(&stored.unproved).map(|(fault, count)| Metric {
            reason: Some(fault.as_str()),
            ..counter("token_ids_unproved_total", "Calls whose token ids are not proved, by reason.", count)
        });
        let mut all: Vec<Metric> = unproved.collect();
        all.extend([
            counter("exchanges_total", "Exchanges that are recorded.", &captured.begun),
            counter("exchanges_dropped_total", "Exchanges unrecorded because the queue was full.", &captured.dropped),
            counter("exchanges_filtered_total", "Exchanges unrecorded because a setting says so.", &captured.filtered),
            counter("bodies_truncated_total", "Bodies cut short in the record.", &captured.truncated),
            counter("commits_missed_total", "Answers delivered before their commit.", &captured.commit_missed),
            counter("identity_conflicts_total", "Exchanges named by two carriers.", &captured.identity_conflicts),
            counter("spans_stored_total", "Spans stored.", &stored.stored),
            counter("store_errors_total", "Appends the store refused, tried again.", &stored.store_errors),
            counter("spans_lost_total", "Spans lost.", &stored.lost),
            counter("spans_inferred_total", "Spans of tools, inferred from calls.", &stored.inferred),
            counter("otlp_spans_total", "Spans taken by OTLP.", &ingest.taken),
            counter("otlp_spans_rejected_total", "Spans refused by OTLP.", &ingest.rejected),
            counter("otlp_spans_unassigned_total", "Spans by OTLP of nobody's rollout.", &ingest.unassigned),
            Metric {
                name: "certificates_refused_total",
                help: "Connections whose client refused our certificate.",
                kind: "counter",
                reason: None,
                value: distrust.refused(),
            },
            Metric {
                name: "capture_memory_left_bytes",
                help: "Left of capture.memory_budget_bytes.",
                kind: "gauge",
                reason: None,
                value: recorder.budget().left_bytes(),
            },
        ]);
        all
    })
}

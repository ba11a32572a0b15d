//! A running program: creates the parts, connects them, and stops them in order.

use super::known_endpoints::EngineMemory;
use super::metrics::{Counted, warnings};
use super::service::{RegisteredRollouts, SequenceService, StoreSequences};
use super::stores::spill_folder;
use crate::api::{ApiServer, ApiState, IngestCounters};
use crate::capture::Recorder;
use crate::config::Config;
use crate::export::sample::{AttemptSample, SampleOptions};
use crate::filter::SpanFilter;
use crate::forward::Forwarder;
use crate::gateway::{Gateway, ReroutedCallers};
use crate::live_export::{JsonLinesPlace, LiveExports, MetricsReader};
use crate::net::BoxedIo;
use crate::net::drain::{Drain, DrainGuard, Drained};
use crate::net::http_server::{HttpConnection, ResponseOrigin};
use crate::net::listener::{ConnectionLimits, accept};
use crate::pipeline::{ObservedState, Pipeline, SpanOptions};
use crate::proxy::{CertificateRejections, KeyCheck, Proxy, serve_connection};
use crate::rollout::{IndexWait, Rollouts, SearchCache, SoundnessCheck, TailSampler, apply_rules, forget_place};
use crate::run::runtime::advice;
use crate::shared_state::{DetectedEngines, SequenceAllocator};
use crate::store::SharedStore;
use crate::tls::{CertAuthority, LeafCache, UpstreamTls};
use crate::trace::{AttemptId, RolloutId};
use crate::upstream::Upstream;
use crate::wire::redact::Redactor;
use anyhow::{Context, Result};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::broadcast;

/// A running program: the listeners, the pipeline and the store.
pub(crate) struct App {
    /// The proxy's bound address.
    pub(crate) proxy_address: SocketAddr,
    /// The API server's bound address; `None` without an API server.
    pub(crate) server_address: Option<SocketAddr>,
    /// The bound address for OTLP over gRPC; `None` if the setting is empty.
    pub(crate) otlp_grpc_address: Option<SocketAddr>,
    /// The store that spans go to; [`Self::stop`] closes it.
    pub(crate) store: SharedStore,
    recorder: Recorder,
    pipeline: Pipeline,
    rejections: Arc<CertificateRejections>,
    drain: Drain,
    drain_timeout: Duration,
    engines: DetectedEngines,
    engine_memory: EngineMemory,
    exports: LiveExports,
    filter: SpanFilter,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

/// What a program needs besides its settings.
pub(crate) struct Parts {
    /// Signs the certificates that agents see.
    pub(crate) authority: CertAuthority,
    /// Where spans go; opened by the caller.
    pub(crate) store: SharedStore,
    /// The rollout and attempt of all traffic that names none; `None`: each connection gets a rollout of its own.
    pub(crate) binding: Option<(RolloutId, AttemptId)>,
    /// Whether the API server is started too.
    pub(crate) with_server: bool,
    /// How long what it learns of endpoints is kept.
    pub(crate) engine_memory: EngineMemory,
}

/// The result of stopping a program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct StopReport {
    /// False if exchanges were aborted at the deadline (`shutdown.drain_timeout_ms`).
    pub(crate) drained: bool,
    /// Number of spans that could not be stored.
    pub(crate) lost: u64,
    /// Number of exchanges that were forwarded but not recorded, because the capture queue was full.
    pub(crate) dropped: u64,
}

impl App {
    /// Binds the listeners and starts all parts.
    pub(crate) async fn start(config: &Config, parts: Parts) -> Result<Self> {
        config.check()?;
        let Parts { authority, store, binding, with_server, engine_memory } = parts;
        let (recorder, queues) = Recorder::new(config.capture.clone(), spill_folder(&config.store));
        let engines = engine_memory.load();
        let observed = ObservedState { detected_engines: engines.clone(), ..ObservedState::default() };
        let options = SpanOptions::new(&config.capture, Redactor::new(config.redact.clone()));
        let filter = SpanFilter::new(config.limits, &config.sampling, Arc::clone(&store));
        let pipeline = Pipeline::start(queues, Arc::clone(&store), &filter, &options, observed.clone())
            .context("cannot start the pipeline's threads")?;
        let tls = UpstreamTls::new(&config.tls)?;
        let upstream =
            Upstream::new(config.upstream.clone(), tls, config.proxy.block.clone(), &|name| std::env::var(name).ok())?;
        let exports = start_exports(config, &store, metrics_reader(&pipeline), &upstream).await?;
        let sequences = SequenceAllocator::new(Arc::new(StoreSequences(Arc::clone(&store))));
        let rollouts = Rollouts::new(Arc::clone(&store)).with_filter(filter.clone());
        let service = SequenceService { sequences: sequences.clone(), recorded_calls: observed.recorded_calls };
        let (trace, tokens) = (config.trace.clone(), config.tokens.clone());
        let forwarder =
            Forwarder::new(upstream.clone(), recorder.clone(), sequences, trace, tokens, observed.detected_engines);
        let registered = Arc::new(RegisteredRollouts { store: Arc::clone(&store), token_usage: observed.token_usage });
        let rerouted_callers =
            if config.server.tokens.is_empty() { ReroutedCallers::All } else { ReroutedCallers::Authenticated };
        let (settings, reroutes) = (config.gateway.clone(), config.reroute.clone());
        let gateway = Gateway::new(settings, reroutes, forwarder.clone(), registered, rerouted_callers)
            .context("[[gateway.backends]]")?;
        // Without an API server the gateway is used only for the calls that `[[reroute]]` names.
        let intercepts = with_server || !config.reroute.is_empty();
        let forwarder = if intercepts { forwarder.with_interceptor(Arc::new(gateway.clone())) } else { forwarder };
        let rejections = Arc::new(CertificateRejections::new(advice));
        let leaves = Arc::new(LeafCache::new(authority)?);
        let proxy =
            Proxy::new(config.proxy.clone(), forwarder, leaves, binding, Arc::clone(&rejections), key_check(&gateway));
        let listener = bind(config.proxy.listen, "proxy.listen", "--proxy").await?;
        let proxy_address = listener.local_addr()?;
        upstream.dialler().add_own_listener(proxy_address);
        let drain = Drain::new();
        let mut app = Self {
            proxy_address,
            server_address: None,
            otlp_grpc_address: None,
            store,
            recorder,
            pipeline,
            rejections,
            drain,
            drain_timeout: config.shutdown.drain_timeout,
            engines,
            engine_memory,
            exports,
            tasks: vec![tokio::spawn(filter.clone().run(rollouts.subscribe_ended()))],
            filter,
        };
        if with_server {
            let ended_rollouts = rollouts.subscribe_ended();
            let address = app.start_server(config, rollouts.clone(), service, gateway.clone()).await?;
            let tail = TailSampler::new(Arc::clone(&app.store), &app.filter, &config.sampling, soundness_check(config));
            app.tasks.push(match tail {
                Some(tail) => tokio::spawn(tail.run(rollouts.subscribe_ended())),
                None => tokio::spawn(forget_place(Arc::clone(&app.store))),
            });
            app.tasks.push(tokio::spawn(apply_rules(Arc::clone(&app.store), config.store.retention.clone())));
            app.tasks.push(tokio::spawn(rollouts.run_watchdog()));
            app.tasks.push(tokio::spawn(gateway.clone().run_probes()));
            app.tasks.push(tokio::spawn(gateway.clone().recheck_rollouts()));
            app.tasks.push(tokio::spawn(end_calls(ended_rollouts, gateway)));
            upstream.dialler().add_own_listener(address);
            if let Some(address) = app.otlp_grpc_address {
                upstream.dialler().add_own_listener(address);
            }
            app.server_address = Some(address);
        }
        let proxy = proxy.relaying_to(app.server_address.into_iter().chain(app.otlp_grpc_address));
        let limits = ConnectionLimits::new(config.proxy.max_connections);
        tokio::spawn(accept(listener, limits, app.drain.guard(), move |stream, peer, guard| {
            serve_connection(proxy.clone(), stream, peer, guard)
        }));
        Ok(app)
    }

    /// Writes each span that is stored from now on as a line of JSON.
    pub(crate) async fn emit(&mut self, place: &JsonLinesPlace) -> Result<()> {
        Ok(self.exports.emit(place, &self.store).await?)
    }

    /// Stops accepting connections, waits for exchanges in flight up to the deadline, stores all spans, closes the store.
    pub(crate) async fn stop(self) -> StopReport {
        self.stop_with(std::future::ready(())).await.0
    }

    /// As [`Self::stop`]; `before_close` runs after all spans are stored and before the store is closed.
    pub(crate) async fn stop_with<T>(self, before_close: impl Future<Output = T>) -> (StopReport, T) {
        let drained = self.drain.drain(self.drain_timeout).await == Drained::InTime;
        let dropped = self.recorder.counters().dropped.load(Ordering::Relaxed);
        let lost = self.pipeline.finish(&self.recorder.counters().started).await;
        self.filter.finish().await;
        self.engine_memory.keep(&self.engines);
        let result = before_close.await;
        self.exports.finish().await;
        self.tasks.iter().for_each(tokio::task::JoinHandle::abort);
        if let Err(error) = self.store.close().await {
            tracing::error!(%error, "cannot close the store; its last writes may be missing");
        }
        if dropped > 0 {
            tracing::error!(
                dropped,
                "exchanges were not recorded because the capture queue was full; raise capture.queue_exchanges"
            );
        }
        (StopReport { drained, lost, dropped }, result)
    }

    async fn start_server(
        &mut self,
        config: &Config,
        rollouts: Rollouts,
        service: SequenceService,
        gateway: Gateway,
    ) -> Result<SocketAddr> {
        let listener = bind(config.server.listen, "server.listen", "--server").await?;
        let address = listener.local_addr()?;
        let ingest = Arc::new(IngestCounters::default());
        let state = ApiState {
            rollouts,
            sequences: Arc::new(service),
            redactor: Arc::new(Redactor::new(config.redact.clone())),
            started: Instant::now(),
            metrics: Counted {
                recorder: self.recorder.clone(),
                rejections: Arc::clone(&self.rejections),
                ingest: Arc::clone(&ingest),
                gateway: gateway.clone(),
                exports: self.exports.counters(),
                filter: self.filter.clone(),
            }
            .source(&self.pipeline),
            warnings: warnings(
                self.recorder.clone(),
                Arc::clone(self.pipeline.counters()),
                gateway.clone(),
                self.exports.counters(),
            ),
            ingest,
            allowed_hosts: config.server.allowed_hosts.clone().into(),
            tokens: config.server.tokens.clone().into(),
            cors_origins: config.server.cors_origins.clone().into(),
            triplets: config.server.triplets,
            verdict: Arc::new(config.verdict.clone()),
            search: Arc::new(SearchCache::new(
                config.verdict.clone(),
                config.prices.clone(),
                IndexWait::UpTo(MAX_INDEX_WAIT),
            )),
            gateway: gateway.clone(),
            proxy_address: self.proxy_address,
        };
        if let Some(listen) = config.server.otlp_grpc_listen {
            let listener = bind(listen, "server.otlp_grpc_listen", "--otlp-grpc").await?;
            self.otlp_grpc_address = Some(listener.local_addr()?);
            self.serve_api(config, listener, ApiServer::grpc(state.clone()), None);
        }
        self.serve_api(config, listener, ApiServer::new(state), Some(gateway));
        Ok(address)
    }

    /// Serves a listener of the API until the program stops, behind the same framing checks, header timeout and connection
    /// limit as the proxy. LLM calls of `gateway` are waited for.
    fn serve_api(&self, config: &Config, listener: TcpListener, server: ApiServer, gateway: Option<Gateway>) {
        let header_timeout = config.proxy.header_timeout;
        let limits = ConnectionLimits::new(config.proxy.max_connections).with_spare_descriptors(SPARE_DESCRIPTORS);
        let serve = move |stream: TcpStream, peer, drain: DrainGuard| {
            let calls_ended = calls_ended(drain.clone(), gateway.clone());
            let io: BoxedIo = Box::new(stream);
            let connection = HttpConnection { io, peer, drain, header_timeout, responses: ResponseOrigin::Local };
            let serving = server.clone().serve(connection);
            async move {
                tokio::select! {
                    () = serving => {}
                    () = calls_ended => {}
                }
            }
        };
        tokio::spawn(accept(listener, limits, self.drain.guard(), serve));
    }
}

/// Starts the exports before anything is stored, so that they miss nothing.
async fn start_exports(
    config: &Config,
    store: &SharedStore,
    metrics: MetricsReader,
    upstream: &Upstream,
) -> Result<LiveExports> {
    let connecting = |certificate: Option<&Path>| {
        let Some(certificate) = certificate else { return Ok(upstream.clone()) };
        let mut tls = config.tls.clone();
        tls.upstream_ca.push(certificate.to_owned());
        Ok(upstream.with_tls(UpstreamTls::new(&tls)?))
    };
    LiveExports::start(&config.export, &config.verdict, store, &metrics, &connecting).await.context("[export]")
}

/// Judges rollouts as `[verdict]` says.
fn soundness_check(config: &Config) -> SoundnessCheck {
    let options = SampleOptions { verdict: config.verdict.clone(), ..SampleOptions::default() };
    Arc::new(move |found, spans| {
        AttemptSample::of(found.rollout, found.attempt.as_ref(), spans, &options).verdict.is_sound()
    })
}

/// Reads the metrics of model calls.
fn metrics_reader(pipeline: &Pipeline) -> MetricsReader {
    let counters = Arc::clone(pipeline.counters());
    Arc::new(move || counters.gen_ai.snapshot())
}

/// Knows the keys that the gateway has signed; `None` if it signs none.
fn key_check(gateway: &Gateway) -> Option<KeyCheck> {
    let gateway = gateway.clone();
    let is_signing = !gateway.settings().signing_key.is_empty();
    is_signing.then(|| Arc::new(move |key: &str| gateway.rollout_of_text(key)) as KeyCheck)
}

/// Completes when the drain has started and the LLM calls have ended: other requests are short and not waited for.
async fn calls_ended(drain: DrainGuard, gateway: Option<Gateway>) {
    drain.started().await;
    if let Some(gateway) = gateway {
        // Each call ends by itself or at the drain deadline.
        gateway.idle().await;
    }
    tokio::time::sleep(FLUSH_TIMEOUT).await;
}

/// Aborts the LLM calls of rollouts that have ended.
async fn end_calls(mut ended_rollouts: broadcast::Receiver<RolloutId>, gateway: Gateway) {
    loop {
        match ended_rollouts.recv().await {
            Ok(rollout) => gateway.rollout_ended(&rollout),
            // The next call of a missed rollout finds that it has ended.
            Err(broadcast::error::RecvError::Lagged(_)) => {}
            Err(broadcast::error::RecvError::Closed) => return,
        }
    }
}

async fn bind(address: SocketAddr, setting: &str, flag: &str) -> Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| {
        format!(
            "cannot listen on {address}; choose another address with {flag} or {setting} (port 0 takes any free port)"
        )
    })
}

/// A search of messages waits so long for what is not searched yet.
const MAX_INDEX_WAIT: Duration = Duration::from_millis(1500);
/// So many connections can ask an API listener how the program is when the agents have taken all descriptors.
const SPARE_DESCRIPTORS: usize = 8;
/// How long the last bytes of LLM responses may take to reach the agent, after the backend has sent them.
const FLUSH_TIMEOUT: Duration = Duration::from_millis(200);

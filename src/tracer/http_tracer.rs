//! The tracer that records HTTP calls: of a command, or of a client in this process.

use super::contract::Tracer;
use super::core::{OpenTrace, TracerCore};
use super::error::{Result, TracerError};
use super::options::TraceOptions;
use super::processor::Discard;
use super::store_tracer::{StoreTracer, StoreTracerCounters};
use crate::app::{CommandProxy, CommandProxySettings, EngineMemory};
use crate::config::Config;
use crate::run::child::{ChildSpec, Streams, start};
use crate::run::{ATTEMPT_VARIABLE, ROLLOUT_VARIABLE};
use crate::store::memory::MemoryStore;
use crate::store::{Retention, Store, StoreExt};
use crate::tls::install_provider;
use crate::trace::semconv as names;
use std::ffi::OsString;
use std::fmt::{self, Display};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

/// Records every HTTP call behind a proxy that exists for one trace: method, URL, status, times, sizes; of LLM calls also messages,
/// usage and token ids. HTTPS is intercepted with a CA that exists only in memory.
///
/// [`Self::run_command`] isolates the agent in a child process, in any language; its environment makes clients use the proxy.
/// [`Self::run_with_proxy`] is for clients in this process, which get the proxy's URL and CA. When the trace ends, the calls are
/// below its root, in [`Tracer::last_trace`] and in the store.
///
/// ```
/// use tracewire::tracer::{HttpTracer, TraceOptions, Tracer, TracerError};
///
/// # #[tokio::main(flavor = "multi_thread")]
/// # async fn main() -> Result<(), TracerError> {
/// let tracer = HttpTracer::new().with_bodies();
/// tracer.init_worker(0)?;
/// let end = tracer.run_command("agent", ["sh", "-c", "exit 3"]).await?;
/// assert_eq!(end.exit_code, 3);
/// let trace = tracer.last_trace()?;
/// assert_eq!(trace.root().unwrap().attributes["process.exit.code"].as_int(), Some(3));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct HttpTracer {
    core: TracerCore,
    /// The tracer into a store that has the same core. `None` if traces stay in memory.
    store_tracer: Option<StoreTracer>,
    config: Config,
    timeout: Option<Duration>,
}

/// A proxy that records one trace.
#[derive(Clone)]
pub struct TraceProxy {
    url: String,
    ca_pem: String,
    environment: Vec<(String, OsString)>,
}

impl TraceProxy {
    /// The URL for HTTP and HTTPS clients.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The certificate that clients have to trust, as PEM.
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// Variables for child processes, as `tracewire run` sets them. The files that they name exist until the trace ends.
    pub fn environment(&self) -> &[(String, OsString)] {
        &self.environment
    }
}

impl fmt::Debug for TraceProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The URL may have a token.
        f.debug_struct("TraceProxy").finish_non_exhaustive()
    }
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommandEnd {
    /// The exit code: 128 + n if signal n killed it, 124 after the timeout.
    pub exit_code: i32,
    /// True if it ran into the timeout. It and its process group were stopped.
    pub timed_out: bool,
}

impl HttpTracer {
    /// A tracer that keeps traces in memory.
    pub fn new() -> Self {
        Self::with(TracerCore::new("http", Discard), None)
    }

    /// A tracer into a store, as [`StoreTracer`].
    pub fn into_store(store: Arc<impl Store>) -> Result<Self> {
        let store_tracer = StoreTracer::named("http", store)?;
        Ok(Self::with(store_tracer.core().clone(), Some(store_tracer)))
    }

    fn with(core: TracerCore, store_tracer: Option<StoreTracer>) -> Self {
        let mut config = Config::default();
        // Nothing is written to the data folder.
        config.store.path = Some("memory:".into());
        Self { core, store_tracer, config, timeout: None }
    }

    /// Records header fields, redacted.
    pub fn with_headers(mut self) -> Self {
        self.config.capture.include_headers = true;
        self
    }

    /// Records bodies, redacted.
    pub fn with_bodies(mut self) -> Self {
        self.config.capture.include_bodies = true;
        self
    }

    /// Records Agent Lightning's own requests too (`x-agentlightning-client: true`).
    pub fn with_own_requests(mut self) -> Self {
        self.config.capture.own_traffic = true;
        self
    }

    /// Trusts the certificates of a PEM file for endpoints, besides those of the system.
    pub fn with_upstream_ca(mut self, pem_file: impl Into<std::path::PathBuf>) -> Self {
        self.config.tls.upstream_ca.push(pem_file.into());
        self
    }

    /// Stops a command, or drops the future of a closure, after this time.
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// What has happened to the spans so far. `None` if traces stay in memory.
    pub fn counters(&self) -> Option<StoreTracerCounters> {
        self.store_tracer.as_ref().map(StoreTracer::counters)
    }

    /// Runs a command as a trace. An exit code other than 0 marks the root span as failed. The command has the standard streams
    /// of this process, and the signals of the terminal do not reach it.
    pub async fn run_command<A: Into<OsString>>(
        &self,
        options: impl Into<TraceOptions>,
        command: impl IntoIterator<Item = A>,
    ) -> Result<CommandEnd> {
        let recording = self.start(options.into()).await?;
        let command: Vec<OsString> = command.into_iter().map(Into::into).collect();
        let ended = match recording.parts() {
            Some((trace, proxy)) => self.run_child(trace, proxy, command).await,
            None => Err(gone()),
        };
        recording.finish().await;
        ended
    }

    /// Runs a future as a trace, with a proxy for its clients. It is also the trace context of the future.
    pub async fn run_with_proxy<T, E, F>(
        &self,
        options: impl Into<TraceOptions>,
        function: impl FnOnce(TraceProxy) -> F,
    ) -> Result<T, E>
    where
        E: Display + From<TracerError>,
        F: Future<Output = Result<T, E>>,
    {
        let recording = self.start(options.into()).await?;
        let Some((trace, proxy)) = recording.parts() else { return Err(gone().into()) };
        let future = async {
            let environment = proxy.environment(&[]).map_err(proxy_error)?.set;
            let clients = TraceProxy { url: proxy.proxy_url.clone(), ca_pem: proxy.ca_pem.clone(), environment };
            let future = Box::pin(function(clients));
            match self.timeout {
                Some(limit) => match tokio::time::timeout(limit, future).await {
                    Ok(result) => result,
                    Err(_) => Err(TracerError::TimedOut { limit }.into()),
                },
                None => future.await,
            }
        };
        let result = super::context::in_context(Box::pin(future), Some(trace.root.context().clone())).await;
        if let Err(error) = &result {
            trace.root.record_exception(error);
        }
        recording.finish().await;
        result
    }

    async fn start(&self, options: TraceOptions) -> Result<Recording> {
        install_provider();
        let trace = self.core.start(options)?;
        let context = trace.root.context();
        let (rollout, attempt) = (context.rollout_id().clone(), context.attempt_id().clone());
        let settings = CommandProxySettings::new(&self.config).map_err(proxy_error)?;
        // Its own, because the proxy closes it.
        let store = Arc::new(MemoryStore::new(Retention::default()));
        let proxy = Box::pin(settings.start(store, rollout, attempt, EngineMemory::Process)).await;
        Ok(Recording(Some((self.core.clone(), trace, proxy.map_err(proxy_error)?))))
    }

    async fn run_child(&self, trace: &OpenTrace, proxy: &CommandProxy, command: Vec<OsString>) -> Result<CommandEnd> {
        let context = trace.root.context();
        let mut environment = proxy.environment(&command).map_err(proxy_error)?;
        let ids =
            [(ROLLOUT_VARIABLE, context.rollout_id().as_str()), (ATTEMPT_VARIABLE, context.attempt_id().as_str())];
        environment.set.extend(ids.map(|(name, id)| (name.to_owned(), id.into())));
        let headers = context.headers().map(|(name, value)| (name.to_ascii_uppercase(), value.into()));
        environment.set.extend(headers);
        let spec = ChildSpec { command, environment, timeout: self.timeout, streams: Streams::Inherited };
        let mut running = start(&spec).map_err(|error| {
            trace.root.record_exception(&error);
            TracerError::Proxy(error.to_string())
        })?;
        let waiting = running.child.wait();
        let status = match self.timeout {
            Some(limit) => tokio::time::timeout(limit, waiting).await.ok(),
            None => Some(waiting.await),
        };
        let end = match status {
            Some(status) => CommandEnd { exit_code: crate::run::child::exit_code(status), timed_out: false },
            None => {
                running.end().await;
                CommandEnd { exit_code: TIMED_OUT, timed_out: true }
            }
        };
        trace.root.record(names::PROCESS_EXIT_CODE, i64::from(end.exit_code));
        if end.exit_code != 0 {
            let problem = if end.timed_out { "the command ran into its timeout" } else { "the command failed" };
            trace.root.record_status(crate::trace::StatusCode::Error, Some(problem));
        }
        Ok(end)
    }
}

/// A trace and its proxy. If this is dropped before its end, a task of the runtime ends it: no call is lost that was made.
struct Recording(Option<(TracerCore, OpenTrace, CommandProxy)>);

impl Recording {
    /// `None` only while this is dropped.
    fn parts(&self) -> Option<(&OpenTrace, &CommandProxy)> {
        self.0.as_ref().map(|(_, trace, proxy)| (trace, proxy))
    }

    /// Stops the proxy, takes its spans into the trace, and ends the trace. Errors are logged: the agent's result counts.
    async fn finish(mut self) {
        if let Some((core, trace, proxy)) = self.0.take() {
            finish(core, trace, proxy).await;
        }
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        if let (Some((core, trace, proxy)), Ok(runtime)) = (self.0.take(), tokio::runtime::Handle::try_current()) {
            runtime.spawn(finish(core, trace, proxy));
        }
    }
}

async fn finish(core: TracerCore, trace: OpenTrace, proxy: CommandProxy) {
    let context = trace.root.context();
    let CommandProxy { app, files, .. } = proxy;
    let store = Arc::clone(&app.store);
    let (rollout, attempt) = (context.rollout_id().clone(), context.attempt_id().clone());
    let (_, spans) = Box::pin(app.stop_with(async { store.spans(rollout, Some(attempt)).await })).await;
    drop(files);
    let spans = spans.unwrap_or_else(|error| {
        tracing::error!(%error, "the HTTP calls of a trace can't be read from its proxy, and are lost");
        Vec::new()
    });
    for (at, span) in spans.into_iter().enumerate() {
        context.trace.adopt(span);
        // More would not fit into the queue of a store.
        if at % FLUSHED_CALLS == FLUSHED_CALLS - 1 {
            flush(&core).await;
        }
    }
    drop(trace);
    flush(&core).await;
}

async fn flush(core: &TracerCore) {
    if let Err(error) = core.flush().await {
        tracing::warn!(%error, tracer = core.name(), "spans of a trace have not arrived yet");
    }
}

impl Default for HttpTracer {
    fn default() -> Self {
        Self::new()
    }
}

impl Tracer for HttpTracer {
    fn core(&self) -> &TracerCore {
        &self.core
    }
}

impl fmt::Debug for HttpTracer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpTracer").field("core", &self.core).field("timeout", &self.timeout).finish_non_exhaustive()
    }
}

fn proxy_error(error: anyhow::Error) -> TracerError {
    TracerError::Proxy(format!("{error:#}"))
}

fn gone() -> TracerError {
    TracerError::Proxy("it has been stopped".to_owned())
}

const FLUSHED_CALLS: usize = 4096;
/// The exit code of `timeout(1)`.
const TIMED_OUT: i32 = 124;

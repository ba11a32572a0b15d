//! `tracewire run -- CMD`: a proxy door for one command, its environment, its exit code, its timeline.
//!
//! stdin, stdout and stderr are the command's until it has ended.

use super::{StoreArgs, read_config, show, variable};
use crate::app::{App, Parts, open_store, store_path};
use crate::config::Config;
use crate::run::Loopback;
use crate::run::child::{self, ChildEnd, ChildError, ChildSpec};
use crate::run::environment::{Environment, Request};
use crate::store::SharedStore;
use crate::tls::CertAuthority;
use crate::trace::rollout::{Attempt, AttemptStatus, Rollout, RolloutStatus};
use crate::trace::semconv as names;
use crate::trace::span::{Resource, SpanContext};
use crate::trace::{AttemptId, RolloutId, Span, SpanId, SpanKind, Status, StatusCode, Timestamp, TraceId};
use anyhow::{Context, Result};
use clap::Args;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// Arguments of `run`.
#[derive(Args)]
#[command(after_help = "Examples:
  tracewire run -- python3 agent.py
  tracewire run --name nightly --include-bodies --timeout 600 -- ./agent --task 7")]
pub(super) struct RunArgs {
    /// What to call this run [default: the command's name]
    #[arg(long)]
    name: Option<String>,
    /// The rollout it belongs to [default: a new one]
    #[arg(long, value_name = "ID")]
    rollout: Option<String>,
    /// The attempt of that rollout [default: a new one]
    #[arg(long, value_name = "ID")]
    attempt: Option<String>,
    /// End the command and all it started after so many seconds; the exit code is 124
    #[arg(long, value_name = "SECS")]
    timeout: Option<u64>,
    /// Record header fields, redacted
    #[arg(long)]
    include_headers: bool,
    /// Record bodies, redacted
    #[arg(long)]
    include_bodies: bool,
    /// Are calls to this machine itself traced? [default: auto, that is unless NO_PROXY names it]
    #[arg(long, value_enum)]
    loopback: Option<Loopback>,
    /// Load nothing into Node and Python programs
    #[arg(long)]
    no_hooks: bool,
    #[command(flatten)]
    store: StoreArgs,
    /// The settings file
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// PEM file with roots for endpoints, besides the system's (may be given again)
    #[arg(long, value_name = "PEM")]
    upstream_ca: Vec<PathBuf>,
    /// Dial another address for a host and port, as curl has it (may be given again)
    #[arg(long, value_name = "HOST:PORT:HOST:PORT")]
    connect_to: Vec<String>,
    /// The command and its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "CMD")]
    command: Vec<OsString>,
}

pub(super) async fn run(args: RunArgs) -> Result<ExitCode> {
    let mut config = read_config(args.config.as_ref())?;
    config.capture.include_headers |= args.include_headers;
    config.capture.include_bodies |= args.include_bodies;
    config.tls.upstream_ca.extend(args.upstream_ca);
    config.upstream.connect_to.extend(args.connect_to);
    config.run.loopback = args.loopback.unwrap_or(config.run.loopback);
    config.run.hooks &= !args.no_hooks;
    args.store.apply(&mut config.store);
    let name = args.name.unwrap_or_else(|| command_name(&args.command));
    let recorded = Recorded {
        rollout: args.rollout.as_deref().map_or_else(|| RolloutId::from_random(fastrand::u64(..)), Into::into),
        attempt: args.attempt.as_deref().map_or_else(|| AttemptId::from_random(fastrand::u32(..)), Into::into),
        name,
        command: args.command,
        timeout: args.timeout.map(Duration::from_secs),
    };
    recorded.run(config).await
}

/// One command to be run and recorded; also what `demo` is made of.
pub(super) struct Recorded {
    pub(super) rollout: RolloutId,
    pub(super) attempt: AttemptId,
    pub(super) name: String,
    pub(super) command: Vec<OsString>,
    pub(super) timeout: Option<Duration>,
}

impl Recorded {
    /// Runs the command behind a door of its own and shows its timeline.
    pub(super) async fn run(self, mut config: Config) -> Result<ExitCode> {
        config.proxy.listen = SocketAddr::from(([127, 0, 0, 1], 0));
        // The command has ended; what it left running gets a moment to finish its exchanges.
        config.shutdown.drain_timeout = config.shutdown.drain_timeout.min(DRAIN_AFTER_RUN);
        let authority = CertAuthority::ephemeral("Tracewire run")?;
        let folder = tempfile::Builder::new().prefix("tracewire-").tempdir().context("no temporary folder")?;
        let working_directory = std::env::current_dir().context("the working directory is gone")?;
        let ca_pem = authority.ca_pem().to_owned();
        let store = open_store(&config.store)?;
        let binding = Some((self.rollout.clone(), self.attempt.clone()));
        let began = Timestamp::from(SystemTime::now());
        self.register(&store, began).await?;
        let parts = Parts { authority, store: Arc::clone(&store), binding, with_server: false };
        let app = App::start(&config, parts).await?;
        let proxy_url = match config.proxy.token.expose() {
            "" => format!("http://{}", app.proxy_address),
            token => format!("http://:{}@{}", utf8_percent_encode(token, NON_ALPHANUMERIC), app.proxy_address),
        };
        let environment = Request {
            folder: folder.path(),
            proxy_url: &proxy_url,
            ca_pem: &ca_pem,
            settings: &config.run,
            bypass: &[],
            runtimes: &[],
            current: &variable,
            working_directory: &working_directory,
        };
        let environment = environment.build()?;
        let notes = environment.notes.clone();
        let ended = self.child(environment).await;
        self.close(&store, began, &ended).await;
        // The store is read before it is closed, after everything is in it.
        let spans_of = Arc::clone(&store);
        let stopped = app.stop_with(async { spans_of.spans(self.rollout.clone(), Some(self.attempt.clone())).await });
        let (stopped, spans) = stopped.await;
        match spans {
            Ok(spans) => self.report(&spans, &config, &notes),
            Err(error) => show::note(&format!("tracewire: the store can't be read: {error}")),
        }
        if stopped.lost + stopped.dropped > 0 {
            show::note(&format!("tracewire: {} spans lost, {} not recorded", stopped.lost, stopped.dropped));
        }
        Ok(match ended {
            Ok(end) => ExitCode::from(u8::try_from(end.exit_code).unwrap_or(1)),
            Err(error) => {
                show::note(&format!("tracewire: {error}"));
                ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(1))
            }
        })
    }

    async fn child(&self, environment: Environment) -> Result<ChildEnd, ChildError> {
        child::run(ChildSpec { command: self.command.clone(), environment, timeout: self.timeout }).await
    }

    async fn register(&self, store: &SharedStore, began: Timestamp) -> Result<()> {
        let mut rollout = match store.rollout(self.rollout.clone()).await? {
            Some(rollout) => Rollout { status: RolloutStatus::Running, end_time: None, ..rollout },
            None => Rollout::running(self.rollout.clone(), began),
        };
        if let Some(metadata) = rollout.metadata.as_object_mut() {
            metadata.insert("name".to_owned(), self.name.clone().into());
        }
        store.put_rollout(rollout).await?;
        store.put_attempt(Attempt::running(self.rollout.clone(), self.attempt.clone(), began)).await?;
        Ok(())
    }

    /// Writes the root span and the end of rollout and attempt. What fails here is said, and the run's result stands.
    async fn close(&self, store: &SharedStore, began: Timestamp, ended: &Result<ChildEnd, ChildError>) {
        let now = Timestamp::from(SystemTime::now());
        let closing = async {
            store.append(vec![self.root_span(began, now, ended)]).await?;
            let succeeded = matches!(ended, Ok(end) if end.exit_code == 0);
            if let Some(rollout) = store.rollout(self.rollout.clone()).await? {
                let status = if succeeded { RolloutStatus::Succeeded } else { RolloutStatus::Failed };
                store.put_rollout(Rollout { status, end_time: Some(now), ..rollout }).await?;
            }
            let attempts = store.attempts(self.rollout.clone()).await?;
            if let Some(attempt) = attempts.into_iter().find(|attempt| attempt.attempt_id == self.attempt) {
                let status = match ended {
                    Ok(end) if end.timed_out => AttemptStatus::Timeout,
                    _ if succeeded => AttemptStatus::Succeeded,
                    _ => AttemptStatus::Failed,
                };
                store.put_attempt(Attempt { status, end_time: Some(now), ..attempt }).await?;
            }
            Ok::<_, crate::store::StoreError>(())
        };
        if let Err(error) = closing.await {
            show::note(&format!("tracewire: the end of this run could not be stored: {error}"));
        }
    }

    fn root_span(&self, began: Timestamp, now: Timestamp, ended: &Result<ChildEnd, ChildError>) -> Span {
        let trace_id = TraceId::of_attempt(&self.rollout, &self.attempt).to_string();
        let span_id = SpanId::of_attempt_root(&self.rollout, &self.attempt).to_string();
        let (exit_code, description) = match ended {
            Ok(end) if end.timed_out => (end.exit_code, Some("the time given by --timeout ran out".to_owned())),
            Ok(end) => (end.exit_code, None),
            Err(error) => (error.exit_code(), Some(error.to_string())),
        };
        let status_code = if exit_code == 0 { StatusCode::Unset } else { StatusCode::Error };
        let mut span = Span {
            rollout_id: self.rollout.clone(),
            attempt_id: self.attempt.clone(),
            sequence_id: 0,
            context: Some(SpanContext {
                trace_id: trace_id.clone(),
                span_id: span_id.clone(),
                is_remote: false,
                trace_state: std::collections::BTreeMap::default(),
            }),
            trace_id,
            span_id,
            parent_id: None,
            name: self.name.clone(),
            kind: SpanKind::Internal,
            status: Status { status_code, description },
            attributes: std::collections::BTreeMap::default(),
            events: Vec::new(),
            links: Vec::new(),
            start_time: Some(began),
            end_time: Some(now),
            parent: None,
            resource: Resource { schema_url: names::SCHEMA_URL.to_owned(), ..Resource::default() },
        };
        span.resource.attributes.insert("service.name".to_owned(), "tracewire".into());
        // Only the program's name: arguments may hold secrets.
        span.set(names::PROCESS_COMMAND, command_name(&self.command));
        span.set(names::PROCESS_EXIT_CODE, i64::from(exit_code));
        if exit_code != 0 {
            span.set(names::ERROR_TYPE, format!("exit {exit_code}"));
        }
        span
    }

    fn report(&self, spans: &[Span], config: &Config, notes: &[String]) {
        for note in notes {
            show::note(&format!("tracewire: {note}"));
        }
        let exchanges = spans.iter().filter(|span| span.kind == SpanKind::Client).count();
        if exchanges == 0 {
            return show::note(&format!(
                "tracewire: no exchange was seen. If {} talks HTTP, it may ignore HTTPS_PROXY (Go and some SDKs never \
                 proxy localhost; NO_PROXY may name its hosts), or use its own list of trusted certificates. Try \
                 pointing its base URL at another host name, or start it with its own proxy option: the variables are \
                 in `tracewire env`.",
                command_name(&self.command)
            ));
        }
        show::note(show::timeline(&self.name, spans, &std::io::stderr()).trim_end());
        let store = match config.store.path.as_deref() {
            Some(path) if path == std::path::Path::new("memory:") => "memory, gone now".to_owned(),
            _ => store_path(&config.store).display().to_string(),
        };
        show::note(&format!("tracewire: rollout {} stored in {store}", self.rollout));
    }
}

const DRAIN_AFTER_RUN: Duration = Duration::from_secs(2);

fn command_name(command: &[OsString]) -> String {
    let program = command.first().map(PathBuf::from).unwrap_or_default();
    program.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

//! One command behind a door of its own: started, recorded, its rollout opened and closed. What is said about it
//! afterwards is its callers' business.

use super::{show, variable};
use crate::app::{App, Ended, Parts, open_store};
use crate::config::Config;
use crate::doctor::watch::{Seen, Watch};
use crate::net::listener::raise_descriptor_limit;
use crate::run::bundle::users_files;
use crate::run::child::{self, ChildEnd, ChildError, ChildSpec, Streams};
use crate::run::environment::Request;
use crate::store::{SharedStore, StoreError, StoreExt};
use crate::tls::CertAuthority;
use crate::trace::rollout::{Attempt, AttemptStatus, Rollout, RolloutStatus};
use crate::trace::semconv as names;
use crate::trace::span::{Resource, SpanContext};
use crate::trace::{AttemptId, RolloutId, Span, SpanId, SpanKind, Status, StatusCode, Timestamp, TraceId};
use anyhow::{Context, Result};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// One command to be run and recorded.
pub(super) struct Recorded {
    pub(super) rollout: RolloutId,
    pub(super) attempt: AttemptId,
    pub(super) name: String,
    pub(super) command: Vec<OsString>,
    pub(super) timeout: Option<Duration>,
    pub(super) streams: Streams,
    /// True: what it connects to is watched.
    pub(super) watched: bool,
}

/// What came of it.
pub(super) struct Run {
    pub(super) ended: Result<ChildEnd, ChildError>,
    pub(super) spans: Result<Vec<Span>, StoreError>,
    /// What its environment has to say.
    pub(super) notes: Vec<String>,
    /// NO_PROXY as it saw it.
    pub(super) unproxied: String,
    pub(super) stopped: Ended,
    /// Its connections, if it was watched.
    pub(super) seen: Seen,
}

impl Run {
    /// The command's exit code, or a shell's where it could not be started.
    pub(super) fn exit_code(&self) -> ExitCode {
        let code = self.ended.as_ref().map_or_else(ChildError::exit_code, |end| end.exit_code);
        ExitCode::from(u8::try_from(code).unwrap_or(1))
    }
}

impl Recorded {
    /// A command as the first attempt of a new rollout.
    pub(super) fn new(name: impl Into<String>, command: Vec<OsString>) -> Self {
        Self {
            rollout: RolloutId::from_random(fastrand::u64(..)),
            attempt: AttemptId::from_random(fastrand::u32(..)),
            name: name.into(),
            command,
            timeout: None,
            streams: Streams::Inherited,
            watched: false,
        }
    }

    /// Runs the command to its end.
    pub(super) async fn run(&self, config: &Config) -> Result<Run> {
        let mut config = config.clone();
        config.proxy.listen = SocketAddr::from(([127, 0, 0, 1], 0));
        // The command has ended; what it left running gets a moment to finish its exchanges.
        config.shutdown.drain_timeout = config.shutdown.drain_timeout.min(DRAIN_AFTER_RUN);
        let authority = CertAuthority::ephemeral("Tracewire run")?;
        let folder = tempfile::Builder::new().prefix("tracewire-").tempdir().context("no temporary folder")?;
        let working_directory = std::env::current_dir().context("the working directory is gone")?;
        // Whom the agent would trust without us, we trust in its place.
        config.tls.upstream_ca.extend(users_files(&variable, &working_directory));
        let ca_pem = authority.ca_pem().to_owned();
        let store = open_store(&config).await?;
        let binding = Some((self.rollout.clone(), self.attempt.clone()));
        let began = Timestamp::from(SystemTime::now());
        self.register(&store, began).await?;
        let parts = Parts { authority, store: Arc::clone(&store), binding, with_server: false };
        let app = App::start(&config, parts).await?;
        let door = app.proxy_address;
        let proxy_url = match config.proxy.token.expose() {
            "" => format!("http://{door}"),
            token => format!("http://:{}@{door}", utf8_percent_encode(token, NON_ALPHANUMERIC)),
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
        let unproxied = environment.value("NO_PROXY");
        let spec = ChildSpec {
            command: self.command.clone(),
            environment,
            timeout: self.timeout,
            streams: self.streams.clone(),
        };
        let mut watch = None;
        let ended = child::run(spec, |pid| {
            // Not before: the command must find the limits that it would find without us.
            raise_descriptor_limit();
            watch = self.watched.then(|| Watch::start(pid, door));
        })
        .await;
        let seen = watch.map(Watch::finish).unwrap_or_default();
        self.close(&store, began, &ended).await;
        // The store is read before it is closed, after everything is in it.
        let spans_of = Arc::clone(&store);
        let stopped = app.stop_with(async { spans_of.spans(self.rollout.clone(), Some(self.attempt.clone())).await });
        let (stopped, spans) = stopped.await;
        Ok(Run { ended, spans, notes, unproxied, stopped, seen })
    }

    async fn register(&self, store: &SharedStore, began: Timestamp) -> Result<()> {
        let mut rollout = match store.rollout(self.rollout.clone()).await? {
            Some(rollout) => Rollout { status: RolloutStatus::Running, end_time: None, ..rollout },
            None => Rollout::running(self.rollout.clone(), began),
        };
        if let Some(metadata) = rollout.metadata.as_object_mut() {
            metadata.insert("name".to_owned(), self.name.clone().into());
        }
        store.upsert_rollout(rollout).await?;
        store.upsert_attempt(Attempt::running(self.rollout.clone(), self.attempt.clone(), began)).await?;
        Ok(())
    }

    /// Writes the root span and the end of rollout and attempt. What fails here is said, and the run's result stands.
    async fn close(&self, store: &SharedStore, began: Timestamp, ended: &Result<ChildEnd, ChildError>) {
        let now = Timestamp::from(SystemTime::now());
        let closing = async {
            store.append(vec![Arc::new(self.root_span(began, now, ended))]).await?;
            let succeeded = matches!(ended, Ok(end) if end.exit_code == 0);
            if let Some(rollout) = store.rollout(self.rollout.clone()).await? {
                let status = if succeeded { RolloutStatus::Succeeded } else { RolloutStatus::Failed };
                store.upsert_rollout(Rollout { status, end_time: Some(now), ..rollout }).await?;
            }
            let attempts = store.attempts(self.rollout.clone()).await?;
            if let Some(attempt) = attempts.into_iter().find(|attempt| attempt.attempt_id == self.attempt) {
                let status = match ended {
                    Ok(end) if end.timed_out => AttemptStatus::Timeout,
                    _ if succeeded => AttemptStatus::Succeeded,
                    _ => AttemptStatus::Failed,
                };
                store.upsert_attempt(Attempt { status, end_time: Some(now), ..attempt }).await?;
            }
            Ok::<_, StoreError>(())
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
}

const DRAIN_AFTER_RUN: Duration = Duration::from_secs(2);

/// The program's name, without its folder.
pub(super) fn command_name(command: &[OsString]) -> String {
    let program = command.first().map(PathBuf::from).unwrap_or_default();
    program.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

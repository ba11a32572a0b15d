//! Runs one command behind a proxy of its own, and stores its rollout, attempt and root span.
//!
//! It prints only errors of storing; the callers print the result.

use super::run_owner::{end_abandoned, mark_as_ours};
use super::show;
use crate::app::{
    CommandProxy, CommandProxySettings, EngineMemory, StopReport, WhenUnreachable, open_store, store_path,
};
use crate::config::{Config, StorePlace};
use crate::doctor::diagnosis::unexpected_bypasses;
use crate::doctor::monitor::{ConnectionMonitor, Observations, ObservedConnections, ScanRate};
use crate::net::listener::raise_descriptor_limit;
use crate::run::child::{self, ChildEnd, ChildSpec, Streams};
use crate::run::environment::Environment;
use crate::run::processes::{Process, in_environment};
use crate::run::{ATTEMPT_VARIABLE, ChildError, ROLLOUT_VARIABLE, STORE_VARIABLE, TRACEPARENT_VARIABLE};
use crate::store::{SharedStore, StoreError, StoreExt};
use crate::trace::rollout::{Attempt, AttemptStatus, Rollout, RolloutStatus};
use crate::trace::semconv as names;
use crate::trace::span::{Resource, SpanContext};
use crate::trace::{AttemptId, RolloutId, Span, SpanId, SpanKind, Status, StatusCode, Timestamp, TraceId};
use crate::wire::traceparent::TraceParent;
use anyhow::Result;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// A command to run and record.
pub(super) struct Recorded {
    pub(super) rollout: RolloutId,
    pub(super) attempt: AttemptId,
    pub(super) name: String,
    pub(super) command: Vec<OsString>,
    pub(super) timeout: Option<Duration>,
    pub(super) streams: Streams,
    /// How often its connections are looked up while it runs.
    pub(super) scan_rate: ScanRate,
}

/// A command that has ended.
pub(super) struct RunResult {
    pub(super) result: Result<ChildEnd, ChildError>,
    pub(super) spans: Result<Vec<Span>, StoreError>,
    /// Notes on the command's environment, for the user.
    pub(super) notes: Vec<String>,
    /// The command's NO_PROXY.
    pub(super) unproxied: String,
    pub(super) stopped: StopReport,
    /// The observed connections.
    pub(super) observed: Observations,
    /// What the command started and left running.
    pub(super) left_running: Vec<Process>,
}

impl RunResult {
    /// The command's exit code; if it could not be started, the code a shell would return.
    pub(super) fn exit_code(&self) -> ExitCode {
        let code = self.result.as_ref().map_or_else(ChildError::exit_code, |end| end.exit_code);
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
            scan_rate: ScanRate::Background,
        }
    }

    /// Runs the command until it ends.
    pub(super) async fn run(&self, config: &Config) -> Result<RunResult> {
        let settings = CommandProxySettings::new(config)?;
        let store = open_store(settings.config(), WhenUnreachable::Fail).await?;
        let (rollout, attempt) = (self.rollout.clone(), self.attempt.clone());
        let starting = settings.start(Arc::clone(&store), rollout, attempt, EngineMemory::DataFolder);
        let running = Box::pin(starting).await?;
        let proxy = running.app.proxy_address;
        let mut environment = running.environment(&self.command)?;
        self.name_rollout(&mut environment, config);
        let notes = environment.notes.clone();
        let unproxied = environment.value("NO_PROXY");
        let spec = ChildSpec {
            command: self.command.clone(),
            environment,
            timeout: self.timeout,
            streams: self.streams.clone(),
        };
        end_abandoned(&store).await?;
        let started = Timestamp::from(SystemTime::now());
        self.register(&store, started).await?;
        let mut monitor = None;
        let result = child::run(spec, |pid| {
            // After the start: the command must inherit the original limit.
            raise_descriptor_limit();
            monitor = Some(ConnectionMonitor::start(pid, proxy, self.scan_rate));
        })
        .await;
        let observed = monitor.map(ConnectionMonitor::finish).unwrap_or_default();
        let bypasses = unexpected_bypasses(&observed, &unproxied);
        self.close(&store, started, &result, &bypasses).await;
        // Spans are read after all are stored and before the store is closed.
        let spans_of = Arc::clone(&store);
        let CommandProxy { app, files, .. } = running;
        let stopped = app.stop_with(async { spans_of.spans(self.rollout.clone(), Some(self.attempt.clone())).await });
        let (stopped, spans) = stopped.await;
        // Exchanges in flight have ended, and with them the processes that only waited for one.
        let left_running = in_environment(files.path());
        Ok(RunResult { result, spans, notes, unproxied, stopped, observed, left_running })
    }

    /// Tells the command its rollout, so that `emit` and tracers within it find it.
    fn name_rollout(&self, environment: &mut Environment, config: &Config) {
        let ids = [(ROLLOUT_VARIABLE, self.rollout.as_str()), (ATTEMPT_VARIABLE, self.attempt.as_str())];
        environment.set.extend(ids.map(|(name, id)| (name.to_owned(), id.into())));
        // Tracers within the command are below its root span, not in a trace that this program was started in.
        let parent = TraceParent::of_attempt_root(&self.rollout, &self.attempt).to_string();
        environment.set.push((TRACEPARENT_VARIABLE.to_owned(), parent.into()));
        match config.store.place() {
            StorePlace::Memory => environment.set.push((STORE_VARIABLE.to_owned(), "memory:".into())),
            StorePlace::File(_) => {
                let path = std::path::absolute(store_path(&config.store));
                environment.set.extend(path.map(|path| (STORE_VARIABLE.to_owned(), path.into_os_string())));
            }
            // Its URL may have a password, which agents must not get.
            StorePlace::Postgres(_) => environment.unset.push(STORE_VARIABLE.to_owned()),
        }
    }

    async fn register(&self, store: &SharedStore, started: Timestamp) -> Result<()> {
        let mut rollout = match store.rollout(self.rollout.clone()).await? {
            Some(rollout) => Rollout { status: RolloutStatus::Running, end_time: None, ..rollout },
            None => Rollout::running(self.rollout.clone(), started),
        };
        if let Some(metadata) = rollout.metadata.as_object_mut() {
            metadata.insert("name".to_owned(), self.name.clone().into());
        }
        store.upsert_rollout(rollout).await?;
        let mut attempt = Attempt::running(self.rollout.clone(), self.attempt.clone(), started);
        mark_as_ours(&mut attempt);
        store.upsert_attempt(attempt).await?;
        Ok(())
    }

    /// Stores the root span and the final status of rollout and attempt. Errors are printed and do not change the result.
    async fn close(
        &self,
        store: &SharedStore,
        started: Timestamp,
        result: &Result<ChildEnd, ChildError>,
        bypasses: &[ObservedConnections],
    ) {
        let now = Timestamp::from(SystemTime::now());
        let store_end = async {
            let mut root_span = self.root_span(started, now, result);
            if !bypasses.is_empty() {
                let bypass = |bypass: &ObservedConnections| format!("{} to {}", bypass.program, bypass.remote);
                let bypasses: Vec<String> = bypasses.iter().take(MAX_STORED_BYPASSES).map(bypass).collect();
                root_span.set(names::PROXY_BYPASSES, bypasses);
            }
            store.append(vec![Arc::new(root_span)]).await?;
            let succeeded = matches!(result, Ok(end) if end.exit_code == 0);
            if let Some(rollout) = store.rollout(self.rollout.clone()).await? {
                let status = if succeeded { RolloutStatus::Succeeded } else { RolloutStatus::Failed };
                store.upsert_rollout(Rollout { status, end_time: Some(now), ..rollout }).await?;
            }
            let attempts = store.attempts(self.rollout.clone()).await?;
            if let Some(attempt) = attempts.into_iter().find(|attempt| attempt.attempt_id == self.attempt) {
                let status = match result {
                    Ok(end) if end.timed_out => AttemptStatus::Timeout,
                    _ if succeeded => AttemptStatus::Succeeded,
                    _ => AttemptStatus::Failed,
                };
                store.upsert_attempt(Attempt { status, end_time: Some(now), ..attempt }).await?;
            }
            Ok::<_, StoreError>(())
        };
        if let Err(error) = store_end.await {
            show::note(&format!("tracewire: cannot store the end of this run: {error}"));
        }
    }

    fn root_span(&self, started: Timestamp, now: Timestamp, result: &Result<ChildEnd, ChildError>) -> Span {
        let trace_id = TraceId::of_attempt(&self.rollout, &self.attempt).to_string();
        let span_id = SpanId::of_attempt_root(&self.rollout, &self.attempt).to_string();
        let (exit_code, description) = match result {
            Ok(end) if end.timed_out => (end.exit_code, Some("the command exceeded --timeout".to_owned())),
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
            kind: Some(SpanKind::Internal),
            status: Status { status_code, description },
            attributes: std::collections::BTreeMap::default(),
            events: Vec::new(),
            links: Vec::new(),
            start_time: Some(started),
            end_time: Some(now),
            parent: None,
            resource: Resource { schema_url: names::SCHEMA_URL.to_owned(), ..Resource::default() },
        };
        span.resource.attributes.insert("service.name".to_owned(), "tracewire".into());
        // The program's name only: arguments may contain secrets.
        span.set(names::PROCESS_COMMAND, command_name(&self.command));
        span.set(names::PROCESS_EXIT_CODE, i64::from(exit_code));
        if exit_code != 0 {
            span.set(names::ERROR_TYPE, format!("exit {exit_code}"));
        }
        span
    }
}

const MAX_STORED_BYPASSES: usize = 20;

/// The program's file name.
pub(super) fn command_name(command: &[OsString]) -> String {
    let program = command.first().map(PathBuf::from).unwrap_or_default();
    program.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

//! The jobs of a worker: each takes a task, runs it, and reports the result, until the worker shuts down.
//!
//! While the server does not respond, jobs wait and retry. Results that cannot be sent are counted, and decide
//! [`JobPool::exit_code`].

use super::args::WorkerArgs;
use super::environment::{CommandEnvironment, PreparedTask};
use super::process::{self, TaskOutcome};
use super::report::TaskReport;
use super::rewards::{self, ParsedRewards};
use super::shutdown::{Shutdown, ShutdownStage};
use super::source::TaskSource;
use super::task::{TakeError, Task};
use crate::cli::args::TimeLimit;
use crate::cli::client::{MAX_RETRY_DELAY, MAX_RETRY_TIME};
use crate::cli::show;
use crate::run::child::{ChildSpec, Streams};
use anyhow::{Result, anyhow};
use serde_json::{Value as JsonValue, json};
use std::collections::BTreeSet;
use std::future::pending;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::io::AsyncWrite;

/// What all jobs of the worker share.
pub(super) struct JobPool {
    pub(super) args: WorkerArgs,
    pub(super) source: TaskSource,
    pub(super) environment: CommandEnvironment,
    pub(super) shutdown: Shutdown,
    pub(super) progress: Mutex<Progress>,
}

/// Counts, and what was printed already.
#[derive(Default)]
pub(super) struct Progress {
    /// Rollouts taken or being requested, for `--max-rollouts`.
    reserved: usize,
    /// Tasks that have ended.
    done: usize,
    /// Tasks that have ended without success.
    failed: usize,
    /// Results and rewards that the server did not accept, and rollouts that were taken but could not be started.
    undelivered: usize,
    /// Rollout ids of the running tasks; at most one per job.
    running: BTreeSet<String>,
    /// The last printed problem with the server; `None` while it responds.
    server_problem: Option<String>,
    environment_notes_printed: bool,
    /// The first error that makes further work pointless.
    fatal_error: Option<anyhow::Error>,
}

impl JobPool {
    /// Runs one job: task after task, until shutdown or until no task is left for it.
    pub(super) async fn run_job(self: Arc<Self>, worker: String) {
        let (poll, mut delay, mut unreachable_since) = (self.args.poll, self.args.poll, None);
        while self.shutdown.stage() == ShutdownStage::Running && self.reserve() {
            let error = match self.source.take(&worker).await {
                Ok(task) => {
                    (delay, unreachable_since) = (poll, None);
                    self.clear_server_problem();
                    match task {
                        Some(task) => {
                            self.run_task(&worker, &task).await;
                            continue;
                        }
                        None if self.args.until_empty => return self.release(),
                        None => None,
                    }
                }
                Err(TakeError::Fatal(error)) => return self.fail(error),
                Err(TakeError::Retryable(error)) => Some(error),
                Err(TakeError::TaskLost(error)) => {
                    self.progress().undelivered += 1;
                    Some(error)
                }
            };
            self.release();
            if let Some(error) = error {
                let since: Instant = *unreachable_since.get_or_insert_with(Instant::now);
                if self.args.until_empty && since.elapsed() > MAX_RETRY_TIME {
                    return self.fail(error);
                }
                self.print_server_problem(&error);
                delay = (delay * 2).min(poll.max(MAX_RETRY_DELAY));
            }
            tokio::select! {
                () = tokio::time::sleep(delay) => {}
                () = self.shutdown.reached(ShutdownStage::Draining) => {}
            }
        }
    }

    /// Runs one task and sends its rewards and result.
    async fn run_task(&self, worker: &str, task: &Task) {
        let started = Instant::now();
        self.progress().running.insert(task.rollout.clone());
        let (outcome, ParsedRewards { rewards, warnings }) = self.run_command(worker, task).await;
        let duration = started.elapsed();
        for warning in &warnings {
            show::note(&format!("tracewire: rollout {}: {warning}", task.rollout));
        }
        let mut undelivered = Vec::new();
        // Rewards first: a client that waits for the end of the rollout then finds them.
        if !rewards.is_empty()
            && let Err(error) = self.source.send_rewards(task, &rewards).await
        {
            undelivered.push(format!("its rewards {rewards:?}: {error:#}"));
        }
        if let Err(error) = self.source.finish(worker, task, &outcome).await {
            undelivered.push(format!("its status, {}: {error:#}", outcome.status_word()));
        }
        self.record(&TaskReport { task, outcome: &outcome, rewards: &rewards, duration }, &undelivered);
    }

    async fn prepare(&self, task: &Task) -> Result<PreparedTask> {
        let key = self.environment.api_key(&self.source.server, task, self.time_limit(task)).await?;
        self.environment.prepare(task, &self.args.command, &key)
    }

    /// The longest time that a task's command may run.
    fn time_limit(&self, task: &Task) -> Option<Duration> {
        self.args.timeout.map_or(task.timeout, TimeLimit::duration)
    }

    async fn run_command(&self, worker: &str, task: &Task) -> (TaskOutcome, ParsedRewards) {
        let mut prepared = match self.prepare(task).await {
            Ok(prepared) => prepared,
            Err(error) => {
                let problem = format!("{error:#}");
                self.fail(error);
                return (TaskOutcome::NotStarted { problem, exit_code: None }, ParsedRewards::default());
            }
        };
        let environment = std::mem::take(&mut prepared.environment);
        self.print_environment_notes(&environment.notes);
        let command = self.args.command.clone();
        let spec = ChildSpec { command, environment, timeout: None, streams: Streams::Piped };
        let output: Box<dyn AsyncWrite + Send + Unpin> = match self.args.json {
            true => Box::new(tokio::io::stderr()),
            false => Box::new(tokio::io::stdout()),
        };
        let stop = self.stop_reason(worker, task);
        let (outcome, output_tail) = process::run(&spec, &prepared.input, output, stop).await;
        match &outcome {
            // The command would not start for any other rollout either.
            TaskOutcome::NotStarted { problem, .. } => self.fail(anyhow!(problem.clone())),
            TaskOutcome::EndedByServer(_) | TaskOutcome::Stopped => {}
            TaskOutcome::Exited(_) | TaskOutcome::Signaled(_) | TaskOutcome::TimedOut(_) => {
                return (outcome, rewards::find(&prepared.reward, &output_tail));
            }
        }
        (outcome, ParsedRewards::default())
    }

    /// Waits until the command must be stopped: at its time limit, when the server ends the rollout, or by a signal.
    async fn stop_reason(&self, worker: &str, task: &Task) -> TaskOutcome {
        let time_limit = async {
            match self.time_limit(task) {
                Some(limit) => {
                    tokio::time::sleep(limit).await;
                    TaskOutcome::TimedOut(limit)
                }
                None => pending().await,
            }
        };
        let ended_by_server = async {
            loop {
                tokio::time::sleep(self.args.heartbeat).await;
                if let Some(reason) = self.source.heartbeat(worker, task, &self.stats()).await {
                    return TaskOutcome::EndedByServer(reason);
                }
            }
        };
        tokio::select! {
            outcome = time_limit => outcome,
            outcome = ended_by_server => outcome,
            () = self.shutdown.reached(ShutdownStage::StoppingCommands) => TaskOutcome::Stopped,
        }
    }

    /// The content of the worker's heartbeat.
    fn stats(&self) -> JsonValue {
        let progress = self.progress();
        json!({
            "running": progress.running.len(),
            "done": progress.done,
            "failed": progress.failed,
            "pid": std::process::id(),
        })
    }

    /// Prints which server the worker uses, and which proxy records its commands.
    pub(super) fn announce(&self, worker: &str) {
        let (url, version) = (self.source.server.address.url(), self.source.version());
        let recorded = match self.environment.proxy_url() {
            Some(proxy) => format!("the proxy {proxy} records the commands' traffic"),
            None => "no proxy records the commands' traffic (set one with --proxy)".to_owned(),
        };
        if self.environment.lacks_keys(&self.source.server) {
            show::note(
                "tracewire: this server makes no API keys for commands, which never get the worker's token; pass one with \
                 --agent-key",
            );
        }
        show::note(&format!("tracewire: {worker} takes rollouts from {url} (Agent Lightning {version}); {recorded}"));
    }

    /// Prints the notes once: they are the same for every task.
    fn print_environment_notes(&self, notes: &[String]) {
        if !std::mem::replace(&mut self.progress().environment_notes_printed, true) {
            notes.iter().for_each(|note| show::note(&format!("tracewire: {note}")));
        }
    }

    /// Counts and prints a result.
    fn record(&self, report: &TaskReport<'_>, undelivered: &[String]) {
        let task = report.task;
        for what in undelivered {
            show::note(&format!(
                "tracewire: rollout {}, attempt {}: the server did not accept {what}",
                task.rollout, task.attempt
            ));
        }
        let mut progress = self.progress();
        progress.running.remove(&task.rollout);
        progress.done += 1;
        progress.failed += usize::from(!report.outcome.is_success());
        progress.undelivered += undelivered.len();
        let text = report.text(progress.done, progress.failed);
        drop(progress);
        if !self.args.json {
            show::note(&text);
        } else if let Err(error) = show::out(format!("{}\n", report.json())) {
            self.fail(error);
        }
    }

    /// Reserves one of `--max-rollouts`; false if all are used.
    fn reserve(&self) -> bool {
        let mut progress = self.progress();
        let free = self.args.max_rollouts.is_none_or(|limit| progress.reserved < limit);
        progress.reserved += usize::from(free);
        free
    }

    fn release(&self) {
        self.progress().reserved -= 1;
    }

    /// Prints why the server gives no task, unless the same problem was the last one printed.
    fn print_server_problem(&self, error: &anyhow::Error) {
        let problem = format!("{error:#}");
        let previous = self.progress().server_problem.replace(problem.clone());
        if previous.as_ref() != Some(&problem) {
            show::note(&format!("tracewire: {problem}; retrying"));
        }
    }

    fn clear_server_problem(&self) {
        if self.progress().server_problem.take().is_some() {
            show::note("tracewire: the server responds again");
        }
    }

    /// Stops taking rollouts because of `error`; running commands finish.
    pub(super) fn fail(&self, error: anyhow::Error) {
        self.progress().fatal_error.get_or_insert(error);
        self.shutdown.advance_to(ShutdownStage::Draining);
    }

    /// Prints the tasks that are still running; their results will not be sent.
    pub(super) fn abandon_running(&self) {
        let mut progress = self.progress();
        for rollout in std::mem::take(&mut progress.running) {
            show::note(&format!("tracewire: rollout {rollout}: the worker exits before it ends; no result was sent"));
            progress.undelivered += 1;
        }
    }

    /// The worker's exit code, or the fatal error.
    pub(super) fn exit_code(&self) -> Result<ExitCode> {
        let mut progress = self.progress();
        match progress.fatal_error.take() {
            Some(error) => Err(error),
            None => Ok(if progress.undelivered == 0 { ExitCode::SUCCESS } else { ExitCode::from(1) }),
        }
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

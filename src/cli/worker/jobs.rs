//! The jobs of a worker: each takes a task, runs it, and tells how it ended, until there is a reason to stop.
//!
//! A server that is away makes them wait. Nothing that was taken is forgotten: [`Worker::close`] knows.

use super::WorkerArgs;
use super::environment::Surroundings;
use super::process::{self, End};
use super::report::Report;
use super::rewards::{self, Found};
use super::source::{NoAnswer, Source, Task};
use crate::cli::client::{LONGEST_DELIVERY, LONGEST_WAIT};
use crate::cli::show;
use crate::run::child::{ChildSpec, Streams};
use anyhow::{Result, anyhow};
use serde_json::{Value as JsonValue, json};
use std::collections::BTreeSet;
use std::future::pending;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use tokio::io::AsyncWrite;
use tokio::sync::watch;

/// A worker: all its jobs share it.
pub(super) struct Worker {
    pub(super) args: WorkerArgs,
    pub(super) source: Source,
    pub(super) surroundings: Surroundings,
    /// How much we were told to stop.
    pub(super) stop: watch::Sender<u32>,
    pub(super) state: Mutex<State>,
}

/// What has come of it so far.
#[derive(Default)]
pub(super) struct State {
    taken: usize,
    over: usize,
    failed: usize,
    undelivered: usize,
    running: BTreeSet<String>,
    // What was last said of a server that does not answer.
    trouble: Option<String>,
    told_notes: bool,
    fatal: Option<anyhow::Error>,
}

impl Worker {
    /// One job: task after task.
    pub(super) async fn work(self: Arc<Self>, id: String) {
        let (poll, mut wait, mut away) = (self.args.poll, self.args.poll, None);
        while *self.stop.borrow() == GO_ON && self.reserve() {
            let taken = self.source.take(&id).await;
            let error = match taken {
                Ok(task) => {
                    (wait, away) = (poll, None);
                    self.hear();
                    match task {
                        Some(task) => {
                            self.perform(&id, &task).await;
                            continue;
                        }
                        None if self.args.until_empty => return self.release(),
                        None => None,
                    }
                }
                Err(NoAnswer::Never(error)) => return self.fail(error),
                Err(NoAnswer::Later(error)) => Some(error),
                Err(NoAnswer::Lost(error)) => {
                    self.state().undelivered += 1;
                    Some(error)
                }
            };
            self.release();
            if let Some(error) = error {
                let since: Instant = *away.get_or_insert_with(Instant::now);
                if self.args.until_empty && since.elapsed() > LONGEST_DELIVERY {
                    return self.fail(error);
                }
                self.complain(&error);
                wait = (wait * 2).min(poll.max(LONGEST_WAIT));
            }
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.told(FINISH) => {}
            }
        }
    }

    /// One task: run, rewarded, ended, told.
    async fn perform(&self, id: &str, task: &Task) {
        let began = Instant::now();
        self.state().running.insert(task.rollout.clone());
        let (end, found) = self.execute(id, task).await;
        let took = began.elapsed();
        for note in &found.notes {
            show::note(&format!("tracewire: rollout {}: {note}", task.rollout));
        }
        let mut undelivered = Vec::new();
        // Before its end: who waits for that finds the reward.
        if !found.rewards.is_empty()
            && let Err(error) = self.source.reward(task, &found.rewards).await
        {
            undelivered.push(format!("its rewards {:?}: {error:#}", found.rewards));
        }
        if let Err(error) = self.source.finish(id, task, &end).await {
            undelivered.push(format!("its end, {}: {error:#}", end.status()));
        }
        self.report(&Report { task, end: &end, rewards: &found.rewards, took }, &undelivered);
    }

    async fn execute(&self, id: &str, task: &Task) -> (End, Found) {
        let mut prepared = match self.surroundings.prepare(task) {
            Ok(prepared) => prepared,
            Err(error) => {
                let problem = format!("{error:#}");
                self.fail(error);
                return (End::NotStarted(problem, None), Found::default());
            }
        };
        let environment = std::mem::take(&mut prepared.environment);
        self.tell_once(&environment.notes);
        let command = self.args.command.clone();
        let spec = ChildSpec { command, environment, timeout: None, streams: Streams::Piped };
        let ours: Box<dyn AsyncWrite + Send + Unpin> = match self.args.json {
            true => Box::new(tokio::io::stderr()),
            false => Box::new(tokio::io::stdout()),
        };
        let (end, printed) = process::run(&spec, &prepared.input, ours, self.cut_short(id, task)).await;
        match &end {
            // So would all others be.
            End::NotStarted(problem, _) => self.fail(anyhow!(problem.clone())),
            End::Gone(_) | End::Stopped => {}
            _ => return (end, rewards::find(&prepared.reward, &printed)),
        }
        (end, Found::default())
    }

    /// Waits for a reason to end a command: its time, the server's word, a signal to us.
    async fn cut_short(&self, id: &str, task: &Task) -> End {
        let out_of_time = async {
            match self.args.timeout.or(task.timeout) {
                Some(limit) => {
                    tokio::time::sleep(limit).await;
                    End::TimedOut(limit)
                }
                None => pending().await,
            }
        };
        let given_up = async {
            loop {
                tokio::time::sleep(self.args.heartbeat).await;
                if let Some(reason) = self.source.beat(id, task, &self.stats()).await {
                    return End::Gone(reason);
                }
            }
        };
        tokio::select! {
            end = out_of_time => end,
            end = given_up => end,
            () = self.told(END) => End::Stopped,
        }
    }

    /// What this worker says of itself.
    fn stats(&self) -> JsonValue {
        let state = self.state();
        json!({ "running": state.running.len(), "done": state.over, "failed": state.failed, "pid": std::process::id() })
    }

    /// Says who works for whom.
    pub(super) fn greet(&self, id: &str) {
        let (url, version) = (self.source.server.address.url(), self.source.version());
        let recorded = match self.surroundings.proxy_url() {
            Some(proxy) => format!("{proxy} records what they do"),
            None => "no proxy records what they do (--proxy names one)".to_owned(),
        };
        show::note(&format!("tracewire: {id} takes rollouts from {url} (Agent Lightning {version}); {recorded}"));
    }

    /// Notes on the environment are the same for every task.
    fn tell_once(&self, notes: &[String]) {
        if !std::mem::replace(&mut self.state().told_notes, true) {
            notes.iter().for_each(|note| show::note(&format!("tracewire: {note}")));
        }
    }

    fn report(&self, report: &Report<'_>, undelivered: &[String]) {
        let task = report.task;
        for what in undelivered {
            show::note(&format!(
                "tracewire: rollout {}, attempt {}: not delivered: {what}",
                task.rollout, task.attempt
            ));
        }
        let mut state = self.state();
        state.running.remove(&task.rollout);
        state.over += 1;
        state.failed += usize::from(!report.end.is_success());
        state.undelivered += undelivered.len();
        let text = report.text(state.over, state.failed);
        drop(state);
        if self.args.json { show::out(&format!("{}\n", report.json())) } else { show::note(&text) }
    }

    /// A place among `--max-rollouts`.
    fn reserve(&self) -> bool {
        let mut state = self.state();
        let free = self.args.max_rollouts.is_none_or(|most| state.taken < most);
        state.taken += usize::from(free);
        free
    }

    fn release(&self) {
        self.state().taken -= 1;
    }

    /// The server does not answer as it should: said once, until it does or something else is wrong.
    fn complain(&self, error: &anyhow::Error) {
        let trouble = format!("{error:#}");
        let said = self.state().trouble.replace(trouble.clone());
        if said.as_ref() != Some(&trouble) {
            show::note(&format!("tracewire: {trouble}; trying again"));
        }
    }

    fn hear(&self) {
        if self.state().trouble.take().is_some() {
            show::note("tracewire: the server answers again");
        }
    }

    /// No use in going on: what runs may finish, and then the error is told.
    pub(super) fn fail(&self, error: anyhow::Error) {
        self.state().fatal.get_or_insert(error);
        self.stop.send_modify(|level| *level = (*level).max(FINISH));
    }

    /// Waits until we were told to stop, this much.
    pub(super) async fn told(&self, wanted: u32) {
        let mut stop = self.stop.subscribe();
        // The other end is ours: it lives as long.
        let _ = stop.wait_for(|level| *level >= wanted).await;
    }

    /// Says what nobody will be told about.
    pub(super) fn leave_behind(&self) {
        let mut state = self.state();
        for rollout in std::mem::take(&mut state.running) {
            show::note(&format!("tracewire: rollout {rollout}: not delivered: its end"));
            state.undelivered += 1;
        }
    }

    /// The exit code, or what made an end of it.
    pub(super) fn close(&self) -> Result<ExitCode> {
        let mut state = self.state();
        match state.fatal.take() {
            Some(error) => Err(error),
            None => Ok(if state.undelivered == 0 { ExitCode::SUCCESS } else { ExitCode::from(1) }),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How much we were told to stop: nothing more is taken, what runs is ended, what runs is left behind.
pub(super) const GO_ON: u32 = 0;
pub(super) const FINISH: u32 = 1;
pub(super) const END: u32 = 2;
pub(super) const LEAVE: u32 = 3;

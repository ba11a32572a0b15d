//! Writing: one thread, one connection, and one commit for as many commands as are waiting.
//!
//! A caller is answered only after the commit that holds its command. A command that fails on its own must not take
//! others with it.

use super::checkpoint::Checkpoints;
use super::retention::{prune, release_pages};
use super::statements::{Row, append};
use super::texts::RecentTexts;
use super::{SqliteOptions, concerns_the_file, fault, records};
use crate::store::{Appended, Change, Pruned, Result, Retention, StoreError};
use crate::trace::Span;
use rusqlite::{Connection, Transaction, TransactionBehavior};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::SystemTime;
use tokio::sync::{mpsc, oneshot};

/// Commands that wait for the thread; callers beyond them wait themselves.
const QUEUE: usize = 1024;

/// Commands in one commit at most, so that the first of them does not wait forever.
const GROUP: usize = 256;

/// Spans stored between two looks at the limits.
const SPANS_PER_CHECK: usize = 256;

/// What the writer can do.
pub(super) enum Work {
    /// Store spans.
    Append(Vec<Arc<Span>>),
    /// A transaction of somebody else's.
    Change(Change),
    /// Apply the limits.
    Prune,
}

/// What it did.
pub(super) enum Done {
    /// Spans were stored.
    Appended(Appended),
    /// The change is made.
    Changed,
    /// The limits were applied.
    Pruned(Pruned),
}

struct Command {
    work: Work,
    reply: oneshot::Sender<Result<Done>>,
}

enum Message {
    Run(Command),
    Close(oneshot::Sender<()>),
}

/// The thread's handle.
pub(super) struct Writer {
    sender: Mutex<Option<mpsc::Sender<Message>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct Worker {
    path: PathBuf,
    connection: Connection,
    options: SqliteOptions,
    unchecked: usize,
    recent: RecentTexts,
    checkpoints: Checkpoints,
}

impl Writer {
    /// Starts the thread.
    pub(super) fn start(path: &Path, connection: Connection, options: SqliteOptions) -> Result<Self> {
        let (sender, inbox) = mpsc::channel(QUEUE);
        // The first span brings a look at the limits, since the file may be old.
        let (path, recent) = (path.to_owned(), RecentTexts::default());
        let checkpoints = Checkpoints::start(&path, options.busy_timeout);
        let worker = Worker { path, connection, options, unchecked: SPANS_PER_CHECK, recent, checkpoints };
        let thread = thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || worker.serve(inbox))
            .map_err(|error| StoreError::Other(format!("the writer thread can't be started: {error}")))?;
        Ok(Self { sender: Mutex::new(Some(sender)), thread: Mutex::new(Some(thread)) })
    }

    /// Has work done, and waits for its commit.
    pub(super) async fn ask(&self, work: Work) -> Result<Done> {
        let sender = self.sender.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let sender = sender.ok_or(StoreError::Closed)?;
        let (reply, answer) = oneshot::channel();
        sender.send(Message::Run(Command { work, reply })).await.map_err(|_| StoreError::Closed)?;
        answer.await.unwrap_or(Err(StoreError::Closed))
    }

    /// Waits for what was accepted, and ends the thread. A second call does nothing.
    pub(super) async fn close(&self) -> Result<()> {
        let sender = self.sender.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(sender) = sender else { return Ok(()) };
        let (reply, answer) = oneshot::channel();
        sender.send(Message::Close(reply)).await.map_err(|_| StoreError::Closed)?;
        answer.await.map_err(|_| StoreError::Closed)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // Without senders the thread finishes its queue and ends.
        drop(self.sender.get_mut().unwrap_or_else(PoisonError::into_inner).take());
        if let Some(thread) = self.thread.get_mut().unwrap_or_else(PoisonError::into_inner).take()
            && thread.join().is_err()
        {
            tracing::error!("the store's writer thread ended early");
        }
    }
}

impl Worker {
    fn serve(mut self, mut inbox: mpsc::Receiver<Message>) {
        while let Some(first) = inbox.blocking_recv() {
            let (mut group, mut closing, mut next) = (Vec::new(), None, Some(first));
            while let Some(message) = next {
                match message {
                    Message::Run(command) => group.push(command),
                    Message::Close(reply) => {
                        closing = Some(reply);
                        break;
                    }
                }
                next = if group.len() < GROUP { inbox.try_recv().ok() } else { None };
            }
            self.answer(group);
            if let Some(reply) = closing {
                self.finish();
                let _ = reply.send(());
                return;
            }
        }
        self.finish();
    }

    fn answer(&mut self, group: Vec<Command>) {
        if group.is_empty() {
            return;
        }
        let (works, replies): (Vec<Work>, Vec<_>) =
            group.into_iter().map(|command| (command.work, command.reply)).unzip();
        let outcomes = self.commit(works);
        let mut has_pruned = false;
        match outcomes {
            Ok(outcomes) => {
                for (outcome, reply) in outcomes.into_iter().zip(replies) {
                    match &outcome {
                        Ok(Done::Appended(appended)) => self.unchecked += appended.stored,
                        Ok(Done::Pruned(pruned)) => has_pruned |= pruned.spans > 0,
                        _ => {}
                    }
                    // A caller that went away needs no answer.
                    let _ = reply.send(outcome.map_err(|error| fault(&self.path, &error)));
                }
            }
            Err(error) => {
                for reply in replies {
                    let _ = reply.send(Err(fault(&self.path, &error)));
                }
            }
        }
        if let Err(error) = self.keep_limits(has_pruned) {
            tracing::warn!(%error, "the store's limits could not be applied; trying again later");
        }
    }

    /// One transaction for all. The outer error means that none of it is stored.
    fn commit(&mut self, works: Vec<Work>) -> rusqlite::Result<Vec<rusqlite::Result<Done>>> {
        let Self { path, options, .. } = self;
        // Packing takes longer than storing: not while the file is locked.
        let works: Vec<_> = works.into_iter().map(|work| Encoded::of(work, &self.recent)).collect();
        let bytes = works.iter().map(Encoded::size_bytes).sum();
        let mut transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        if works.len() == 1 {
            // Nobody else's work is at stake: a savepoint would only write every page once more.
            let run = works.into_iter().map(|work| work.run(&transaction, path, options, &mut self.recent));
            let done = run.collect::<rusqlite::Result<Vec<_>>>()?;
            transaction.commit()?;
            self.checkpoints.wrote(bytes);
            return Ok(done.into_iter().map(Ok).collect());
        }
        let mut outcomes = Vec::with_capacity(works.len());
        let mut works = works.into_iter().peekable();
        while let Some(work) = works.next() {
            let work = match work {
                // Batches that follow each other share what one costs.
                Encoded::Append(Ok(rows)) if matches!(works.peek(), Some(Encoded::Append(Ok(_)))) => {
                    let mut batches = vec![rows];
                    while let Some(Encoded::Append(Ok(rows))) =
                        works.next_if(|next| matches!(next, Encoded::Append(Ok(_))))
                    {
                        batches.push(rows);
                    }
                    let savepoint = transaction.savepoint()?;
                    match append(&savepoint, &batches, &mut self.recent, options.heard) {
                        Ok(appended) => {
                            savepoint.commit()?;
                            outcomes.extend(appended.into_iter().map(|appended| Ok(Done::Appended(appended))));
                        }
                        Err(error) if concerns_the_file(&error) => return Err(error),
                        Err(_) => {
                            drop(savepoint);
                            // One of them can't be stored, which must not take the others with it.
                            for rows in batches {
                                let work = Encoded::Append(Ok(rows));
                                outcomes.push(alone(&mut transaction, work, path, options, &mut self.recent)?);
                            }
                        }
                    }
                    continue;
                }
                work => work,
            };
            outcomes.push(alone(&mut transaction, work, path, options, &mut self.recent)?);
        }
        transaction.commit()?;
        self.checkpoints.wrote(bytes);
        Ok(outcomes)
    }

    /// Looks at the limits when it is time; gives free pages back after something was removed.
    fn keep_limits(&mut self, mut has_pruned: bool) -> rusqlite::Result<()> {
        if self.unchecked >= SPANS_PER_CHECK && self.options.retention != Retention::default() {
            self.unchecked = 0;
            let retention = self.options.retention;
            let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let pruned = prune(&transaction, retention, SystemTime::now().into())?;
            transaction.commit()?;
            has_pruned |= pruned.spans > 0;
        }
        if has_pruned { release_pages(&self.connection) } else { Ok(()) }
    }

    fn finish(self) {
        drop(self.checkpoints);
        // Closing the last connection also folds the write-ahead log into the file.
        if let Err((_, error)) = self.connection.close() {
            tracing::warn!(%error, "the store could not be closed properly");
        }
    }
}

/// Runs work so that, if it fails, nothing of it stays. The outer error concerns the file.
fn alone(
    transaction: &mut Transaction<'_>,
    work: Encoded,
    path: &Path,
    options: &SqliteOptions,
    recent: &mut RecentTexts,
) -> rusqlite::Result<rusqlite::Result<Done>> {
    // Dropping a savepoint rolls it back.
    let savepoint = transaction.savepoint()?;
    match work.run(&savepoint, path, options, recent) {
        Ok(done) => {
            savepoint.commit()?;
            Ok(Ok(done))
        }
        Err(error) if concerns_the_file(&error) => Err(error),
        Err(error) => Ok(Err(error)),
    }
}

/// Work, its spans encoded.
enum Encoded {
    Append(Result<Vec<Row>>),
    Other(Work),
}

impl Encoded {
    fn of(work: Work, recent: &RecentTexts) -> Self {
        match work {
            Work::Append(spans) => Self::Append(spans.iter().map(|span| Row::encode(span, recent)).collect()),
            other => Self::Other(other),
        }
    }

    /// About what it takes in the file.
    fn size_bytes(&self) -> usize {
        match self {
            Self::Append(Ok(rows)) => rows.iter().map(Row::size_bytes).sum(),
            _ => 0,
        }
    }

    fn run(
        self,
        connection: &Connection,
        path: &Path,
        options: &SqliteOptions,
        recent: &mut RecentTexts,
    ) -> rusqlite::Result<Done> {
        match self {
            Self::Append(Ok(rows)) => {
                let done = append(connection, std::slice::from_ref(&rows), recent, options.heard)?;
                Ok(Done::Appended(done.into_iter().next().unwrap_or_default()))
            }
            Self::Append(Err(error)) => Err(rusqlite::Error::ToSqlConversionFailure(Box::new(error))),
            Self::Other(work) => work.run(connection, path, options.retention),
        }
    }
}

impl Work {
    fn run(self, connection: &Connection, path: &Path, retention: Retention) -> rusqlite::Result<Done> {
        match self {
            Self::Append(_) => Ok(Done::Appended(Appended::default())),
            Self::Change(change) => records::run(connection, path, change).map(|()| Done::Changed),
            Self::Prune => prune(connection, retention, SystemTime::now().into()).map(Done::Pruned),
        }
    }
}

//! The writer: one thread with one connection, and one commit for all commands that are waiting.
//!
//! A caller gets its result after the commit that contains its command. A command that fails on its own does not affect
//! the others of its commit. A file that was removed or replaced meanwhile is noticed before each commit, and made or opened
//! again.

use super::checkpoint::{Checkpoints, OnErased};
use super::error::{CommandError, concerns_file, store_error};
use super::file;
use super::limits::Limits;
use super::open_file::{OpenFile, Opened, abandon};
use super::options::SqliteOptions;
use super::readers::Readers;
use super::recent::Recent;
use super::retention::release_pages;
use super::spans;
use super::statements::{PackedRow, append};
use super::work::{CommandResult, LogNeed, Outcome, Work};
use crate::store::error::{Result, StoreError};
use crate::store::pruning::{PruneCounters, PruneCursor, PruneSlice};
use crate::trace::Span;
use rusqlite::{Connection, Transaction, TransactionBehavior};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use tokio::sync::{mpsc, oneshot};

/// Commands that wait for the thread. Further callers wait for a place.
const MAX_QUEUED: usize = 1024;

/// Maximum number of commands in a commit, so that the first of them is not delayed forever.
const MAX_GROUP: usize = 256;

/// Bytes of spans that are encoded by the caller's own thread, in less time than it takes to hand them to another.
const MAX_ENCODED_HERE: u64 = 16 * 1024;

struct Command {
    work: Work,
    reply: oneshot::Sender<Result<Outcome>>,
}

enum WriterMessage {
    Run(Command),
    /// The log of the last slice was copied: the limits are applied further.
    ApplyLimits(PruneCursor),
    Close(oneshot::Sender<()>),
}

/// Handle of the thread.
pub(super) struct Writer {
    sender: Mutex<Option<mpsc::Sender<WriterMessage>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    recent: Arc<Recent>,
}

struct WriterThread {
    file: Arc<OpenFile>,
    connection: Connection,
    /// Of the file that the connection has open.
    generation: u64,
    readers: Arc<Readers>,
    options: SqliteOptions,
    limits: Limits,
    pruned: Arc<PruneCounters>,
    /// For the continuation of a prune. It does not keep the thread alive.
    sender: mpsc::WeakSender<WriterMessage>,
    recent: Arc<Recent>,
    checkpoints: Checkpoints,
}

impl Writer {
    /// Starts the thread.
    pub(super) fn start(
        file: Arc<OpenFile>,
        Opened { connection, generation }: Opened,
        readers: Arc<Readers>,
        options: SqliteOptions,
        pruned: Arc<PruneCounters>,
    ) -> Result<Self> {
        let (sender, inbox) = mpsc::channel(MAX_QUEUED);
        let recent = Arc::new(Recent::default());
        let thread = WriterThread {
            recent: Arc::clone(&recent),
            checkpoints: Checkpoints::start(Arc::clone(&file), generation),
            file,
            connection,
            generation,
            readers,
            options,
            limits: Limits::new(options.retention, Arc::clone(&recent), Arc::clone(&pruned)),
            pruned,
            sender: sender.downgrade(),
        };
        let thread = thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || thread.serve(inbox))
            .map_err(|error| StoreError::Other(format!("the writer thread can't be started: {error}")))?;
        Ok(Self { sender: Mutex::new(Some(sender)), thread: Mutex::new(Some(thread)), recent })
    }

    /// Encodes spans, long ones beside the caller, appends them, and waits for their commit.
    pub(super) async fn append(&self, spans: Vec<Arc<Span>>) -> Result<Outcome> {
        let recent = Arc::clone(&self.recent);
        let is_short = spans.iter().map(|span| span.estimated_bytes()).sum::<u64>() <= MAX_ENCODED_HERE;
        let encode = move || spans.iter().map(|span| PackedRow::encode(span, &recent)).collect::<Vec<_>>();
        let rows = if is_short {
            encode()
        } else {
            let encoded = tokio::task::spawn_blocking(encode).await;
            encoded.map_err(|error| StoreError::Other(format!("spans can't be encoded: {error}")))?
        };
        self.run(Work::Append(rows)).await
    }

    /// Runs a command and waits for its commit, and for its erasure if it removes content.
    pub(super) async fn run(&self, work: Work) -> Result<Outcome> {
        let sender = self.sender.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let sender = sender.ok_or(StoreError::Closed)?;
        let (reply, result) = oneshot::channel();
        sender.send(WriterMessage::Run(Command { work, reply })).await.map_err(|_| StoreError::Closed)?;
        result.await.unwrap_or(Err(StoreError::Closed))
    }

    /// What was stored recently.
    pub(super) fn recent(&self) -> Arc<Recent> {
        Arc::clone(&self.recent)
    }

    /// Completes the queued commands and ends the thread. A second call has no effect.
    pub(super) async fn close(&self) -> Result<()> {
        let sender = self.sender.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(sender) = sender else { return Ok(()) };
        let (reply, closed) = oneshot::channel();
        sender.send(WriterMessage::Close(reply)).await.map_err(|_| StoreError::Closed)?;
        closed.await.map_err(|_| StoreError::Closed)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // Without senders the thread completes its queue and ends.
        drop(self.sender.get_mut().unwrap_or_else(PoisonError::into_inner).take());
        if let Some(thread) = self.thread.get_mut().unwrap_or_else(PoisonError::into_inner).take()
            && thread.join().is_err()
        {
            tracing::error!("the store's writer thread panicked");
        }
    }
}

impl WriterThread {
    fn serve(mut self, mut inbox: mpsc::Receiver<WriterMessage>) {
        while let Some(first) = inbox.blocking_recv() {
            let (mut group, mut limits, mut closing, mut next) = (Vec::new(), None, None, Some(first));
            while let Some(message) = next {
                match message {
                    WriterMessage::Run(command) => group.push(command),
                    WriterMessage::ApplyLimits(from) => limits = Some(from),
                    WriterMessage::Close(reply) => {
                        closing = Some(reply);
                        break;
                    }
                }
                next = if group.len() < MAX_GROUP { inbox.try_recv().ok() } else { None };
            }
            self.run_group(group);
            self.apply_limits(limits);
            if let Some(reply) = closing {
                self.finish();
                let _ = reply.send(());
                return;
            }
        }
        self.finish();
    }

    fn run_group(&mut self, group: Vec<Command>) {
        if group.is_empty() {
            return;
        }
        let (works, replies): (Vec<Work>, Vec<_>) =
            group.into_iter().map(|command| (command.work, command.reply)).unzip();
        let (mut on_erased, mut on_copied): (Vec<OnErased>, Vec<OnErased>) = (Vec::new(), Vec::new());
        if let Err(error) = self.follow_file() {
            let cause = error.to_string();
            for reply in replies {
                let _ =
                    reply.send(Err(StoreError::Unusable { path: self.file.path().to_owned(), cause: cause.clone() }));
            }
            return;
        }
        match self.commit(works) {
            Ok(results) => {
                let is_plain = |result: &CommandResult| {
                    result.as_ref().is_ok_and(|outcome| outcome.needs_of_log() == LogNeed::Nothing)
                };
                let file = if self.recent.spans.are_wanted() && results.iter().all(is_plain) {
                    spans::state(&self.connection).ok()
                } else {
                    None
                };
                self.recent.spans.committed(file);
                for (result, reply) in results.into_iter().zip(replies) {
                    match &result {
                        Ok(Outcome::Appended(appended)) => self.limits.stored(appended.stored),
                        Ok(Outcome::Pruned(slice)) => self.pruned.add(slice),
                        _ => {}
                    }
                    let result = result.map_err(|error| error.into_store_error(self.file.path()));
                    // A failed send means that the caller has gone.
                    match result.as_ref().map_or(LogNeed::Nothing, Outcome::needs_of_log) {
                        LogNeed::Erasure => on_erased.push(Box::new(move || drop(reply.send(result)))),
                        LogNeed::Checkpoint => on_copied.push(Box::new(move || drop(reply.send(result)))),
                        LogNeed::Nothing => drop(reply.send(result)),
                    }
                }
            }
            Err(error) => {
                self.recent.spans.clear();
                for reply in replies {
                    let _ = reply.send(Err(store_error(self.file.path(), &error)));
                }
            }
        }
        if !on_copied.is_empty() {
            self.checkpoints.checkpoint(on_copied);
        }
        if !on_erased.is_empty() {
            if let Err(error) = release_pages(&self.connection) {
                tracing::warn!(%error, "free pages of the store could not be released; trying again later");
            }
            self.checkpoints.erase(on_erased);
        }
    }

    /// Opens the file anew if it was removed or replaced: what is written to the old one could never be read.
    fn follow_file(&mut self) -> Result<()> {
        if self.file.is_current(self.generation) {
            return Ok(());
        }
        let Opened { connection, generation } = self.file.open(|path| file::open_writer(path, &self.options))?;
        self.checkpoints = Checkpoints::start(Arc::clone(&self.file), generation);
        abandon(std::mem::replace(&mut self.connection, connection));
        self.generation = generation;
        self.readers.clear();
        self.recent.clear();
        Ok(())
    }

    /// Runs commands in one transaction. After an outer error, none of them is stored.
    fn commit(&mut self, works: Vec<Work>) -> rusqlite::Result<Vec<CommandResult>> {
        let bytes = works.iter().map(Work::size_bytes).sum();
        let works = match self.commit_appends(works)? {
            Ok(results) => {
                self.checkpoints.committed(bytes);
                return Ok(results);
            }
            Err(works) => works,
        };
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut group = Group { transaction, path: self.file.path(), options: &self.options, recent: &self.recent };
        let mut results = Vec::with_capacity(works.len());
        if works.len() == 1 {
            // Without other commands no savepoint is needed, which would write each page twice.
            for work in works {
                match work.run(&group.transaction, group.path, group.options, group.recent) {
                    Ok(outcome) => results.push(Ok(outcome)),
                    // Dropping the transaction rolls it back.
                    Err(error) => return Ok(vec![Err(error)]),
                }
            }
        } else {
            group.run_each(works, &mut results)?;
        }
        group.transaction.commit()?;
        self.checkpoints.committed(bytes);
        Ok(results)
    }

    /// Commits several batches of spans as one, without savepoints. Returns the commands if there are others, or if a batch is
    /// rejected: it must not affect the others.
    fn commit_appends(
        &mut self,
        works: Vec<Work>,
    ) -> rusqlite::Result<std::result::Result<Vec<CommandResult>, Vec<Work>>> {
        if works.len() < 2 || !works.iter().all(|work| matches!(work, Work::Append(_))) {
            return Ok(Err(works));
        }
        let batches: Vec<_> = works.into_iter().filter_map(Work::into_rows).collect();
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        match append(&transaction, &batches, &self.recent, self.options.observer) {
            Ok(appended) => {
                transaction.commit()?;
                Ok(Ok(appended.into_iter().map(|appended| Ok(Outcome::Appended(appended))).collect()))
            }
            Err(error) if concerns_file(&error) => Err(error),
            // Dropping the transaction rolls it back.
            Err(_) => Ok(Err(batches.into_iter().map(Work::Append).collect())),
        }
    }

    /// Applies the limits if enough spans were stored since the last check, or goes on with it. A slice is removed at a time, so that
    /// commands that have come meanwhile are run before the next one.
    fn apply_limits(&mut self, from: Option<PruneCursor>) {
        let slice = self.limits.apply(&mut self.connection, from);
        if slice.as_ref().is_some_and(|slice| slice.has_removed) {
            self.recent.spans.clear();
        }
        match slice {
            Some(PruneSlice { next: Some(next), .. }) => {
                let sender = self.sender.clone();
                let request = move || {
                    let sent = sender.upgrade().map(|sender| sender.try_send(WriterMessage::ApplyLimits(next)));
                    matches!(sent, Some(Ok(())))
                };
                self.checkpoints.checkpoint(vec![self.limits.resume(request)]);
            }
            Some(PruneSlice { has_removed: true, .. }) => self.checkpoints.erase(Vec::new()),
            _ => {}
        }
    }

    fn finish(self) {
        drop(self.checkpoints);
        if !self.file.is_current(self.generation) {
            return abandon(self.connection);
        }
        // Closing the last connection also checkpoints and removes the write-ahead log.
        if let Err((_, error)) = self.connection.close() {
            tracing::warn!(%error, "the store could not be closed properly");
        }
    }
}

/// The transaction of a group of commands.
struct Group<'a> {
    transaction: Transaction<'a>,
    path: &'a Path,
    options: &'a SqliteOptions,
    recent: &'a Recent,
}

impl Group<'_> {
    /// Runs commands in their order, each with its own result. An outer error concerns the file.
    fn run_each(&mut self, works: Vec<Work>, results: &mut Vec<CommandResult>) -> rusqlite::Result<()> {
        let mut works = works.into_iter().peekable();
        while let Some(work) = works.next() {
            match work {
                // Consecutive batches share the statements for their rollouts and attempts.
                Work::Append(rows) if matches!(works.peek(), Some(Work::Append(_))) => {
                    let mut batches = vec![rows];
                    while let Some(Work::Append(rows)) = works.next_if(|next| matches!(next, Work::Append(_))) {
                        batches.push(rows);
                    }
                    self.append_batches(batches, results)?;
                }
                work => results.push(self.run_isolated(work)?),
            }
        }
        Ok(())
    }

    fn append_batches(
        &mut self,
        batches: Vec<Vec<PackedRow>>,
        results: &mut Vec<CommandResult>,
    ) -> rusqlite::Result<()> {
        let savepoint = self.transaction.savepoint()?;
        match append(&savepoint, &batches, self.recent, self.options.observer) {
            Ok(appended) => {
                savepoint.commit()?;
                results.extend(appended.into_iter().map(|appended| Ok(Outcome::Appended(appended))));
            }
            Err(error) if concerns_file(&error) => return Err(error),
            Err(_) => {
                drop(savepoint);
                // One batch is rejected. It must not affect the others.
                for rows in batches {
                    let result = self.run_isolated(Work::Append(rows))?;
                    results.push(result);
                }
            }
        }
        Ok(())
    }

    /// Runs a command so that nothing of it remains if it fails. An outer error concerns the file.
    fn run_isolated(&mut self, work: Work) -> rusqlite::Result<CommandResult> {
        // Dropping a savepoint rolls it back.
        let savepoint = self.transaction.savepoint()?;
        match work.run(&savepoint, self.path, self.options, self.recent) {
            Ok(outcome) => {
                savepoint.commit()?;
                Ok(Ok(outcome))
            }
            Err(CommandError::Database(error)) if concerns_file(&error) => Err(error),
            Err(error) => Ok(Err(error)),
        }
    }
}

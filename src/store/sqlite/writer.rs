//! Writing: one thread, one connection, and one commit for as many commands as are waiting.
//!
//! A caller is answered only after the commit that holds its command. A command that fails on its own must not take
//! others with it.

use super::retention::{prune, release_pages};
use super::texts::RecentTexts;
use super::{concerns_the_file, fault, lean, signed};
use crate::store::blob::{Split, split};
use crate::store::{Appended, Pruned, Result, Retention, StoreError};
use crate::trace::{Attempt, AttemptId, Rollout, RolloutId, Span, Timestamp};
use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};
use serde::Serialize;
use std::collections::BTreeMap;
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

/// A span, encoded for its row.
struct Row {
    rollout_id: RolloutId,
    attempt_id: AttemptId,
    sequence_id: i64,
    span_id: String,
    start: Option<Timestamp>,
    end: Option<Timestamp>,
    is_error: bool,
    json: String,
    split: Split,
}

/// What the writer can do.
pub(super) enum Work {
    /// Store spans.
    Append(Vec<Arc<Span>>),
    /// Register a rollout.
    PutRollout(Box<Rollout>),
    /// Add or replace an attempt.
    PutAttempt(Box<Attempt>),
    /// Apply the limits.
    Prune,
}

/// What it did.
pub(super) enum Done {
    /// Spans were stored.
    Appended(Appended),
    /// The rollout was registered.
    Rollout,
    /// The attempt as stored.
    Attempt(Box<Attempt>),
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
    retention: Retention,
    unchecked: usize,
    recent: RecentTexts,
}

impl Row {
    /// Packs the long texts and writes the rest as JSON.
    fn encode(span: &Span) -> Result<Self> {
        let split = split(span);
        let json = lean::json(span, &split.references).map_err(|error| StoreError::Other(error.to_string()))?;
        Ok(Self {
            sequence_id: signed(span.sequence_id),
            start: span.start_time,
            end: span.end_time,
            is_error: span.is_error(),
            rollout_id: span.rollout_id.clone(),
            attempt_id: span.attempt_id.clone(),
            span_id: span.span_id.clone(),
            json,
            split,
        })
    }
}

impl Writer {
    /// Starts the thread.
    pub(super) fn start(path: &Path, connection: Connection, retention: Retention) -> Result<Self> {
        let (sender, inbox) = mpsc::channel(QUEUE);
        // The first span brings a look at the limits, since the file may be old.
        let (path, recent) = (path.to_owned(), RecentTexts::default());
        let worker = Worker { path, connection, retention, unchecked: SPANS_PER_CHECK, recent };
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
        let retention = self.retention;
        // Packing takes longer than storing: not while the file is locked.
        let works: Vec<_> = works.into_iter().map(Encoded::from).collect();
        let mut transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut outcomes = Vec::with_capacity(works.len());
        for work in works {
            // Dropping a savepoint rolls it back.
            let savepoint = transaction.savepoint()?;
            match work.run(&savepoint, retention, &mut self.recent) {
                Ok(done) => {
                    savepoint.commit()?;
                    outcomes.push(Ok(done));
                }
                Err(error) if concerns_the_file(&error) => return Err(error),
                Err(error) => outcomes.push(Err(error)),
            }
        }
        transaction.commit()?;
        Ok(outcomes)
    }

    /// Looks at the limits when it is time; gives free pages back after something was removed.
    fn keep_limits(&mut self, mut has_pruned: bool) -> rusqlite::Result<()> {
        if self.unchecked >= SPANS_PER_CHECK && self.retention != Retention::default() {
            self.unchecked = 0;
            let retention = self.retention;
            let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let pruned = prune(&transaction, retention, SystemTime::now().into())?;
            transaction.commit()?;
            has_pruned |= pruned.spans > 0;
        }
        if has_pruned { release_pages(&self.connection) } else { Ok(()) }
    }

    fn finish(self) {
        // Closing the last connection also folds the write-ahead log into the file.
        if let Err((_, error)) = self.connection.close() {
            tracing::warn!(%error, "the store could not be closed properly");
        }
    }
}

/// Work, its spans encoded.
enum Encoded {
    Append(Result<Vec<Row>>),
    Other(Work),
}

impl From<Work> for Encoded {
    fn from(work: Work) -> Self {
        match work {
            Work::Append(spans) => Self::Append(spans.iter().map(|span| Row::encode(span)).collect()),
            other => Self::Other(other),
        }
    }
}

impl Encoded {
    fn run(self, connection: &Connection, retention: Retention, recent: &mut RecentTexts) -> rusqlite::Result<Done> {
        match self {
            Self::Append(Ok(rows)) => append(connection, &rows, recent).map(Done::Appended),
            Self::Append(Err(error)) => Err(rusqlite::Error::ToSqlConversionFailure(Box::new(error))),
            Self::Other(work) => work.run(connection, retention),
        }
    }
}

impl Work {
    fn run(self, connection: &Connection, retention: Retention) -> rusqlite::Result<Done> {
        match self {
            Self::Append(_) => Ok(Done::Appended(Appended::default())),
            Self::PutRollout(rollout) => put_rollout(connection, &rollout, true).map(|()| Done::Rollout),
            Self::PutAttempt(attempt) => {
                ensure_rollout(connection, &attempt.rollout_id, 0, attempt.start_time)?;
                put_attempt(connection, *attempt).map(|attempt| Done::Attempt(Box::new(attempt)))
            }
            Self::Prune => prune(connection, retention, SystemTime::now().into()).map(Done::Pruned),
        }
    }
}

fn append(connection: &Connection, rows: &[Row], recent: &mut RecentTexts) -> rusqlite::Result<Appended> {
    let mut appended = Appended::default();
    for row in rows {
        let start = row.start.unwrap_or_else(|| SystemTime::now().into());
        ensure_rollout(connection, &row.rollout_id, row.sequence_id, start)?;
        ensure_attempt(connection, row, start)?;
        if insert_span(connection, row, recent)? {
            appended.stored += 1;
        } else {
            appended.duplicates += 1;
        }
    }
    Ok(appended)
}

fn ensure_rollout(connection: &Connection, id: &RolloutId, sequence: i64, start: Timestamp) -> rusqlite::Result<()> {
    let sql = "UPDATE rollout SET last_sequence_id = MAX(last_sequence_id, ?2) WHERE rollout_id = ?1";
    if connection.prepare_cached(sql)?.execute(params![id.as_str(), sequence])? > 0 {
        return Ok(());
    }
    put_rollout(connection, &Rollout::running(id.clone(), start), false)?;
    connection.prepare_cached(sql)?.execute(params![id.as_str(), sequence])?;
    Ok(())
}

fn put_rollout(connection: &Connection, rollout: &Rollout, is_registered: bool) -> rusqlite::Result<()> {
    let mut statement = connection.prepare_cached(
        "INSERT INTO rollout (rollout_id, registered, last_sequence_id, start_ns, json) VALUES (?1, ?2, 0, ?3, ?4)
         ON CONFLICT (rollout_id) DO UPDATE SET
             registered = excluded.registered, start_ns = excluded.start_ns, json = excluded.json",
    )?;
    let start = signed(rollout.start_time.unix_nanos);
    statement.execute(params![rollout.rollout_id.as_str(), is_registered, start, encode(rollout)?])?;
    Ok(())
}

fn ensure_attempt(connection: &Connection, row: &Row, start: Timestamp) -> rusqlite::Result<()> {
    let sql = "SELECT 1 FROM attempt WHERE rollout_id = ?1 AND attempt_id = ?2";
    let is_known = connection.prepare_cached(sql)?.exists(params![row.rollout_id.as_str(), row.attempt_id.as_str()])?;
    if !is_known {
        put_attempt(connection, Attempt::running(row.rollout_id.clone(), row.attempt_id.clone(), start))?;
    }
    Ok(())
}

fn put_attempt(connection: &Connection, mut attempt: Attempt) -> rusqlite::Result<Attempt> {
    let (rollout, id) = (attempt.rollout_id.clone(), attempt.attempt_id.clone());
    let sql = "SELECT sequence_id FROM attempt WHERE rollout_id = ?1 AND attempt_id = ?2";
    let known: Option<i64> = connection
        .prepare_cached(sql)?
        .query_row(params![rollout.as_str(), id.as_str()], |row| row.get(0))
        .optional()?;
    let sequence = match known {
        Some(sequence) => sequence,
        None => connection
            .prepare_cached("SELECT COALESCE(MAX(sequence_id), 0) + 1 FROM attempt WHERE rollout_id = ?1")?
            .query_row(params![rollout.as_str()], |row| row.get::<_, i64>(0))?,
    };
    attempt.sequence_id = super::unsigned(sequence);
    let sql = "INSERT OR REPLACE INTO attempt (rollout_id, attempt_id, sequence_id, json) VALUES (?1, ?2, ?3, ?4)";
    let json = encode(&attempt)?;
    connection.prepare_cached(sql)?.execute(params![rollout.as_str(), id.as_str(), sequence, json])?;
    Ok(attempt)
}

fn insert_span(connection: &Connection, row: &Row, recent: &mut RecentTexts) -> rusqlite::Result<bool> {
    let nanos = |time: Option<Timestamp>| time.map(|time| signed(time.unix_nanos));
    let stored = connection
        .prepare_cached(
            "INSERT INTO span (rollout_id, attempt_id, sequence_id, span_id, start_ns, end_ns, is_error, json)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) ON CONFLICT (rollout_id, attempt_id, span_id) DO NOTHING",
        )?
        .execute(params![
            row.rollout_id.as_str(),
            row.attempt_id.as_str(),
            row.sequence_id,
            row.span_id,
            nanos(row.start),
            nanos(row.end),
            row.is_error,
            row.json,
        ])?;
    if stored == 0 {
        return Ok(false);
    }
    let id = connection.last_insert_rowid();
    let mut numbers = BTreeMap::new();
    for blob in &row.split.blobs {
        numbers.insert(blob.hash, recent.number_of(connection, blob)?);
    }
    for (attribute, hash) in &row.split.references {
        let sql = "INSERT INTO span_text (span, attribute, text) VALUES (?1, ?2, ?3)";
        connection.prepare_cached(sql)?.execute(params![id, attribute, numbers.get(hash)])?;
    }
    Ok(true)
}

fn encode(value: &impl Serialize) -> rusqlite::Result<String> {
    serde_json::to_string(value).map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))
}

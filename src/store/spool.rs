//! Spans wait in a file while the server of a store is away, and follow once it is back.
//!
//! What is put down here has been committed to this machine's disk; the file is bounded, and when it is full the store is
//! in trouble like any other. Reads and changes of rollouts are the server's alone: they fail while it is away.

use super::sqlite::{SqliteOptions, SqliteStore};
use super::{
    Appended, BoxFuture, Change, Pruned, Result, RolloutFilter, RolloutSummary, SharedStore, Standing, Statistics,
    Store, StoreError, TerminalPage,
};
use crate::trace::{Attempt, AttemptId, AttemptedRollout, ResourcesUpdate, Rollout, RolloutId, Span, Worker};
use std::collections::HashMap;
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;

/// A store behind a spool.
pub struct Spooled {
    inner: SharedStore,
    spool: Arc<Spool>,
    draining: JoinHandle<()>,
}

struct Spool {
    path: PathBuf,
    max_bytes: u64,
    // Held as long as the file is ours.
    _lock: File,
    // None: nothing waits. Locked over awaits, so that what comes while it is emptied waits for that.
    file: Mutex<Option<SqliteStore>>,
    waiting: AtomicU64,
    refused: AtomicU64,
}

impl Spooled {
    /// Puts a file in `folder` before `inner`, one that no other process uses; what waits there from before follows at
    /// once.
    pub fn new(inner: SharedStore, folder: &Path, max_bytes: u64) -> Result<Self> {
        let unusable =
            |error: std::io::Error| StoreError::Unusable { path: folder.to_owned(), cause: error.to_string() };
        std::fs::create_dir_all(folder).map_err(unusable)?;
        let (path, lock) = own_place(folder).map_err(unusable)?;
        let file = if path.exists() { Some(SqliteStore::open(&path, SqliteOptions::default())?) } else { None };
        // Counted when it is emptied first.
        let waiting = AtomicU64::new(u64::from(file.is_some()));
        let spool = Arc::new(Spool {
            path,
            max_bytes,
            _lock: lock,
            file: Mutex::new(file),
            waiting,
            refused: AtomicU64::new(0),
        });
        let draining = tokio::spawn(drain(Arc::clone(&spool), Arc::clone(&inner)));
        Ok(Self { inner, spool, draining })
    }
}

impl Drop for Spooled {
    fn drop(&mut self) {
        self.draining.abort();
    }
}

impl Spool {
    async fn put(&self, spans: Vec<Arc<Span>>, away: StoreError) -> Result<Appended> {
        let mut file = self.file.lock().await;
        let store = match &mut *file {
            Some(store) => store,
            None => {
                tracing::warn!(error = %away, path = %self.path.display(), "spans wait in a file until the store is back");
                file.insert(SqliteStore::open(&self.path, SqliteOptions::default())?)
            }
        };
        if size_bytes(&self.path) >= self.max_bytes {
            return Err(away);
        }
        let appended = store.append(spans).await?;
        self.waiting.fetch_add(appended.stored as u64, Ordering::Relaxed);
        Ok(appended)
    }

    /// Takes everything to the store. The file goes with the last span.
    async fn empty(&self, inner: &SharedStore) -> Result<()> {
        let mut file = self.file.lock().await;
        let Some(store) = &*file else { return Ok(()) };
        let (moved, refused) = send_all(store, inner).await?;
        if let Some(store) = file.take()
            && let Err(error) = store.close().await
        {
            tracing::warn!(%error, path = %self.path.display(), "an empty spool can't be closed");
        }
        remove(&self.path);
        self.waiting.store(0, Ordering::Relaxed);
        self.refused.fetch_add(refused as u64, Ordering::Relaxed);
        tracing::info!(moved, refused, "the store is back and has the spans that waited");
        Ok(())
    }

    /// Takes over what programs left that are gone.
    async fn adopt(&self, inner: &SharedStore) -> Result<()> {
        let Some(folder) = self.path.parent() else { return Ok(()) };
        for number in 1..=MAX_PLACES {
            let (path, lock) = (folder.join(format!("spool-{number}.db")), folder.join(format!("spool-{number}.lock")));
            let Ok(lock) = File::options().write(true).open(lock) else { continue };
            if path.exists() && lock.try_lock().is_ok() {
                let file = SqliteStore::open(&path, SqliteOptions::default())?;
                let (moved, refused) = send_all(&file, inner).await?;
                file.close().await?;
                remove(&path);
                self.refused.fetch_add(refused as u64, Ordering::Relaxed);
                tracing::info!(moved, refused, "the store has the spans that another program left");
            }
        }
        Ok(())
    }
}

/// Takes what waits in a file to the store. What the store can't take while it takes others is named and left out: it must
/// not hold up what is behind it.
async fn send_all(file: &SqliteStore, inner: &SharedStore) -> Result<(usize, usize)> {
    let (mut moved, mut refused) = (0, 0);
    for summary in file.rollouts(usize::MAX).await? {
        let spans = file.spans(summary.rollout.rollout_id, None).await?;
        for part in spans.chunks(PART) {
            let part: Vec<Arc<Span>> = part.iter().cloned().map(Arc::new).collect();
            match inner.append(part.clone()).await {
                Ok(_) => moved += part.len(),
                Err(away @ StoreError::Unreachable { .. }) => return Err(away),
                Err(_) => {
                    for span in part {
                        match inner.append(vec![Arc::clone(&span)]).await {
                            Ok(_) => moved += 1,
                            Err(away @ StoreError::Unreachable { .. }) => return Err(away),
                            Err(error) => {
                                refused += 1;
                                tracing::error!(%error, rollout_id = %span.rollout_id, span_id = span.span_id, "the store can't take this span; it is lost");
                            }
                        }
                    }
                }
            }
        }
    }
    Ok((moved, refused))
}

/// The files of a spool: SQLite's, with its log and its index of that.
fn files(path: &Path) -> [PathBuf; 3] {
    ["", "-wal", "-shm"].map(|end| {
        let mut path = path.to_owned().into_os_string();
        path.push(end);
        path.into()
    })
}

/// What they take. Counting what is in them would take longer the more waits.
fn size_bytes(path: &Path) -> u64 {
    files(path).iter().filter_map(|file| Some(file.metadata().ok()?.len())).sum()
}

fn remove(path: &Path) {
    for path in files(path) {
        if let Err(error) = std::fs::remove_file(&path)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(%error, path = %path.display(), "an empty spool can't be removed");
        }
    }
}

/// Programs on one folder.
const MAX_PLACES: u32 = 64;

/// The first of the numbered places that no other process holds.
fn own_place(folder: &Path) -> std::io::Result<(PathBuf, File)> {
    let mut number = 1_u32;
    loop {
        let lock = File::create(folder.join(format!("spool-{number}.lock")))?;
        match lock.try_lock() {
            Ok(()) => return Ok((folder.join(format!("spool-{number}.db")), lock)),
            Err(TryLockError::WouldBlock) => number += 1,
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
}

/// Tries, for as long as something waits.
async fn drain(spool: Arc<Spool>, inner: SharedStore) {
    let mut tries = 0_u32;
    loop {
        if spool.waiting.load(Ordering::Relaxed) > 0
            && let Err(error) = spool.empty(&inner).await
        {
            tracing::debug!(%error, "the store is still away");
        }
        if tries.is_multiple_of(ADOPT_EVERY)
            && let Err(error) = spool.adopt(&inner).await
        {
            tracing::debug!(%error, "what another program left can't follow yet");
        }
        tries = tries.wrapping_add(1);
        tokio::time::sleep(BETWEEN_TRIES).await;
    }
}

/// Looks for what others left, in tries.
const ADOPT_EVERY: u32 = 20;
const PART: usize = 256;
const BETWEEN_TRIES: Duration = Duration::from_millis(500);

impl Store for Spooled {
    fn append(&self, spans: Vec<Arc<Span>>) -> BoxFuture<'_, Result<Appended>> {
        Box::pin(async move {
            match self.inner.append(spans.clone()).await {
                Err(away @ StoreError::Unreachable { .. }) => self.spool.put(spans, away).await,
                done => done,
            }
        })
    }

    fn rollout(&self, id: RolloutId) -> BoxFuture<'_, Result<Option<Rollout>>> {
        self.inner.rollout(id)
    }

    fn rollouts(&self, limit: usize) -> BoxFuture<'_, Result<Vec<RolloutSummary>>> {
        self.inner.rollouts(limit)
    }

    fn attempts(&self, id: RolloutId) -> BoxFuture<'_, Result<Vec<Attempt>>> {
        self.inner.attempts(id)
    }

    fn spans(&self, rollout: RolloutId, attempt: Option<AttemptId>) -> BoxFuture<'_, Result<Vec<Span>>> {
        self.inner.spans(rollout, attempt)
    }

    fn change(&self, change: Change) -> BoxFuture<'_, Result<()>> {
        self.inner.change(change)
    }

    fn attempted(&self, filter: RolloutFilter) -> BoxFuture<'_, Result<Vec<AttemptedRollout>>> {
        self.inner.attempted(filter)
    }

    fn workers(&self) -> BoxFuture<'_, Result<Vec<Worker>>> {
        self.inner.workers()
    }

    fn all_resources(&self) -> BoxFuture<'_, Result<Vec<ResourcesUpdate>>> {
        self.inner.all_resources()
    }

    fn llm_calls(&self, rollouts: Vec<RolloutId>) -> BoxFuture<'_, Result<HashMap<RolloutId, u64>>> {
        self.inner.llm_calls(rollouts)
    }

    fn owners(&self, traces: Vec<String>) -> BoxFuture<'_, Result<HashMap<String, (RolloutId, AttemptId)>>> {
        self.inner.owners(traces)
    }

    fn next_sequence(&self, id: RolloutId) -> BoxFuture<'_, Result<Option<Standing>>> {
        self.inner.next_sequence(id)
    }

    fn terminal(&self, after: u64, limit: usize) -> BoxFuture<'_, Result<TerminalPage>> {
        self.inner.terminal(after, limit)
    }

    fn standing(&self, id: RolloutId) -> BoxFuture<'_, Result<Standing>> {
        self.inner.standing(id)
    }

    fn statistics(&self) -> BoxFuture<'_, Result<Statistics>> {
        Box::pin(async move {
            let waiting = self.spool.waiting.load(Ordering::Relaxed);
            let refused = self.spool.refused.load(Ordering::Relaxed);
            Ok(Statistics { waiting, refused, ..self.inner.statistics().await? })
        })
    }

    fn prune(&self) -> BoxFuture<'_, Result<Pruned>> {
        self.inner.prune()
    }

    fn close(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            self.draining.abort();
            // One last try; what can't follow stays in the file for the next start.
            if self.spool.waiting.load(Ordering::Relaxed) > 0 && self.spool.empty(&self.inner).await.is_err() {
                tracing::warn!(path = %self.spool.path.display(), "spans wait in a file for the next start");
                if let Some(file) = self.spool.file.lock().await.take() {
                    file.close().await?;
                }
            }
            self.inner.close().await
        })
    }
}

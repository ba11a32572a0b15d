//! The cursor of an export in the store. One program holds it at a time, so that several that write one store do not send
//! spans twice; when that one ends, another takes it.

use crate::store::{ExportCursor, Records, Result, SharedStore, StoreExt};
use crate::trace::Timestamp;
use serde::{Deserialize, Serialize};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

/// What an export begins with that has no cursor in the store yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ExportStart {
    /// What is stored from now on.
    #[default]
    New,
    /// Everything in the store.
    All,
}

/// The cursor of one export, as this program knows it.
pub(super) struct Cursor {
    store: SharedStore,
    name: String,
    /// This program, for this export.
    holder: String,
    position: AtomicU64,
    /// When the store was last told that this program holds the cursor.
    kept_at: Mutex<Instant>,
}

/// Whether this program holds a cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hold {
    Held,
    /// Another program does.
    Elsewhere,
}

impl Cursor {
    /// The cursor `name` of a store, which is not held yet.
    pub(super) fn new(store: SharedStore, name: &str) -> Self {
        let holder = format!("{}-{:016x}", std::process::id(), fastrand::u64(..));
        Self { store, name: name.to_owned(), holder, position: AtomicU64::new(0), kept_at: Mutex::new(Instant::now()) }
    }

    /// What is up to here has been exported.
    pub(super) fn position(&self) -> u64 {
        self.position.load(Ordering::Relaxed)
    }

    /// Takes the cursor unless another program holds it. A new one begins at `start`.
    pub(super) async fn take(&self, start: u64) -> Result<Hold> {
        self.put(Some(start), None, LEASE).await
    }

    /// Keeps the cursor.
    pub(super) async fn keep(&self) -> Result<Hold> {
        self.put(None, None, LEASE).await
    }

    /// Keeps the cursor if it is time to.
    pub(super) async fn keep_if_due(&self) -> Result<Hold> {
        let is_due = self.kept_at.lock().unwrap_or_else(PoisonError::into_inner).elapsed() >= KEEP_INTERVAL;
        if is_due { self.keep().await } else { Ok(Hold::Held) }
    }

    /// Moves the cursor on, and keeps it.
    pub(super) async fn advance(&self, position: u64) -> Result<Hold> {
        self.put(None, Some(position), LEASE).await
    }

    /// Gives the cursor back, so that another program can take it at once.
    pub(super) async fn release(&self) {
        if let Err(error) = self.put(None, None, Duration::ZERO).await {
            tracing::debug!(%error, export = self.name, "the cursor of an export can't be given back; it ends by itself");
        }
    }

    /// Writes the cursor if this program holds it, or may take it because `start` is given.
    async fn put(&self, start: Option<u64>, position: Option<u64>, lease: Duration) -> Result<Hold> {
        let (name, holder) = (self.name.clone(), self.holder.clone());
        let written = self
            .store
            .transaction(move |records: &mut dyn Records| {
                let now = Timestamp::from(SystemTime::now());
                let known = records.export_cursor(&name)?;
                let is_mine = known.as_ref().is_some_and(|known| known.holder == holder);
                let is_free = known.as_ref().is_none_or(|known| known.held_until <= now);
                let may_write = is_mine || (start.is_some() && is_free);
                let from = known.map(|known| known.position).or(start).filter(|_| may_write);
                let Some(from) = from else { return Ok(None) };
                let position = position.unwrap_or(from);
                let (name, holder) = (name.clone(), holder.clone());
                records.upsert_export_cursor(&ExportCursor { name, position, holder, held_until: now.after(lease) })?;
                Ok(Some(position))
            })
            .await?;
        let Some(position) = written else { return Ok(Hold::Elsewhere) };
        self.position.store(position, Ordering::Relaxed);
        *self.kept_at.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        Ok(Hold::Held)
    }
}

/// How long a program that does not respond keeps the cursor from others.
const LEASE: Duration = Duration::from_secs(10);
/// How often the cursor is kept while nothing moves it on.
pub(super) const KEEP_INTERVAL: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Retention;
    use crate::store::memory::MemoryStore;
    use std::sync::Arc;

    #[tokio::test]
    async fn one_program_reads_at_a_time_and_the_next_goes_on_where_it_was() {
        let store: SharedStore = Arc::new(MemoryStore::new(Retention::default()));
        let (first, second) = (Cursor::new(Arc::clone(&store), "x"), Cursor::new(Arc::clone(&store), "x"));
        assert_eq!(first.take(5).await.unwrap(), Hold::Held);
        assert_eq!(second.take(9).await.unwrap(), Hold::Elsewhere);
        assert_eq!(
            (second.keep().await.unwrap(), second.advance(7).await.unwrap()),
            (Hold::Elsewhere, Hold::Elsewhere)
        );
        assert_eq!((first.advance(8).await.unwrap(), first.position()), (Hold::Held, 8));
        assert_eq!(Cursor::new(Arc::clone(&store), "other").take(1).await.unwrap(), Hold::Held);
        first.release().await;
        assert_eq!((second.take(9).await.unwrap(), second.position()), (Hold::Held, 8));
        assert_eq!(first.advance(20).await.unwrap(), Hold::Elsewhere);
    }
}

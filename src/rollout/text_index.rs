//! Brings the index of words up to date when messages are searched.
//!
//! Nothing is done while spans are stored: a program that never searches pays nothing. The first search of a large store reads all of it;
//! each later one what was stored since.

use crate::store::{Result, SharedStore, SpanWords, StoreError, WordBatch};
use crate::trace::message_words;
use crate::util::lru::{LruCache, lru};
use std::collections::BTreeSet;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long a search waits for the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum IndexWait {
    /// Until it is complete.
    Complete,
    /// At most so long. It is completed in the background, and the search tells how much is missing.
    UpTo(Duration),
}

/// The index of words of one store.
pub(super) struct TextIndex {
    wait: IndexWait,
    /// Held by the one that adds to the index.
    seen: tokio::sync::Mutex<SeenMessages>,
    is_completing: AtomicBool,
}

/// The messages that are in the index: at most [`MAX_SEEN`]. One that was forgotten is added once more.
struct SeenMessages {
    hasher: RandomState,
    /// Hashes of rollouts with messages, and the number of the span that has the message's words.
    messages: Arc<Mutex<LruCache<u64, u64>>>,
    /// Where the index ended after the last batch of this process. `None` while that is in doubt.
    through: Option<u64>,
}

impl TextIndex {
    pub(super) fn new(wait: IndexWait) -> Self {
        let messages = Arc::new(Mutex::new(lru(MAX_SEEN)));
        let seen = SeenMessages { hasher: RandomState::new(), messages, through: None };
        Self { wait, seen: tokio::sync::Mutex::new(seen), is_completing: AtomicBool::new(false) }
    }

    /// Adds what was stored since the last time. Returns how many of the spans it does not cover yet, as far as that is known.
    pub(super) async fn bring_up_to_date(self: &Arc<Self>, store: &SharedStore) -> Result<u64> {
        let IndexWait::UpTo(wait) = self.wait else { return self.advance(store, None).await };
        let until = Instant::now() + wait;
        let missing = match tokio::time::timeout(wait, self.advance(store, Some(until))).await {
            Ok(missing) => missing?,
            // Another search adds to it.
            Err(_) => missing(store).await?,
        };
        if missing > 0 && !self.is_completing.swap(true, Ordering::AcqRel) {
            let (index, store) = (Arc::clone(self), Arc::clone(store));
            tokio::spawn(async move {
                if let Err(error) = index.advance(&store, None).await {
                    tracing::warn!(%error, "the index of words could not be completed; the next search of messages continues");
                }
                index.is_completing.store(false, Ordering::Release);
            });
        }
        Ok(missing)
    }

    /// Adds all that was stored.
    pub(super) async fn complete(&self, store: &SharedStore) -> Result<()> {
        self.advance(store, None).await.map(drop)
    }

    /// How many spans with a phrase a search looks at: a service answers soon also if all have it.
    pub(super) fn max_spans(&self) -> usize {
        if self.wait == IndexWait::Complete { usize::MAX } else { MAX_FOUND_SPANS }
    }

    /// Adds batches until the index has all that is stored now, or until a time. Returns how many spans are missing, about.
    async fn advance(&self, store: &SharedStore, until: Option<Instant>) -> Result<u64> {
        // What is stored meanwhile is for the next search: traffic may go on for ever.
        let mut target = None;
        loop {
            // Others get their turn between batches.
            let mut seen = self.seen.lock().await;
            let Some(Added { through, newest }) = seen.add_batch(store).await? else { return Ok(0) };
            let missing = target.get_or_insert(newest).saturating_sub(through);
            if missing == 0 || until.is_some_and(|until| Instant::now() >= until) {
                return Ok(missing);
            }
        }
    }
}

/// How far the index is after a batch.
struct Added {
    through: u64,
    /// The number of the newest span.
    newest: u64,
}

/// How many spans the index does not cover, about.
async fn missing(store: &SharedStore) -> Result<u64> {
    let through = store.words_through().await?;
    Ok(store.spans_by_number(through, 0).await?.newest.saturating_sub(through))
}

impl SeenMessages {
    /// Adds the words of the next spans. `None` if there are none, or if none can be read yet.
    async fn add_batch(&mut self, store: &SharedStore) -> Result<Option<Added>> {
        let after = store.words_through().await?;
        if self.through.take() != Some(after) {
            // Another program has added to the index, a batch was not taken, or the store's file is another one.
            self.messages = Arc::new(Mutex::new(lru(MAX_SEEN)));
        }
        if after == u64::MAX {
            return Ok(None);
        }
        let page = store.spans_by_number(after, BATCH_SPANS).await?;
        if page.through <= after {
            self.through = Some(after);
            return Ok(None);
        }
        let (messages, hasher) = (Arc::clone(&self.messages), self.hasher.clone());
        let (spans, numbers, through) = (page.spans, page.numbers, page.through);
        let batch = tokio::task::spawn_blocking(move || {
            let mut messages = messages.lock().unwrap_or_else(PoisonError::into_inner);
            let (mut indexed, mut relies_on) = (Vec::new(), BTreeSet::new());
            for (number, span) in numbers.into_iter().zip(&spans) {
                let words = message_words(span, |message| {
                    let key = hasher.hash_one((span.rollout_id.as_str(), message));
                    let known = messages.get(&key).copied();
                    match known {
                        Some(known) => relies_on.extend((known <= after).then_some(known)),
                        None => drop(messages.put(key, number)),
                    }
                    known.is_none()
                });
                if !words.is_empty() {
                    indexed.push(SpanWords { number, words });
                }
            }
            WordBatch { after, through, spans: indexed, relies_on: relies_on.into_iter().collect() }
        });
        let batch = batch.await.map_err(|error| StoreError::Other(error.to_string()))?;
        store.add_words(batch).await?;
        let is_added = store.words_through().await? == through;
        // Otherwise, and if this call is given up, the messages of the batch do not count as known.
        self.through = is_added.then_some(through);
        Ok(Some(Added { through: if is_added { through } else { after }, newest: page.newest }))
    }
}

/// Spans that a search in a service looks at.
const MAX_FOUND_SPANS: usize = 100_000;
/// Messages that are known to be in the index: some megabytes.
const MAX_SEEN: usize = 256 * 1024;
/// Spans of a batch, which the store's writer takes at once.
const BATCH_SPANS: usize = 256;

//! Reads spans page by page, so that the memory of a read does not grow with the rollout.

use super::api::SharedStore;
use super::error::{Result, StoreError};
use super::span_query::{SpanContent, SpanPage, SpanPlace, SpanQuery};
use crate::trace::{RolloutId, Span};
use tokio::task::JoinHandle;

/// Spans of a rollout, page by page. The next page is read while the caller works on one.
pub(crate) struct SpanPages {
    store: SharedStore,
    next: Next,
}

/// The page after the one that the caller has.
enum Next {
    /// There is none, or an error came before it.
    None,
    Unread(Left),
    Reading(JoinHandle<Result<Page>>),
}

/// A page, and what is left behind it; `None`: nothing.
struct Page {
    spans: Vec<(SpanPlace, Span)>,
    left: Option<Left>,
}

/// The spans that were not read yet.
enum Left {
    Matching(SpanQuery),
    At {
        rollout_id: RolloutId,
        places: Vec<SpanPlace>,
        /// How many of the places were read.
        read: usize,
        content: SpanContent,
    },
}

impl SpanPages {
    /// The spans that match, in the order of the rollout.
    pub(crate) fn new(store: &SharedStore, query: SpanQuery) -> Self {
        Self { store: SharedStore::clone(store), next: Next::Unread(Left::Matching(query)) }
    }

    /// The spans at these places of a rollout, in this order. Those that were removed meanwhile are absent.
    pub(crate) fn at(store: &SharedStore, rollout_id: RolloutId, places: Vec<SpanPlace>, content: SpanContent) -> Self {
        let left = Left::At { rollout_id, places, read: 0, content };
        Self { store: SharedStore::clone(store), next: Next::Unread(left) }
    }

    /// The next page, which may be empty. `None` after the last one.
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<(SpanPlace, Span)>>> {
        let Page { spans, left } = match std::mem::replace(&mut self.next, Next::None) {
            Next::None => return Ok(None),
            Next::Unread(left) => left.read(&self.store).await?,
            // A task ends without a result if the runtime shuts down, or if it panicked.
            Next::Reading(reading) => reading.await.unwrap_or(Err(StoreError::Closed))?,
        };
        if let Some(left) = left {
            let store = SharedStore::clone(&self.store);
            self.next = Next::Reading(tokio::spawn(async move { left.read(&store).await }));
        }
        Ok(Some(spans))
    }
}

impl Left {
    /// Reads the next page.
    async fn read(mut self, store: &SharedStore) -> Result<Page> {
        match &mut self {
            Self::Matching(query) => {
                let SpanPage { spans, is_last } = store.span_page(query.clone()).await?;
                query.after = spans.last().map(|(place, _)| *place).or(query.after);
                Ok(Page { spans, left: (!is_last).then_some(self) })
            }
            Self::At { rollout_id, places, read, content } => {
                let next: Vec<SpanPlace> = places.iter().skip(*read).take(MAX_PLACES).copied().collect();
                let page = store.spans_at(rollout_id.clone(), next, *content).await?;
                // A store that reads none would be asked for ever.
                *read += page.places_read.max(1);
                let is_last = *read >= places.len();
                Ok(Page { spans: page.spans, left: (!is_last).then_some(self) })
            }
        }
    }
}

/// Places that are asked for at once.
const MAX_PLACES: usize = 64;

/// Reads all spans that a query matches.
pub(super) async fn all(store: &(impl super::api::Store + ?Sized), mut query: SpanQuery) -> Result<Vec<Span>> {
    let mut spans = Vec::new();
    loop {
        let page = store.span_page(query.clone()).await?;
        query.after = page.spans.last().map(|(place, _)| *place).or(query.after);
        spans.extend(page.spans.into_iter().map(|(_, span)| span));
        if page.is_last {
            return Ok(spans);
        }
    }
}

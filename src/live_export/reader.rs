//! What an export reads from the store, page by page.

use super::outcome::Outcome;
use crate::store::Result;
use bytes::Bytes;
use std::ops::Range;
use std::sync::Arc;

/// A part of what is exported, in the order in which it was stored.
pub(super) struct Page<T> {
    pub(super) items: Arc<Vec<T>>,
    /// The position after each item.
    pub(super) positions: Vec<u64>,
    /// The position after the page.
    pub(super) through: u64,
    /// Items of the page that were removed from the store.
    pub(super) removed: u64,
    /// The position after everything that is stored.
    pub(super) newest: u64,
}

/// What is exported, and to whom.
pub(super) trait Destination: Send + Sync + 'static {
    /// What is exported one by one, in the order of the store.
    type Item: Send + Sync + 'static;

    /// The items after a position. If it is empty and ends where it begins, there are none yet.
    fn page(&self, after: u64) -> impl Future<Output = Result<Page<Self::Item>>> + Send;

    /// The body of a request with some items of a page. `None` if there is nothing to send for them.
    fn body(&self, items: Arc<Vec<Self::Item>>, part: Range<usize>) -> impl Future<Output = Option<Bytes>> + Send;

    /// Sends a body once.
    fn post(&self, body: Bytes) -> impl Future<Output = Outcome> + Send;
}

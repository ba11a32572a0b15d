//! What an export reads from the store, page by page.

use super::outcome::{DropReason, Outcome};
use crate::store::Result;
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

/// What is to be done for some items.
pub(super) enum Prepared<R> {
    /// This request is sent, each time the same.
    Request(R),
    /// There is nothing to send.
    Nothing(DropReason),
}

/// What is exported, and to whom.
pub(super) trait Destination: Send + Sync + 'static {
    /// What is exported one by one, in the order of the store.
    type Item: Send + Sync + 'static;
    /// A request for some of them.
    type Request: Clone + Send + Sync;

    /// The position after everything that is stored.
    fn newest(&self) -> impl Future<Output = Result<u64>> + Send;

    /// The items after a position. If it is empty and ends where it begins, there are none yet.
    fn page(&self, after: u64) -> impl Future<Output = Result<Page<Self::Item>>> + Send;

    /// The request with some items of a page.
    fn prepare(
        &self,
        items: Arc<Vec<Self::Item>>,
        part: Range<usize>,
    ) -> impl Future<Output = Result<Prepared<Self::Request>>> + Send;

    /// Sends a request once.
    fn post(&self, request: Self::Request) -> impl Future<Output = Outcome> + Send;
}

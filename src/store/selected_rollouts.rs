//! Reads rollouts page by page, so that memory does not grow with their number.

use super::api::{RolloutFilter, RolloutPlace, SharedStore};
use super::error::Result;
use crate::trace::{AttemptedRollout, Rollout, RolloutId};
use std::collections::HashMap;

/// The rollouts that match a filter and a condition, one by one.
pub(crate) struct SelectedRollouts {
    store: SharedStore,
    source: Source,
    keeps: Box<dyn Fn(&Rollout) -> bool + Send>,
    // The rest of a page.
    page: std::vec::IntoIter<AttemptedRollout>,
}

/// Where the next page comes from.
enum Source {
    /// The rollouts that match, by start time. `None` after the last page.
    ByStart(Option<RolloutFilter>),
    /// These rollouts, in this order.
    Listed(std::vec::IntoIter<RolloutId>),
}

impl SelectedRollouts {
    /// The rollouts that match `filter`, by start time; its `limit` is that of a page, and not of all. Those for which `keeps` is false are left out.
    pub(crate) fn by_start(
        store: &SharedStore,
        filter: RolloutFilter,
        keeps: impl Fn(&Rollout) -> bool + Send + 'static,
    ) -> Self {
        let source = Source::ByStart(Some(filter));
        Self { store: SharedStore::clone(store), source, keeps: Box::new(keeps), page: Vec::new().into_iter() }
    }

    /// These rollouts, in this order. Those that do not exist are left out.
    pub(crate) fn listed(store: &SharedStore, ids: Vec<RolloutId>) -> Self {
        let everything = Self::by_start(store, RolloutFilter::default(), |_| true);
        Self { source: Source::Listed(ids.into_iter()), ..everything }
    }

    /// The same rollouts by `key`, then by start time. Reads all of them once; their ids are kept in memory. `None`: the order
    /// remains.
    pub(crate) async fn ordered_by(mut self, key: Option<fn(&Rollout) -> String>) -> Result<Self> {
        let Some(key) = key else { return Ok(self) };
        let mut keyed = Vec::new();
        while let Some(found) = self.next().await? {
            keyed.push((key(&found.rollout), found.rollout.rollout_id));
        }
        keyed.sort_by(|one, other| one.0.cmp(&other.0));
        let ids: Vec<RolloutId> = keyed.into_iter().map(|(_, id)| id).collect();
        Ok(Self { source: Source::Listed(ids.into_iter()), ..self })
    }

    /// True if no rollout is left.
    pub(crate) async fn is_empty(&mut self) -> Result<bool> {
        Ok(self.page.as_slice().is_empty() && !self.read_page().await?)
    }

    /// The next rollout with its latest attempt. `None` after the last one.
    pub(crate) async fn next(&mut self) -> Result<Option<AttemptedRollout>> {
        Ok(if self.is_empty().await? { None } else { self.page.next() })
    }

    /// Reads the next page that is not empty. False if there is none.
    async fn read_page(&mut self) -> Result<bool> {
        while self.page.as_slice().is_empty() {
            let mut found = match &mut self.source {
                Source::ByStart(None) => return Ok(false),
                Source::ByStart(Some(filter)) => {
                    let limit = filter.limit.map_or(PAGE_ROLLOUTS, |limit| limit.min(PAGE_ROLLOUTS));
                    filter.limit = Some(limit);
                    let found = self.store.attempted_rollouts(filter.clone()).await?;
                    match found.last().filter(|_| found.len() == limit) {
                        Some(last) => {
                            filter.after = Some(RolloutPlace::of(&last.rollout));
                            filter.offset = 0;
                        }
                        None => self.source = Source::ByStart(None),
                    }
                    found
                }
                Source::Listed(ids) => {
                    let ids: Vec<RolloutId> = ids.take(PAGE_ROLLOUTS).collect();
                    if ids.is_empty() {
                        return Ok(false);
                    }
                    let found = self.store.attempted_rollouts(RolloutFilter::of_ids(ids.clone())).await?;
                    in_order_of(&ids, found)
                }
            };
            found.retain(|found| (self.keeps)(&found.rollout));
            self.page = found.into_iter();
        }
        Ok(true)
    }
}

/// Rollouts that were removed meanwhile are absent.
fn in_order_of(ids: &[RolloutId], mut found: Vec<AttemptedRollout>) -> Vec<AttemptedRollout> {
    let places: HashMap<&RolloutId, usize> = ids.iter().enumerate().map(|(at, id)| (id, at)).collect();
    found.sort_by_key(|found| places.get(&found.rollout.rollout_id).copied());
    found
}

/// Rollouts in memory at once.
const PAGE_ROLLOUTS: usize = 256;

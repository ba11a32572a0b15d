//! A listing of rollouts: the store finds the page if it has its order, else one pass over all rollouts does. The items are read
//! and sent one by one.

use super::page::{Filter, Paging};
use crate::api::respond::ApiResult;
use crate::api::streamed::{BodySource, JsonList};
use crate::store::{RolloutFilter, SelectedRollouts, SharedStore};
use crate::trace::RolloutId;
use serde_json::Value as JsonValue;

/// The page of a listing.
pub(super) struct RolloutList {
    rollouts: SelectedRollouts,
    /// Items that were not sent yet, at most.
    left: usize,
    list: JsonList,
    /// What follows the items; `None` after the end.
    rest: Option<String>,
}

impl RolloutList {
    /// The page of the rollouts that match both filters, if all conditions are needed; else of those that match `filter`.
    pub(super) async fn find(
        store: &SharedStore,
        in_store: RolloutFilter,
        paging: &Paging,
        filter: &Filter,
    ) -> ApiResult<Self> {
        if let Some(order) = paging.order_by("start_time").filter(|_| paging.requires_all()) {
            let (limit, offset) = paging.limits();
            let total = store.count_rollouts(in_store.clone()).await?;
            let page = RolloutFilter { order, limit, offset, ..in_store };
            let rollouts = SelectedRollouts::by_start(store, page, |_| true);
            return Ok(Self::of(rollouts, limit.unwrap_or(usize::MAX), paging, total));
        }
        let mut all = SelectedRollouts::by_start(store, in_store, |_| true);
        let mut found: Vec<(JsonValue, RolloutId)> = Vec::new();
        while let Some(one) = all.next().await? {
            let mut json = serde_json::to_value(&one).unwrap_or_default();
            if paging.keeps(&json, filter) {
                let key = paging.sort_field().map(|field| json[field].take()).unwrap_or_default();
                found.push((key, one.rollout.rollout_id));
            }
        }
        paging.sort(&mut found, |(key, _), _| key);
        let ids: Vec<RolloutId> = paging.part(&found).iter().map(|(_, id)| id.clone()).collect();
        Ok(Self::of(SelectedRollouts::listed(store, ids), usize::MAX, paging, found.len() as u64))
    }

    fn of(rollouts: SelectedRollouts, left: usize, paging: &Paging, total: u64) -> Self {
        let rest = Some(paging.rest_of_page(total));
        Self { rollouts, left, list: JsonList::after("{\"items\":"), rest }
    }
}

impl BodySource for RolloutList {
    async fn next(&mut self) -> ApiResult<Option<Vec<u8>>> {
        if self.rest.is_none() {
            return Ok(None);
        }
        for _ in 0..ITEMS_AT_ONCE.min(self.left) {
            let Some(found) = self.rollouts.next().await? else {
                self.left = 0;
                break;
            };
            self.left -= 1;
            self.list.add(&found)?;
        }
        if self.left == 0 {
            return Ok(self.rest.take().map(|rest| self.list.finish(&rest)));
        }
        Ok(Some(self.list.take()))
    }
}

const ITEMS_AT_ONCE: usize = 256;

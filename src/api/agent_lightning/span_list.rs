//! A listing of spans in the shapes of Agent Lightning's adapters: one pass over the spans without their long content finds the
//! page, and a second makes its items one by one.

use super::extra;
use super::page::{Filter, Paging};
use crate::api::respond::ApiResult;
use crate::api::streamed::{BodySource, JsonList};
use crate::export::agent_lightning::{COPIED, OUTLINE, copy_token_ids, is_recorded, response_id, view};
use crate::store::{SharedStore, SpanContent, SpanPages, SpanPlace, SpanQuery};
use crate::trace::{AttemptId, RolloutId, Span};
use serde_json::Value as JsonValue;
use std::collections::{HashMap, VecDeque};
use tokio::task::block_in_place;

/// The page of a listing.
pub(super) struct SpanList {
    store: SharedStore,
    rollout: RolloutId,
    /// Items that were not sent yet.
    items: VecDeque<Item>,
    /// Items that were not sent because their spans are gone.
    removed: usize,
    pages: SpanPages,
    /// The recorded spans by the id of their response.
    recorded: HashMap<String, SpanPlace>,
    list: JsonList,
    /// What follows the items; `None` after the end.
    rest: Option<String>,
}

/// A span of the listing: the one with this number among those that the span at a place is converted to.
#[derive(Clone, Copy)]
struct Item {
    place: SpanPlace,
    number: usize,
}

impl SpanList {
    /// The page of the spans of a rollout, of all attempts if `attempt` is `None`.
    pub(super) async fn find(
        store: &SharedStore,
        rollout: RolloutId,
        attempt: Option<AttemptId>,
        paging: &Paging,
        filter: &Filter,
    ) -> ApiResult<Self> {
        let content = match paging.sort_field() {
            Some("attributes") => SpanContent::Whole,
            _ => SpanContent::Outline(OUTLINE),
        };
        let query = SpanQuery { attempt_id: attempt, content, ..SpanQuery::of_rollout(rollout.clone()) };
        let mut pages = SpanPages::new(store, query);
        let (mut found, mut recorded) = (Vec::new(), HashMap::new());
        while let Some(page) = pages.next().await? {
            block_in_place(|| {
                for (place, outline) in page {
                    let is_recorded = is_recorded(&outline);
                    for (number, span) in view(outline).into_iter().enumerate() {
                        if let Some(id) = response_id(&span).filter(|_| is_recorded) {
                            recorded.insert(id.to_owned(), place);
                        }
                        let key = key_of(&span, paging, filter);
                        found.extend(key.map(|key| (key, Item { place, number })));
                    }
                }
            });
        }
        block_in_place(|| paging.sort(&mut found, |(key, _), _| key));
        let items: VecDeque<Item> = paging.part(&found).iter().map(|(_, item)| *item).collect();
        let mut places: Vec<SpanPlace> = items.iter().map(|item| item.place).collect();
        places.dedup();
        Ok(Self {
            store: SharedStore::clone(store),
            pages: SpanPages::at(store, rollout.clone(), places, SpanContent::Whole),
            rollout,
            items,
            removed: 0,
            recorded,
            list: JsonList::after("{\"items\":"),
            rest: Some(paging.rest_of_page(found.len() as u64)),
        })
    }

    /// Adds the items at the place of `span` that are next. An agent's own span gets the token ids of `recorded`.
    fn add(&mut self, place: SpanPlace, span: Span, recorded: Option<Span>) {
        while self.items.front().is_some_and(|item| item.place != place) {
            self.items.pop_front();
            self.removed += 1;
        }
        let mut spans = view(span);
        if let (Some(own), Some(recorded)) = (spans.first_mut(), recorded.map(view)) {
            recorded.first().into_iter().for_each(|recorded| copy_token_ids(own, recorded));
        }
        let mut spans: Vec<Option<Span>> = spans.into_iter().map(Some).collect();
        while let Some(item) = self.items.pop_front_if(|item| item.place == place) {
            match spans.get_mut(item.number).and_then(Option::take) {
                Some(span) => extra::write(span, self.list.begin_element()),
                None => self.removed += 1,
            }
        }
    }

    /// The token ids of the recorded span with the response that an agent's own span is about.
    async fn recorded(&self, own: &Span) -> ApiResult<Option<Span>> {
        let place = response_id(own).filter(|_| !is_recorded(own)).and_then(|id| self.recorded.get(id));
        let Some(place) = place else { return Ok(None) };
        let read = self.store.spans_at(self.rollout.clone(), vec![*place], SpanContent::Outline(COPIED)).await?;
        Ok(read.spans.into_iter().next().map(|(_, recorded)| recorded))
    }

    /// Tells that fewer items were sent than the page has.
    fn log_removed(&self) {
        let missing = self.removed + self.items.len();
        if missing > 0 {
            tracing::warn!(rollout_id = %self.rollout, missing, "a listing lacks spans that were removed while it was sent");
        }
    }
}

impl BodySource for SpanList {
    async fn next(&mut self) -> ApiResult<Option<Vec<u8>>> {
        if self.rest.is_none() {
            return Ok(None);
        }
        let Some(page) = self.pages.next().await? else {
            self.log_removed();
            return Ok(self.rest.take().map(|rest| self.list.finish(&rest)));
        };
        for (place, span) in page {
            let recorded = self.recorded(&span).await?;
            block_in_place(|| self.add(place, span, recorded));
        }
        Ok(Some(self.list.take()))
    }
}

/// The value that the listing is sorted by. `None` for a span that misses a condition.
fn key_of(span: &Span, paging: &Paging, filter: &Filter) -> Option<JsonValue> {
    let field = paging.sort_field().filter(|field| *field != "sequence_id");
    if filter.is_empty() && field.is_none() {
        return Some(span.sequence_id.into());
    }
    let mut json = extra::json(span);
    paging.keeps(&json, filter).then(|| json[field.unwrap_or("sequence_id")].take())
}

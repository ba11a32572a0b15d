//! Reads spans page by page, so that the memory of a read does not grow with the rollout.

use super::api::SharedStore;
use super::error::Result;
use super::span_query::{SpanPlace, SpanQuery};
use crate::trace::{RolloutId, Span};

/// Spans of a rollout, page by page.
pub(crate) struct SpanPages {
    store: SharedStore,
    /// `None` after the last page.
    query: Option<SpanQuery>,
    /// If only some spans are wanted: the places that are left, in the order in which they are wanted.
    wanted: Option<Vec<SpanPlace>>,
}

impl SpanPages {
    /// The spans that match, in the order of the rollout.
    pub(crate) fn new(store: &SharedStore, query: SpanQuery) -> Self {
        Self { store: SharedStore::clone(store), query: Some(query), wanted: None }
    }

    /// The whole spans at these places of a rollout, in this order. Those that were removed meanwhile are absent.
    pub(crate) fn at(store: &SharedStore, rollout_id: RolloutId, places: Vec<SpanPlace>) -> Self {
        Self { wanted: Some(places), ..Self::new(store, SpanQuery::of_rollout(rollout_id)) }
    }

    /// The next page, which may be empty. `None` after the last one.
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<(SpanPlace, Span)>>> {
        if let Some(wanted) = &self.wanted {
            let run = ascending(wanted).to_vec();
            match &mut self.query {
                Some(query) if !run.is_empty() => query.places = Some(run),
                _ => self.query = None,
            }
        }
        let Some(query) = &mut self.query else { return Ok(None) };
        let page = self.store.span_page(query.clone()).await?;
        let last = page.spans.last().map(|(place, _)| *place);
        match (&mut self.wanted, &query.places) {
            (Some(wanted), Some(run)) => {
                let is_read = |place: &&SpanPlace| page.is_last || Some(**place) <= last;
                wanted.drain(..run.iter().filter(is_read).count());
            }
            _ if page.is_last => self.query = None,
            _ => query.after = last.or(query.after),
        }
        Ok(Some(page.spans))
    }
}

/// The first of these places that are in the order of the store, at most [`MAX_RUN`]: one query can return them.
fn ascending(places: &[SpanPlace]) -> &[SpanPlace] {
    let places = &places[..places.len().min(MAX_RUN)];
    let end = places.windows(2).position(|pair| pair[0] >= pair[1]).map_or(places.len(), |last| last + 1);
    &places[..end]
}

const MAX_RUN: usize = 64;

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_ends_where_the_order_differs() {
        let place = |sequence_id| SpanPlace { sequence_id, start_ns: None, number: 0 };
        let length = |ids: &[u64]| ascending(&ids.iter().copied().map(place).collect::<Vec<_>>()).len();
        assert_eq!([length(&[]), length(&[5]), length(&[1, 2, 2]), length(&[2, 1, 3])], [0, 1, 2, 1]);
        assert_eq!(length(&(0..100).collect::<Vec<_>>()), MAX_RUN);
    }
}

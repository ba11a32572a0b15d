//! Finds the rollouts that match a query, newest first, with counts and what their spans add up to.

use super::search_cache::SearchCache;
use super::verdicts::{JudgedRollout, MAX_JUDGED_SPANS};
use crate::query::{FoundPhrases, Query, RolloutFacts, RolloutTotals};
use crate::store::{Result, RolloutCounts, RolloutFilter, RolloutOrder, RolloutPlace, SharedStore, WordSearch};
use crate::trace::{AttemptedRollout, Rollout, RolloutId, Timestamp};

/// A search in a store. Each page reads a limited number of rollouts and spans, so that it ends soon whatever the store has.
pub(crate) struct RolloutSearch<'a> {
    pub(crate) store: &'a SharedStore,
    pub(crate) cache: &'a SearchCache,
    pub(crate) query: &'a Query,
    /// The time that durations of rollouts in progress count to.
    pub(crate) now: Timestamp,
    /// Only this rollout; `None`: all.
    pub(crate) only: Option<RolloutId>,
}

/// Where a page starts, and how long it may be.
pub(crate) struct SearchPageRequest {
    /// The `next` of the page before.
    pub(crate) after: Option<RolloutPlace>,
    /// The most rollouts to return, at least 1.
    pub(crate) limit: usize,
}

/// A rollout that was found.
pub(crate) struct FoundRollout {
    pub(crate) found: AttemptedRollout,
    pub(crate) counts: RolloutCounts,
    /// `None` if there are more spans than one page may read: the next search continues.
    pub(crate) totals: Option<RolloutTotals>,
}

/// A page of what was found.
#[derive(Default)]
pub(crate) struct SearchPage {
    pub(crate) rollouts: Vec<FoundRollout>,
    /// Where the next page starts; `None` after the last one.
    pub(crate) next: Option<RolloutPlace>,
    /// The start time of the last rollout that was looked at.
    pub(crate) searched_to: Option<Timestamp>,
    /// Spans with messages that were not searched yet, about: a later search finds more.
    pub(crate) unsearched_spans: u64,
    /// True if a phrase is in so many spans that only the newest of them count.
    pub(crate) is_cut: bool,
}

impl RolloutSearch<'_> {
    /// A page of the rollouts that match and for which `is_visible` is true.
    pub(crate) async fn page(
        &self,
        request: SearchPageRequest,
        is_visible: impl Fn(&Rollout) -> bool,
    ) -> Result<SearchPage> {
        self.find(request, is_visible, Extent::Page).await
    }

    async fn find(
        &self,
        SearchPageRequest { after, limit }: SearchPageRequest,
        is_visible: impl Fn(&Rollout) -> bool,
        extent: Extent,
    ) -> Result<SearchPage> {
        let mut filter = RolloutFilter {
            ids: self.only.clone().map(|id| vec![id]),
            statuses: self.query.statuses(),
            order: RolloutOrder::NewestFirst,
            after,
            limit: Some(if self.query.is_empty() { limit.min(SCAN_ROLLOUTS) } else { SCAN_ROLLOUTS }),
            ..RolloutFilter::default()
        };
        let (phrases, mut page) = self.phrases(extent).await?;
        let (mut budget, mut verdict_budget, mut looked_at) = (MAX_SPANS_READ, MAX_JUDGED_SPANS, 0);
        while looked_at < MAX_ROLLOUTS_READ {
            let listed = self.store.attempted_rollouts(filter.clone()).await?;
            let is_last = listed.len() < filter.limit.unwrap_or(0);
            let ids = listed.iter().filter(|one| is_visible(&one.rollout)).map(|one| one.rollout.rollout_id.clone());
            let counts = self.store.rollout_counts(ids.collect()).await?;
            for one in listed {
                let place = RolloutPlace::of(&one.rollout);
                if self.query.earliest().is_some_and(|earliest| place.start_time < earliest) {
                    return Ok(page);
                }
                if let Some(counts) = counts.get(&one.rollout.rollout_id) {
                    let totals = match extent {
                        Extent::Ids if !self.query.needs_totals() => None,
                        _ => self.cache.totals.of(self.store, &one.rollout.rollout_id, counts, &mut budget).await?,
                    };
                    if totals.is_none() && self.query.needs_totals() {
                        // Whether it matches is not known yet: the next page begins with it.
                        page.next = filter.after.or_else(|| Some(before(&place)));
                        return Ok(page);
                    }
                    let no_totals = RolloutTotals::default();
                    let mut facts = RolloutFacts {
                        rollout: &one.rollout,
                        attempts: counts.attempts,
                        spans: counts.spans,
                        errors: counts.errors,
                        llm_calls: counts.llm_calls,
                        totals: totals.as_ref().unwrap_or(&no_totals),
                        verdict: None,
                        phrases: &phrases,
                        cost: totals
                            .as_ref()
                            .and_then(|totals| self.cache.prices.cost(&totals.tokens_by_model))
                            .filter(|cost| !cost.is_partial)
                            .map(|cost| cost.amount),
                        now: self.now,
                    };
                    let mut is_match = self.query.matches_apart_from_verdict(&facts);
                    if is_match && self.query.needs_verdict() {
                        let judged = self.cache.verdicts.of(self.store, &one, counts, &mut verdict_budget).await?;
                        let reasons = match judged {
                            JudgedRollout::Reasons(reasons) => Some(reasons),
                            JudgedRollout::TooLong => None,
                            JudgedRollout::Later => {
                                page.next = filter.after.or_else(|| Some(before(&place)));
                                return Ok(page);
                            }
                        };
                        facts.verdict = reasons.as_deref();
                        is_match = self.query.matches(&facts);
                    }
                    if is_match {
                        page.rollouts.push(FoundRollout { found: one, counts: *counts, totals });
                    }
                }
                page.searched_to = Some(place.start_time);
                filter.after = Some(place);
                looked_at += 1;
                if page.rollouts.len() >= limit {
                    page.next = filter.after;
                    return Ok(page);
                }
            }
            if is_last {
                return Ok(page);
            }
        }
        page.next = filter.after;
        Ok(page)
    }

    /// The ids of all rollouts that match and for which `is_visible` is true, oldest first.
    pub(crate) async fn all_ids(&self, is_visible: impl Fn(&Rollout) -> bool) -> Result<Vec<RolloutId>> {
        let (mut ids, mut after) = (Vec::new(), None);
        loop {
            let page = self.find(SearchPageRequest { after, limit: SCAN_ROLLOUTS }, &is_visible, Extent::Ids).await?;
            ids.extend(page.rollouts.into_iter().map(|one| one.found.rollout.rollout_id));
            after = page.next;
            if after.is_none() {
                ids.reverse();
                return Ok(ids);
            }
        }
    }

    /// The rollouts that have each phrase of the query, and a page that says how far they were searched for.
    async fn phrases(&self, extent: Extent) -> Result<(FoundPhrases, SearchPage)> {
        let (mut phrases, mut page) = (FoundPhrases::new(), SearchPage::default());
        let texts = &self.cache.texts;
        if self.query.phrases().next().is_none() {
            return Ok((phrases, page));
        }
        let max_spans = match extent {
            Extent::Page => {
                page.unsearched_spans = texts.bring_up_to_date(self.store).await?;
                texts.max_spans()
            }
            Extent::Ids => {
                texts.complete(self.store).await?;
                usize::MAX
            }
        };
        for phrase in self.query.phrases() {
            let search = WordSearch { phrase: phrase.clone(), rollout: self.only.clone(), max_spans };
            let found = self.store.find_words(search).await?;
            page.is_cut |= found.is_cut;
            phrases.insert(phrase.clone(), found.rollouts);
        }
        Ok((phrases, page))
    }
}

/// What of the rollouts a caller needs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Extent {
    /// A page, with what their spans add up to.
    Page,
    /// The ids of all of them.
    Ids,
}

/// A place after which a page of the newest rollouts begins with this one.
fn before(place: &RolloutPlace) -> RolloutPlace {
    RolloutPlace { start_time: Timestamp::from_unix_nanos(place.start_time.unix_nanos + 1), rollout_id: "".into() }
}

/// Rollouts that a search reads at once.
const SCAN_ROLLOUTS: usize = 200;
/// Rollouts that one page looks at.
const MAX_ROLLOUTS_READ: usize = 5000;
/// Spans that one page reads for their totals.
pub(crate) const MAX_SPANS_READ: usize = 20_000;

//! How long rollouts are kept: the settings of `[store.retention]`, and the rules among them.
//!
//! A rule selects rollouts by a query, as lists do, and says how long they are kept. The first rule that matches a rollout counts; without
//! one it is `max_age_days` of the section. Rollouts in progress are kept.

use super::totals::TotalsCache;
use crate::query::{FoundPhrases, Query, QueryError, RolloutFacts, RolloutTotals};
use crate::store::{
    PruneRequest, Pruned, Result, Retention, RolloutCounts, RolloutFilter, RolloutPlace, SharedStore, StoreExt,
};
use crate::trace::{Rollout, RolloutId, RolloutStatus, Timestamp};
use serde::{Deserialize, Serialize};
use std::time::{Duration, SystemTime};

/// The section `[store.retention]`. 0 means unlimited.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct RetentionSettings {
    /// Maximum number of spans; the oldest are removed first, whatever the rules say.
    pub(crate) max_spans: u64,
    /// Maximum age in days: without rules of a span, with rules of a rollout that none of them matches.
    pub(crate) max_age_days: u64,
    /// Maximum size of the store in bytes, as `max_spans`. PostgreSQL stores ignore it.
    pub(crate) max_bytes: u64,
    /// How long some rollouts are kept.
    pub(crate) rule: Vec<RetentionRule>,
}

/// An entry of `[[store.retention.rule]]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RetentionRule {
    /// Which rollouts, in the language of lists. Empty: all.
    pub(crate) query: String,
    /// Days after its end for which such a rollout is kept; 0: without limit.
    pub(crate) max_age_days: u64,
}

/// Why rules can't be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RetentionError {
    /// A query has an error.
    #[error("the query `{query}` of entry {number} can't be used: {message}; write it as for `tracewire trace list`")]
    Query {
        /// The place of the rule, from 1.
        number: usize,
        /// As it was written.
        query: String,
        /// What is wrong with it.
        message: String,
    },
    /// A rule that matches everything stands before another one.
    #[error("entry {0} matches all rollouts, so that those after it would have no effect; put it at the end")]
    Unreachable(usize),
}

impl RetentionSettings {
    /// Checks what the types can't.
    pub(crate) fn check(&self) -> std::result::Result<(), RetentionError> {
        for (number, rule) in (1..).zip(&self.rule) {
            let query = rule.parsed(Timestamp::default());
            let query = query.map_err(|error| RetentionError::Query {
                number,
                query: rule.query.clone(),
                message: error.message,
            })?;
            if let Some(message) = query.refusal_in_rules() {
                let message = message.to_owned();
                return Err(RetentionError::Query { number, query: rule.query.clone(), message });
            }
            if query.is_empty() && number < self.rule.len() {
                return Err(RetentionError::Unreachable(number));
            }
        }
        Ok(())
    }

    /// What the store itself applies to spans. With rules, ages are those of rollouts.
    pub(crate) fn limits(&self) -> Retention {
        let max_age_days = if self.rule.is_empty() { self.max_age_days } else { 0 };
        Retention { max_spans: self.max_spans, max_age_days, max_bytes: self.max_bytes }
    }

    /// True if no limit is set.
    pub(crate) fn is_unlimited(&self) -> bool {
        self.limits() == Retention::default() && self.shortest_days().is_none()
    }

    /// The fewest days after which a rule lets a rollout go. `None` if none does, or without rules.
    fn shortest_days(&self) -> Option<u64> {
        let days = self.rule.iter().map(|rule| rule.max_age_days).chain([self.max_age_days]);
        if self.rule.is_empty() { None } else { days.filter(|days| *days > 0).min() }
    }
}

impl RetentionRule {
    fn parsed(&self, now: Timestamp) -> std::result::Result<Query, QueryError> {
        Query::parse(&self.query, now)
    }
}

/// Removes what the rules keep no longer, from time to time, for as long as it runs. Returns at once without rules.
pub(crate) async fn apply_rules(store: SharedStore, settings: RetentionSettings) {
    let totals = TotalsCache::default();
    while settings.shortest_days().is_some() {
        let now = SystemTime::now().into();
        match prune_expired(&store, &settings, &totals, now, |_| {}).await {
            Ok(Pruned { rollouts: 0, .. }) => {}
            Ok(Pruned { rollouts, spans, .. }) => {
                tracing::info!(rollouts, spans, "removed rollouts that store.retention.rule keeps no longer");
            }
            Err(error) => {
                tracing::warn!(%error, "the rules of store.retention could not be applied; trying again later");
            }
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

/// Removes what the rules keep no longer. `progress` gets what was removed so far.
pub(crate) async fn prune_expired(
    store: &SharedStore,
    settings: &RetentionSettings,
    totals: &TotalsCache,
    now: Timestamp,
    mut progress: impl FnMut(&Pruned) + Send,
) -> Result<Pruned> {
    let (mut expired, mut removed) = (ExpiredRollouts::new(store, settings, totals, now), Pruned::default());
    while let Some(ids) = expired.next_page().await? {
        removed.add(store.prune_all(PruneRequest::Rollouts(ids.into()), |_| {}).await?);
        progress(&removed);
    }
    Ok(removed)
}

/// What [`prune_expired`] would remove.
pub(crate) async fn preview_expired(
    store: &SharedStore,
    settings: &RetentionSettings,
    totals: &TotalsCache,
    now: Timestamp,
) -> Result<Pruned> {
    let (mut expired, mut removed) = (ExpiredRollouts::new(store, settings, totals, now), Pruned::default());
    while let Some(ids) = expired.next_page().await? {
        removed.add(store.prune_preview(PruneRequest::Rollouts(ids.into())).await?);
    }
    Ok(removed)
}

/// The rollouts that the rules keep no longer, page by page. Only rollouts that are old enough for one of the rules are looked at.
struct ExpiredRollouts<'a> {
    store: &'a SharedStore,
    totals: &'a TotalsCache,
    now: Timestamp,
    rules: Vec<(Query, u64)>,
    /// Of rollouts that no rule matches.
    other_days: u64,
    /// Rollouts that started later are too young for all rules.
    started_before: Timestamp,
    /// What is left to look at.
    filters: Vec<RolloutFilter>,
}

impl<'a> ExpiredRollouts<'a> {
    fn new(store: &'a SharedStore, settings: &RetentionSettings, totals: &'a TotalsCache, now: Timestamp) -> Self {
        let rules = settings.rule.iter();
        let rules: Vec<_> = rules.filter_map(|rule| Some((rule.parsed(now).ok()?, rule.max_age_days))).collect();
        let page = RolloutFilter { limit: Some(PAGE_ROLLOUTS), ..RolloutFilter::default() };
        let ended = RolloutStatus::ALL.into_iter().filter(|status| status.is_final()).collect();
        let registered = RolloutFilter { is_registered: Some(true), statuses: Some(ended), ..page.clone() };
        let others = RolloutFilter { is_registered: Some(false), ..page };
        let (filters, started_before) = match settings.shortest_days() {
            Some(days) => (vec![registered, others], days_before(now, days)),
            None => (Vec::new(), now),
        };
        Self { store, totals, now, rules, other_days: settings.max_age_days, started_before, filters }
    }

    /// Some of them, at least one. `None` at the end.
    async fn next_page(&mut self) -> Result<Option<Vec<RolloutId>>> {
        while let Some(mut filter) = self.filters.pop() {
            let listed = self.store.attempted_rollouts(filter.clone()).await?;
            let old: Vec<&Rollout> =
                listed.iter().map(|one| &one.rollout).take_while(|one| one.start_time < self.started_before).collect();
            let counts = self.store.rollout_counts(old.iter().map(|one| one.rollout_id.clone()).collect()).await?;
            let mut expired = Vec::new();
            for rollout in &old {
                if let Some(counts) = counts.get(&rollout.rollout_id)
                    && self.is_expired(rollout, counts).await?
                {
                    expired.push(rollout.rollout_id.clone());
                }
            }
            if old.len() == PAGE_ROLLOUTS {
                filter.after = old.last().map(|rollout| RolloutPlace::of(rollout));
                self.filters.push(filter);
            }
            if !expired.is_empty() {
                return Ok(Some(expired));
            }
        }
        Ok(None)
    }

    async fn is_expired(&self, rollout: &Rollout, counts: &RolloutCounts) -> Result<bool> {
        // A rollout that only spans name ends with the last of them.
        let needs_totals = rollout.end_time.is_none() || self.rules.iter().any(|(query, _)| query.needs_totals());
        let mut totals = if needs_totals { None } else { Some(RolloutTotals::default()) };
        while totals.is_none() {
            let mut budget = SPANS_READ_AT_ONCE;
            totals = self.totals.of(self.store, &rollout.rollout_id, counts, &mut budget).await?;
        }
        let totals = totals.unwrap_or_default();
        let RolloutCounts { attempts, spans, errors, llm_calls, .. } = *counts;
        let (totals_known, now, phrases) = (&totals, self.now, &FoundPhrases::new());
        let facts = RolloutFacts {
            rollout,
            attempts,
            spans,
            errors,
            llm_calls,
            totals: totals_known,
            verdict: None,
            phrases,
            cost: None,
            now,
        };
        let matching = self.rules.iter().find(|(query, _)| query.matches(&facts));
        let days = matching.map_or(self.other_days, |(_, days)| *days);
        let end = rollout.end_time.or(totals.last_end).unwrap_or(rollout.start_time);
        Ok(days > 0 && end < days_before(self.now, days))
    }
}

fn days_before(now: Timestamp, days: u64) -> Timestamp {
    let age = Duration::from_secs(days.saturating_mul(SECONDS_PER_DAY));
    let age = u64::try_from(age.as_nanos()).unwrap_or(u64::MAX);
    Timestamp::from_unix_nanos(now.unix_nanos.saturating_sub(age))
}

/// Time between two looks at all rollouts that are old enough.
const INTERVAL: Duration = Duration::from_secs(10 * 60);
const PAGE_ROLLOUTS: usize = 200;
const SPANS_READ_AT_ONCE: usize = 20_000;
const SECONDS_PER_DAY: u64 = 24 * 60 * 60;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_that_can_have_no_effect_are_refused() {
        let rule = |query: &str| RetentionRule { query: query.to_owned(), max_age_days: 1 };
        let check = |queries: &[&str]| {
            let settings = RetentionSettings {
                rule: queries.iter().map(|query| rule(query)).collect(),
                ..RetentionSettings::default()
            };
            settings.check().map_err(|error| error.to_string())
        };
        assert_eq!(check(&["reward>0", "status:failed", ""]), Ok(()));
        assert!(check(&["", "status:failed"]).unwrap_err().contains("entry 1 matches all rollouts"));
        assert!(check(&["text:refund"]).unwrap_err().contains("store prune --query"));
        let unknown = check(&["reward>0", "colour:red"]).unwrap_err();
        assert!(unknown.contains("`colour:red` of entry 2") && unknown.contains("tracewire trace list"), "{unknown}");
    }
}

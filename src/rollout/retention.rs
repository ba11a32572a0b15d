//! How long rollouts are kept: the settings of `[store.retention]`, and the rules among them.
//!
//! A rule selects rollouts by a query, as lists do, and says how long they are kept. The first rule that matches a rollout counts; without
//! one it is `max_age_days` of the section. Rollouts in progress are kept.

use super::kept_rollouts::{FoundKept, KeptRollouts};
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
    let kept = KeptRollouts::default();
    while settings.shortest_days().is_some() {
        let now = SystemTime::now().into();
        match prune_expired(&store, &settings, &kept, now, |_| {}).await {
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
    kept: &KeptRollouts,
    now: Timestamp,
    mut progress: impl FnMut(&Pruned) + Send,
) -> Result<Pruned> {
    let (mut expired, mut removed) = (ExpiredRollouts::new(store, settings, kept, now), Pruned::default());
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
    kept: &KeptRollouts,
    now: Timestamp,
) -> Result<Pruned> {
    let (mut expired, mut removed) = (ExpiredRollouts::new(store, settings, kept, now), Pruned::default());
    while let Some(ids) = expired.next_page().await? {
        removed.add(store.prune_preview(PruneRequest::Rollouts(ids.into())).await?);
    }
    Ok(removed)
}

/// The rollouts that the rules keep no longer, page by page. Only rollouts that are old enough for one of the rules are looked at.
struct ExpiredRollouts<'a> {
    store: &'a SharedStore,
    kept: &'a KeptRollouts,
    /// Those that are kept, of what was looked at.
    found: FoundKept,
    now: Timestamp,
    /// False if a rule asks how long ago a rollout started: what it keeps may go at any time.
    is_steady: bool,
    rules: Vec<(Query, u64)>,
    /// Of rollouts that no rule matches.
    other_days: u64,
    /// Rollouts that started later are too young for all rules.
    started_before: Timestamp,
    /// What is left to look at.
    filters: Vec<RolloutFilter>,
}

impl<'a> ExpiredRollouts<'a> {
    fn new(store: &'a SharedStore, settings: &RetentionSettings, kept: &'a KeptRollouts, now: Timestamp) -> Self {
        let rules = settings.rule.iter();
        let rules: Vec<_> = rules.filter_map(|rule| Some((rule.parsed(now).ok()?, rule.max_age_days))).collect();
        let later = now.after(Duration::from_secs(SECONDS_PER_DAY));
        let is_steady = settings.rule.iter().all(|rule| rule.parsed(now) == rule.parsed(later));
        let page = RolloutFilter { limit: Some(PAGE_ROLLOUTS), ..RolloutFilter::default() };
        let ended = RolloutStatus::ALL.into_iter().filter(|status| status.is_final()).collect();
        let registered = RolloutFilter { is_registered: Some(true), statuses: Some(ended), ..page.clone() };
        let others = RolloutFilter { is_registered: Some(false), ..page };
        let (filters, started_before) = match settings.shortest_days() {
            Some(days) => (vec![registered, others], days_before(now, days)),
            None => (Vec::new(), now),
        };
        let (other_days, found) = (settings.max_age_days, FoundKept::default());
        Self { store, kept, found, now, is_steady, rules, other_days, started_before, filters }
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
                let Some(counts) = counts.get(&rollout.rollout_id) else { continue };
                if self.kept.is_kept(rollout, counts, self.now, &mut self.found) {
                    continue;
                }
                match self.kept_until(rollout, counts).await? {
                    Some(until) if until < self.now => expired.push(rollout.rollout_id.clone()),
                    until if self.is_steady => {
                        let until = until.unwrap_or(Timestamp::from_unix_nanos(u64::MAX));
                        self.kept.note(rollout, counts, until, &mut self.found);
                    }
                    _ => {}
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
        self.kept.replace(std::mem::take(&mut self.found));
        Ok(None)
    }

    /// Until when a rollout is kept; `None`: for good.
    async fn kept_until(&self, rollout: &Rollout, counts: &RolloutCounts) -> Result<Option<Timestamp>> {
        let needs_totals = rollout.end_time.is_none() || self.rules.iter().any(|(query, _)| query.needs_totals());
        let mut totals = if needs_totals { None } else { Some(RolloutTotals::default()) };
        while totals.is_none() {
            let mut budget = SPANS_READ_AT_ONCE;
            totals = self.kept.totals.of(self.store, &rollout.rollout_id, counts, &mut budget).await?;
        }
        let totals = totals.unwrap_or_default();
        // A rollout that only spans name ends with the last of them.
        let end = rollout.end_time.or(totals.last_end).unwrap_or(rollout.start_time);
        let rollout = &Rollout { end_time: Some(end), ..rollout.clone() };
        let RolloutCounts { attempts, spans, errors, llm_calls, .. } = *counts;
        let (totals, now, phrases, verdict, cost) = (&totals, self.now, &FoundPhrases::new(), None, None);
        let facts = RolloutFacts { rollout, attempts, spans, errors, llm_calls, totals, verdict, phrases, cost, now };
        let matching = self.rules.iter().find(|(query, _)| query.matches(&facts));
        let days = matching.map_or(self.other_days, |(_, days)| *days);
        let age = Duration::from_secs(days.saturating_mul(SECONDS_PER_DAY));
        Ok((days > 0).then(|| end.after(age)))
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
    use crate::store::memory::MemoryStore;
    use crate::store::sqlite::{SqliteOptions, SqliteStore};
    use crate::trace::Span;
    use std::sync::Arc;

    /// A second look at the same rollouts finds what has changed and what has become old.
    #[tokio::test(flavor = "multi_thread")]
    async fn kept_rollouts_go_when_they_change_or_their_time_is_over() {
        let store: SharedStore = Arc::new(MemoryStore::new(Retention::default()));
        let day = |number: u64| Timestamp::from_unix_nanos(number * SECONDS_PER_DAY * 1_000_000_000);
        for (id, end) in [("a", day(1)), ("b", day(2)), ("c", day(3))] {
            let rollout = Rollout::running(id.into(), end);
            let status = RolloutStatus::Succeeded;
            store.upsert_rollout(Rollout { status, end_time: Some(end), ..rollout }).await.unwrap();
        }
        let rule = |query: &str, max_age_days| RetentionRule { query: query.to_owned(), max_age_days };
        let settings =
            RetentionSettings { rule: vec![rule("status:failed", 5), rule("", 10)], ..RetentionSettings::default() };
        let kept = KeptRollouts::default();
        let removed = async |now| prune_expired(&store, &settings, &kept, now, |_| {}).await.unwrap().rollouts;
        assert_eq!(removed(day(9)).await, 0);
        assert_eq!(removed(day(9)).await, 0);
        let failed = Rollout { status: RolloutStatus::Failed, ..store.rollout("c".into()).await.unwrap().unwrap() };
        store.upsert_rollout(failed).await.unwrap();
        assert_eq!(removed(day(9)).await, 1);
        assert_eq!(removed(day(10)).await, 0);
        assert_eq!(removed(day(12)).await, 1);
        assert!(store.rollout("b".into()).await.unwrap().is_some());
    }

    /// `cargo test --lib -- --ignored --nocapture how_long_rules_take` measures a first and further looks at 100,000 rollouts.
    #[tokio::test(flavor = "multi_thread")]
    #[ignore = "a measurement"]
    #[allow(clippy::print_stdout, reason = "it prints what it measures")]
    async fn how_long_rules_take() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("traces.db");
        let store: SharedStore = Arc::new(SqliteStore::open(&path, SqliteOptions::default()).unwrap());
        let span = |rollout: u64, number: u64| {
            let json = serde_json::json!({ "rollout_id": format!("ro-{rollout}"), "attempt_id": "a", "sequence_id": number,
                "trace_id": format!("{rollout:032x}"), "span_id": format!("{number:016x}"), "parent_id": null, "name": "GET",
                "status": { "status_code": "UNSET" }, "attributes": { "server.address": "api.example.com" }, "events": [],
                "links": [], "start_time": rollout, "end_time": rollout + 1, "context": null, "parent": null,
                "resource": { "attributes": {}, "schema_url": "" } });
            Arc::new(serde_json::from_value::<Span>(json).unwrap())
        };
        for first in (0..100_000).step_by(500) {
            let spans = (first..first + 500).flat_map(|rollout| (1..=5).map(move |number| (rollout, number)));
            store.append(spans.map(|(rollout, number)| span(rollout, number)).collect()).await.unwrap();
        }
        let rule = RetentionRule { query: "host:api*".to_owned(), max_age_days: 0 };
        let settings = RetentionSettings { rule: vec![rule], max_age_days: 1, ..RetentionSettings::default() };
        let kept = KeptRollouts::default();
        for _ in 0..3 {
            let began = std::time::Instant::now();
            let removed = prune_expired(&store, &settings, &kept, SystemTime::now().into(), |_| {}).await.unwrap();
            println!(
                "100,000 rollouts of 5 spans: {:.2} s, {} removed",
                began.elapsed().as_secs_f64(),
                removed.rollouts
            );
        }
    }

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

//! `tracewire trace list`: the rollouts that match a query, newest first.
//!
//! A verdict needs all spans of an attempt. Rollouts with many spans are listed without one, so that a list stays quick.

use super::run_owner::abandoned;
use crate::config::Config;
use crate::export::sample::{AttemptSample, SampleOptions};
use crate::export::text::escape_for_terminal;
use crate::query::{Cost, Query, QueryError, RolloutTotals, task_text};
use crate::rollout::{
    FoundRollout, IndexWait, MAX_SPANS_READ, RolloutSearch, SearchCache, SearchPageRequest, TotalsCache,
};
use crate::store::{SharedStore, StoreError, StoreExt};
use crate::trace::{AttemptStatus, RolloutId, RolloutStatus, Timestamp};
use crate::trajectory::Verdict;
use crate::util::cut::cut;
use anyhow::{Result, bail};
use serde_json::{Value as JsonValue, json};
use std::collections::HashSet;
use std::fmt::Write as _;
use std::time::SystemTime;

/// Arguments as one query. A shell has taken the quotes of a value with spaces away.
pub(super) fn query_of(arguments: &[String]) -> String {
    let term = |argument: &String| {
        if argument.contains('"') || !argument.contains(char::is_whitespace) {
            return argument.clone();
        }
        match argument.split_once(':') {
            Some((field, value)) if !field.contains(char::is_whitespace) => format!("{field}:\"{value}\""),
            _ => format!("\"{argument}\""),
        }
    };
    arguments.iter().map(term).collect::<Vec<_>>().join(" ")
}

/// Parses a query. The error points at the place.
pub(super) fn parsed(query: &str, now: Timestamp) -> Result<Query> {
    match Query::parse(query, now) {
        Ok(query) => Ok(query),
        Err(error) => bail!("{}", pointing(query, &error)),
    }
}

/// The newest rollouts that match, at most `limit`.
pub(super) struct Listing {
    rollouts: Vec<Listed>,
    now: Timestamp,
}

/// A line of the list.
struct Listed {
    found: FoundRollout,
    /// On the latest attempt. `None` if it would take too long.
    verdict: Option<Verdict>,
    /// `None` if no model has a price.
    cost: Option<Cost>,
}

impl Listing {
    /// Searches the store. Rollouts with a killed `run` count as failed.
    pub(super) async fn read(store: &SharedStore, query: &str, limit: usize, settings: &Config) -> Result<Self> {
        let now = Timestamp::from(SystemTime::now());
        let query = parsed(query, now)?;
        let cache = SearchCache::new(settings.verdict.clone(), settings.prices.clone(), IndexWait::Complete);
        let options = SampleOptions { verdict: settings.verdict.clone(), ..SampleOptions::default() };
        let search = RolloutSearch { store, cache: &cache, query: &query, now, only: None };
        let abandoned: HashSet<RolloutId> =
            abandoned(store).await?.into_iter().map(|ended| ended.rollout.rollout_id).collect();
        let (mut rollouts, mut after, mut spans_left) = (Vec::new(), None, MAX_JUDGED_SPANS);
        while rollouts.len() < limit {
            let page = search.page(SearchPageRequest { after, limit: limit - rollouts.len() }, |_| true).await?;
            for mut found in page.rollouts {
                complete(&mut found, store, &cache.totals).await?;
                if abandoned.contains(&found.found.rollout.rollout_id) {
                    found.found.rollout.status = RolloutStatus::Failed;
                    found.found.attempt.iter_mut().for_each(|attempt| attempt.status = AttemptStatus::Failed);
                }
                let verdict = verdict(&found, store, &options, &mut spans_left).await?;
                let tokens = found.totals.as_ref().map_or(&[][..], |totals| &totals.tokens_by_model);
                let cost = settings.prices.cost(tokens);
                rollouts.push(Listed { found, verdict, cost });
            }
            match page.next {
                Some(next) => after = Some(next),
                None => break,
            }
        }
        Ok(Self { rollouts, now })
    }

    /// One object for each rollout: its own fields, the counts, what its spans add up to, and the reasons of its verdict.
    pub(super) fn json(&self) -> serde_json::Result<String> {
        let one = |Listed { found: one, verdict, cost }: &Listed| -> serde_json::Result<JsonValue> {
            let mut json = serde_json::to_value(&one.found.rollout)?;
            if let (JsonValue::Object(fields), JsonValue::Object(counts)) =
                (&mut json, serde_json::to_value(one.counts)?)
            {
                fields.extend(counts);
                fields.insert("totals".to_owned(), json!(one.totals));
                fields.insert("verdict".to_owned(), json!(verdict));
                fields.extend(cost.map(|cost| ("cost".to_owned(), json!(cost))));
            }
            Ok(json)
        };
        let all = self.rollouts.iter().map(one).collect::<serde_json::Result<Vec<_>>>()?;
        Ok(format!("{}\n", serde_json::to_string_pretty(&all)?))
    }

    /// A table with one line for each rollout.
    pub(super) fn table(&self) -> String {
        if self.rollouts.is_empty() {
            return "no rollouts\n".to_owned();
        }
        let line = |cells: [&str; 9]| {
            let [started, id, status, calls, tokens, reward, errors, verdict, what] = cells;
            let counts = format!("{calls:>5} {tokens:>13} {reward:>6} {errors:>6}");
            format!("{started:>7} {id:<20} {status:<10} {counts}  {verdict:<9} {what}\n")
        };
        let mut text = line([
            "started",
            "rollout",
            "status",
            "calls",
            "tokens",
            "reward",
            "errors",
            "verdict",
            "model, name, task",
        ]);
        for Listed { found: FoundRollout { found, counts, totals }, verdict, cost } in &self.rollouts {
            let (rollout, totals) = (&found.rollout, totals.clone().unwrap_or_default());
            let task = task_text(&rollout.input);
            let cost = cost.map_or_else(String::new, |cost| {
                format!("cost {}{:.4}", if cost.is_partial { "≥ " } else { "" }, cost.amount)
            });
            let what = [totals.models.join(" "), cost, rollout.name().unwrap_or("").to_owned(), task];
            let what = what.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(", ");
            let tokens = format!("{} → {}", short(totals.input_tokens), short(totals.output_tokens));
            let reward = totals.reward().map_or_else(|| "–".to_owned(), |reward| format!("{reward:.4}"));
            text.push_str(&line([
                &age(self.now.since(rollout.start_time).as_secs()),
                &escape_for_terminal(rollout.rollout_id.as_str()),
                rollout.status.as_str(),
                &counts.llm_calls.to_string(),
                if has_tokens(&totals) { &tokens } else { "–" },
                reward.trim_end_matches('0').trim_end_matches('.'),
                &counts.errors.to_string(),
                &verdict.as_ref().map_or_else(|| "–".to_owned(), short_verdict),
                &cut(&escape_for_terminal(&what), MAX_WHAT_CHARACTERS),
            ]));
        }
        text
    }
}

fn has_tokens(totals: &RolloutTotals) -> bool {
    totals.input_tokens > 0 || totals.output_tokens > 0
}

/// Reads the spans that a page of the search left.
pub(super) async fn complete(
    one: &mut FoundRollout,
    store: &SharedStore,
    totals: &TotalsCache,
) -> Result<(), StoreError> {
    while one.totals.is_none() {
        let mut budget = MAX_SPANS_READ;
        one.totals = totals.of(store, &one.found.rollout.rollout_id, &one.counts, &mut budget).await?;
    }
    Ok(())
}

/// The verdict on the latest attempt, if the rollout has no more spans than are left.
async fn verdict(
    one: &FoundRollout,
    store: &SharedStore,
    options: &SampleOptions,
    spans_left: &mut u64,
) -> Result<Option<Verdict>, StoreError> {
    let Some(left) = spans_left.checked_sub(one.counts.spans) else { return Ok(None) };
    *spans_left = left;
    let (rollout, attempt) = (&one.found.rollout, one.found.attempt.as_ref());
    let spans = store.spans(rollout.rollout_id.clone(), attempt.map(|attempt| attempt.attempt_id.clone())).await?;
    let sample = AttemptSample::of(rollout.clone(), attempt, &spans, options);
    Ok(Some(sample.verdict))
}

/// A verdict in few characters.
fn short_verdict(verdict: &Verdict) -> String {
    match verdict.names().as_slice() {
        [] => "sound".to_owned(),
        [_] => "1 reason".to_owned(),
        several => format!("{} reasons", several.len()),
    }
}

/// An error with the query, and a line that points at the place.
fn pointing(query: &str, error: &QueryError) -> String {
    let columns = |end: usize| query[..end].chars().count();
    let (from, to) = (columns(error.place.start), columns(error.place.end));
    let mut text = format!("{}\n  {}\n  ", error.message, escape_for_terminal(query));
    // Writing to a String can't fail.
    let _ = write!(text, "{:from$}{}", "", "^".repeat((to - from).max(1)));
    text
}

/// How long ago, in one unit.
pub(super) fn age(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}

/// A count in few characters: 950, 1.2k, 34k, 1.2M.
fn short(count: u64) -> String {
    let (unit, size) = match count {
        0..1000 => return count.to_string(),
        1000..999_500 => ("k", 1e3),
        _ => ("M", 1e6),
    };
    let scaled = count as f64 / size;
    if scaled < 9.95 { format!("{scaled:.1}{unit}") } else { format!("{scaled:.0}{unit}") }
}

const MAX_WHAT_CHARACTERS: usize = 80;

/// Spans that are read for the verdicts of a list. Most lists have fewer.
const MAX_JUDGED_SPANS: u64 = 2000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_take_few_columns() {
        for (count, expected) in
            [(0, "0"), (999, "999"), (1000, "1.0k"), (34_200, "34k"), (999_499, "999k"), (1_234_567, "1.2M")]
        {
            assert_eq!(short(count), expected);
        }
        for (seconds, expected) in [(3, "3 s"), (150, "2 min"), (7300, "2 h"), (100_000, "27 h"), (900_000, "10 d")] {
            assert_eq!(age(seconds), expected);
        }
    }

    #[test]
    fn arguments_with_spaces_stay_one_term() {
        let query = |arguments: &[&str]| query_of(&arguments.iter().map(|one| (*one).to_owned()).collect::<Vec<_>>());
        assert_eq!(
            query(&["status:failed", "task:order 4711", "two words"]),
            "status:failed task:\"order 4711\" \"two words\""
        );
        assert_eq!(query(&["a b:c", "task:\"x y\" z"]), "\"a b:c\" task:\"x y\" z");
    }

    #[test]
    fn an_error_points_at_the_word() {
        let query = "é modle:x";
        let error = Query::parse(query, Timestamp::default()).unwrap_err();
        assert!(pointing(query, &error).ends_with("\n  é modle:x\n    ^^^^^"), "{}", pointing(query, &error));
    }
}

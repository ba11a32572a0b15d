//! The rollouts and attempts of a batch of spans: created if they are missing, and told of their new spans.

use super::rollouts::upsert_rollout;
use super::rows::{self, encode};
use super::statements::{Parameters, execute, query};
use crate::store::records::SpanObserver;
use crate::store::span_row::SpanRow;
use crate::store::sql::signed;
use crate::trace::{Attempt, AttemptId, AttemptPosition, Rollout, RolloutId, Timestamp};
use deadpool_postgres::Transaction;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Error, Row};

/// Locks the rollouts of a batch, which are created if they are missing, and raises their sequence counters. Returns those that are
/// registered.
pub(super) const LOCK_ROLLOUTS: &str =
    "INSERT INTO rollout (rollout_id, registered, last_sequence_id, start_ns, status, is_limited, json)
     SELECT id, FALSE, last, start, status, FALSE, json
     FROM unnest($1::TEXT[], $2::BIGINT[], $3::BIGINT[], $4::TEXT[], $5::TEXT[]) AS new (id, last, start, status, json)
     ON CONFLICT (rollout_id) DO UPDATE
         SET last_sequence_id = GREATEST(rollout.last_sequence_id, excluded.last_sequence_id)
     RETURNING rollout_id, registered";

/// Adds the missing attempts of a batch. Only started attempts of a registered rollout can be its latest.
pub(super) const ADD_ATTEMPTS: &str = "INSERT INTO attempt (rollout_id, attempt_id, sequence_id, json)
     SELECT new.rollout, new.attempt,
         CASE WHEN rollout.registered AND (known.last IS NOT NULL OR new.place > 1) THEN 0
             ELSE COALESCE(known.last, 0) + new.place END,
         new.json
     FROM (SELECT rollout, attempt, json, ROW_NUMBER() OVER (PARTITION BY rollout ORDER BY number) AS place
         FROM unnest($1::TEXT[], $2::TEXT[], $3::TEXT[]) WITH ORDINALITY AS wanted (rollout, attempt, json, number)
         WHERE NOT EXISTS (SELECT 1 FROM attempt
             WHERE attempt.rollout_id = wanted.rollout AND attempt.attempt_id = wanted.attempt)) AS new
     JOIN rollout ON rollout.rollout_id = new.rollout
     CROSS JOIN LATERAL (SELECT MAX(sequence_id) AS last FROM attempt WHERE attempt.rollout_id = new.rollout) AS known
     ON CONFLICT (rollout_id, attempt_id) DO NOTHING";

/// The rollouts of a batch by id, as arrays.
#[derive(Default)]
pub(super) struct RolloutArrays<'a> {
    ids: Vec<&'a str>,
    lasts: Vec<i64>,
    starts: Vec<i64>,
    statuses: Vec<&'static str>,
    jsons: Vec<String>,
}

impl<'a> RolloutArrays<'a> {
    pub(super) fn of(rows: &'a [SpanRow], now: Timestamp) -> Self {
        let mut rollouts: BTreeMap<&RolloutId, (i64, Timestamp)> = BTreeMap::new();
        for SpanRow { span, .. } in rows {
            let (last, _) = rollouts.entry(&span.rollout_id).or_insert((0, span.start_time.unwrap_or(now)));
            *last = signed(span.sequence_id).max(*last);
        }
        let mut arrays = Self::default();
        for (id, (last, start)) in rollouts {
            let new = Rollout::running(id.clone(), start);
            arrays.ids.push(id.as_str());
            arrays.lasts.push(last);
            arrays.starts.push(signed(start.unix_nanos));
            arrays.statuses.push(new.status.as_str());
            arrays.jsons.push(encode(&new));
        }
        arrays
    }

    /// Of [`LOCK_ROLLOUTS`].
    pub(super) fn parameters(&self) -> [&(dyn ToSql + Sync); 5] {
        [&self.ids, &self.lasts, &self.starts, &self.statuses, &self.jsons]
    }
}

/// Attempts by their ids, as arrays.
#[derive(Default)]
pub(super) struct AttemptArrays<'a> {
    rollouts: Vec<&'a str>,
    ids: Vec<&'a str>,
    jsons: Vec<String>,
}

impl<'a> AttemptArrays<'a> {
    /// Those of a batch, as they are if they are missing.
    pub(super) fn of(rows: &'a [SpanRow], now: Timestamp) -> Self {
        let mut attempts: BTreeMap<(&RolloutId, &AttemptId), Timestamp> = BTreeMap::new();
        for SpanRow { span, .. } in rows {
            attempts.entry((&span.rollout_id, &span.attempt_id)).or_insert(span.start_time.unwrap_or(now));
        }
        let mut arrays = Self::default();
        for ((rollout, attempt), start) in attempts {
            arrays.push(rollout, attempt, encode(&Attempt::running(rollout.clone(), attempt.clone(), start)));
        }
        arrays
    }

    fn push(&mut self, rollout: &'a RolloutId, attempt: &'a AttemptId, json: String) {
        self.rollouts.push(rollout.as_str());
        self.ids.push(attempt.as_str());
        self.jsons.push(json);
    }

    /// Of [`ADD_ATTEMPTS`].
    pub(super) fn parameters(&self) -> [&(dyn ToSql + Sync); 3] {
        [&self.rollouts, &self.ids, &self.jsons]
    }
}

/// The registered ones of the rollouts that [`LOCK_ROLLOUTS`] returned.
pub(super) fn registered(locked: &[Row]) -> BTreeSet<&str> {
    locked.iter().filter(|row| row.get(1)).map(|row| row.get(0)).collect()
}

/// Calls the observer for attempts with new spans, and stores what it changed. Their rollouts have to be locked and registered.
pub(super) async fn observe(
    transaction: &Transaction<'_>,
    updated: &BTreeSet<(&RolloutId, &AttemptId)>,
    observer: SpanObserver,
    now: Timestamp,
) -> Result<(), Error> {
    if updated.is_empty() {
        return Ok(());
    }
    let (rollouts, attempts): (Vec<&str>, Vec<&str>) =
        updated.iter().map(|(rollout, attempt)| (rollout.as_str(), attempt.as_str())).unzip();
    let sql = "SELECT rollout.json, rollout.start_ns, attempt.json, attempt.sequence_id,
             attempt.sequence_id = (SELECT MAX(sequence_id) FROM attempt WHERE rollout_id = updated.rollout)
         FROM unnest($1::TEXT[], $2::TEXT[]) AS updated (rollout, attempt)
         JOIN rollout ON rollout.rollout_id = updated.rollout
         JOIN attempt ON attempt.rollout_id = updated.rollout AND attempt.attempt_id = updated.attempt
         ORDER BY attempt.rollout_id, attempt.attempt_id FOR UPDATE OF attempt";
    let found = query(transaction, sql, &[&rollouts, &attempts]).await?;
    let (mut by_id, mut observed) = (BTreeMap::new(), Vec::with_capacity(found.len()));
    for row in &found {
        let (rollout, mut attempt) = match (rows::rollout(row), rows::attempt(row, 2)) {
            (Ok(rollout), Ok(Some(attempt))) => (rollout, attempt),
            (_, Ok(None)) => continue,
            // The spans are stored nevertheless.
            (Err(error), _) | (_, Err(error)) => {
                tracing::error!(?error, "the heartbeat of an attempt can't be stored");
                continue;
            }
        };
        let rollout = match by_id.entry(rollout.rollout_id.clone()) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => new.insert((rollout.status, rollout)),
        };
        let position = if row.get(4) { AttemptPosition::Latest } else { AttemptPosition::Earlier };
        observer(&mut rollout.1, &mut attempt, position, now);
        observed.push(attempt);
    }
    update_attempts(transaction, &observed).await?;
    for (_, rollout) in by_id.values().filter(|(before, rollout)| rollout.status != *before) {
        upsert_rollout(transaction, rollout).await?;
    }
    Ok(())
}

/// Replaces stored attempts.
async fn update_attempts(transaction: &Transaction<'_>, attempts: &[Attempt]) -> Result<(), Error> {
    let mut arrays = AttemptArrays::default();
    for attempt in attempts {
        arrays.push(&attempt.rollout_id, &attempt.attempt_id, encode(attempt));
    }
    let sql = "UPDATE attempt SET json = observed.json
         FROM unnest($1::TEXT[], $2::TEXT[], $3::TEXT[]) AS observed (rollout, attempt, json)
         WHERE attempt.rollout_id = observed.rollout AND attempt.attempt_id = observed.attempt";
    let parameters: Parameters<'_> = &arrays.parameters();
    execute(transaction, sql, parameters).await.map(drop)
}

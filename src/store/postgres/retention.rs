//! Removal of spans and rollouts, and of everything that only they needed.

use super::error::QueryError;
use super::rows;
use crate::store::sql::unsigned;
use crate::trace::{PrunedSpans, RolloutId};
use std::collections::HashMap;
use tokio_postgres::{Error, Row, Transaction};

/// A statement that removes the spans that `condition` selects, and lists the pieces of their texts for [`super::texts::sweep`]. It
/// returns their number and the highest number of a row.
pub(super) fn remove_spans(condition: &str) -> String {
    format!("{} SELECT COUNT(*), MAX(id) FROM removed", removal(condition))
}

/// The same for each attempt, as [`RemovedSpans::of_row`] reads it.
pub(super) fn remove_spans_by_attempt(condition: &str) -> String {
    format!(
        "{} SELECT rollout_id, attempt_id, COUNT(*), SUM(CASE WHEN is_llm_call THEN 1 ELSE 0 END), MAX(id)
         FROM removed GROUP BY rollout_id, attempt_id ORDER BY rollout_id, attempt_id",
        removal(condition)
    )
}

fn removal(condition: &str) -> String {
    format!(
        "WITH removed AS (DELETE FROM span WHERE {condition} RETURNING id, rollout_id, attempt_id, is_llm_call),
             reference AS (DELETE FROM span_text WHERE span IN (SELECT id FROM removed) RETURNING hash),
             orphaned AS (INSERT INTO orphaned_text (hash) SELECT DISTINCT hash FROM reference)"
    )
}

/// What was removed of an attempt.
pub(super) struct RemovedSpans {
    rollout: String,
    attempt: String,
    pub(super) spans: u64,
    llm_calls: u64,
    /// The highest number of them.
    pub(super) last: i64,
}

impl RemovedSpans {
    pub(super) fn of_row(row: &Row) -> Self {
        let count = |column: usize| unsigned(row.get(column));
        Self { rollout: row.get(0), attempt: row.get(1), spans: count(2), llm_calls: count(3), last: row.get(4) }
    }
}

/// Notes at the attempts that spans of them were removed. Attempts that go with their last span need no note.
pub(super) async fn note_at_attempts(
    transaction: &Transaction<'_>,
    removed: &[RemovedSpans],
) -> Result<(), QueryError> {
    let rollouts: Vec<&str> = removed.iter().map(|one| one.rollout.as_str()).collect();
    let attempts: Vec<&str> = removed.iter().map(|one| one.attempt.as_str()).collect();
    let sql = "SELECT attempt.json, attempt.sequence_id FROM attempt
         JOIN unnest($1::TEXT[], $2::TEXT[]) AS removed (rollout_id, attempt_id)
             ON attempt.rollout_id = removed.rollout_id AND attempt.attempt_id = removed.attempt_id
         WHERE EXISTS (SELECT 1 FROM span WHERE span.rollout_id = attempt.rollout_id AND span.attempt_id = attempt.attempt_id)
             OR EXISTS (SELECT 1 FROM rollout WHERE rollout.rollout_id = attempt.rollout_id AND rollout.registered)
         ORDER BY attempt.rollout_id, attempt.attempt_id FOR UPDATE OF attempt";
    let by_ids: HashMap<_, _> = removed.iter().map(|one| ((one.rollout.as_str(), one.attempt.as_str()), one)).collect();
    let mut noted = Vec::new();
    for row in transaction.query(sql, &[&rollouts, &attempts]).await? {
        let Some(mut attempt) = rows::attempt(&row, 0)? else { continue };
        let (rollout, id) = (attempt.rollout_id.to_string(), attempt.attempt_id.to_string());
        if let Some(of_it) = by_ids.get(&(rollout.as_str(), id.as_str())) {
            attempt.add_pruned(PrunedSpans { spans: of_it.spans, llm_calls: of_it.llm_calls });
            noted.push((rollout, id, rows::encode(&attempt)));
        }
    }
    let column = |part: fn(&(String, String, String)) -> &String| noted.iter().map(part).collect::<Vec<_>>();
    let (rollouts, attempts, json) = (column(|one| &one.0), column(|one| &one.1), column(|one| &one.2));
    let sql = "UPDATE attempt SET json = noted.json
         FROM unnest($1::TEXT[], $2::TEXT[], $3::TEXT[]) AS noted (rollout_id, attempt_id, json)
         WHERE attempt.rollout_id = noted.rollout_id AND attempt.attempt_id = noted.attempt_id";
    transaction.execute(sql, &[&rollouts, &attempts, &json]).await?;
    Ok(())
}

/// Removes a rollout with everything that belongs to it, except its entries in the log of ended rollouts. Returns the number
/// of its spans; `None` if it does not exist.
pub(super) async fn remove_rollout(transaction: &Transaction<'_>, id: &RolloutId) -> Result<Option<u64>, Error> {
    // The queue is locked first, as by transactions that dequeue.
    transaction.execute("DELETE FROM queue WHERE rollout_id = $1", &[&id.as_str()]).await?;
    if transaction.execute("DELETE FROM rollout WHERE rollout_id = $1", &[&id.as_str()]).await? == 0 {
        // Spans that another transaction is storing create the rollout anew, and remain.
        return Ok(None);
    }
    for table in ["attempt", "trace"] {
        transaction.execute(&format!("DELETE FROM {table} WHERE rollout_id = $1"), &[&id.as_str()]).await?;
    }
    let row = transaction.query_one(&remove_spans("rollout_id = $1"), &[&id.as_str()]).await?;
    Ok(Some(unsigned(row.get(0))))
}

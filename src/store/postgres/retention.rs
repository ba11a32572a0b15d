//! Removal of spans and rollouts, and of everything that only they needed.

use super::error::QueryError;
use crate::store::api::Pruned;
use crate::store::retention::{REMOVE_UNUSED, Retention, excess};
use crate::store::sql::{signed, unsigned};
use crate::trace::{RolloutId, Timestamp};
use deadpool_postgres::Object;
use tokio_postgres::{Error, Transaction};

/// Removes the spans that `condition` selects, and lists the pieces of their texts for [`super::texts::sweep`].
fn remove_spans(condition: &str) -> String {
    format!(
        "WITH removed AS (DELETE FROM span WHERE {condition} RETURNING id),
             reference AS (DELETE FROM span_text WHERE span IN (SELECT id FROM removed) RETURNING hash),
             orphaned AS (INSERT INTO orphaned_text (hash) SELECT DISTINCT hash FROM reference)
         SELECT COUNT(*) FROM removed"
    )
}

/// Statements that lock what `REMOVE_UNUSED` may remove. They wait for transactions that are storing spans of it, and the
/// removal then sees these spans.
const LOCK_UNUSED: [&str; 2] = [
    "SELECT 1 FROM rollout WHERE
         (NOT registered AND NOT EXISTS (SELECT 1 FROM span WHERE span.rollout_id = rollout.rollout_id))
         OR EXISTS (SELECT 1 FROM attempt WHERE attempt.rollout_id = rollout.rollout_id AND NOT EXISTS
             (SELECT 1 FROM span WHERE span.rollout_id = attempt.rollout_id AND span.attempt_id = attempt.attempt_id))
     ORDER BY rollout_id FOR UPDATE",
    "SELECT 1 FROM trace WHERE NOT EXISTS (SELECT 1 FROM span WHERE span.id = trace.last_span)
     ORDER BY trace_id FOR UPDATE",
];

/// Applies the limits, except for `max_bytes`.
pub(super) async fn prune(connection: &mut Object, retention: Retention, now: Timestamp) -> Result<Pruned, QueryError> {
    let transaction = connection.transaction().await?;
    let before = retention.expired_before(now).map(|time| signed(time.unix_nanos));
    let count: i64 = transaction.query_one("SELECT COUNT(*) FROM span", &[]).await?.get(0);
    let excess = signed(excess(unsigned(count), retention.max_spans));
    let sql = remove_spans("COALESCE(end_ns, start_ns) < $1 OR id IN (SELECT id FROM span ORDER BY id LIMIT $2)");
    let spans: i64 = transaction.query_one(&sql, &[&before, &excess]).await?.get(0);
    if spans > 0 {
        for sql in LOCK_UNUSED.into_iter().chain(REMOVE_UNUSED) {
            transaction.execute(sql, &[]).await?;
        }
    }
    transaction.commit().await?;
    Ok(Pruned { spans: unsigned(spans) })
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

//! Removal of spans and rollouts, and of everything that only they needed.

use crate::store::sql::unsigned;
use crate::trace::RolloutId;
use tokio_postgres::{Error, Transaction};

/// A statement that removes the spans that `condition` selects, and lists the pieces of their texts for [`super::texts::sweep`]. It
/// returns their number and the highest number of a row.
pub(super) fn remove_spans(condition: &str) -> String {
    format!(
        "WITH removed AS (DELETE FROM span WHERE {condition} RETURNING id),
             reference AS (DELETE FROM span_text WHERE span IN (SELECT id FROM removed) RETURNING hash),
             orphaned AS (INSERT INTO orphaned_text (hash) SELECT DISTINCT hash FROM reference)
         SELECT COUNT(*), MAX(id) FROM removed"
    )
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

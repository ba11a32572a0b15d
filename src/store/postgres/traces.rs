//! Removal of the traces that have no spans any more.
//!
//! The rows are locked before it is known whether they go. That waits for transactions that are storing spans of these traces, and the
//! statements after it see these spans.

use super::spans::stored;
use crate::store::orphaned_traces::{EarlierSpans, MAX_EARLIER_SPANS, OrphanedTrace};
use std::collections::BTreeMap;
use tokio_postgres::{Error, Transaction};

/// Removes the traces of these rollouts that have no spans.
pub(super) async fn remove_traces_of(transaction: &Transaction<'_>, rollouts: &[&str]) -> Result<(), Error> {
    let sql = format!(
        "SELECT trace_id FROM trace WHERE rollout_id = ANY($1) AND NOT {HAS_LAST_SPAN} ORDER BY trace_id FOR UPDATE"
    );
    let locked = transaction.query(&sql, &[&rollouts]).await?;
    settle(transaction, &locked.iter().map(|row| row.get(0)).collect::<Vec<_>>()).await
}

/// Removes some of the traces without spans, those with an id after `after`. Returns where the next part begins; `None` if there is none.
pub(super) async fn sweep_traces(
    transaction: &Transaction<'_>,
    after: &str,
    limit: i64,
) -> Result<Option<String>, Error> {
    let sql = format!(
        "SELECT trace_id FROM trace WHERE trace_id > $1 AND NOT {HAS_LAST_SPAN} ORDER BY trace_id LIMIT $2 FOR UPDATE"
    );
    let locked = transaction.query(&sql, &[&after, &limit]).await?;
    let locked: Vec<&str> = locked.iter().map(|row| row.get(0)).collect();
    settle(transaction, &locked).await?;
    Ok(locked.last().filter(|_| i64::try_from(locked.len()) == Ok(limit)).map(|last| (*last).to_owned()))
}

/// Removes locked traces, unless earlier spans of their rollouts belong to them.
async fn settle(transaction: &Transaction<'_>, locked: &[&str]) -> Result<(), Error> {
    if locked.is_empty() {
        return Ok(());
    }
    // Most have no earlier spans in their rollouts.
    let removed = format!(
        "DELETE FROM trace WHERE trace_id = ANY($1) AND NOT {HAS_LAST_SPAN} AND NOT EXISTS
             (SELECT 1 FROM span WHERE span.rollout_id = trace.rollout_id AND span.id < trace.last_span)"
    );
    transaction.execute(&removed, &[&locked]).await?;
    let left =
        format!("SELECT rollout_id, trace_id, last_span FROM trace WHERE trace_id = ANY($1) AND NOT {HAS_LAST_SPAN}");
    let mut by_rollout: BTreeMap<String, Vec<OrphanedTrace>> = BTreeMap::new();
    for row in transaction.query(&left, &[&locked]).await? {
        let orphaned = OrphanedTrace { id: row.get(1), last_span: row.get(2) };
        by_rollout.entry(row.get(0)).or_default().push(orphaned);
    }
    let (mut removed, mut kept, mut numbers) = (Vec::new(), Vec::new(), Vec::new());
    for (rollout, orphaned) in by_rollout {
        let before = orphaned.iter().map(|trace| trace.last_span).max();
        let sql = "SELECT id, record, json FROM span WHERE rollout_id = $1 AND id < $2 ORDER BY id DESC LIMIT $3";
        let mut earlier = EarlierSpans::default();
        for row in transaction.query(sql, &[&rollout, &before, &(MAX_EARLIER_SPANS as i64 + 1)]).await? {
            earlier.add(row.get(0), stored(&row, 1, 2));
        }
        let settled = earlier.settle(orphaned);
        removed.extend(settled.removed);
        let (ids, lasts): (Vec<String>, Vec<i64>) = settled.kept.into_iter().unzip();
        kept.extend(ids);
        numbers.extend(lasts);
    }
    transaction.execute("DELETE FROM trace WHERE trace_id = ANY($1)", &[&removed]).await?;
    let sql = "UPDATE trace SET last_span = kept.number FROM unnest($1::TEXT[], $2::BIGINT[]) AS kept (id, number)
         WHERE trace.trace_id = kept.id";
    transaction.execute(sql, &[&kept, &numbers]).await?;
    Ok(())
}

const HAS_LAST_SPAN: &str = "EXISTS (SELECT 1 FROM span WHERE span.id = trace.last_span)";

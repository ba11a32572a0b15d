//! The log of rollouts that have ended, which several processes write.

use super::read::Read;
use crate::store::{TerminalPage, signed, unsigned};
use crate::trace::RolloutId;
use deadpool_postgres::Object;
use tokio_postgres::{Error, Transaction};

/// Adds rollouts to the log. The row that counts its entries stays locked, so it is the last that a transaction locks:
/// nobody else who ends a rollout waits longer than for the commit, and nobody waits in a circle.
pub(super) async fn log(transaction: &Transaction<'_>, ended: &[RolloutId]) -> Result<(), Error> {
    if ended.is_empty() {
        return Ok(());
    }
    let more = signed(ended.len() as u64);
    let sql = "UPDATE terminal_count SET entries = entries + $1 WHERE id = 1 RETURNING entries";
    let entries: i64 = transaction.query_one(sql, &[&more]).await?.get(0);
    let positions: Vec<i64> = (entries - more..entries).collect();
    let ids: Vec<&str> = ended.iter().map(RolloutId::as_str).collect();
    let sql = "INSERT INTO terminal (position, rollout_id) SELECT * FROM unnest($1::BIGINT[], $2::TEXT[])";
    transaction.execute(sql, &[&positions, &ids]).await?;
    Ok(())
}

/// A page of the log.
pub(super) async fn page(connection: &Object, after: u64, limit: usize) -> Read<TerminalPage> {
    let sql = "SELECT rollout_id FROM terminal WHERE position >= $1 ORDER BY position LIMIT $2";
    let statement = connection.prepare_cached(sql).await?;
    let rows = connection.query(&statement, &[&signed(after), &signed(limit as u64)]).await?;
    let ids = rows.iter().map(|row| row.get::<_, &str>(0).into()).collect();
    // Read afterwards: the log only grows, so that this counts all entries of the page.
    let sql = "SELECT entries FROM terminal_count WHERE id = 1";
    let row = connection.query_one(&connection.prepare_cached(sql).await?, &[]).await?;
    Ok(TerminalPage { ids, total: unsigned(row.get(0)) })
}

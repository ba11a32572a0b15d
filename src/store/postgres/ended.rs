//! The log of ended rollouts, which several processes write.

use super::error::QueryError;
use crate::store::api::EndedRollouts;
use crate::store::sql::{signed, unsigned};
use crate::trace::RolloutId;
use deadpool_postgres::Object;
use tokio_postgres::{Error, Transaction};

/// Adds rollouts to the log. This locks the row that counts its entries until the commit, so it has to be the last lock of a
/// transaction: other processes then wait for the commit only, and a deadlock is impossible.
pub(super) async fn log(transaction: &Transaction<'_>, ended: &[RolloutId]) -> Result<(), Error> {
    if ended.is_empty() {
        return Ok(());
    }
    let added = signed(ended.len() as u64);
    let sql = "UPDATE terminal_count SET entries = entries + $1 WHERE id = 1 RETURNING entries";
    let entries: i64 = transaction.query_one(sql, &[&added]).await?.get(0);
    let positions: Vec<i64> = (entries - added..entries).collect();
    let ids: Vec<&str> = ended.iter().map(RolloutId::as_str).collect();
    let sql = "INSERT INTO terminal (position, rollout_id) SELECT * FROM unnest($1::BIGINT[], $2::TEXT[])";
    transaction.execute(sql, &[&positions, &ids]).await?;
    Ok(())
}

/// A part of the log.
pub(super) async fn read(connection: &Object, after: u64, limit: usize) -> Result<EndedRollouts, QueryError> {
    let sql = "SELECT rollout_id FROM terminal WHERE position >= $1 ORDER BY position LIMIT $2";
    let statement = connection.prepare_cached(sql).await?;
    let rows = connection.query(&statement, &[&signed(after), &signed(limit as u64)]).await?;
    let ids = rows.iter().map(|row| row.get::<_, &str>(0).into()).collect();
    // Read afterwards: the log only grows, so that the total includes the entries above.
    let sql = "SELECT entries FROM terminal_count WHERE id = 1";
    let row = connection.query_one(&connection.prepare_cached(sql).await?, &[]).await?;
    Ok(EndedRollouts { ids, total: unsigned(row.get(0)) })
}

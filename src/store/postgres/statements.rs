//! Statements of a transaction that its connection prepares once.

use deadpool_postgres::Transaction;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Error, Row};

/// The values of a statement's parameters.
pub(super) type Parameters<'a> = &'a [&'a (dyn ToSql + Sync)];

pub(super) async fn query(
    transaction: &Transaction<'_>,
    sql: &str,
    parameters: Parameters<'_>,
) -> Result<Vec<Row>, Error> {
    transaction.query(&transaction.prepare_cached(sql).await?, parameters).await
}

pub(super) async fn query_one(
    transaction: &Transaction<'_>,
    sql: &str,
    parameters: Parameters<'_>,
) -> Result<Row, Error> {
    transaction.query_one(&transaction.prepare_cached(sql).await?, parameters).await
}

/// Returns the number of rows that the statement wrote.
pub(super) async fn execute(
    transaction: &Transaction<'_>,
    sql: &str,
    parameters: Parameters<'_>,
) -> Result<u64, Error> {
    transaction.execute(&transaction.prepare_cached(sql).await?, parameters).await
}

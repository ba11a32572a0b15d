//! What the tables of a store take in a server. Nothing is counted row by row.

use super::error::QueryError;
use crate::store::span_row::timestamp;
use crate::store::sql::unsigned;
use crate::store::usage::{StoreKind, StoreUsage, Vacuum};
use deadpool_postgres::Object;
use std::time::Duration;
use tokio_postgres::Error;

/// The tables that grow with what is recorded.
const TABLES: [&str; 11] = [
    "rollout",
    "attempt",
    "span",
    "text",
    "span_text",
    "trace",
    "queue",
    "worker",
    "resources",
    "terminal",
    "orphaned_text",
];

/// The usage of the store's tables in the current schema.
pub(super) async fn usage(connection: &Object) -> Result<StoreUsage, QueryError> {
    // The ends of spans have an index; those without an end are few and not looked for.
    let sizes = TABLES.map(|table| format!("pg_total_relation_size('{table}')")).join(" + ");
    let sql = format!(
        "SELECT (SELECT version FROM tracewire_schema WHERE id = 1), (SELECT MIN(end_ns) FROM span),
             (SELECT MAX(end_ns) FROM span), {sizes}, pg_total_relation_size('text')"
    );
    let row = connection.query_one(&sql, &[]).await?;
    Ok(StoreUsage {
        kind: StoreKind::Postgresql,
        schema_version: Some(unsigned(row.get(0))),
        oldest_span: row.get::<_, Option<i64>>(1).map(timestamp),
        newest_span: row.get::<_, Option<i64>>(2).map(timestamp),
        database_bytes: unsigned(row.get(3)),
        piece_bytes: Some(unsigned(row.get(4))),
        ..StoreUsage::default()
    })
}

/// Makes the space of removed rows free for new ones, and gives back what is free at the ends of the tables; a full vacuum gives back all.
/// Afterwards statements of the connection may take `limit` again.
pub(super) async fn vacuum(connection: &Object, extent: Vacuum, limit: Duration) -> Result<(), QueryError> {
    connection.batch_execute("SET statement_timeout = 0").await?;
    let done = vacuum_tables(connection, extent).await;
    connection.batch_execute(&format!("SET statement_timeout = {}", limit.as_millis())).await?;
    Ok(done?)
}

async fn vacuum_tables(connection: &Object, extent: Vacuum) -> Result<(), Error> {
    let full = if extent == Vacuum::Full { "(FULL) " } else { "" };
    for table in TABLES {
        connection.batch_execute(&format!("VACUUM {full}{table}")).await?;
    }
    Ok(())
}

//! What a file takes on disk. Nothing is counted row by row.

use super::file::beside;
use crate::store::span_row::timestamp;
use crate::store::sql::unsigned;
use crate::store::usage::{StoreKind, StoreUsage};
use crate::trace::Timestamp;
use rusqlite::{Connection, OptionalExtension};
use std::path::Path;

/// The usage of the file at `path`, which `connection` has open.
pub(super) fn usage(connection: &Connection, path: &Path) -> rusqlite::Result<StoreUsage> {
    let number = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, i64>(0)).map(unsigned);
    let size = |path: &Path| std::fs::metadata(path).map_or(0, |file| file.len());
    let [log, _] = beside(path);
    let counted = "SELECT pieces, piece_bytes FROM row_count";
    let (pieces, piece_bytes) =
        connection.query_row(counted, [], |row| Ok((unsigned(row.get(0)?), unsigned(row.get(1)?))))?;
    Ok(StoreUsage {
        kind: StoreKind::Sqlite,
        schema_version: Some(number("PRAGMA user_version")?),
        oldest_span: end_of(connection, Edge::Oldest)?,
        newest_span: end_of(connection, Edge::Newest)?,
        database_bytes: size(path),
        unused_bytes: Some(number("PRAGMA freelist_count")? * number("PRAGMA page_size")?),
        log_bytes: Some(size(&log)),
        pieces: Some(pieces),
        piece_bytes: Some(piece_bytes),
        spool_bytes: None,
    })
}

/// One end of the spans' time.
#[derive(Clone, Copy)]
enum Edge {
    Oldest,
    Newest,
}

/// The end of the oldest or the newest span, by the index of ends. One without an end counts by its start.
fn end_of(connection: &Connection, edge: Edge) -> rusqlite::Result<Option<Timestamp>> {
    let (order, best): (_, fn(i64, i64) -> i64) = match edge {
        Edge::Oldest => ("", i64::min),
        Edge::Newest => (" DESC", i64::max),
    };
    let first = |sql: String| -> rusqlite::Result<Option<i64>> {
        Ok(connection.query_row(&sql, [], |row| row.get(0)).optional()?.flatten())
    };
    let ended = first(format!("SELECT end_ns FROM span WHERE end_ns IS NOT NULL ORDER BY end_ns{order} LIMIT 1"))?;
    let open = first(format!(
        "SELECT start_ns FROM span WHERE end_ns IS NULL AND start_ns IS NOT NULL ORDER BY start_ns{order} LIMIT 1"
    ))?;
    Ok(ended.into_iter().chain(open).reduce(best).map(timestamp))
}

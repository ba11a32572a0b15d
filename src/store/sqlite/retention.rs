//! Removal of rollouts, and of everything that only they or their spans needed.
//!
//! Runs on the writer's connection, within a transaction of the caller.

use crate::store::sql::unsigned;
use crate::trace::RolloutId;
use rusqlite::{Connection, params};
use std::time::{Duration, Instant};

/// Bytes of the file that are in use.
pub(super) fn size_bytes(connection: &Connection) -> rusqlite::Result<u64> {
    let number = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, i64>(0));
    let pages = number("PRAGMA page_count")? - number("PRAGMA freelist_count")?;
    Ok(unsigned(pages * number("PRAGMA page_size")?))
}

/// Returns free pages to the file system, for at most [`MAX_RELEASE`]. Others are used again, or follow the next removal.
pub(super) fn release_pages(connection: &Connection) -> rusqlite::Result<()> {
    let began = Instant::now();
    let mut statement = connection.prepare("PRAGMA incremental_vacuum")?;
    let mut rows = statement.query([])?;
    // Each step frees one page.
    while rows.next()?.is_some() && began.elapsed() < MAX_RELEASE {}
    Ok(())
}

/// Removes the pieces of texts that nothing refers to any more, beginning at the ends of their chains. Triggers have listed
/// the candidates in `orphaned_text`.
pub(super) fn remove_orphaned_texts(connection: &Connection) -> rusqlite::Result<()> {
    let unused = "DELETE FROM text WHERE id IN (SELECT text FROM orphaned_text)
        AND NOT EXISTS (SELECT 1 FROM span_text WHERE span_text.text = text.id)
        AND NOT EXISTS (SELECT 1 FROM text AS next WHERE next.parent = text.id)";
    // The removal of a piece makes its predecessor a candidate. Removed pieces are none any more.
    let removed = "DELETE FROM orphaned_text WHERE NOT EXISTS (SELECT 1 FROM text WHERE text.id = orphaned_text.text)";
    while connection.prepare_cached(unused)?.execute([])? > 0 {
        connection.prepare_cached(removed)?.execute([])?;
    }
    connection.prepare_cached("DELETE FROM orphaned_text")?.execute([]).map(drop)
}

/// Removes a rollout with everything that belongs to it, except its entries in the log of ended rollouts. Returns the
/// number of its spans; `None` if it does not exist.
pub(super) fn remove_rollout(connection: &Connection, id: &RolloutId) -> rusqlite::Result<Option<u64>> {
    let remove = |table: &str| {
        let sql = format!("DELETE FROM {table} WHERE rollout_id = ?1");
        connection.prepare_cached(&sql)?.execute(params![id.as_str()])
    };
    let existed = remove("rollout")? > 0;
    for table in ["queue", "attempt", "trace"] {
        remove(table)?;
    }
    let spans = remove("span")? as u64;
    remove_orphaned_texts(connection)?;
    Ok(existed.then_some(spans))
}

/// How long the writer is held to return pages after a removal.
const MAX_RELEASE: Duration = Duration::from_millis(50);

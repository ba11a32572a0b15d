//! Removal of spans and rollouts, and of everything that only they needed.
//!
//! Runs on the writer's connection, within a transaction of the caller.

use crate::store::api::Pruned;
use crate::store::retention::{REMOVE_UNUSED, Retention, excess};
use crate::store::sql::{signed, unsigned};
use crate::trace::{RolloutId, Timestamp};
use rusqlite::{Connection, OptionalExtension, params};

/// Bytes of the file that are in use.
pub(super) fn size_bytes(connection: &Connection) -> rusqlite::Result<u64> {
    let number = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, i64>(0));
    let pages = number("PRAGMA page_count")? - number("PRAGMA freelist_count")?;
    Ok(unsigned(pages * number("PRAGMA page_size")?))
}

/// Applies the limits.
pub(super) fn prune(connection: &Connection, retention: Retention, now: Timestamp) -> rusqlite::Result<Pruned> {
    let mut pruned = Pruned::default();
    if let Some(before) = retention.expired_before(now) {
        let sql = "DELETE FROM span WHERE end_ns < ?1 OR (end_ns IS NULL AND start_ns < ?1)";
        pruned.spans += connection.prepare_cached(sql)?.execute(params![signed(before.unix_nanos)])? as u64;
        remove_orphaned_texts(connection)?;
    }
    if retention.max_spans > 0 {
        pruned.spans += remove_oldest(connection, excess(count(connection)?, retention.max_spans))?;
    }
    if retention.max_bytes > 0 {
        pruned.spans += shrink(connection, retention.max_bytes)?;
    }
    if pruned.spans > 0 {
        for sql in REMOVE_UNUSED {
            connection.prepare_cached(sql)?.execute([])?;
        }
    }
    Ok(pruned)
}

/// Returns free pages to the file system.
pub(super) fn release_pages(connection: &Connection) -> rusqlite::Result<()> {
    let mut statement = connection.prepare("PRAGMA incremental_vacuum")?;
    let mut rows = statement.query([])?;
    // Each step frees one page.
    while rows.next()?.is_some() {}
    Ok(())
}

/// Removes spans until the file is below its limit. Texts are shared, so that the effect of a removal is known only
/// afterwards. Each round removes the number of spans that would suffice if all had the same size.
fn shrink(connection: &Connection, max_bytes: u64) -> rusqlite::Result<u64> {
    let mut removed = 0;
    let mut size = size_bytes(connection)?;
    let target = size - excess(size, max_bytes);
    while size > target {
        let spans = count(connection)?;
        let share = (spans as f64 * (size - target) as f64 / size as f64).ceil() as u64;
        let round = remove_oldest(connection, share.max(1))?;
        if round == 0 {
            break;
        }
        removed += round;
        size = size_bytes(connection)?;
    }
    Ok(removed)
}

fn count(connection: &Connection) -> rusqlite::Result<u64> {
    connection.prepare_cached("SELECT spans FROM row_count")?.query_row([], |row| row.get(0)).map(unsigned)
}

fn remove_oldest(connection: &Connection, spans: u64) -> rusqlite::Result<u64> {
    if spans == 0 {
        return Ok(0);
    }
    let sql = "SELECT id FROM span ORDER BY id LIMIT 1 OFFSET ?1";
    let offset = signed(spans - 1);
    let last: Option<i64> = connection.prepare_cached(sql)?.query_row(params![offset], |row| row.get(0)).optional()?;
    let last = last.unwrap_or(i64::MAX);
    let removed = connection.prepare_cached("DELETE FROM span WHERE id <= ?1")?.execute(params![last])? as u64;
    remove_orphaned_texts(connection)?;
    Ok(removed)
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

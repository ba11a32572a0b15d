//! Keeps the file within its limits: the oldest spans go first, then rollouts that nobody registered and nobody uses.
//!
//! When somebody asks for it, a single rollout goes the same way.
//!
//! It runs on the writer's connection inside a transaction of the writer's, and must not start one.

use super::signed;
use crate::store::memory::{excess, expired_before};
use crate::store::{Pruned, Retention};
use crate::trace::{RolloutId, Timestamp};
use rusqlite::{Connection, OptionalExtension, params};

/// Bytes of the file that are in use.
pub(super) fn size_bytes(connection: &Connection) -> rusqlite::Result<u64> {
    let number = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, i64>(0));
    let pages = number("PRAGMA page_count")? - number("PRAGMA freelist_count")?;
    Ok(u64::try_from(pages * number("PRAGMA page_size")?).unwrap_or_default())
}

/// Applies the limits.
pub(super) fn prune(connection: &Connection, retention: Retention, now: Timestamp) -> rusqlite::Result<Pruned> {
    let mut pruned = Pruned::default();
    if let Some(before) = expired_before(retention, now) {
        let sql = "DELETE FROM span WHERE end_ns < ?1 OR (end_ns IS NULL AND start_ns < ?1)";
        pruned.spans += connection.prepare_cached(sql)?.execute(params![signed(before.unix_nanos)])? as u64;
        remove_loose(connection)?;
    }
    if retention.max_spans > 0 {
        pruned.spans += remove_oldest(connection, excess(count(connection)?, retention.max_spans))?;
    }
    if retention.max_bytes > 0 {
        pruned.spans += shrink(connection, retention.max_bytes)?;
    }
    if pruned.spans > 0 {
        remove_unused(connection)?;
    }
    Ok(pruned)
}

/// Gives pages that are free back to the file system.
pub(super) fn release_pages(connection: &Connection) -> rusqlite::Result<()> {
    let mut statement = connection.prepare("PRAGMA incremental_vacuum")?;
    let mut rows = statement.query([])?;
    // One step frees one page.
    while rows.next()?.is_some() {}
    Ok(())
}

/// Removes spans until the file is under its limit. What a span frees is only known afterwards, because texts are
/// shared; so each round removes the share of spans that would do if they were all alike.
fn shrink(connection: &Connection, max_bytes: u64) -> rusqlite::Result<u64> {
    let mut removed = 0;
    let first = size_bytes(connection)?;
    let target = first - excess(first, max_bytes);
    let mut size = first;
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
    let spans: i64 = connection.prepare_cached("SELECT COUNT(*) FROM span")?.query_row([], |row| row.get(0))?;
    Ok(u64::try_from(spans).unwrap_or_default())
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
    remove_loose(connection)?;
    Ok(removed)
}

/// Removes the pieces of texts that nothing refers to any more, from the ends of their chains.
pub(super) fn remove_loose(connection: &Connection) -> rusqlite::Result<()> {
    let sql = "DELETE FROM text WHERE id IN (SELECT text FROM loose)
        AND NOT EXISTS (SELECT 1 FROM span_text WHERE span_text.text = text.id)
        AND NOT EXISTS (SELECT 1 FROM text AS next WHERE next.parent = text.id)";
    // What goes makes the piece before it loose; what is gone need not be looked at again.
    let gone = "DELETE FROM loose WHERE NOT EXISTS (SELECT 1 FROM text WHERE text.id = loose.text)";
    while connection.prepare_cached(sql)?.execute([])? > 0 {
        connection.prepare_cached(gone)?.execute([])?;
    }
    connection.prepare_cached("DELETE FROM loose")?.execute([]).map(drop)
}

/// Removes a rollout with all that belongs to it; how many spans it had. That it ended stays in the log.
pub(super) fn remove_rollout(connection: &Connection, id: &RolloutId) -> rusqlite::Result<u64> {
    let remove = |table: &str| {
        let sql = format!("DELETE FROM {table} WHERE rollout_id = ?1");
        connection.prepare_cached(&sql)?.execute(params![id.as_str()])
    };
    for table in ["queue", "rollout", "attempt", "trace"] {
        remove(table)?;
    }
    let spans = remove("span")? as u64;
    remove_loose(connection)?;
    Ok(spans)
}

fn remove_unused(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch(
        "DELETE FROM attempt WHERE rollout_id IN (
             SELECT rollout_id FROM rollout WHERE registered = 0
             AND NOT EXISTS (SELECT 1 FROM span WHERE span.rollout_id = rollout.rollout_id));
         DELETE FROM rollout WHERE registered = 0
             AND NOT EXISTS (SELECT 1 FROM span WHERE span.rollout_id = rollout.rollout_id);",
    )
}

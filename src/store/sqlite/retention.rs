//! Removal of rollouts, and of everything that only they or their spans needed.
//!
//! Runs on the writer's connection, within a transaction of the caller.

use super::rows;
use crate::store::sql::unsigned;
use crate::trace::{PrunedSpans, RolloutId};
use rusqlite::{Connection, OptionalExtension, params};
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

/// What is about to be removed of an attempt.
pub(super) struct RemovedSpans {
    rollout: String,
    attempt: String,
    pruned: PrunedSpans,
}

/// These spans by attempt.
pub(super) fn by_attempt(connection: &Connection, spans: &[i64]) -> rusqlite::Result<Vec<RemovedSpans>> {
    let sql = "SELECT rollout_id, attempt_id, COUNT(*), SUM(is_llm_call) FROM span
        WHERE id IN (SELECT value FROM json_each(?1)) GROUP BY rollout_id, attempt_id";
    let mut statement = connection.prepare_cached(sql)?;
    let found = statement.query_map([serde_json::Value::from(spans).to_string()], |row| {
        let pruned = PrunedSpans { spans: unsigned(row.get(2)?), llm_calls: unsigned(row.get(3)?) };
        Ok(RemovedSpans { rollout: row.get(0)?, attempt: row.get(1)?, pruned })
    })?;
    found.collect()
}

/// Notes at the attempts that spans of them were removed. Attempts that go with their last span need no note.
pub(super) fn note_at_attempts(connection: &Connection, removed: &[RemovedSpans]) -> rusqlite::Result<()> {
    let sql = "SELECT json FROM attempt WHERE rollout_id = ?1 AND attempt_id = ?2 AND (
        EXISTS (SELECT 1 FROM span WHERE span.rollout_id = ?1 AND span.attempt_id = ?2)
        OR EXISTS (SELECT 1 FROM rollout WHERE rollout.rollout_id = ?1 AND registered))";
    let mut select = connection.prepare_cached(sql)?;
    let sql = "UPDATE attempt SET json = ?3 WHERE rollout_id = ?1 AND attempt_id = ?2";
    let mut update = connection.prepare_cached(sql)?;
    for RemovedSpans { rollout, attempt: id, pruned } in removed {
        let found = select.query_row(params![rollout, id], |row| rows::attempt(row, 0)).optional()?;
        if let Some(mut attempt) = found.flatten() {
            attempt.add_pruned(*pruned);
            update.execute(params![rollout, id, rows::encode(&attempt)?])?;
        }
    }
    Ok(())
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

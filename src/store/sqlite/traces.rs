//! Removal of the traces that have no spans any more.

use super::rows::stored;
use crate::store::orphaned_traces::{EarlierSpans, MAX_EARLIER_SPANS, OrphanedTrace};
use rusqlite::{Connection, Row, params};
use std::collections::BTreeMap;

/// Removes the traces of a rollout that have no spans.
pub(super) fn remove_traces_of(connection: &Connection, rollout: &str) -> rusqlite::Result<()> {
    let sql = format!("SELECT trace_id, last_span FROM trace WHERE rollout_id = ?1 AND NOT {HAS_LAST_SPAN}");
    let mut statement = connection.prepare_cached(&sql)?;
    let orphaned = |row: &Row<'_>| Ok(OrphanedTrace { id: row.get(0)?, last_span: row.get(1)? });
    let orphaned = statement.query_map([rollout], orphaned)?.collect::<rusqlite::Result<Vec<_>>>()?;
    settle(connection, rollout, orphaned)
}

/// Removes the traces without spans among some, those with an id after `after`, which is empty at the beginning. Returns where the next
/// part begins; `None` if there is none.
pub(super) fn sweep_traces(connection: &Connection, after: &[String]) -> rusqlite::Result<Option<Vec<String>>> {
    let begins = if after.is_empty() { "TRUE" } else { "trace_id > ?2" };
    let sql = format!(
        "SELECT trace_id, last_span, rollout_id, {HAS_LAST_SPAN} FROM trace WHERE {begins} ORDER BY trace_id LIMIT ?1"
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let (limit, after) = (STEP_TRACES as i64, after.first());
    let mut rows = match after {
        Some(after) => statement.query(params![limit, after])?,
        None => statement.query([limit])?,
    };
    let (mut by_rollout, mut count, mut last) = (BTreeMap::<String, Vec<OrphanedTrace>>::new(), 0, None);
    while let Some(row) = rows.next()? {
        let id: String = row.get(0)?;
        if !row.get::<_, bool>(3)? {
            let orphaned = OrphanedTrace { id: id.clone(), last_span: row.get(1)? };
            by_rollout.entry(row.get(2)?).or_default().push(orphaned);
        }
        (count, last) = (count + 1, Some(id));
    }
    by_rollout.into_iter().try_for_each(|(rollout, orphaned)| settle(connection, &rollout, orphaned))?;
    Ok(last.filter(|_| count == STEP_TRACES).map(|last| vec![last]))
}

/// Removes traces of a rollout, unless earlier spans of the rollout belong to them.
fn settle(connection: &Connection, rollout: &str, orphaned: Vec<OrphanedTrace>) -> rusqlite::Result<()> {
    let Some(before) = orphaned.iter().map(|trace| trace.last_span).max() else { return Ok(()) };
    // Each kind of span is read by the index, from its end.
    let of_kind = |kind: u8| {
        format!(
            "SELECT * FROM (SELECT id, record, json FROM span WHERE rollout_id = ?1 AND is_llm_call = {kind} AND id < ?2
                 ORDER BY id DESC LIMIT ?3)"
        )
    };
    let sql = format!("{} UNION ALL {} ORDER BY 1 DESC LIMIT ?3", of_kind(0), of_kind(1));
    let mut statement = connection.prepare_cached(&sql)?;
    let limit = MAX_EARLIER_SPANS as i64 + 1;
    let mut rows = statement.query(params![rollout, before, limit])?;
    let mut earlier = EarlierSpans::default();
    while let Some(row) = rows.next()? {
        earlier.add(row.get(0)?, stored(row.get_ref(1)?, row.get_ref(2)?)?);
    }
    let settled = earlier.settle(orphaned);
    let mut remove = connection.prepare_cached("DELETE FROM trace WHERE trace_id = ?1")?;
    for id in &settled.removed {
        remove.execute([id])?;
    }
    let mut keep = connection.prepare_cached("UPDATE trace SET last_span = ?2 WHERE trace_id = ?1")?;
    for (id, number) in &settled.kept {
        keep.execute(params![id, number])?;
    }
    Ok(())
}

const HAS_LAST_SPAN: &str = "EXISTS (SELECT 1 FROM span WHERE span.id = trace.last_span)";
/// Traces that are looked at between two looks at the clock.
const STEP_TRACES: usize = 500;

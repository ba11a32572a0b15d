//! Removal of the rows that no span needs any more, part by part in the order of their keys.

use rusqlite::{Connection, OptionalExtension, Row, params_from_iter};

/// A table with rows that only spans need.
pub(super) struct UnusedRows {
    pub(super) name: &'static str,
    /// The columns of its key, or of another unique index.
    key: &'static [&'static str],
    /// True for a row that nothing needs.
    condition: &'static str,
}

/// Attempts that were never started, unregistered rollouts without spans, and their places in the queue, in an order in which each needs
/// only those before it. Traces follow, see [`super::traces::sweep_traces`].
pub(super) const TABLES: [UnusedRows; 3] = [
    UnusedRows {
        name: "attempt",
        key: &["rollout_id", "attempt_id"],
        condition: "NOT EXISTS
                (SELECT 1 FROM span WHERE span.rollout_id = attempt.rollout_id AND span.attempt_id = attempt.attempt_id)
            AND (sequence_id = 0 OR NOT EXISTS
                (SELECT 1 FROM rollout WHERE rollout.rollout_id = attempt.rollout_id AND rollout.registered))",
    },
    UnusedRows {
        name: "rollout",
        key: &["rollout_id"],
        condition: "NOT registered AND NOT EXISTS (SELECT 1 FROM span WHERE span.rollout_id = rollout.rollout_id)",
    },
    UnusedRows {
        name: "queue",
        key: &["rollout_id"],
        condition: "NOT EXISTS (SELECT 1 FROM rollout WHERE rollout.rollout_id = queue.rollout_id)",
    },
];

/// Removes the unused rows among some of a table, those with a key after `after`, which is empty at the beginning. Returns their number,
/// and where the next part begins; `None` if there is none.
pub(super) fn sweep(
    connection: &Connection,
    table: &UnusedRows,
    after: &[String],
) -> rusqlite::Result<(u64, Option<Vec<String>>)> {
    let UnusedRows { name, key, condition } = table;
    let columns = key.join(", ");
    let places = |from: usize| (from..from + key.len()).map(|at| format!("?{at}")).collect::<Vec<_>>().join(", ");
    let begins = if after.is_empty() { "TRUE".to_owned() } else { format!("({columns}) > ({})", places(1)) };
    let sql =
        format!("SELECT {columns} FROM {name} WHERE {begins} ORDER BY {columns} LIMIT 1 OFFSET {}", STEP_ROWS - 1);
    let of_row =
        |row: &Row<'_>| (0..key.len()).map(|at| row.get::<_, String>(at)).collect::<rusqlite::Result<Vec<_>>>();
    let last = connection.prepare_cached(&sql)?.query_row(params_from_iter(after), of_row).optional()?;
    let ends = if last.is_none() { "TRUE".to_owned() } else { format!("({columns}) <= ({})", places(after.len() + 1)) };
    let sql = format!("DELETE FROM {name} WHERE {begins} AND {ends} AND {condition}");
    let values = after.iter().chain(last.iter().flatten());
    let removed = connection.prepare_cached(&sql)?.execute(params_from_iter(values))?;
    Ok((removed as u64, last))
}

/// Rows that are looked at between two looks at the clock.
const STEP_ROWS: usize = 500;

//! Lists of rollouts: their conditions, order and pages, each by an index, so that the time does not depend on rollouts that are
//! not listed.

use super::rows;
use crate::store::api::{RolloutCounts, RolloutFilter, RolloutOrder};
use crate::store::sql::{signed, unsigned};
use crate::trace::{AttemptedRollout, RolloutId};
use rusqlite::{Connection, ToSql};
use std::collections::HashMap;

/// The matching rollouts, each with its latest attempt.
pub(super) fn attempted_rollouts(
    connection: &Connection,
    filter: &RolloutFilter,
) -> rusqlite::Result<Vec<AttemptedRollout>> {
    let sql = page_sql(filter);
    let mut statement = connection.prepare_cached(&sql)?;
    let parameters = Parameters::of(filter);
    let limit = filter.limit.map_or(-1, |limit| signed(limit as u64));
    let offset = signed(filter.offset as u64);
    let last = limit.saturating_add(offset);
    let mut named = parameters.named();
    named.extend([(":limit", &limit as &dyn ToSql), (":offset", &offset)]);
    if sql.contains(":last") {
        named.push((":last", &last));
    }
    let rows = statement.query_map(named.as_slice(), |row| {
        Ok(AttemptedRollout { rollout: rows::rollout(row)?, attempt: rows::attempt(row, 2)? })
    })?;
    rows.collect()
}

/// The statement for a page.
fn page_sql(filter: &RolloutFilter) -> String {
    let order = match filter.order {
        RolloutOrder::OldestFirst => "start_ns, rollout_id",
        RolloutOrder::NewestFirst => "start_ns DESC, rollout_id DESC",
    };
    let columns = "SELECT rollout_id, json, start_ns FROM rollout";
    let conditions = conditions(filter);
    let listed = match (&filter.statuses, filter.limit) {
        // The index has the rollouts of one state in order: the page is among the first ones of each.
        (Some(statuses), Some(_)) if !statuses.is_empty() => {
            let one = |state: &str| {
                format!(
                    "SELECT * FROM ({columns} WHERE {conditions} AND {STATE} = {state} ORDER BY {order} LIMIT :last)"
                )
            };
            states(filter).iter().map(|state| one(state)).collect::<Vec<_>>().join(" UNION ALL ")
        }
        _ => format!("{columns} WHERE {conditions}{}", state_condition(filter)),
    };
    format!(
        "SELECT json, start_ns,
             (SELECT json FROM attempt WHERE attempt.rollout_id = listed.rollout_id ORDER BY sequence_id DESC LIMIT 1)
         FROM ({listed}) AS listed ORDER BY {order} LIMIT :limit OFFSET :offset"
    )
}

/// How many rollouts match, on all pages.
pub(super) fn count_rollouts(connection: &Connection, filter: RolloutFilter) -> rusqlite::Result<u64> {
    let filter = filter.without_page();
    let sql = format!("SELECT COUNT(*) FROM rollout WHERE {}{}", conditions(&filter), state_condition(&filter));
    let parameters = Parameters::of(&filter);
    connection.prepare_cached(&sql)?.query_row(parameters.named().as_slice(), |row| Ok(unsigned(row.get(0)?)))
}

/// Counts of each of these rollouts that exists, each from an index.
pub(super) fn counts(
    connection: &Connection,
    rollouts: &[RolloutId],
) -> rusqlite::Result<HashMap<RolloutId, RolloutCounts>> {
    let count = |from: &str| format!("(SELECT COUNT(*) FROM {from}.rollout_id = rollout.rollout_id)");
    let sql = format!(
        "SELECT rollout_id, {}, {}, {}, {},
             (SELECT COALESCE(MAX(id), 0) FROM (SELECT MAX(id) AS id FROM span WHERE span.rollout_id = rollout.rollout_id AND is_llm_call = 0
                 UNION ALL SELECT MAX(id) FROM span WHERE span.rollout_id = rollout.rollout_id AND is_llm_call = 1))
         FROM rollout WHERE rollout_id IN (SELECT value FROM json_each(?1))",
        count("attempt WHERE attempt"),
        count("span WHERE span"),
        count("span WHERE is_error = 1 AND span"),
        count("span WHERE is_llm_call = 1 AND span"),
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let rows = statement.query_map([id_list(rollouts)], |row| {
        let count = |at| row.get(at).map(unsigned);
        let [attempts, spans, errors, llm_calls, newest] = [count(1)?, count(2)?, count(3)?, count(4)?, count(5)?];
        let counts = RolloutCounts { attempts, spans, errors, llm_calls, newest };
        Ok((RolloutId::from(row.get::<_, String>(0)?.as_str()), counts))
    })?;
    rows.collect()
}

/// Ids as a list in JSON, which SQL can read.
fn id_list(ids: &[RolloutId]) -> String {
    serde_json::Value::from(ids.iter().map(RolloutId::as_str).collect::<Vec<_>>()).to_string()
}

/// The state of a rollout, as the indexes have it.
const STATE: &str = "json_extract(json, '$.status')";

/// All conditions but that on the state. Only those that are set are part of the statement, so that each can use its index.
fn conditions(filter: &RolloutFilter) -> String {
    let mut sql = "TRUE".to_owned();
    if filter.ids.is_some() {
        sql.push_str(" AND rollout_id IN (SELECT value FROM json_each(:ids))");
    }
    if filter.id_contains.is_some() {
        sql.push_str(" AND INSTR(rollout_id, :id_part) > 0");
    }
    match filter.is_registered {
        Some(true) => sql.push_str(" AND registered"),
        Some(false) => sql.push_str(" AND NOT registered"),
        None => {}
    }
    if filter.started_from.is_some() {
        sql.push_str(" AND start_ns >= :from_ns");
    }
    if filter.after.is_some() {
        let comparison = if filter.order == RolloutOrder::OldestFirst { '>' } else { '<' };
        sql.push_str(&format!(" AND (start_ns, rollout_id) {comparison} (:after_ns, :after_id)"));
    }
    sql
}

fn state_condition(filter: &RolloutFilter) -> String {
    if filter.statuses.is_none() {
        return String::new();
    }
    format!(" AND {STATE} IN ({})", states(filter).join(", "))
}

/// The states as literals, each once.
fn states(filter: &RolloutFilter) -> Vec<String> {
    let mut states: Vec<String> =
        filter.statuses.iter().flatten().map(|status| format!("'{}'", status.as_str())).collect();
    states.sort_unstable();
    states.dedup();
    states
}

/// The values of the conditions.
struct Parameters<'a> {
    ids: Option<String>,
    id_part: Option<&'a str>,
    from_ns: Option<i64>,
    after: Option<(i64, &'a str)>,
}

impl<'a> Parameters<'a> {
    fn of(filter: &'a RolloutFilter) -> Self {
        let place = filter.after.as_ref();
        Self {
            ids: filter.ids.as_deref().map(id_list),
            id_part: filter.id_contains.as_deref(),
            from_ns: filter.started_from.map(|from| signed(from.unix_nanos)),
            after: place.map(|after| (signed(after.start_time.unix_nanos), after.rollout_id.as_str())),
        }
    }

    fn named(&self) -> Vec<(&'static str, &dyn ToSql)> {
        let mut named: Vec<(&str, &dyn ToSql)> = Vec::new();
        if let Some(ids) = &self.ids {
            named.push((":ids", ids));
        }
        if let Some(part) = &self.id_part {
            named.push((":id_part", part));
        }
        if let Some(from_ns) = &self.from_ns {
            named.push((":from_ns", from_ns));
        }
        if let Some((after_ns, after_id)) = &self.after {
            named.extend([(":after_ns", after_ns as &dyn ToSql), (":after_id", after_id)]);
        }
        named
    }
}

#[cfg(test)]
mod tests {
    use super::super::migrations::apply_from;
    use super::*;
    use crate::trace::{RolloutStatus, Timestamp};

    /// The steps of SQLite's plan.
    fn plan(connection: &Connection, filter: &RolloutFilter) -> String {
        let mut steps = String::new();
        let sql = page_sql(filter);
        let mut statement = connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
        let mut rows = statement.raw_query();
        while let Some(row) = rows.next().unwrap() {
            steps.push_str(&row.get::<_, String>(3).unwrap());
            steps.push('\n');
        }
        steps
    }

    /// No list reads and sorts rollouts that are not on its page.
    #[test]
    fn pages_are_read_by_an_index() {
        let connection = Connection::open_in_memory().unwrap();
        apply_from(&connection, 0).unwrap();
        let page = |filter: RolloutFilter| RolloutFilter { limit: Some(50), ..filter };
        let states = RolloutFilter::of_statuses(vec![RolloutStatus::Running, RolloutStatus::Queuing]);
        let registered = RolloutFilter { is_registered: Some(true), ..states.clone() };
        for (filter, index) in [
            (RolloutFilter::default(), "rollout_by_start"),
            (
                RolloutFilter { started_from: Some(Timestamp::default()), ..RolloutFilter::default() },
                "rollout_by_start",
            ),
            (RolloutFilter { order: RolloutOrder::NewestFirst, ..RolloutFilter::default() }, "rollout_by_start"),
            (states, "rollout_by_state"),
            (registered, "registered_by_state"),
        ] {
            let plan = plan(&connection, &page(filter));
            assert!(plan.contains(index), "{plan}");
            let sorts = plan.matches("USE TEMP B-TREE").count();
            // Of several states, only the rows of the pages are merged.
            assert_eq!(sorts, usize::from(plan.contains("UNION")), "{plan}");
        }
    }
}

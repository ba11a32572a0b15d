//! The reads of a PostgreSQL store.

use super::error::QueryError;
use super::rows::{self, decode};
use crate::store::api::{RolloutCounts, RolloutFilter, RolloutOrder, RolloutSequenceState, RolloutSummary, Statistics};
use crate::store::sql::{signed, unsigned};
use crate::trace::{Attempt, AttemptId, AttemptedRollout, Rollout, RolloutId};
use deadpool_postgres::Object;
use serde::de::DeserializeOwned;
use std::collections::HashMap;
use std::time::SystemTime;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

type Answer<T> = Result<T, QueryError>;

pub(super) async fn rollout(connection: &Object, id: &RolloutId) -> Answer<Option<Rollout>> {
    let sql = "SELECT json, start_ns FROM rollout WHERE rollout_id = $1";
    let row = connection.query_opt(&connection.prepare_cached(sql).await?, &[&id.as_str()]).await?;
    row.as_ref().map(rows::rollout).transpose()
}

pub(super) async fn rollouts(connection: &Object, limit: usize) -> Answer<Vec<RolloutSummary>> {
    let sql = "SELECT json, start_ns,
             (SELECT COUNT(*) FROM attempt WHERE attempt.rollout_id = rollout.rollout_id),
             (SELECT COUNT(*) FROM span WHERE span.rollout_id = rollout.rollout_id),
             (SELECT COUNT(*) FROM span WHERE span.rollout_id = rollout.rollout_id AND is_error)
         FROM rollout ORDER BY start_ns DESC, rollout_id DESC LIMIT $1";
    let found = connection.query(sql, &[&signed(limit as u64)]).await?;
    let summary = |row: &Row| {
        let count = |at: usize| unsigned(row.get(at));
        Ok(RolloutSummary { rollout: rows::rollout(row)?, attempts: count(2), spans: count(3), errors: count(4) })
    };
    found.iter().map(summary).collect()
}

pub(super) async fn attempts(connection: &Object, id: &RolloutId) -> Answer<Vec<Attempt>> {
    let sql = "SELECT json, sequence_id FROM attempt WHERE rollout_id = $1 ORDER BY sequence_id";
    let found = connection.query(&connection.prepare_cached(sql).await?, &[&id.as_str()]).await?;
    found.iter().filter_map(|row| rows::attempt(row, 0).transpose()).collect()
}

/// The matching rollouts, each with its latest attempt.
pub(super) async fn attempted_rollouts(connection: &Object, filter: &RolloutFilter) -> Answer<Vec<AttemptedRollout>> {
    let direction = if filter.order == RolloutOrder::OldestFirst { "ASC" } else { "DESC" };
    let sql = format!(
        "SELECT rollout.json, rollout.start_ns, attempt.json, attempt.sequence_id FROM rollout
         LEFT JOIN attempt ON attempt.rollout_id = rollout.rollout_id AND attempt.sequence_id =
             (SELECT MAX(sequence_id) FROM attempt WHERE attempt.rollout_id = rollout.rollout_id)
         WHERE {}
         ORDER BY rollout.start_ns {direction}, rollout.rollout_id {direction} LIMIT $8 OFFSET $9",
        conditions(filter.order)
    );
    let Conditions { ids, statuses, registered, after_ns, after_id, id_part, from_ns } = Conditions::of(filter);
    let (limit, offset) = (filter.limit.map(|limit| signed(limit as u64)), signed(filter.offset as u64));
    let statement = connection.prepare_cached(&sql).await?;
    let values: [&(dyn ToSql + Sync); 9] =
        [&ids, &statuses, &registered, &after_ns, &after_id, &id_part, &from_ns, &limit, &offset];
    let found = connection.query(&statement, &values).await?;
    let one = |row: &Row| Ok(AttemptedRollout { rollout: rows::rollout(row)?, attempt: rows::attempt(row, 2)? });
    found.iter().map(one).collect()
}

/// How many rollouts match, on all pages.
pub(super) async fn count_rollouts(connection: &Object, filter: RolloutFilter) -> Answer<u64> {
    let filter = filter.without_page();
    let sql = format!("SELECT COUNT(*) FROM rollout WHERE {}", conditions(filter.order));
    let Conditions { ids, statuses, registered, after_ns, after_id, id_part, from_ns } = Conditions::of(&filter);
    let statement = connection.prepare_cached(&sql).await?;
    let values: [&(dyn ToSql + Sync); 7] = [&ids, &statuses, &registered, &after_ns, &after_id, &id_part, &from_ns];
    let row = connection.query_one(&statement, &values).await?;
    Ok(unsigned(row.get(0)))
}

/// The conditions of a filter, as SQL with the parameters of [`Conditions`].
fn conditions(order: RolloutOrder) -> String {
    let comparison = if order == RolloutOrder::OldestFirst { '>' } else { '<' };
    format!(
        "($1::TEXT[] IS NULL OR rollout.rollout_id = ANY($1)) AND ($2::TEXT[] IS NULL OR rollout.status = ANY($2))
         AND ($3::BOOLEAN IS NULL OR rollout.registered = $3)
         AND ($4::BIGINT IS NULL OR (rollout.start_ns, rollout.rollout_id) {comparison} ($4, $5::TEXT))
         AND ($6::TEXT IS NULL OR POSITION($6 IN rollout.rollout_id) > 0)
         AND ($7::BIGINT IS NULL OR rollout.start_ns >= $7)"
    )
}

/// The parameters of [`conditions`], in their order.
struct Conditions<'a> {
    ids: Option<Vec<&'a str>>,
    statuses: Option<Vec<&'static str>>,
    registered: Option<bool>,
    after_ns: Option<i64>,
    after_id: Option<&'a str>,
    id_part: Option<&'a str>,
    from_ns: Option<i64>,
}

impl<'a> Conditions<'a> {
    fn of(filter: &'a RolloutFilter) -> Self {
        let after = filter.after.as_ref();
        Self {
            ids: filter.ids.as_ref().map(|ids| ids.iter().map(RolloutId::as_str).collect()),
            statuses: filter.statuses.as_ref().map(|all| all.iter().map(|status| status.as_str()).collect()),
            registered: filter.is_registered,
            after_ns: after.map(|after| signed(after.start_time.unix_nanos)),
            after_id: after.map(|after| after.rollout_id.as_str()),
            id_part: filter.id_contains.as_deref(),
            from_ns: filter.started_from.map(|from| signed(from.unix_nanos)),
        }
    }
}

/// Counts of each of these rollouts that exists.
pub(super) async fn rollout_counts(
    connection: &Object,
    rollouts: &[RolloutId],
) -> Answer<HashMap<RolloutId, RolloutCounts>> {
    let count = |from: &str| format!("(SELECT COUNT(*) FROM {from}.rollout_id = rollout.rollout_id)");
    let sql = format!(
        "SELECT rollout_id, {}, {}, {}, {},
             COALESCE((SELECT MAX(id) FROM span WHERE span.rollout_id = rollout.rollout_id), 0)
         FROM rollout WHERE rollout_id = ANY($1)",
        count("attempt WHERE attempt"),
        count("span WHERE span"),
        count("span WHERE is_error AND span"),
        count("span WHERE is_llm_call AND span"),
    );
    let ids: Vec<&str> = rollouts.iter().map(RolloutId::as_str).collect();
    let rows = connection.query(&connection.prepare_cached(&sql).await?, &[&ids]).await?;
    let counts = |row: &Row| {
        let count = |at: usize| unsigned(row.get(at));
        let [attempts, spans, errors, llm_calls, newest] = [1, 2, 3, 4, 5].map(count);
        RolloutCounts { attempts, spans, errors, llm_calls, newest }
    };
    Ok(rows.iter().map(|row| (row.get::<_, &str>(0).into(), counts(row))).collect())
}

pub(super) async fn sequence_state(connection: &Object, id: &RolloutId) -> Answer<RolloutSequenceState> {
    let sql = "SELECT registered, last_sequence_id FROM rollout WHERE rollout_id = $1";
    let row = connection.query_opt(&connection.prepare_cached(sql).await?, &[&id.as_str()]).await?;
    Ok(row.as_ref().map(sequence_state_of).unwrap_or_default())
}

/// Assigns the next `count` sequence ids of a rollout, above `above`. The rollout is created if it is missing.
pub(super) async fn next_sequences(
    connection: &Object,
    id: &RolloutId,
    above: u64,
    count: u64,
) -> Answer<RolloutSequenceState> {
    let new = Rollout::running(id.clone(), SystemTime::now().into());
    let sql = "INSERT INTO rollout (rollout_id, registered, last_sequence_id, start_ns, status, is_limited, json)
         VALUES ($1, FALSE, $5::BIGINT + $6::BIGINT, $2, $3, FALSE, $4)
         ON CONFLICT (rollout_id) DO UPDATE
             SET last_sequence_id = GREATEST(rollout.last_sequence_id, $5::BIGINT) + $6::BIGINT
         RETURNING registered, last_sequence_id";
    let statement = connection.prepare_cached(sql).await?;
    let (start, status) = (signed(new.start_time.unix_nanos), new.status.as_str());
    let values: [&(dyn ToSql + Sync); 6] =
        [&id.as_str(), &start, &status, &rows::encode(&new), &signed(above), &signed(count)];
    let row = connection.query_one(&statement, &values).await?;
    Ok(sequence_state_of(&row))
}

/// From the columns `registered, last_sequence_id`.
fn sequence_state_of(row: &Row) -> RolloutSequenceState {
    RolloutSequenceState { registered: row.get(0), last_sequence_id: unsigned(row.get(1)) }
}

/// The number of LLM calls of each rollout that has any. An index holds them, so no span is read.
pub(super) async fn llm_calls(connection: &Object, rollouts: &[RolloutId]) -> Answer<HashMap<RolloutId, u64>> {
    let sql = "SELECT rollout_id, COUNT(*) FROM span WHERE is_llm_call AND rollout_id = ANY($1) GROUP BY rollout_id";
    let ids: Vec<&str> = rollouts.iter().map(RolloutId::as_str).collect();
    let rows = connection.query(&connection.prepare_cached(sql).await?, &[&ids]).await?;
    Ok(rows.iter().map(|row| (row.get::<_, &str>(0).into(), unsigned(row.get(1)))).collect())
}

pub(super) async fn trace_owners(
    connection: &Object,
    traces: &[String],
) -> Answer<HashMap<String, (RolloutId, AttemptId)>> {
    let sql = "SELECT trace_id, rollout_id, attempt_id FROM trace WHERE trace_id = ANY($1)";
    let rows = connection.query(&connection.prepare_cached(sql).await?, &[&traces]).await?;
    Ok(rows.iter().map(|row| (row.get(0), (row.get::<_, &str>(1).into(), row.get::<_, &str>(2).into()))).collect())
}

/// All rows of a table with a column `json`, in the order of their insertion.
pub(super) async fn all<T: DeserializeOwned>(connection: &Object, table: &'static str) -> Answer<Vec<T>> {
    let rows = connection.query(&format!("SELECT json FROM {table} ORDER BY position"), &[]).await?;
    rows.iter().map(|row| decode(row.get(0))).collect()
}

/// An error if the server does not respond.
pub(super) async fn check(connection: &Object) -> Answer<()> {
    Ok(connection.query_one("SELECT 1", &[]).await.map(drop)?)
}

pub(super) async fn statistics(connection: &Object) -> Answer<Statistics> {
    let sql = "SELECT (SELECT COUNT(*) FROM rollout), (SELECT COUNT(*) FROM attempt), (SELECT COUNT(*) FROM worker),
         (SELECT COUNT(*) FROM resources), (SELECT COUNT(*) FROM span),
         pg_total_relation_size('span') + pg_total_relation_size('span_text') + pg_total_relation_size('text')";
    let row = connection.query_one(sql, &[]).await?;
    let count = |at: usize| unsigned(row.get(at));
    Ok(Statistics {
        rollouts: count(0),
        attempts: count(1),
        workers: count(2),
        resources: count(3),
        spans: count(4),
        size_bytes: count(5),
        ..Statistics::default()
    })
}

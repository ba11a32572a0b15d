//! Reading from the tables.

use super::decode;
use super::records::{attempt_of, rollout_of};
use crate::store::blob::{Hash, unpack};
use crate::store::{RolloutFilter, RolloutSummary, Standing, Statistics, StoreError, signed, unsigned};
use crate::trace::{Attempt, AttemptId, AttemptedRollout, Rollout, RolloutId, Span, Timestamp, Value};
use deadpool_postgres::Object;
use serde::de::DeserializeOwned;
use std::collections::HashMap;
use tokio_postgres::Error;

/// What reading may fail with: the server's word, or a row that we can't have written.
pub(super) enum Failure {
    Server(Error),
    Damaged(String),
}

impl From<String> for Failure {
    fn from(cause: String) -> Self {
        Self::Damaged(cause)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Server(error)
    }
}

pub(super) type Read<T> = Result<T, Failure>;

pub(super) async fn rollout(connection: &Object, id: &RolloutId) -> Read<Option<Rollout>> {
    let sql = "SELECT json, start_ns FROM rollout WHERE rollout_id = $1";
    let row = connection.query_opt(&connection.prepare_cached(sql).await?, &[&id.as_str()]).await?;
    Ok(row.as_ref().map(rollout_of).transpose()?)
}

pub(super) async fn rollouts(connection: &Object, limit: usize) -> Read<Vec<RolloutSummary>> {
    let sql = "SELECT json, start_ns,
             (SELECT COUNT(*) FROM attempt WHERE attempt.rollout_id = rollout.rollout_id),
             (SELECT COUNT(*) FROM span WHERE span.rollout_id = rollout.rollout_id),
             (SELECT COUNT(*) FROM span WHERE span.rollout_id = rollout.rollout_id AND is_error)
         FROM rollout ORDER BY start_ns DESC, rollout_id DESC LIMIT $1";
    let rows = connection.query(sql, &[&signed(limit as u64)]).await?;
    let summary = |row: &tokio_postgres::Row| {
        let count = |at: usize| unsigned(row.get(at));
        Ok(RolloutSummary { rollout: rollout_of(row)?, attempts: count(2), spans: count(3), errors: count(4) })
    };
    rows.iter().map(summary).collect()
}

pub(super) async fn attempts(connection: &Object, id: &RolloutId) -> Read<Vec<Attempt>> {
    let sql = "SELECT json, sequence_id FROM attempt WHERE rollout_id = $1 ORDER BY sequence_id";
    let rows = connection.query(&connection.prepare_cached(sql).await?, &[&id.as_str()]).await?;
    Ok(rows.iter().map(|row| attempt_of(row, 0)).collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect())
}

pub(super) async fn attempted(connection: &Object, filter: &RolloutFilter) -> Read<Vec<AttemptedRollout>> {
    let ids: Option<Vec<&str>> = filter.ids.as_ref().map(|ids| ids.iter().map(RolloutId::as_str).collect());
    let statuses: Option<Vec<&str>> =
        filter.statuses.as_ref().map(|all| all.iter().map(|status| status.as_str()).collect());
    let sql = "SELECT rollout.json, rollout.start_ns, attempt.json, attempt.sequence_id FROM rollout
         LEFT JOIN attempt ON attempt.rollout_id = rollout.rollout_id AND attempt.sequence_id =
             (SELECT MAX(sequence_id) FROM attempt WHERE attempt.rollout_id = rollout.rollout_id)
         WHERE ($1::TEXT[] IS NULL OR rollout.rollout_id = ANY($1)) AND ($2::TEXT[] IS NULL OR rollout.status = ANY($2))
         ORDER BY rollout.start_ns, rollout.rollout_id";
    let rows = connection.query(&connection.prepare_cached(sql).await?, &[&ids, &statuses]).await?;
    let one =
        |row: &tokio_postgres::Row| Ok(AttemptedRollout { rollout: rollout_of(row)?, attempt: attempt_of(row, 2)? });
    rows.iter().map(one).collect()
}

/// A rollout's spans in order, with their long texts.
pub(super) async fn spans(connection: &Object, rollout: &RolloutId, attempt: Option<&AttemptId>) -> Read<Vec<Span>> {
    let sql =
        "SELECT id, json, start_ns, end_ns FROM span WHERE rollout_id = $1 AND ($2::TEXT IS NULL OR attempt_id = $2)
         ORDER BY sequence_id, start_ns NULLS FIRST, id";
    let statement = connection.prepare_cached(sql).await?;
    let rows = connection.query(&statement, &[&rollout.as_str(), &attempt.map(AttemptId::as_str)]).await?;
    let mut spans = Vec::with_capacity(rows.len());
    let mut places: HashMap<i64, usize> = HashMap::new();
    for row in &rows {
        let mut span: Span = decode(row.get(1))?;
        let time = |at: usize| row.get::<_, Option<i64>>(at).map(|nanos| Timestamp::from_unix_nanos(unsigned(nanos)));
        (span.start_time, span.end_time) = (time(2), time(3));
        places.insert(row.get(0), spans.len());
        spans.push(span);
    }
    fill(connection, &mut spans, &places).await?;
    Ok(spans)
}

/// Puts back what was taken out.
async fn fill(connection: &Object, spans: &mut [Span], places: &HashMap<i64, usize>) -> Read<()> {
    let ids: Vec<i64> = places.keys().copied().collect();
    let sql = "SELECT span, attribute, hash FROM span_text WHERE span = ANY($1)";
    let references = connection.query(&connection.prepare_cached(sql).await?, &[&ids]).await?;
    if references.is_empty() {
        return Ok(());
    }
    let lasts: Vec<&[u8]> = references.iter().map(|row| row.get(2)).collect();
    let sql = "WITH RECURSIVE chain (hash, parent, data) AS (
             SELECT hash, parent, data FROM text WHERE hash = ANY($1)
             UNION SELECT text.hash, text.parent, text.data FROM text JOIN chain ON text.hash = chain.parent
         ) SELECT hash, parent, data FROM chain";
    let rows = connection.query(&connection.prepare_cached(sql).await?, &[&lasts]).await?;
    let pieces: Pieces<'_> = rows.iter().map(|row| (row.get(0), (row.get(1), row.get(2)))).collect();
    for row in &references {
        let value = value_of(row.get(2), &pieces).map_err(Failure::Damaged)?;
        if let Some(span) = places.get(&row.get(0)).and_then(|place| spans.get_mut(*place)) {
            span.attributes.insert(row.get(1), value);
        }
    }
    Ok(())
}

/// Pieces by their name: the name of the one before each, and its data.
type Pieces<'a> = HashMap<&'a [u8], (Option<&'a [u8]>, &'a [u8])>;

/// The value whose last piece has this name.
fn value_of(last: &[u8], pieces: &Pieces<'_>) -> Result<Value, String> {
    let mut chain = Vec::new();
    let mut next = Some(last);
    while let Some(name) = next {
        let (before, data) = pieces.get(name).ok_or("a piece of a stored text is missing")?;
        let hash = Hash::try_from(name).map_err(|error| error.to_string())?;
        chain.push((hash, *data));
        next = *before;
    }
    let (mut before, mut kind, mut whole) = (None, None, Vec::new());
    for (hash, data) in chain.into_iter().rev() {
        let (of, bytes) = unpack(before.as_ref(), &hash, data).map_err(|error| error.to_string())?;
        (before, kind) = (Some(hash), Some(of));
        whole.extend_from_slice(&bytes);
    }
    kind.ok_or("a stored text has no pieces")?.value(whole).map_err(|error| error.to_string())
}

pub(super) async fn standing(connection: &Object, id: &RolloutId) -> Read<Standing> {
    let sql = "SELECT registered, last_sequence_id FROM rollout WHERE rollout_id = $1";
    let row = connection.query_opt(&connection.prepare_cached(sql).await?, &[&id.as_str()]).await?;
    let standing =
        |row: tokio_postgres::Row| Standing { registered: row.get(0), last_sequence_id: unsigned(row.get(1)) };
    Ok(row.map(standing).unwrap_or_default())
}

/// The number of LLM calls of each rollout that has any. An index holds them, so no span is read.
pub(super) async fn llm_calls(connection: &Object, rollouts: &[RolloutId]) -> Read<HashMap<RolloutId, u64>> {
    let sql = "SELECT rollout_id, COUNT(*) FROM span WHERE is_llm_call AND rollout_id = ANY($1) GROUP BY rollout_id";
    let ids: Vec<&str> = rollouts.iter().map(RolloutId::as_str).collect();
    let rows = connection.query(&connection.prepare_cached(sql).await?, &[&ids]).await?;
    Ok(rows.iter().map(|row| (row.get::<_, &str>(0).into(), unsigned(row.get(1)))).collect())
}

pub(super) async fn owners(connection: &Object, traces: &[String]) -> Read<HashMap<String, (RolloutId, AttemptId)>> {
    let sql = "SELECT trace_id, rollout_id, attempt_id FROM trace WHERE trace_id = ANY($1)";
    let rows = connection.query(&connection.prepare_cached(sql).await?, &[&traces]).await?;
    Ok(rows.iter().map(|row| (row.get(0), (row.get::<_, &str>(1).into(), row.get::<_, &str>(2).into()))).collect())
}

/// All rows of a table of JSON, in the order in which they came.
pub(super) async fn all<T: DeserializeOwned>(connection: &Object, table: &'static str) -> Read<Vec<T>> {
    let rows = connection.query(&format!("SELECT json FROM {table} ORDER BY position"), &[]).await?;
    Ok(rows.iter().map(|row| decode(row.get(0))).collect::<Result<_, _>>()?)
}

pub(super) async fn statistics(connection: &Object) -> Read<Statistics> {
    let sql = "SELECT (SELECT COUNT(*) FROM rollout), (SELECT COUNT(*) FROM attempt), (SELECT COUNT(*) FROM worker),
         (SELECT COUNT(*) FROM resources), (SELECT COUNT(*) FROM span),
         (SELECT COALESCE(SUM(LENGTH(json)), 0)::BIGINT FROM span) + (SELECT COALESCE(SUM(LENGTH(data)), 0)::BIGINT FROM text)";
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

impl Failure {
    /// As the store tells it.
    pub(super) fn told(self, server: &str) -> StoreError {
        match self {
            Self::Server(error) => super::fault(server, &error),
            Self::Damaged(cause) => StoreError::Other(format!("{cause} (PostgreSQL at {server})")),
        }
    }
}

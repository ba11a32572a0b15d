//! Reads the spans of a rollout.

use super::error::QueryError;
use super::settled::Settled;
use super::texts;
use crate::store::api::{NumberedSpans, SpanOutline};
use crate::store::span_columns::{RowColumns, SpanKey};
use crate::store::span_query::{PAGE_BYTES, SpanContent, SpanPage, SpanPlace, SpanQuery, SpansAt};
use crate::store::span_row::{self, READ_COLUMNS, StoredSpan, timestamp};
use crate::store::sql::{signed, unsigned};
use crate::trace::{AttemptId, RolloutId, Span};
use deadpool_postgres::Object;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

/// A page of the spans of a rollout.
pub(super) async fn page(connection: &Object, query: &SpanQuery) -> Result<SpanPage, QueryError> {
    let mut read = GroupReader::new(connection, query.content);
    let mut after = query.after;
    loop {
        let wanted = read.next_group(query.limit.get());
        if wanted == 0 {
            return Ok(SpanPage { spans: read.spans, is_last: false });
        }
        let rows = rows_after(connection, query, after, wanted).await?;
        read.add(&rows).await?;
        after = read.spans.last().map(|(place, _)| *place).or(after);
        if rows.len() < wanted {
            return Ok(SpanPage { spans: read.spans, is_last: true });
        }
    }
}

/// The spans at some places of a rollout: as many of the first ones as fit into a page.
pub(super) async fn at(
    connection: &Object,
    rollout: &RolloutId,
    places: &[SpanPlace],
    content: SpanContent,
) -> Result<SpansAt, QueryError> {
    let sql = format!("SELECT sequence_id, id, {READ_COLUMNS} FROM span WHERE id = ANY($1) AND rollout_id = $2");
    let statement = connection.prepare_cached(&sql).await?;
    let mut read = GroupReader::new(connection, content);
    let mut left = places;
    loop {
        let (group, rest) = left.split_at(distinct(left, read.next_group(usize::MAX)));
        if group.is_empty() {
            return Ok(SpansAt { spans: read.spans, places_read: places.len() - left.len() });
        }
        let numbers: Vec<i64> = group.iter().map(|place| place.number).collect();
        let mut rows = connection.query(&statement, &[&numbers, &rollout.as_str()]).await?;
        let order: HashMap<i64, usize> = numbers.into_iter().zip(0..).collect();
        rows.sort_by_key(|row| order.get(&row.get(1)).copied());
        read.add(&rows).await?;
        left = rest;
    }
}

/// How many of the first places differ from each other, at most `limit`: one query returns a span once.
fn distinct(places: &[SpanPlace], limit: usize) -> usize {
    let mut seen = HashSet::new();
    places.iter().take(limit).take_while(|place| seen.insert(**place)).count()
}

/// Reads the spans of a page in groups: of short spans many at once, so that a page takes few queries, and of long ones few, so
/// that it takes little memory.
struct GroupReader<'a> {
    connection: &'a Object,
    content: SpanContent,
    spans: Vec<(SpanPlace, Span)>,
    bytes: usize,
}

impl<'a> GroupReader<'a> {
    fn new(connection: &'a Object, content: SpanContent) -> Self {
        Self { connection, content, spans: Vec::new(), bytes: 0 }
    }

    /// How many spans to read next, if the following ones are as long as those so far. 0: the page is full.
    fn next_group(&self, limit: usize) -> usize {
        let left = PAGE_BYTES.saturating_sub(self.bytes);
        if left == 0 {
            return 0;
        }
        let as_many = if self.spans.is_empty() { FIRST_GROUP } else { left / (self.bytes / self.spans.len()).max(1) };
        as_many.clamp(1, MAX_GROUP).min(limit - self.spans.len().min(limit))
    }

    /// Adds the spans of these rows, with their externalized attributes.
    async fn add(&mut self, rows: &[Row]) -> Result<(), QueryError> {
        let mut spans = rows.iter().map(placed_span).collect::<Vec<_>>();
        self.bytes += rows.iter().map(|row| stored(row, 2, 8).size_bytes()).sum::<usize>();
        self.bytes += texts::restore(self.connection, &mut spans, self.content).await?;
        self.spans.extend(spans);
        Ok(())
    }
}

/// Spans of several rollouts that get their texts at once.
const GROUP: usize = 16;
/// Spans that are read before it is known how long they are.
const FIRST_GROUP: usize = 2;
/// Spans that are read at once at most.
const MAX_GROUP: usize = 128;

/// The spans with a number above `after`, by number, without their externalized attributes.
pub(super) async fn outlines(
    connection: &Object,
    rollout: &RolloutId,
    after: u64,
    limit: usize,
) -> Result<Vec<SpanOutline>, QueryError> {
    let sql = format!(
        "SELECT sequence_id, id, {READ_COLUMNS} FROM span WHERE rollout_id = $1 AND id > $2 ORDER BY id LIMIT $3"
    );
    let statement = connection.prepare_cached(&sql).await?;
    let rows = connection.query(&statement, &[&rollout.as_str(), &signed(after), &signed(limit as u64)]).await?;
    let outline = |row: &Row| SpanOutline { number: unsigned(row.get(1)), span: placed_span(row).1 };
    Ok(rows.iter().map(outline).collect())
}

/// The spans of all rollouts with a number above `after`, by number. The page ends before a number that is missing, as long as
/// a transaction may still commit it.
pub(super) async fn by_number(
    connection: &Object,
    after: u64,
    limit: usize,
    settled: &Settled,
) -> Result<NumberedSpans, QueryError> {
    let sql = "SELECT COALESCE(MAX(id), 0) FROM span";
    let newest: i64 = connection.query_one(&connection.prepare_cached(sql).await?, &[]).await?.get(0);
    let settled = settled.through(newest);
    let sql = format!("SELECT sequence_id, id, {READ_COLUMNS} FROM span WHERE id > $1 ORDER BY id LIMIT $2");
    let statement = connection.prepare_cached(&sql).await?;
    let rows = connection.query(&statement, &[&signed(after), &signed(limit as u64)]).await?;
    let number = |row: &Row| row.get::<_, i64>(1);
    let numbers = std::iter::once(signed(after)).chain(rows.iter().map(number));
    let is_next = |(before, row): &(i64, &Row)| number(row) == before + 1 || number(row) <= settled;
    let ready = numbers.zip(&rows).take_while(is_next).count();
    let (mut numbers, mut spans, mut bytes) = (Vec::new(), Vec::new(), 0);
    for group in rows[..ready].chunks(GROUP) {
        if bytes >= PAGE_BYTES {
            break;
        }
        let mut placed = group.iter().map(placed_span).collect::<Vec<_>>();
        bytes += group.iter().map(|row| stored(row, 2, 8).size_bytes()).sum::<usize>();
        bytes += texts::restore(connection, &mut placed, SpanContent::Whole).await?;
        numbers.extend(group.iter().map(|row| unsigned(number(row))));
        spans.extend(placed.into_iter().map(|(_, span)| Arc::new(span)));
    }
    let through = numbers.last().copied().unwrap_or(after);
    Ok(NumberedSpans { spans, numbers, through, removed: 0, newest: unsigned(newest) })
}

/// One span with its externalized attributes.
pub(super) async fn one(
    connection: &Object,
    rollout: &RolloutId,
    attempt: &AttemptId,
    span_id: &str,
) -> Result<Option<Span>, QueryError> {
    let sql = format!(
        "SELECT sequence_id, id, {READ_COLUMNS} FROM span WHERE rollout_id = $1 AND attempt_id = $2 AND span_id = $3"
    );
    let statement = connection.prepare_cached(&sql).await?;
    let rows = connection.query(&statement, &[&rollout.as_str(), &attempt.as_str(), &span_id]).await?;
    let mut spans = rows.iter().map(placed_span).collect::<Vec<_>>();
    texts::restore(connection, &mut spans, SpanContent::Whole).await?;
    Ok(spans.pop().map(|(_, span)| span))
}

/// The first rows after a place, in order. Their long attributes are elsewhere. Each form has a statement of its own, because one
/// for all is planned without the index.
async fn rows_after(
    connection: &Object,
    query: &SpanQuery,
    after: Option<SpanPlace>,
    limit: usize,
) -> Result<Vec<Row>, QueryError> {
    let (rollout, limit) = (query.rollout_id.as_str(), signed(limit as u64));
    let attempt = query.attempt_id.as_ref().map(AttemptId::as_str);
    let place = after.map(|after| (signed(after.sequence_id), after.start_ns.unwrap_or(-1), after.number));
    let mut values: Vec<&(dyn ToSql + Sync)> = vec![&rollout, &limit];
    let mut conditions = String::new();
    if let Some((sequence_id, start_ns, number)) = &place {
        values.extend([sequence_id as &(dyn ToSql + Sync), start_ns, number]);
        conditions.push_str(" AND (sequence_id, COALESCE(start_ns, -1), id) > ($3, $4, $5)");
    }
    if let Some(attempt) = &attempt {
        values.push(attempt);
        conditions.push_str(&format!(" AND attempt_id = ${}", values.len()));
    }
    let sql = format!(
        "SELECT sequence_id, id, {READ_COLUMNS} FROM span WHERE rollout_id = $1{conditions}
         ORDER BY sequence_id, COALESCE(start_ns, -1), id LIMIT $2"
    );
    Ok(connection.query(&connection.prepare_cached(&sql).await?, &values).await?)
}

/// The span of a row without its externalized attributes, and its place. One with a damaged record says so.
fn placed_span(row: &Row) -> (SpanPlace, Span) {
    let place = SpanPlace { sequence_id: unsigned(row.get(0)), start_ns: row.get(3), number: row.get(1) };
    let key = SpanKey {
        rollout_id: row.get::<_, &str>(5).into(),
        attempt_id: row.get::<_, &str>(6).into(),
        span_id: row.get(7),
    };
    let (start, end): (Option<i64>, Option<i64>) = (row.get(3), row.get(4));
    let (start_time, end_time) = (start.map(timestamp), end.map(timestamp));
    let columns = RowColumns { key, sequence_id: place.sequence_id, start_time, end_time };
    let span = span_row::span(stored(row, 2, 8), columns.clone()).unwrap_or_else(|error| {
        tracing::error!(rollout_id = %columns.key.rollout_id, %error, "the record of a span is damaged");
        span_row::damaged(columns, &error.to_string())
    });
    (place, span)
}

/// A span from the columns `record` and `json` at these places: older programs wrote the second one.
pub(super) fn stored(row: &Row, record: usize, json: usize) -> StoredSpan<'_> {
    match row.get(record) {
        Some(record) => StoredSpan::Record(record),
        None => StoredSpan::Json(row.get(json)),
    }
}

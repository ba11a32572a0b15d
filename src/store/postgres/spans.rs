//! Reads the spans of a rollout.

use super::error::QueryError;
use super::rows::damaged;
use super::settled::Settled;
use super::texts;
use crate::store::api::{NumberedSpans, SpanOutline};
use crate::store::span_query::{PAGE_BYTES, SpanContent, SpanPage, SpanPlace, SpanQuery};
use crate::store::span_row::{self, ORDER_COLUMNS, READ_COLUMNS};
use crate::store::sql::{signed, unsigned};
use crate::trace::{AttemptId, RolloutId, Span};
use deadpool_postgres::Object;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

/// A page of the spans of a rollout.
pub(super) async fn page(connection: &Object, query: &SpanQuery) -> Result<SpanPage, QueryError> {
    let rows = rows(connection, query).await?;
    let mut page = SpanPage { spans: Vec::new(), is_last: rows.len() < query.limit };
    let mut bytes = 0;
    for group in rows.chunks(GROUP) {
        if bytes >= PAGE_BYTES {
            page.is_last = false;
            break;
        }
        let mut spans = group.iter().map(placed_span).collect::<Result<Vec<_>, _>>()?;
        bytes += group.iter().map(|row| row.get::<_, &str>(2).len()).sum::<usize>();
        bytes += texts::restore(connection, &mut spans, query.content).await?;
        page.spans.extend(spans);
    }
    Ok(page)
}

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
    let outline = |row: &Row| Ok(SpanOutline { number: unsigned(row.get(1)), span: placed_span(row)?.1 });
    rows.iter().map(outline).collect()
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
        let mut placed = group.iter().map(placed_span).collect::<Result<Vec<_>, _>>()?;
        bytes += group.iter().map(|row| row.get::<_, &str>(2).len()).sum::<usize>();
        bytes += texts::restore(connection, &mut placed, SpanContent::Whole).await?;
        numbers.extend(group.iter().map(|row| unsigned(number(row))));
        spans.extend(placed.into_iter().map(|(_, span)| span));
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
    let mut spans = rows.iter().map(placed_span).collect::<Result<Vec<_>, _>>()?;
    texts::restore(connection, &mut spans, SpanContent::Whole).await?;
    Ok(spans.pop().map(|(_, span)| span))
}

/// Spans that are read at once, so that a page of short ones takes few queries, and one of long ones little memory.
const GROUP: usize = 16;

/// The rows that match, in order. Their long attributes are elsewhere.
async fn rows(connection: &Object, query: &SpanQuery) -> Result<Vec<Row>, QueryError> {
    let numbers: Option<Vec<i64>> =
        query.places.as_ref().map(|places| places.iter().map(|place| place.number).collect());
    let after = query.after.map(|after| (signed(after.sequence_id), after.start_ns.unwrap_or(-1), after.number));
    let (sequence_id, start_ns, number) = after.unwrap_or((-1, -1, -1));
    let attempt = query.attempt_id.as_ref().map(AttemptId::as_str);
    let limit = signed(query.limit as u64);
    let values: [&(dyn ToSql + Sync); 7] =
        [&query.rollout_id.as_str(), &attempt, &numbers, &sequence_id, &start_ns, &number, &limit];
    // The first comparison with the place is one that the index can begin with.
    let sql = format!(
        "SELECT sequence_id, id, {READ_COLUMNS} FROM span
         WHERE rollout_id = $1 AND ($2::TEXT IS NULL OR attempt_id = $2) AND ($3::BIGINT[] IS NULL OR id = ANY($3))
             AND sequence_id >= $4 AND (sequence_id, COALESCE(start_ns, -1), id) > ($4, $5, $6)
         ORDER BY {ORDER_COLUMNS} LIMIT $7"
    );
    Ok(connection.query(&connection.prepare_cached(&sql).await?, &values).await?)
}

/// The span of a row without its externalized attributes, and its place.
fn placed_span(row: &Row) -> Result<(SpanPlace, Span), QueryError> {
    let place = SpanPlace { sequence_id: unsigned(row.get(0)), start_ns: row.get(3), number: row.get(1) };
    let span = span_row::span(row.get(2), row.get(3), row.get(4)).map_err(damaged)?;
    Ok((place, span))
}

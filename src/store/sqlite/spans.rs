//! Reads the spans of a rollout. What is damaged of one costs no other: the span says what is missing.

use super::rows::{damaged, stored};
use super::span_texts::SpanTexts;
use crate::store::api::{NumberedSpans, SpanOutline};
use crate::store::piece_cache::PieceCache;
use crate::store::span_columns::{RowColumns, SpanKey};
use crate::store::span_query::{PAGE_BYTES, SpanContent, SpanPage, SpanPlace, SpanQuery, SpansAt};
use crate::store::span_row::{self, READ_COLUMNS, timestamp};
use crate::store::sql::{signed, unsigned};
use crate::trace::number_lists::{attribute_of, join, remove_parts};
use crate::trace::semconv as names;
use crate::trace::{AttemptId, RolloutId, Span};
use rusqlite::types::Type;
use rusqlite::{Connection, Row, params};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A page of the spans of a rollout.
pub(super) fn page(
    connection: &Connection,
    pieces: &mut PieceCache,
    query: &SpanQuery,
    damaged_reads: &AtomicU64,
) -> rusqlite::Result<SpanPage> {
    let mut statement = connection.prepare_cached(&sql(query))?;
    let after = query.after.map(|after| (signed(after.sequence_id), after.start_ns, after.number));
    let mut found = statement.query(params![
        query.rollout_id.as_str(),
        query.attempt_id.as_ref().map(AttemptId::as_str),
        after.map(|after| after.0),
        after.and_then(|after| after.1),
        after.map(|after| after.2),
        signed(query.limit.get() as u64),
    ])?;
    let mut page = SpanPage::default();
    let (mut texts, mut bytes) = (SpanTexts::new(connection, query.content, pieces)?, 0);
    while bytes < PAGE_BYTES {
        let Some(row) = found.next()? else {
            page.is_last = page.spans.len() < query.limit.get();
            break;
        };
        let (span, length) = placed_span(row, &mut texts, damaged_reads)?;
        bytes += length;
        page.spans.push(span);
    }
    Ok(page)
}

/// The spans at some places of a rollout: as many of the first ones as fit into a page.
pub(super) fn at(
    connection: &Connection,
    pieces: &mut PieceCache,
    rollout: &RolloutId,
    places: &[SpanPlace],
    content: SpanContent,
    damaged_reads: &AtomicU64,
) -> rusqlite::Result<SpansAt> {
    let mut statement = connection.prepare_cached(&format!(
        "SELECT sequence_id, id, {READ_COLUMNS} FROM span WHERE id = ?1 AND rollout_id = ?2"
    ))?;
    let mut read = SpansAt::default();
    let (mut texts, mut bytes) = (SpanTexts::new(connection, content, pieces)?, 0);
    for place in places {
        if bytes >= PAGE_BYTES {
            break;
        }
        read.places_read += 1;
        let mut found = statement.query(params![place.number, rollout.as_str()])?;
        if let Some(row) = found.next()? {
            let (span, length) = placed_span(row, &mut texts, damaged_reads)?;
            bytes += length;
            read.spans.push(span);
        }
    }
    Ok(read)
}

/// The span of a row with its externalized attributes, and its length in bytes.
fn placed_span(
    row: &Row<'_>,
    texts: &mut SpanTexts<'_>,
    damaged_reads: &AtomicU64,
) -> rusqlite::Result<((SpanPlace, Span), usize)> {
    let place = SpanPlace { sequence_id: unsigned(row.get(0)?), start_ns: row.get(3)?, number: row.get(1)? };
    let (mut span, length) = short_span(row)?;
    let restored = restore(&mut span, place.number, texts)?;
    note_damage(&span, damaged_reads);
    Ok(((place, span), length + restored))
}

/// The spans with a number above `after`, by number, without their externalized attributes.
pub(super) fn outlines(
    connection: &Connection,
    rollout: &RolloutId,
    after: u64,
    limit: usize,
) -> rusqlite::Result<Vec<SpanOutline>> {
    let mut statement = connection.prepare_cached(&outlines_sql())?;
    let mut found = statement.query(params![rollout.as_str(), signed(after), signed(limit as u64)])?;
    let mut outlines = Vec::new();
    while let Some(row) = found.next()? {
        let number = row.get(1)?;
        let (span, _) = short_span(row)?;
        outlines.push(SpanOutline { number: unsigned(number), span });
    }
    Ok(outlines)
}

/// The query of [`outlines`]. The index has the numbers of calls and those of other spans, each in order.
pub(super) fn outlines_sql() -> String {
    let of_kind = |is_llm_call: u8| {
        format!("SELECT id FROM span WHERE rollout_id = ?1 AND is_llm_call = {is_llm_call} AND id > ?2")
    };
    let numbers = [0, 1].map(of_kind).join(" UNION ALL ");
    format!("SELECT sequence_id, id, {READ_COLUMNS} FROM span WHERE id IN ({numbers} ORDER BY id LIMIT ?3) ORDER BY id")
}

/// The spans of all rollouts with a number above `after`, by number.
pub(super) fn by_number(
    connection: &Connection,
    pieces: &mut PieceCache,
    after: u64,
    limit: usize,
    damaged_reads: &AtomicU64,
) -> rusqlite::Result<NumberedSpans> {
    let mut statement = connection.prepare_cached(&format!(
        "SELECT sequence_id, id, {READ_COLUMNS} FROM span WHERE id > ?1 ORDER BY id LIMIT ?2"
    ))?;
    let newest = unsigned(newest_number(connection)?);
    let mut page = NumberedSpans { through: after, newest, ..NumberedSpans::default() };
    let mut found = statement.query(params![signed(after), signed(limit as u64)])?;
    let (mut texts, mut bytes) = (SpanTexts::new(connection, SpanContent::Whole, pieces)?, 0);
    while page.spans.len() < limit && bytes < PAGE_BYTES {
        let Some(row) = found.next()? else {
            page.through = newest.max(after);
            break;
        };
        let number = row.get(1)?;
        let (mut span, length) = short_span(row)?;
        bytes += length + restore(&mut span, number, &mut texts)?;
        note_damage(&span, damaged_reads);
        page.through = unsigned(number);
        page.numbers.push(page.through);
        page.spans.push(Arc::new(span));
    }
    page.removed = (page.through - after).saturating_sub(page.spans.len() as u64);
    Ok(page)
}

/// The highest number that a span has, or had before it was removed.
pub(super) fn newest_number(connection: &Connection) -> rusqlite::Result<i64> {
    let sql = "SELECT MAX(last_removed, COALESCE((SELECT MAX(id) FROM span), 0)) FROM row_count";
    connection.prepare_cached(sql)?.query_row([], |row| row.get(0))
}

/// Tells whether spans were stored or removed, by any program: a removal changes the count, and numbers are not given again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SpansState {
    /// How many spans there are.
    pub(super) count: u64,
    /// See [`newest_number`].
    pub(super) newest: u64,
}

/// The state of the spans in the file.
pub(super) fn state(connection: &Connection) -> rusqlite::Result<SpansState> {
    let sql = "SELECT spans, MAX(last_removed, COALESCE((SELECT MAX(id) FROM span), 0)) FROM row_count";
    let state = |row: &Row<'_>| Ok(SpansState { count: unsigned(row.get(0)?), newest: unsigned(row.get(1)?) });
    connection.prepare_cached(sql)?.query_row([], state)
}

/// One span with its externalized attributes.
pub(super) fn one(
    connection: &Connection,
    pieces: &mut PieceCache,
    rollout: &RolloutId,
    attempt: &AttemptId,
    span_id: &str,
    damaged_reads: &AtomicU64,
) -> rusqlite::Result<Option<Span>> {
    let mut statement = connection.prepare_cached(&format!(
        "SELECT sequence_id, id, {READ_COLUMNS} FROM span WHERE rollout_id = ?1 AND attempt_id = ?2 AND span_id = ?3"
    ))?;
    let mut found = statement.query(params![rollout.as_str(), attempt.as_str(), span_id])?;
    let Some(row) = found.next()? else { return Ok(None) };
    let number = row.get(1)?;
    let (mut span, _) = short_span(row)?;
    restore(&mut span, number, &mut SpanTexts::new(connection, SpanContent::Whole, pieces)?)?;
    note_damage(&span, damaged_reads);
    Ok(Some(span))
}

/// Counts the read of a span that is damaged.
fn note_damage(span: &Span, damaged_reads: &AtomicU64) {
    if span.attributes.contains_key(names::RECORD_DAMAGED) {
        damaged_reads.fetch_add(1, Ordering::Relaxed);
    }
}

/// The query with the parameters rollout, attempt, sequence id, start and number of the place before the page, and limit. It
/// uses an index, and sorts nothing.
fn sql(query: &SpanQuery) -> String {
    // The first comparison is one that the index can begin with.
    let after = if query.after.is_some() {
        "sequence_id >= ?3 AND (sequence_id, IFNULL(start_ns, -1), id) > (?3, IFNULL(?4, -1), ?5)"
    } else {
        "?3 IS NULL AND ?4 IS NULL AND ?5 IS NULL"
    };
    format!(
        "SELECT sequence_id, id, {READ_COLUMNS} FROM span
         WHERE rollout_id = ?1 AND (?2 IS NULL OR attempt_id = ?2) AND {after}
         ORDER BY sequence_id, start_ns NULLS FIRST, id LIMIT ?6"
    )
}

/// The span of a row without its externalized attributes, and the length of its record. The row has the sequence id, the number,
/// and the [`READ_COLUMNS`].
fn short_span(row: &Row<'_>) -> rusqlite::Result<(Span, usize)> {
    let columns = || -> rusqlite::Result<RowColumns> {
        let key = SpanKey {
            rollout_id: row.get_ref(5)?.as_str()?.into(),
            attempt_id: row.get_ref(6)?.as_str()?.into(),
            span_id: row.get(7)?,
        };
        let (start, end): (Option<i64>, Option<i64>) = (row.get(3)?, row.get(4)?);
        let (start_time, end_time) = (start.map(timestamp), end.map(timestamp));
        Ok(RowColumns { key, sequence_id: unsigned(row.get(0)?), start_time, end_time })
    };
    let stored = stored(row.get_ref(2)?, row.get_ref(8)?);
    let length = stored.as_ref().map_or(0, |stored| stored.size_bytes());
    let known = columns()?;
    match stored.and_then(|stored| span_row::span(stored, known).map_err(|error| damaged(Type::Blob, error))) {
        Ok(span) => Ok((span, length)),
        Err(error) if is_damage(&error) => {
            let columns = columns()?;
            tracing::error!(rollout_id = %columns.key.rollout_id, %error, "the record of a span is damaged");
            Ok((span_row::damaged(columns, &error.to_string()), length))
        }
        Err(error) => Err(error),
    }
}

/// Sets the externalized attributes of a span, and returns their length in bytes.
fn restore(span: &mut Span, number: i64, texts: &mut SpanTexts<'_>) -> rusqlite::Result<usize> {
    let (mut bytes, mut unreadable) = (0, Vec::new());
    for (name, value) in texts.of_span(number)? {
        match value {
            Ok((value, length)) => {
                bytes += length;
                span.attributes.insert(name, value);
            }
            Err(error) if is_damage(&error) => {
                let (rollout, span_id) = (&span.rollout_id, &span.span_id);
                tracing::error!(rollout_id = %rollout, span_id, attribute = name, %error, "an attribute of a span is damaged");
                unreadable.push(attribute_of(&name).to_owned());
            }
            Err(error) => return Err(error),
        }
    }
    unreadable.dedup();
    unreadable.iter().for_each(|name| remove_parts(&mut span.attributes, name));
    if texts.content().has_whole_texts() {
        join(&mut span.attributes);
    }
    if !unreadable.is_empty() {
        span.set(names::RECORD_DAMAGED, unreadable);
    }
    Ok(bytes)
}

/// True if the content of a row is wrong, and not the file.
fn is_damage(error: &rusqlite::Error) -> bool {
    use rusqlite::Error::{FromSqlConversionFailure, InvalidColumnType, QueryReturnedNoRows, Utf8Error};
    matches!(error, FromSqlConversionFailure(..) | InvalidColumnType(..) | QueryReturnedNoRows | Utf8Error(..))
}

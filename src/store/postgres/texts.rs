//! The pieces of long attributes, shared by all spans, and their removal with the last span that needs them.
//!
//! A span refers to the last piece of a value, and each piece to the one before it. A transaction that stores spans may rely
//! on pieces that another one is about to remove. Therefore it locks the last existing piece of each value, which protects
//! the ones before it, and the removal locks its candidates before it looks for references.

use super::error::QueryError;
use super::rows::damaged;
use super::statements::{execute, query};
use crate::store::externalized::{Hash, PieceError, ValueKind, unpack};
use crate::store::span_query::{SpanContent, SpanPlace};
use crate::store::span_row::SpanRow;
use crate::trace::number_lists::{attribute_of, is_marked, join};
use crate::trace::{Span, Value};
use deadpool_postgres::{Object, Transaction};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use tokio_postgres::{Error, Row};

/// Position of a value: its row in the batch, and its place among the row's externalized values.
type ValueAt = (usize, usize);

/// A piece of a batch.
struct BatchPiece {
    previous: Option<Hash>,
    value: ValueAt,
    /// Its place among the value's pieces.
    index: usize,
}

/// The last piece of each value of a batch.
pub(super) type LastPieces = HashMap<ValueAt, Hash>;

/// Stores the missing pieces of a batch's new rows. Nothing would refer to those of a duplicate, so that they could never be
/// removed.
pub(super) async fn store(
    transaction: &Transaction<'_>,
    rows: &[SpanRow],
    new: &[(usize, i64)],
) -> Result<LastPieces, Error> {
    let mut last_pieces = LastPieces::new();
    // By hash, so that all transactions insert and lock them in the same order.
    let mut pieces: BTreeMap<Hash, BatchPiece> = BTreeMap::new();
    for (row_index, _) in new {
        let row_index = *row_index;
        for (value_index, value) in rows[row_index].externalized.iter().enumerate() {
            let mut previous = None;
            for (index, piece) in value.pieces.iter().enumerate() {
                pieces.entry(piece.hash).or_insert(BatchPiece { previous, value: (row_index, value_index), index });
                previous = Some(piece.hash);
            }
            last_pieces.extend(previous.map(|hash| ((row_index, value_index), hash)));
        }
    }
    if pieces.is_empty() {
        return Ok(last_pieces);
    }
    let existing = lock_existing(transaction, rows, new, &pieces).await?;
    let (mut hashes, mut parents, mut data) = (Vec::new(), Vec::new(), Vec::new());
    for (hash, BatchPiece { previous, value, index }) in pieces.iter().filter(|(hash, _)| !existing.contains(*hash)) {
        let row = &rows[value.0];
        let value = &row.externalized[value.1];
        hashes.push(hash.to_vec());
        parents.push(previous.map(|hash| hash.to_vec()));
        data.push(value.pack(&value.pieces[*index], &row.span));
    }
    // The update without effect locks a piece that another transaction has stored in the meantime.
    let sql = "INSERT INTO text (hash, parent, data) SELECT * FROM unnest($1::BYTEA[], $2::BYTEA[], $3::BYTEA[])
         ON CONFLICT (hash) DO UPDATE SET parent = excluded.parent";
    execute(transaction, sql, &[&hashes, &parents, &data]).await?;
    Ok(last_pieces)
}

/// The pieces of a batch that are stored already. The last of each value is locked, so that none is removed before this
/// transaction ends.
async fn lock_existing(
    transaction: &Transaction<'_>,
    rows: &[SpanRow],
    new: &[(usize, i64)],
    pieces: &BTreeMap<Hash, BatchPiece>,
) -> Result<HashSet<Hash>, Error> {
    let wanted: Vec<&[u8]> = pieces.keys().map(Hash::as_slice).collect();
    loop {
        let found = query(transaction, "SELECT hash FROM text WHERE hash = ANY($1)", &[&wanted]).await?;
        let existing: HashSet<Hash> =
            found.iter().filter_map(|row| Hash::try_from(row.get::<_, &[u8]>(0)).ok()).collect();
        let values = new.iter().flat_map(|(row_index, _)| &rows[*row_index].externalized);
        let last_existing: BTreeSet<Hash> = values
            .filter_map(|value| value.pieces.iter().rev().map(|piece| piece.hash).find(|hash| existing.contains(hash)))
            .collect();
        if last_existing.is_empty() {
            return Ok(existing);
        }
        let hashes: Vec<&[u8]> = last_existing.iter().map(Hash::as_slice).collect();
        let sql = "SELECT 1 FROM text WHERE hash = ANY($1) ORDER BY hash FOR KEY SHARE";
        if query(transaction, sql, &[&hashes]).await?.len() == hashes.len() {
            return Ok(existing);
        }
        // A concurrent removal took some of them in between. The next round stores them again.
    }
}

/// Stores the references of new spans to the last pieces of their values. `new` has a batch's new rows with their numbers.
pub(super) async fn refer(
    transaction: &Transaction<'_>,
    rows: &[SpanRow],
    new: &[(usize, i64)],
    last_pieces: &LastPieces,
) -> Result<(), Error> {
    let (mut spans, mut attributes, mut texts) = (Vec::new(), Vec::new(), Vec::new());
    for (row_index, id) in new {
        for (value_index, value) in rows[*row_index].externalized.iter().enumerate() {
            if let Some(hash) = last_pieces.get(&(*row_index, value_index)) {
                spans.push(*id);
                attributes.push(value.attribute.as_str());
                texts.push(hash.as_slice());
            }
        }
    }
    if spans.is_empty() {
        return Ok(());
    }
    let sql =
        "INSERT INTO span_text (span, attribute, hash) SELECT * FROM unnest($1::BIGINT[], $2::TEXT[], $3::BYTEA[])";
    execute(transaction, sql, &[&spans, &attributes, &texts]).await.map(drop)
}

/// Sets the externalized attributes of spans, and returns their length in bytes.
pub(super) async fn restore(
    connection: &Object,
    spans: &mut [(SpanPlace, Span)],
    content: SpanContent,
) -> Result<usize, QueryError> {
    let indexes: HashMap<i64, usize> =
        spans.iter().enumerate().map(|(index, (place, _))| (place.number, index)).collect();
    let ids: Vec<i64> = indexes.keys().copied().collect();
    let sql = "SELECT span, attribute, hash FROM span_text WHERE span = ANY($1)";
    let references = connection.query(&connection.prepare_cached(sql).await?, &[&ids]).await?;
    if references.is_empty() {
        return Ok(0);
    }
    let (whole, empty): (Vec<&Row>, Vec<&Row>) =
        references.iter().partition(|row| content.includes(attribute_of(row.get(1))));
    let mut set = |row: &Row, value: Value| {
        if let Some((_, span)) = indexes.get(&row.get(0)).and_then(|index| spans.get_mut(*index)) {
            span.attributes.insert(row.get(1), value);
        }
    };
    // The lists of a text that is not wanted are not either.
    let empty: Vec<&Row> = empty.into_iter().filter(|row| !is_marked(row.get(1))).collect();
    if !empty.is_empty() {
        let hashes: Vec<&[u8]> = empty.iter().map(|row| row.get(2)).collect();
        let sql = "SELECT hash, SUBSTRING(data FROM 1 FOR 1) FROM text WHERE hash = ANY($1)";
        let rows = connection.query(&connection.prepare_cached(sql).await?, &[&hashes]).await?;
        let tags: HashMap<&[u8], &[u8]> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
        for row in empty {
            let tag = tags.get(row.get::<_, &[u8]>(2)).and_then(|tag| tag.first());
            let kind = tag.map_or(Err(PieceError::Missing), |tag| ValueKind::of_tag(*tag)).map_err(damaged)?;
            set(row, kind.value(&[]).map_err(damaged)?);
        }
    }
    let last_pieces: Vec<&[u8]> = whole.iter().map(|row| row.get(2)).collect();
    let sql = "WITH RECURSIVE chain (hash, parent, data) AS (
             SELECT hash, parent, data FROM text WHERE hash = ANY($1)
             UNION SELECT text.hash, text.parent, text.data FROM text JOIN chain ON text.hash = chain.parent
         ) SELECT hash, parent, data FROM chain";
    let rows = connection.query(&connection.prepare_cached(sql).await?, &[&last_pieces]).await?;
    let pieces: StoredPieces<'_> = rows.iter().map(|row| (row.get(0), (row.get(1), row.get(2)))).collect();
    let mut bytes = 0;
    for row in whole {
        let (value, length) = value_of(row.get(2), &pieces).map_err(damaged)?;
        bytes += length;
        set(row, value);
    }
    if content.has_whole_texts() {
        spans.iter_mut().for_each(|(_, span)| join(&mut span.attributes));
    }
    Ok(bytes)
}

/// By hash: the hash of the previous piece, and the packed data.
type StoredPieces<'a> = HashMap<&'a [u8], (Option<&'a [u8]>, &'a [u8])>;

/// The value with this hash of its last piece, and its length.
fn value_of(last: &[u8], pieces: &StoredPieces<'_>) -> Result<(Value, usize), PieceError> {
    let mut chain = Vec::new();
    let mut next = Some(last);
    while let Some(name) = next {
        let (previous, data) = pieces.get(name).ok_or(PieceError::Missing)?;
        let hash = Hash::try_from(name).map_err(|_| PieceError::HashMismatch)?;
        chain.push((hash, *data));
        next = *previous;
    }
    let (mut previous, mut kind, mut parts) = (None, None, Vec::with_capacity(chain.len()));
    for (hash, data) in chain.into_iter().rev() {
        let (piece_kind, bytes) = unpack(previous.as_ref(), &hash, data)?;
        (previous, kind) = (Some(hash), Some(piece_kind));
        parts.push(bytes);
    }
    let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
    let length = parts.iter().map(|part| part.len()).sum();
    Ok((kind.ok_or(PieceError::Missing)?.value(&parts)?, length))
}

/// Removes a part of the pieces in `orphaned_text` that nothing refers to any more. Returns the number of entries that were
/// processed: 0 means that none is left, or that another process works on them.
pub(super) async fn sweep(transaction: &Transaction<'_>) -> Result<usize, Error> {
    let sql = "SELECT id, hash FROM orphaned_text ORDER BY id LIMIT $1 FOR UPDATE SKIP LOCKED";
    let entries = transaction.query(sql, &[&MAX_SWEPT]).await?;
    let ids: Vec<i64> = entries.iter().map(|row| row.get(0)).collect();
    let hashes: Vec<&[u8]> = entries.iter().map(|row| row.get(1)).collect();
    // Waits for transactions that rely on these pieces. The next statement sees the references that they have stored.
    transaction.query("SELECT 1 FROM text WHERE hash = ANY($1) ORDER BY hash FOR UPDATE", &[&hashes]).await?;
    // The removal of a piece makes its predecessor a candidate.
    let sql = "WITH removed AS (
             DELETE FROM text WHERE hash = ANY($1)
                 AND NOT EXISTS (SELECT 1 FROM span_text WHERE span_text.hash = text.hash)
                 AND NOT EXISTS (SELECT 1 FROM text AS next WHERE next.parent = text.hash)
             RETURNING parent
         ) INSERT INTO orphaned_text (hash) SELECT parent FROM removed WHERE parent IS NOT NULL";
    transaction.execute(sql, &[&hashes]).await?;
    transaction.execute("DELETE FROM orphaned_text WHERE id = ANY($1)", &[&ids]).await?;
    Ok(entries.len())
}

/// Maximum number of entries that a sweep processes in one transaction.
const MAX_SWEPT: i64 = 1000;

//! The index of words, by the server's text search. It has hashes of words and no texts. Its tables are made with the first batch.

use super::error::QueryError;
use crate::store::sql::{signed, unsigned};
use crate::store::words::{FoundRollouts, SpanWords, WordBatch, WordSearch};
use crate::trace::Word;
use deadpool_postgres::Object;
use std::collections::HashMap;
use std::fmt::Write as _;

/// A removed span takes its entry with it.
const TABLES: &str = "
CREATE TABLE IF NOT EXISTS message_word (
    span BIGINT PRIMARY KEY REFERENCES span (id) ON DELETE CASCADE,
    words TSVECTOR NOT NULL
);
CREATE INDEX IF NOT EXISTS message_word_by_words ON message_word USING GIN (words);
CREATE TABLE IF NOT EXISTS message_word_state (id BIGINT PRIMARY KEY, through BIGINT NOT NULL);
INSERT INTO message_word_state (id, through) VALUES (1, 0) ON CONFLICT (id) DO NOTHING;
";

/// The number of the last span that the index covers; 0 without an index.
pub(super) async fn indexed_through(connection: &Object) -> Result<u64, QueryError> {
    if !exists(connection).await? {
        return Ok(0);
    }
    let row = connection.query_opt("SELECT through FROM message_word_state WHERE id = 1", &[]).await?;
    Ok(row.map_or(0, |row| unsigned(row.get(0))))
}

async fn exists(connection: &Object) -> Result<bool, QueryError> {
    Ok(connection.query_one("SELECT to_regclass('message_word_state') IS NOT NULL", &[]).await?.get(0))
}

/// Adds a batch. Spans that were removed meanwhile are left out.
pub(super) async fn add(connection: &mut Object, batch: &WordBatch) -> Result<(), QueryError> {
    if !exists(connection).await? {
        connection.batch_execute(TABLES).await?;
    }
    let client: &mut tokio_postgres::Client = connection;
    let transaction = client.transaction().await?;
    let row = transaction.query_opt("SELECT through FROM message_word_state WHERE id = 1 FOR UPDATE", &[]).await?;
    if row.map(|row| unsigned(row.get(0))) != Some(batch.after) {
        return Ok(());
    }
    let relies_on: Vec<i64> = batch.relies_on.iter().copied().map(signed).collect();
    let sql = "SELECT 1 FROM unnest($1::BIGINT[]) AS number WHERE NOT EXISTS (SELECT 1 FROM span WHERE id = number)";
    if !transaction.query(sql, &[&relies_on]).await?.is_empty() {
        return Ok(());
    }
    let numbers: Vec<i64> = batch.spans.iter().map(|span| signed(span.number)).collect();
    let vectors: Vec<String> = batch.spans.iter().map(vector).collect();
    // The lock keeps a removal from coming between.
    let sql = "INSERT INTO message_word (span, words)
         SELECT new.number, new.words::TSVECTOR FROM unnest($1::BIGINT[], $2::TEXT[]) AS new (number, words)
         JOIN (SELECT id FROM span WHERE id = ANY($1) FOR KEY SHARE) AS kept ON kept.id = new.number
         ON CONFLICT (span) DO NOTHING";
    transaction.execute(sql, &[&numbers, &vectors]).await?;
    let sql = "UPDATE message_word_state SET through = $1 WHERE id = 1";
    transaction.execute(sql, &[&signed(batch.through)]).await?;
    Ok(transaction.commit().await?)
}

/// The words of a span with their places, as the server reads a vector. It keeps places up to 16,383: behind that, single words are
/// found, and phrases are not.
fn vector(span: &SpanWords) -> String {
    let mut places: HashMap<Word, Vec<usize>> = HashMap::new();
    for (at, word) in (1..).zip(&span.words).filter(|(_, word)| **word != Word::GAP).take(MAX_WORDS) {
        let places = places.entry(*word).or_default();
        if places.len() < MAX_PLACES {
            places.push(at.min(MAX_PLACE));
        }
    }
    let mut text = String::new();
    for (word, places) in places {
        let places = places.iter().map(usize::to_string).collect::<Vec<_>>().join(",");
        // Writing to a String can't fail.
        let _ = write!(text, "{word}:{places} ");
    }
    text
}

/// The rollouts with spans that have a phrase.
pub(super) async fn find(connection: &Object, search: &WordSearch) -> Result<FoundRollouts, QueryError> {
    if !exists(connection).await? {
        return Ok(FoundRollouts::default());
    }
    let phrase = search.phrase.iter().map(Word::to_string).collect::<Vec<_>>().join(" <-> ");
    let sql = "SELECT span.rollout_id, COUNT(*) FROM
            (SELECT span FROM message_word WHERE words @@ $1::TEXT::TSQUERY ORDER BY span DESC LIMIT $2) AS hit
         JOIN span ON span.id = hit.span WHERE $3::TEXT IS NULL OR span.rollout_id = $3 GROUP BY span.rollout_id";
    let limit = if search.rollout.is_some() { i64::MAX } else { signed(search.max_spans as u64) };
    let only = search.rollout.as_ref().map(|id| id.as_str());
    let rows = connection.query(sql, &[&phrase, &limit, &only]).await?;
    let hits: i64 = rows.iter().map(|row| row.get::<_, i64>(1)).sum();
    let rollouts = rows.iter().map(|row| row.get::<_, &str>(0).into()).collect();
    Ok(FoundRollouts { rollouts, is_cut: hits == limit })
}

/// Places of a word, and the highest place, that the server keeps (PostgreSQL documentation, 12.11).
const MAX_PLACES: usize = 255;
const MAX_PLACE: usize = 16_383;
/// Words of a span: a vector has less than a megabyte.
const MAX_WORDS: usize = 40_000;

//! The index of words, by the server's text search. It has hashes of words and no texts. Its tables are made with the first batch.

use super::error::QueryError;
use crate::store::sql::{signed, unsigned};
use crate::store::words::{FoundRollouts, SpanWords, WordBatch, WordSearch};
use crate::trace::{MAX_PHRASE_WORDS, Word};
use deadpool_postgres::Object;
use std::collections::HashMap;
use std::fmt::Write as _;

/// A removed span takes its entries with it. The first table had one entry for a span, with a part of a long span's words: it is
/// made anew.
const TABLES: &str = "
DROP TABLE IF EXISTS message_word, message_word_state;
CREATE TABLE IF NOT EXISTS message_words (
    span BIGINT NOT NULL REFERENCES span (id) ON DELETE CASCADE,
    part BIGINT NOT NULL,
    words TSVECTOR NOT NULL,
    PRIMARY KEY (span, part)
);
CREATE INDEX IF NOT EXISTS message_words_by_words ON message_words USING GIN (words);
CREATE TABLE IF NOT EXISTS message_words_state (id BIGINT PRIMARY KEY, through BIGINT NOT NULL);
INSERT INTO message_words_state (id, through) VALUES (1, 0) ON CONFLICT (id) DO NOTHING;
";

/// The number of the last span that the index covers; 0 without an index.
pub(super) async fn indexed_through(connection: &Object) -> Result<u64, QueryError> {
    if !exists(connection).await? {
        return Ok(0);
    }
    let row = connection.query_opt("SELECT through FROM message_words_state WHERE id = 1", &[]).await?;
    Ok(row.map_or(0, |row| unsigned(row.get(0))))
}

async fn exists(connection: &Object) -> Result<bool, QueryError> {
    Ok(connection.query_one("SELECT to_regclass('message_words_state') IS NOT NULL", &[]).await?.get(0))
}

/// Adds a batch. Spans that were removed meanwhile are left out.
pub(super) async fn add(connection: &mut Object, batch: &WordBatch) -> Result<(), QueryError> {
    if !exists(connection).await? {
        connection.batch_execute(TABLES).await?;
    }
    let client: &mut tokio_postgres::Client = connection;
    let transaction = client.transaction().await?;
    let row = transaction.query_opt("SELECT through FROM message_words_state WHERE id = 1 FOR UPDATE", &[]).await?;
    if row.map(|row| unsigned(row.get(0))) != Some(batch.after) {
        return Ok(());
    }
    let relies_on: Vec<i64> = batch.relies_on.iter().copied().map(signed).collect();
    let sql = "SELECT 1 FROM unnest($1::BIGINT[]) AS number WHERE NOT EXISTS (SELECT 1 FROM span WHERE id = number)";
    if !transaction.query(sql, &[&relies_on]).await?.is_empty() {
        return Ok(());
    }
    let (mut numbers, mut parts, mut vectors) = (Vec::new(), Vec::<i64>::new(), Vec::new());
    for span in &batch.spans {
        for (part, vector) in (0..).zip(vectors_of(span)) {
            numbers.push(signed(span.number));
            parts.push(part);
            vectors.push(vector);
        }
    }
    // The lock keeps a removal from coming between.
    let sql = "INSERT INTO message_words (span, part, words)
         SELECT new.number, new.part, new.words::TSVECTOR
         FROM unnest($1::BIGINT[], $2::BIGINT[], $3::TEXT[]) AS new (number, part, words)
         JOIN (SELECT id FROM span WHERE id = ANY($1) FOR KEY SHARE) AS kept ON kept.id = new.number
         ON CONFLICT (span, part) DO NOTHING";
    transaction.execute(sql, &[&numbers, &parts, &vectors]).await?;
    let sql = "UPDATE message_words_state SET through = $1 WHERE id = 1";
    transaction.execute(sql, &[&signed(batch.through)]).await?;
    Ok(transaction.commit().await?)
}

/// The words of a span with their places, as the server reads vectors: one for each part of the words, because a vector has
/// less than a megabyte, and few places of each word. Each part repeats the end of the one before, so that a phrase is in one of
/// them.
fn vectors_of(span: &SpanWords) -> Vec<String> {
    let (mut vectors, mut start) = (Vec::new(), 0);
    while start < span.words.len() {
        let rest = &span.words[start..];
        let (vector, words) = first_vector(rest);
        vectors.push(vector);
        start += if words == rest.len() { words } else { words - MAX_PHRASE_WORDS };
    }
    vectors
}

/// The vector of the first words, and how many these are: more than a phrase has.
fn first_vector(words: &[Word]) -> (String, usize) {
    let mut places: HashMap<Word, Vec<usize>> = HashMap::new();
    let mut count = 0;
    for word in words.iter().take(PART_WORDS) {
        if *word != Word::GAP {
            let places = places.entry(*word).or_default();
            if places.len() == MAX_PLACES {
                break;
            }
            places.push(count + 1);
        }
        count += 1;
    }
    let mut text = String::new();
    for (word, places) in places {
        let places = places.iter().map(usize::to_string).collect::<Vec<_>>().join(",");
        // Writing to a String can't fail.
        let _ = write!(text, "{word}:{places} ");
    }
    (text, count)
}

/// The rollouts with spans that have a phrase.
pub(super) async fn find(connection: &Object, search: &WordSearch) -> Result<FoundRollouts, QueryError> {
    if !exists(connection).await? {
        return Ok(FoundRollouts::default());
    }
    let phrase = search.phrase.iter().map(Word::to_string).collect::<Vec<_>>().join(" <-> ");
    let sql = "SELECT span.rollout_id, COUNT(*) FROM
            (SELECT DISTINCT span FROM message_words WHERE words @@ $1::TEXT::TSQUERY ORDER BY span DESC LIMIT $2) AS hit
         JOIN span ON span.id = hit.span WHERE $3::TEXT IS NULL OR span.rollout_id = $3 GROUP BY span.rollout_id";
    let limit = if search.rollout.is_some() { i64::MAX } else { signed(search.max_spans as u64) };
    let only = search.rollout.as_ref().map(|id| id.as_str());
    let rows = connection.query(sql, &[&phrase, &limit, &only]).await?;
    let hits: i64 = rows.iter().map(|row| row.get::<_, i64>(1)).sum();
    let rollouts = rows.iter().map(|row| row.get::<_, &str>(0).into()).collect();
    Ok(FoundRollouts { rollouts, is_cut: hits == limit })
}

/// Places of a word that the server keeps (PostgreSQL documentation, 12.11).
const MAX_PLACES: usize = 255;
/// Words of a vector.
const PART_WORDS: usize = 4000;

//! The index of words, by FTS5. It has hashes of words and no texts, so that what a removal leaves in it until the next merge says nothing.
//!
//! Its tables are made with the first batch: a file that is never searched has none. A removed span takes its entry with it.

use crate::store::sql::{signed, unsigned};
use crate::store::words::{FoundRollouts, WordBatch, WordSearch};
use crate::trace::{RolloutId, Word};
use rusqlite::{Connection, OptionalExtension, params};

/// The tokenizer divides at spaces only: words are letters and digits.
const TABLES: &str = "
CREATE VIRTUAL TABLE message_word USING fts5(words, content = '', contentless_delete = 1, tokenize = 'ascii');
CREATE TABLE message_word_state (through INTEGER NOT NULL);
INSERT INTO message_word_state VALUES (0);
CREATE TRIGGER message_word_gone AFTER DELETE ON span BEGIN
    DELETE FROM message_word WHERE rowid = OLD.id;
END;
";

/// The number of the last span that the index covers; 0 without an index.
pub(super) fn indexed_through(connection: &Connection) -> rusqlite::Result<u64> {
    if !exists(connection)? {
        return Ok(0);
    }
    let through = connection.prepare_cached("SELECT through FROM message_word_state")?.query_row([], |row| row.get(0));
    through.optional().map(|through| through.map_or(0, unsigned))
}

fn exists(connection: &Connection) -> rusqlite::Result<bool> {
    let sql = "SELECT 1 FROM sqlite_schema WHERE name = 'message_word_state'";
    connection.prepare_cached(sql)?.exists([])
}

/// Adds a batch, within a transaction of the caller. Spans that were removed meanwhile are left out.
pub(super) fn add(connection: &Connection, batch: &WordBatch) -> rusqlite::Result<()> {
    if !exists(connection)? {
        connection.execute_batch(TABLES)?;
    }
    if indexed_through(connection)? != batch.after {
        return Ok(());
    }
    let sql = "SELECT 1 FROM json_each(?1) WHERE NOT EXISTS (SELECT 1 FROM span WHERE id = value)";
    let relies_on = serde_json::Value::from(batch.relies_on.as_slice()).to_string();
    if connection.prepare_cached(sql)?.exists([relies_on])? {
        return Ok(());
    }
    let sql = "INSERT INTO message_word (rowid, words) SELECT ?1, ?2 WHERE EXISTS (SELECT 1 FROM span WHERE id = ?1)";
    let mut statement = connection.prepare_cached(sql)?;
    for span in &batch.spans {
        statement.execute(params![signed(span.number), span.text()])?;
    }
    let sql = "UPDATE message_word_state SET through = ?1";
    connection.prepare_cached(sql)?.execute([signed(batch.through)]).map(drop)
}

/// The rollouts with spans that have a phrase.
pub(super) fn find(connection: &Connection, search: &WordSearch) -> rusqlite::Result<FoundRollouts> {
    if !exists(connection)? {
        return Ok(FoundRollouts::default());
    }
    // Words are letters and digits, so that nothing in quotes has a meaning to FTS5.
    let phrase = format!("\"{}\"", search.phrase.iter().map(Word::to_string).collect::<Vec<_>>().join(" "));
    let mut found = FoundRollouts::default();
    if let Some(id) = &search.rollout {
        let sql = "SELECT 1 FROM span WHERE rollout_id = ?1
            AND id IN (SELECT rowid FROM message_word WHERE message_word MATCH ?2) LIMIT 1";
        if connection.prepare_cached(sql)?.exists(params![id.as_str(), phrase])? {
            found.rollouts.insert(id.clone());
        }
        return Ok(found);
    }
    let sql = "SELECT span.rollout_id FROM
            (SELECT rowid AS number FROM message_word WHERE message_word MATCH ?1 ORDER BY rowid DESC LIMIT ?2)
            JOIN span ON span.id = number";
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query(params![phrase, signed(search.max_spans as u64)])?;
    let mut hits = 0;
    while let Some(row) = rows.next()? {
        hits += 1;
        let id = RolloutId::from(row.get_ref(0)?.as_str()?);
        found.rollouts.insert(id);
    }
    found.is_cut = hits == search.max_spans;
    Ok(found)
}

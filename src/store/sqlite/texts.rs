//! Which texts were stored lately, so that the same text is stored once: a prompt is sampled many times, and calls are
//! tried again. What is remembered is a hint; that a text is still there is looked up.

use crate::store::blob::{Blob, Hash};
use rusqlite::{Connection, params};
use std::collections::{HashMap, VecDeque};

/// The numbers of the last texts, by their hash.
#[derive(Debug, Default)]
pub(super) struct RecentTexts {
    numbers: HashMap<Hash, i64>,
    order: VecDeque<Hash>,
}

impl RecentTexts {
    /// A text's number in the file, stored if need be.
    pub(super) fn number_of(&mut self, connection: &Connection, blob: &Blob) -> rusqlite::Result<i64> {
        if let Some(number) = self.numbers.get(&blob.hash) {
            // It may have gone with its last span, or never have been committed.
            let sql = "SELECT 1 FROM text WHERE id = ?1 AND hash = ?2";
            if connection.prepare_cached(sql)?.exists(params![number, blob.hash])? {
                return Ok(*number);
            }
        }
        let sql = "INSERT INTO text (hash, data) VALUES (?1, ?2)";
        connection.prepare_cached(sql)?.execute(params![blob.hash, blob.data])?;
        let number = connection.last_insert_rowid();
        if self.numbers.insert(blob.hash, number).is_none() {
            self.order.push_back(blob.hash);
        }
        if self.order.len() > MOST_REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.numbers.remove(&oldest);
        }
        Ok(number)
    }
}

const MOST_REMEMBERED: usize = 16 * 1024;

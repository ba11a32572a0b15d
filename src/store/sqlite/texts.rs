//! The pieces that were stored recently, so that equal pieces are stored once: prompts grow, are sampled repeatedly, and
//! requests are retried. The memory is only a hint; whether a piece still exists is checked in the file.

use crate::store::externalized::{ExternalizedValue, Hash};
use crate::trace::Span;
use crate::util::lru::{LruCache, lru};
use rusqlite::{Connection, params};
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Numbers of the pieces that were stored recently, at most [`MAX_RECENT`]. Those who encode spans and the writer share it.
#[derive(Debug)]
pub(super) struct RecentTexts(Mutex<LruCache<Hash, i64>>);

/// The pieces that a transaction stores, to be counted with its spans.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct AddedPieces {
    pub(super) pieces: u64,
    pub(super) bytes: u64,
}

impl Default for RecentTexts {
    fn default() -> Self {
        Self(Mutex::new(lru(MAX_RECENT)))
    }
}

impl RecentTexts {
    /// True if a piece was stored recently.
    pub(super) fn contains(&self, hash: &Hash) -> bool {
        self.numbers().contains(hash)
    }

    /// Forgets all pieces: another file has none of them.
    pub(super) fn clear(&self) {
        self.numbers().clear();
    }

    fn numbers(&self) -> MutexGuard<'_, LruCache<Hash, i64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stores the pieces of a value that are missing, and returns the number of its last piece. `packed` contains the
    /// pieces that [`RecentTexts::contains`] denied when the span was encoded. What is stored is counted in `added`.
    pub(super) fn store(
        &self,
        connection: &Connection,
        value: &ExternalizedValue,
        packed: &HashMap<Hash, Vec<u8>>,
        span: &Span,
        added: &mut AddedPieces,
    ) -> rusqlite::Result<Option<i64>> {
        let mut previous: Option<i64> = None;
        for piece in &value.pieces {
            let number = match self.find(connection, &piece.hash)? {
                Some(number) => number,
                None => {
                    let repacked;
                    let data = match packed.get(&piece.hash) {
                        Some(data) => data,
                        None => {
                            repacked = value.pack(piece, span);
                            &repacked
                        }
                    };
                    let sql = "INSERT INTO text (hash, data, parent) VALUES (?1, ?2, ?3)";
                    connection.prepare_cached(sql)?.execute(params![piece.hash, data, previous])?;
                    let number = connection.last_insert_rowid();
                    added.pieces += 1;
                    added.bytes += data.len() as u64;
                    self.numbers().put(piece.hash, number);
                    number
                }
            };
            previous = Some(number);
        }
        Ok(previous)
    }

    /// The number of a recent piece, if it is still in the file: it may have been removed with its last span, or its
    /// transaction may have been rolled back.
    fn find(&self, connection: &Connection, hash: &Hash) -> rusqlite::Result<Option<i64>> {
        let Some(number) = self.numbers().get(hash).copied() else { return Ok(None) };
        let sql = "SELECT 1 FROM text WHERE id = ?1 AND hash = ?2";
        let exists = connection.prepare_cached(sql)?.exists(params![number, hash])?;
        Ok(exists.then_some(number))
    }
}

const MAX_RECENT: usize = 64 * 1024;

//! Which pieces were stored lately, so that the same piece is stored once: a prompt grows, is sampled many times, and
//! calls are tried again. What is remembered is a hint; that a piece is still there is looked up.

use crate::store::blob::{ExternalizedValue, Hash};
use crate::trace::Span;
use crate::util::lru::{LruCache, lru};
use rusqlite::{Connection, params};
use std::collections::HashMap;

/// The numbers of the last pieces, by their name.
#[derive(Debug)]
pub(super) struct RecentTexts(LruCache<Hash, i64>);

impl Default for RecentTexts {
    fn default() -> Self {
        Self(lru(MAX_REMEMBERED))
    }
}

impl RecentTexts {
    /// True when a piece was stored lately.
    pub(super) fn knows(&self, hash: &Hash) -> bool {
        self.0.contains(hash)
    }

    /// The number of a value's last piece, all of them stored if need be. `packed` has those that were not known before.
    pub(super) fn number_of(
        &mut self,
        connection: &Connection,
        taken: &ExternalizedValue,
        packed: &HashMap<Hash, Vec<u8>>,
        span: &Span,
    ) -> rusqlite::Result<Option<i64>> {
        let mut before: Option<i64> = None;
        for piece in &taken.pieces {
            let number = match self.stored(connection, &piece.hash)? {
                Some(number) => number,
                None => {
                    let fresh;
                    let data = match packed.get(&piece.hash) {
                        Some(data) => data,
                        None => {
                            fresh = taken.pack(piece, span);
                            &fresh
                        }
                    };
                    let sql = "INSERT INTO text (hash, data, parent) VALUES (?1, ?2, ?3)";
                    connection.prepare_cached(sql)?.execute(params![piece.hash, data, before])?;
                    let number = connection.last_insert_rowid();
                    self.0.put(piece.hash, number);
                    number
                }
            };
            before = Some(number);
        }
        Ok(before)
    }

    /// The number of a piece that is known and still there: it may have gone with its last span, or never have been
    /// committed.
    fn stored(&mut self, connection: &Connection, hash: &Hash) -> rusqlite::Result<Option<i64>> {
        let Some(number) = self.0.get(hash).copied() else { return Ok(None) };
        let sql = "SELECT 1 FROM text WHERE id = ?1 AND hash = ?2";
        let is_there = connection.prepare_cached(sql)?.exists(params![number, hash])?;
        Ok(is_there.then_some(number))
    }
}

const MAX_REMEMBERED: usize = 64 * 1024;

//! Which pieces were stored lately, so that the same piece is stored once: a prompt grows, is sampled many times, and
//! calls are tried again. What is remembered is a hint; that a piece is still there is looked up.

use crate::store::blob::{Hash, Taken};
use crate::trace::Span;
use rusqlite::{Connection, params};
use std::collections::{HashMap, VecDeque};

/// The numbers of the last pieces, by their name.
#[derive(Debug, Default)]
pub(super) struct RecentTexts {
    numbers: HashMap<Hash, i64>,
    order: VecDeque<Hash>,
}

impl RecentTexts {
    /// True when a piece was stored lately.
    pub(super) fn knows(&self, hash: &Hash) -> bool {
        self.numbers.contains_key(hash)
    }

    /// The number of a value's last piece, all of them stored if need be. `packed` has those that were not known before.
    pub(super) fn number_of(
        &mut self,
        connection: &Connection,
        taken: &Taken,
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
                    self.remember(piece.hash, connection.last_insert_rowid())
                }
            };
            before = Some(number);
        }
        Ok(before)
    }

    /// The number of a piece that is known and still there: it may have gone with its last span, or never have been
    /// committed.
    fn stored(&self, connection: &Connection, hash: &Hash) -> rusqlite::Result<Option<i64>> {
        let Some(number) = self.numbers.get(hash) else { return Ok(None) };
        let sql = "SELECT 1 FROM text WHERE id = ?1 AND hash = ?2";
        let is_there = connection.prepare_cached(sql)?.exists(params![number, hash])?;
        Ok(is_there.then_some(*number))
    }

    fn remember(&mut self, hash: Hash, number: i64) -> i64 {
        if self.numbers.insert(hash, number).is_none() {
            self.order.push_back(hash);
        }
        if self.order.len() > MOST_REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.numbers.remove(&oldest);
        }
        number
    }
}

const MOST_REMEMBERED: usize = 64 * 1024;

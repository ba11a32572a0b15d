//! Reads the externalized attributes of spans. Pieces repeat within a rollout: each is loaded and unpacked once.

use super::rows::damaged;
use crate::store::externalized::{Hash, ValueKind, unpack};
use crate::store::number_lists::{attribute_of, is_marked};
use crate::store::span_query::SpanContent;
use crate::trace::Value;
use rusqlite::types::Type;
use rusqlite::{CachedStatement, Connection, params};
use std::collections::HashMap;

/// The externalized attributes of the spans that one read returns.
pub(super) struct SpanTexts<'a> {
    last_pieces: CachedStatement<'a>,
    piece: CachedStatement<'a>,
    tag: CachedStatement<'a>,
    content: SpanContent,
    // The pieces that were loaded, by number.
    loaded: HashMap<i64, Piece>,
}

/// A name, and its value with the length in bytes.
type Attribute = (String, rusqlite::Result<(Value, usize)>);

/// A piece of a value.
struct Piece {
    previous: Option<i64>,
    hash: Hash,
    kind: ValueKind,
    bytes: Vec<u8>,
}

/// A piece as it is stored.
struct PackedPiece {
    number: i64,
    hash: Hash,
    data: Vec<u8>,
}

impl<'a> SpanTexts<'a> {
    pub(super) fn new(connection: &'a Connection, content: SpanContent) -> rusqlite::Result<Self> {
        Ok(Self {
            last_pieces: connection.prepare_cached("SELECT attribute, text FROM span_text WHERE span = ?1")?,
            piece: connection.prepare_cached("SELECT parent, hash, data FROM text WHERE id = ?1")?,
            tag: connection.prepare_cached("SELECT SUBSTR(data, 1, 1) FROM text WHERE id = ?1")?,
            content,
            loaded: HashMap::new(),
        })
    }

    /// The attributes of the span with this number, with their lengths in bytes, and the lists of texts under their own names.
    /// What is damaged of one costs no other.
    pub(super) fn of_span(&mut self, span: i64) -> rusqlite::Result<Vec<Attribute>> {
        let rows = self.last_pieces.query_map(params![span], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let last_pieces: Vec<(String, i64)> = rows.collect::<rusqlite::Result<_>>()?;
        let value = |(name, last): (String, i64)| {
            let is_wanted = self.content.includes(attribute_of(&name));
            let value = match is_wanted {
                true => self.value(last),
                false if is_marked(&name) => return None,
                false => self.empty_value(last),
            };
            Some((name, value))
        };
        Ok(last_pieces.into_iter().filter_map(value).collect())
    }

    /// An empty value of the type of the one with this number of its last piece.
    fn empty_value(&mut self, last: i64) -> rusqlite::Result<(Value, usize)> {
        let tag: u8 = self
            .tag
            .query_row(params![last], |row| Ok(row.get_ref(0)?.as_blob()?.first().copied().unwrap_or(u8::MAX)))?;
        let empty = ValueKind::of_tag(tag).and_then(|kind| kind.value(Vec::new()));
        Ok((empty.map_err(|error| damaged(Type::Blob, error))?, 0))
    }

    /// The value with this number of its last piece, and its length.
    fn value(&mut self, last: i64) -> rusqlite::Result<(Value, usize)> {
        self.load(last)?;
        let mut chain = Vec::new();
        let mut next = Some(last);
        while let Some(piece) = next.and_then(|number| self.loaded.get(&number)) {
            chain.push(piece);
            next = piece.previous;
        }
        let kind = chain.first().map_or(ValueKind::Text, |piece| piece.kind);
        let mut whole = Vec::with_capacity(chain.iter().map(|piece| piece.bytes.len()).sum());
        chain.iter().rev().for_each(|piece| whole.extend_from_slice(&piece.bytes));
        let length = whole.len();
        let value = kind.value(whole).map_err(|error| damaged(Type::Blob, error))?;
        Ok((value, length))
    }

    /// Loads a piece and those before it, as far as they are not loaded.
    fn load(&mut self, last: i64) -> rusqlite::Result<()> {
        let (mut packed, mut next) = (Vec::new(), Some(last));
        let known = loop {
            let Some(number) = next else { break None };
            if let Some(piece) = self.loaded.get(&number) {
                break Some((number, piece.hash));
            }
            let (parent, hash, data): (Option<i64>, Hash, Vec<u8>) =
                self.piece.query_row(params![number], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
            packed.push(PackedPiece { number, hash, data });
            // A piece is stored after its predecessor. The check ends the loop in a damaged file.
            next = parent.filter(|parent| *parent < number);
        };
        let mut previous = known;
        for PackedPiece { number, hash, data } in packed.into_iter().rev() {
            let unpacked = unpack(previous.as_ref().map(|(_, hash)| hash), &hash, &data);
            let (kind, bytes) = unpacked.map_err(|error| damaged(Type::Blob, error))?;
            self.loaded.insert(number, Piece { previous: previous.map(|(number, _)| number), hash, kind, bytes });
            previous = Some((number, hash));
        }
        Ok(())
    }
}

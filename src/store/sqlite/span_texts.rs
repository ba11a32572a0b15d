//! Reads the externalized attributes of spans. Pieces repeat within a rollout: the cache of the connection has them unpacked.

use super::rows::damaged;
use crate::store::externalized::{Hash, ValueKind, unpack};
use crate::store::piece_cache::PieceCache;
use crate::store::span_query::SpanContent;
use crate::trace::Value;
use crate::trace::number_lists::{attribute_of, is_marked};
use rusqlite::types::Type;
use rusqlite::{CachedStatement, Connection, Row, params};

/// The externalized attributes of the spans that one read returns.
pub(super) struct SpanTexts<'a> {
    last_pieces: CachedStatement<'a>,
    piece: CachedStatement<'a>,
    content: SpanContent,
    pieces: &'a mut PieceCache,
}

/// A name, and its value with the length in bytes.
type Attribute = (String, rusqlite::Result<(Value, usize)>);

/// A piece as it is stored.
struct PackedPiece {
    hash: Hash,
    data: Vec<u8>,
}

impl<'a> SpanTexts<'a> {
    pub(super) fn new(
        connection: &'a Connection,
        content: SpanContent,
        pieces: &'a mut PieceCache,
    ) -> rusqlite::Result<Self> {
        let last_pieces =
            "SELECT id, parent, hash, data, attribute FROM span_text LEFT JOIN text ON id = text WHERE span = ?1";
        Ok(Self {
            last_pieces: connection.prepare_cached(last_pieces)?,
            piece: connection.prepare_cached("SELECT id, parent, hash, data FROM text WHERE id = ?1")?,
            content,
            pieces,
        })
    }

    /// What of each span is read.
    pub(super) fn content(&self) -> SpanContent {
        self.content
    }

    /// The attributes of the span with this number, with their lengths in bytes, and the lists of texts under their own names.
    /// What is damaged of one costs no other.
    pub(super) fn of_span(&mut self, span: i64) -> rusqlite::Result<Vec<Attribute>> {
        let mut rows = self.last_pieces.query(params![span])?;
        let mut attributes = Vec::new();
        while let Some(last) = rows.next()? {
            let name: String = last.get(4)?;
            let value = match self.content.includes(attribute_of(&name)) {
                true => value(last, &mut self.piece, self.pieces),
                false if is_marked(&name) => continue,
                false => empty_value(last),
            };
            attributes.push((name, value));
        }
        Ok(attributes)
    }
}

/// An empty value of the type of the one with this last piece.
fn empty_value(last: &Row<'_>) -> rusqlite::Result<(Value, usize)> {
    let tag = last.get_ref(3)?.as_blob()?.first().copied().unwrap_or(u8::MAX);
    let empty = ValueKind::of_tag(tag).and_then(|kind| kind.value(&[]));
    Ok((empty.map_err(|error| damaged(Type::Blob, error))?, 0))
}

/// The value with this last piece, and its length.
fn value(last: &Row<'_>, piece: &mut CachedStatement<'_>, pieces: &mut PieceCache) -> rusqlite::Result<(Value, usize)> {
    pieces.make_room();
    let (mut packed, mut cached) = load(last, piece, pieces)?;
    let (mut previous, mut long) = (cached, Vec::new());
    let mut kind = cached.and_then(|hash| pieces.kind(&hash)).unwrap_or(ValueKind::Text);
    while let Some(PackedPiece { hash, data }) = packed.pop() {
        let unpacked = unpack(previous.as_ref(), &hash, &data).map_err(|error| damaged(Type::Blob, error))?;
        kind = unpacked.0;
        // Behind a piece that is not in the cache, no other can be.
        let added = if long.is_empty() { pieces.add(hash, cached, kind, unpacked.1) } else { Err(unpacked.1) };
        match added {
            Ok(()) => cached = Some(hash),
            Err(bytes) => long.push(bytes),
        }
        previous = Some(hash);
    }
    let mut parts = pieces.up_to(cached.as_ref());
    parts.extend(long.iter().map(Vec::as_slice));
    let length = parts.iter().map(|part| part.len()).sum();
    Ok((kind.value(&parts).map_err(|error| damaged(Type::Blob, error))?, length))
}

/// The pieces of a value that are not in the cache, the last one first, and the one in the cache that they follow.
fn load(
    last: &Row<'_>,
    piece: &mut CachedStatement<'_>,
    pieces: &PieceCache,
) -> rusqlite::Result<(Vec<PackedPiece>, Option<Hash>)> {
    let mut packed = Vec::new();
    let mut next = Some(last.get(0)?);
    while let Some(number) = next {
        let mut rows;
        let row = if packed.is_empty() {
            last
        } else {
            rows = piece.query(params![number])?;
            rows.next()?.ok_or(rusqlite::Error::QueryReturnedNoRows)?
        };
        let hash: Hash = row.get(2)?;
        if pieces.contains(&hash) {
            return Ok((packed, Some(hash)));
        }
        packed.push(PackedPiece { hash, data: row.get(3)? });
        // A piece is stored after its predecessor. The check ends the loop in a damaged file.
        next = row.get::<_, Option<i64>>(1)?.filter(|parent| *parent < number);
    }
    Ok((packed, None))
}

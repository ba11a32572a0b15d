//! Reads the parts of a record. Nothing in it is trusted.

use super::tag;
use super::words::WORDS;
use crate::trace::span::SpanContext;
use crate::trace::{Attributes, Value};

/// Why a record can't be read.
#[derive(Debug, thiserror::Error)]
pub(in crate::store) enum RecordError {
    #[error("the record has version {0}; this program is older")]
    UnknownVersion(u8),
    #[error("the record ends early")]
    Truncated,
    #[error("the record has bytes behind its end")]
    TooLong,
    #[error("the record has a {0} that does not exist")]
    Unknown(&'static str),
    #[error("a text of the record is not UTF-8")]
    Text,
}

/// The result of a read.
pub(super) type Result<T> = std::result::Result<T, RecordError>;

/// What is left of a record.
pub(super) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn new(record: &'a [u8]) -> Self {
        Self(record)
    }

    /// Reads the version.
    pub(super) fn version(&mut self, known: u8) -> Result<()> {
        match self.byte()? {
            version if version == known => Ok(()),
            version => Err(RecordError::UnknownVersion(version)),
        }
    }

    /// An error if something is left.
    pub(super) fn end(&self) -> Result<()> {
        if self.0.is_empty() { Ok(()) } else { Err(RecordError::TooLong) }
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(RecordError::Truncated)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const LENGTH: usize>(&mut self) -> Result<[u8; LENGTH]> {
        let (array, rest) = self.0.split_first_chunk().ok_or(RecordError::Truncated)?;
        self.0 = rest;
        Ok(*array)
    }

    pub(super) fn byte(&mut self) -> Result<u8> {
        let [byte] = self.array()?;
        Ok(byte)
    }

    pub(super) fn number(&mut self) -> Result<u64> {
        let (mut number, mut shift) = (0, 0);
        loop {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            // The tenth byte of a number has one bit.
            if shift > 63 || (shift == 63 && bits > 1) {
                return Err(RecordError::Unknown("number"));
            }
            number |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
            shift += 7;
        }
    }

    fn length(&mut self) -> Result<usize> {
        usize::try_from(self.number()?).map_err(|_| RecordError::Truncated)
    }

    fn signed(&mut self) -> Result<i64> {
        let number = self.number()?;
        Ok((number >> 1).cast_signed() ^ -(number & 1).cast_signed())
    }

    pub(super) fn text(&mut self) -> Result<String> {
        let header = self.number()?;
        if header & 1 == 1 {
            let word = usize::try_from(header >> 1).ok().and_then(|at| WORDS.get(at));
            return word.map(|word| (*word).to_owned()).ok_or(RecordError::Unknown("word"));
        }
        let length = usize::try_from(header >> 1).map_err(|_| RecordError::Truncated)?;
        let text = std::str::from_utf8(self.take(length)?).map_err(|_| RecordError::Text)?;
        Ok(text.to_owned())
    }

    pub(super) fn id(&mut self) -> Result<String> {
        match self.length()? {
            0 => self.text(),
            length => Ok(const_hex::encode(self.take(length)?)),
        }
    }

    pub(super) fn optional<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T>) -> Result<Option<T>> {
        match self.byte()? {
            0 => Ok(None),
            1 => read(self).map(Some),
            _ => Err(RecordError::Unknown("option")),
        }
    }

    pub(super) fn list<T>(&mut self, mut read: impl FnMut(&mut Self) -> Result<T>) -> Result<Vec<T>> {
        let length = self.length()?;
        // A damaged length must not take memory: each element has at least a byte.
        let mut all = Vec::with_capacity(length.min(self.0.len()));
        for _ in 0..length {
            all.push(read(self)?);
        }
        Ok(all)
    }

    pub(super) fn entries(&mut self) -> Result<Attributes> {
        let entries = self.list(|record| Ok((record.text()?, record.value()?)))?;
        Ok(entries.into_iter().collect())
    }

    fn value(&mut self) -> Result<Value> {
        Ok(match self.byte()? {
            tag::FALSE => Value::Bool(false),
            tag::TRUE => Value::Bool(true),
            tag::INT => Value::Int(self.signed()?),
            tag::FLOAT => Value::Float(f64::from_le_bytes(self.array()?)),
            tag::TEXT => Value::String(self.text()?),
            tag::BOOLS => Value::Bools(self.list(|record| Ok(record.byte()? != 0))?),
            tag::INTS => Value::Ints(self.list(Self::signed)?),
            tag::FLOATS => Value::Floats(self.list(|record| Ok(f64::from_le_bytes(record.array()?)))?),
            tag::SINGLES => Value::Floats(self.list(|record| Ok(f32::from_le_bytes(record.array()?).into()))?),
            tag::TEXTS => Value::Strings(self.list(Self::text)?),
            _ => return Err(RecordError::Unknown("type of value")),
        })
    }

    pub(super) fn context(&mut self) -> Result<SpanContext> {
        let (trace_id, span_id, is_remote) = (self.id()?, self.id()?, self.byte()? != 0);
        let trace_state = self.list(|record| Ok((record.text()?, record.text()?)))?;
        Ok(SpanContext { trace_id, span_id, is_remote, trace_state: trace_state.into_iter().collect() })
    }

    pub(super) fn own_context(&mut self, own: impl FnOnce() -> Option<SpanContext>) -> Result<Option<SpanContext>> {
        match self.byte()? {
            0 => Ok(None),
            1 => own().map(Some).ok_or(RecordError::Unknown("context")),
            2 => self.context().map(Some),
            _ => Err(RecordError::Unknown("context")),
        }
    }
}

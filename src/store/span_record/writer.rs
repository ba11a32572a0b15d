//! Writes the parts of a record.

use super::tag;
use super::words::number_of_word;
use crate::trace::Value;
use crate::trace::span::SpanContext;

/// The bytes that were written so far.
pub(super) struct Writer(Vec<u8>);

impl Writer {
    pub(super) fn with_capacity(bytes: usize) -> Self {
        Self(Vec::with_capacity(bytes))
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    pub(super) fn byte(&mut self, byte: u8) {
        self.0.push(byte);
    }

    pub(super) fn number(&mut self, mut number: u64) {
        while let Some(rest) = Some(number >> 7).filter(|rest| *rest > 0) {
            self.byte(low_byte(number) | 0x80);
            number = rest;
        }
        self.byte(low_byte(number) & 0x7f);
    }

    fn length(&mut self, length: usize) {
        self.number(length as u64);
    }

    /// Small numbers of both signs take few bytes.
    fn signed(&mut self, number: i64) {
        self.number(((number << 1) ^ (number >> 63)).cast_unsigned());
    }

    /// An odd number is that of a word; an even one is twice the length of the text behind it.
    pub(super) fn text(&mut self, text: &str) {
        match number_of_word(text) {
            Some(word) => self.number((word << 1) | 1),
            None => {
                self.number((text.len() as u64) << 1);
                self.0.extend_from_slice(text.as_bytes());
            }
        }
    }

    /// The number of bytes that its hexadecimal digits stand for; 0 for an id that is a text.
    pub(super) fn id(&mut self, id: &str) {
        match hexadecimal(id, &mut [0; MAX_ID_BYTES]) {
            Some(bytes) => {
                self.length(bytes.len());
                self.0.extend_from_slice(bytes);
            }
            None => {
                self.byte(0);
                self.text(id);
            }
        }
    }

    pub(super) fn optional<T>(&mut self, value: Option<&T>, write: impl FnOnce(&mut Self, &T)) {
        self.byte(u8::from(value.is_some()));
        if let Some(value) = value {
            write(self, value);
        }
    }

    pub(super) fn list<T>(&mut self, all: &[T], mut write: impl FnMut(&mut Self, &T)) {
        self.length(all.len());
        all.iter().for_each(|one| write(self, one));
    }

    pub(super) fn entries<'a>(&mut self, entries: impl Iterator<Item = (&'a String, &'a Value)> + Clone) {
        self.length(entries.clone().count());
        for (name, value) in entries {
            self.text(name);
            self.value(value);
        }
    }

    fn value(&mut self, value: &Value) {
        match value {
            Value::Bool(value) => self.byte(if *value { tag::TRUE } else { tag::FALSE }),
            Value::Int(number) => {
                self.byte(tag::INT);
                self.signed(*number);
            }
            Value::Float(number) => {
                self.byte(tag::FLOAT);
                self.0.extend_from_slice(&number.to_le_bytes());
            }
            Value::String(text) => {
                self.byte(tag::TEXT);
                self.text(text);
            }
            Value::Bools(all) => {
                self.byte(tag::BOOLS);
                self.list(all, |out, value| out.byte(u8::from(*value)));
            }
            Value::Ints(all) => {
                self.byte(tag::INTS);
                self.list(all, |out, number| out.signed(*number));
            }
            Value::Floats(all) => {
                let singles: Option<Vec<f32>> = all.iter().map(|number| single(*number)).collect();
                match singles {
                    Some(singles) => {
                        self.byte(tag::SINGLES);
                        self.list(&singles, |out, number| out.0.extend_from_slice(&number.to_le_bytes()));
                    }
                    None => {
                        self.byte(tag::FLOATS);
                        self.list(all, |out, number| out.0.extend_from_slice(&number.to_le_bytes()));
                    }
                }
            }
            Value::Strings(all) => {
                self.byte(tag::TEXTS);
                self.list(all, |out, text| out.text(text));
            }
        }
    }

    pub(super) fn context(&mut self, SpanContext { trace_id, span_id, is_remote, trace_state }: &SpanContext) {
        self.id(trace_id);
        self.id(span_id);
        self.byte(u8::from(*is_remote));
        self.length(trace_state.len());
        for (name, value) in trace_state {
            self.text(name);
            self.text(value);
        }
    }

    /// A context that is mostly `own`, or absent.
    pub(super) fn own_context(&mut self, context: Option<&SpanContext>, own: Option<&SpanContext>) {
        match context {
            None => self.byte(0),
            Some(_) if context == own => self.byte(1),
            Some(context) => {
                self.byte(2);
                self.context(context);
            }
        }
    }
}

/// The bytes of an id that is their lower-case hexadecimal digits.
fn hexadecimal<'b>(id: &str, bytes: &'b mut [u8; MAX_ID_BYTES]) -> Option<&'b [u8]> {
    let bytes = bytes.get_mut(..id.len() / 2).filter(|bytes| !bytes.is_empty() && bytes.len() * 2 == id.len())?;
    let is_lower = !id.bytes().any(|digit| digit.is_ascii_uppercase());
    (is_lower && const_hex::decode_to_slice(id, &mut *bytes).is_ok()).then_some(bytes)
}

/// The lowest eight bits.
#[expect(clippy::cast_possible_truncation, reason = "the other bits are not wanted")]
fn low_byte(number: u64) -> u8 {
    number as u8
}

/// The number with single precision, if it loses nothing.
#[expect(clippy::cast_possible_truncation, reason = "tests whether the cast loses precision")]
fn single(number: f64) -> Option<f32> {
    let single = number as f32;
    (f64::from(single).to_bits() == number.to_bits()).then_some(single)
}

/// Bytes of the longest id that is hexadecimal by a convention: that of a trace.
const MAX_ID_BYTES: usize = 16;

//! An export of traces as protobuf, written in one pass without messages in between. Fields with their default value are left out.

use super::message::Scope;
use super::view::{SpanView, ValueView, dropped_of_part, ids_of, nanos, trace_state, values};
use crate::trace::span::{Event, Link, Resource};
use crate::trace::{Span, Value};
use prost::encoding::{encode_varint, encoded_len_varint};

/// `TracesData`, with a `ResourceSpans` for each resource.
pub(super) fn traces(resources: &[(&Resource, Vec<&Span>)]) -> Vec<u8> {
    let spans: usize = resources.iter().map(|(_, spans)| spans.len()).sum();
    let mut out = Output(Vec::with_capacity(spans * SPAN_BYTES));
    for (resource, spans) in resources {
        out.message(1, BATCH, |out| {
            if !resource.attributes.is_empty() {
                out.message(1, SHORT, |out| out.attributes(1, values(&resource.attributes)));
            }
            out.message(2, BATCH, |out| {
                let Scope { name, version } = Scope::ours();
                out.message(1, SHORT, |out| {
                    out.text(1, &name);
                    out.text(2, &version);
                });
                spans.iter().for_each(|span| out.message(2, LONG, |out| out.span(&SpanView::of(span))));
            });
            out.text(3, &resource.schema_url);
        });
    }
    out.0
}

/// A message as it is written.
struct Output(Vec<u8>);

impl Output {
    /// `Span`
    fn span(&mut self, view: &SpanView<'_>) {
        let span = view.span;
        self.bytes(1, &view.trace_id.bytes);
        self.bytes(2, &view.span_id.bytes);
        self.text(3, &view.trace_state());
        if let Some(parent) = &view.parent_id {
            self.bytes(4, &parent.bytes);
        }
        self.text(5, &span.name);
        self.number(6, view.kind() as u64);
        self.fixed64(7, nanos(span.start_time));
        self.fixed64(8, nanos(span.end_time));
        self.attributes(9, view.attributes());
        self.number(10, view.dropped_attributes().into());
        span.events.iter().for_each(|event| self.message(11, SHORT, |out| out.event(event)));
        self.number(12, view.dropped_events().into());
        span.links.iter().for_each(|link| self.message(13, SHORT, |out| out.link(link)));
        self.number(14, view.dropped_links().into());
        self.message(15, SHORT, |out| {
            out.text(2, view.status_message());
            out.number(3, view.status_code() as u64);
        });
        if view.flags() != 0 {
            self.key(16, FIXED32);
            self.0.extend_from_slice(&view.flags().to_le_bytes());
        }
    }

    /// `Span.Event`
    fn event(&mut self, event: &Event) {
        self.fixed64(1, nanos(event.timestamp));
        self.text(2, &event.name);
        self.attributes(3, values(&event.attributes));
        self.number(4, dropped_of_part(Some(&event.attributes)).into());
    }

    /// `Span.Link`
    fn link(&mut self, link: &Link) {
        let (trace_id, span_id) = ids_of(link);
        self.bytes(1, &trace_id);
        self.bytes(2, &span_id);
        self.text(3, &trace_state(&link.context.trace_state));
        self.attributes(4, link.attributes.iter().flat_map(values));
        self.number(5, dropped_of_part(link.attributes.as_ref()).into());
    }

    /// A `KeyValue` for each attribute.
    fn attributes<'a>(&mut self, field: u32, attributes: impl Iterator<Item = (&'a str, ValueView<'a>)>) {
        for (name, value) in attributes {
            let length = value_length(value);
            let of_name = if name.is_empty() { 0 } else { length_of(name.len()) };
            self.key(field, DELIMITED);
            self.varint((of_name + length_of(length)) as u64);
            self.text(1, name);
            self.key(2, DELIMITED);
            self.varint(length as u64);
            self.value(value);
        }
    }

    /// `AnyValue`, of [`value_length`] bytes.
    fn value(&mut self, value: ValueView<'_>) {
        match value {
            ValueView::Text(text) => self.delimited(1, text.as_bytes()),
            ValueView::Int(number) => self.int(number),
            ValueView::Stored(Value::String(text)) => self.delimited(1, text.as_bytes()),
            ValueView::Stored(Value::Int(number)) => self.int(*number),
            ValueView::Stored(Value::Bool(truth)) => self.truth(*truth),
            ValueView::Stored(Value::Float(number)) => self.double(*number),
            ValueView::Stored(Value::Bools(list)) => self.list(list, |_| TRUTH_BYTES, |out, truth| out.truth(*truth)),
            ValueView::Stored(Value::Ints(list)) => self.list(list, |int| int_length(*int), |out, int| out.int(*int)),
            ValueView::Stored(Value::Floats(list)) => self.list(list, |_| DOUBLE_BYTES, |out, one| out.double(*one)),
            ValueView::Stored(Value::Strings(list)) => {
                self.list(list, |text| length_of(text.len()), |out, text| out.delimited(1, text.as_bytes()));
            }
        }
    }

    fn list<T>(&mut self, list: &[T], length: impl Fn(&T) -> usize, write: impl Fn(&mut Self, &T)) {
        self.key(5, DELIMITED);
        self.varint(list.iter().map(|element| length_of(length(element))).sum::<usize>() as u64);
        for element in list {
            self.key(1, DELIMITED);
            self.varint(length(element) as u64);
            write(self, element);
        }
    }

    fn truth(&mut self, truth: bool) {
        self.key(2, VARINT);
        self.0.push(truth.into());
    }

    fn int(&mut self, number: i64) {
        self.key(3, VARINT);
        self.varint(number.cast_unsigned());
    }

    fn double(&mut self, number: f64) {
        self.key(4, FIXED64);
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    fn number(&mut self, field: u32, number: u64) {
        if number != 0 {
            self.key(field, VARINT);
            self.varint(number);
        }
    }

    fn fixed64(&mut self, field: u32, number: u64) {
        if number != 0 {
            self.key(field, FIXED64);
            self.0.extend_from_slice(&number.to_le_bytes());
        }
    }

    fn text(&mut self, field: u32, text: &str) {
        self.bytes(field, text.as_bytes());
    }

    fn bytes(&mut self, field: u32, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.delimited(field, bytes);
        }
    }

    fn delimited(&mut self, field: u32, bytes: &[u8]) {
        self.key(field, DELIMITED);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    /// A message behind its length, for which `room` bytes are left. If it takes more or fewer, the message is moved.
    fn message(&mut self, field: u32, room: usize, write: impl FnOnce(&mut Self)) {
        self.key(field, DELIMITED);
        let start = self.0.len();
        self.0.resize(start + room, 0);
        write(self);
        let length = (self.0.len() - start - room) as u64;
        let mut varint = Vec::with_capacity(MAX_VARINT_BYTES);
        encode_varint(length, &mut varint);
        self.0.splice(start..start + room, varint);
    }

    fn key(&mut self, field: u32, wire_type: u32) {
        self.varint(u64::from(field << 3 | wire_type));
    }

    fn varint(&mut self, number: u64) {
        encode_varint(number, &mut self.0);
    }
}

/// The bytes of an `AnyValue`.
fn value_length(value: ValueView<'_>) -> usize {
    fn list<T>(list: &[T], length: impl Fn(&T) -> usize) -> usize {
        length_of(list.iter().map(|element| length_of(length(element))).sum())
    }
    match value {
        ValueView::Text(text) => length_of(text.len()),
        ValueView::Int(number) => int_length(number),
        ValueView::Stored(Value::String(text)) => length_of(text.len()),
        ValueView::Stored(Value::Int(number)) => int_length(*number),
        ValueView::Stored(Value::Bool(_)) => TRUTH_BYTES,
        ValueView::Stored(Value::Float(_)) => DOUBLE_BYTES,
        ValueView::Stored(Value::Bools(all)) => list(all, |_| TRUTH_BYTES),
        ValueView::Stored(Value::Ints(all)) => list(all, |int| int_length(*int)),
        ValueView::Stored(Value::Floats(all)) => list(all, |_| DOUBLE_BYTES),
        ValueView::Stored(Value::Strings(all)) => list(all, |text| length_of(text.len())),
    }
}

/// The bytes of a field below 16 with so many bytes behind their length.
fn length_of(bytes: usize) -> usize {
    1 + encoded_len_varint(bytes as u64) + bytes
}

fn int_length(number: i64) -> usize {
    1 + encoded_len_varint(number.cast_unsigned())
}

/// How a field is written, in the lowest three bits of its key (Protocol Buffers, encoding).
const VARINT: u32 = 0;
const FIXED64: u32 = 1;
const DELIMITED: u32 = 2;
const FIXED32: u32 = 5;

const TRUTH_BYTES: usize = 2;
const DOUBLE_BYTES: usize = 9;
const MAX_VARINT_BYTES: usize = 10;
/// Bytes of the length of messages below 128 bytes, below 16 KiB, and of batches below 2 MiB.
const SHORT: usize = 1;
const LONG: usize = 2;
const BATCH: usize = 3;
/// About a span.
const SPAN_BYTES: usize = 2048;

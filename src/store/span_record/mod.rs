//! A span as bytes, for its row: what no other column has. About a third of its JSON, and written and read in a fraction of
//! the time.
//!
//! A record begins with its version. Numbers are varints (LEB128), signed ones in zigzag; texts are UTF-8 behind their length,
//! or a number of [`words`]; ids are bytes if they are hexadecimal. A record that is damaged is an error, and never a panic.

mod reader;
mod tag;
#[cfg(test)]
mod tests;
mod words;
mod writer;

use super::span_columns::{RowColumns, SpanKey};
use crate::trace::span::{Event, Link, Resource, SpanContext};
use crate::trace::{Span, SpanKind, Status, StatusCode, Timestamp};
use reader::{Reader, Result};
use std::collections::BTreeMap;
use writer::Writer;

pub(super) use reader::RecordError;

const VERSION: u8 = 1;

/// The record of a span without the attributes for which `is_inline` is false.
pub(super) fn encode(span: &Span, is_inline: impl Fn(&str) -> bool) -> Vec<u8> {
    let Span {
        rollout_id: _,
        attempt_id: _,
        sequence_id: _,
        span_id: _,
        start_time: _,
        end_time: _,
        trace_id,
        parent_id,
        name,
        kind,
        status,
        attributes,
        events,
        links,
        context,
        parent,
        resource,
    } = span;
    let mut out = Writer::with_capacity(RECORD_BYTES);
    out.byte(VERSION);
    out.id(trace_id);
    out.optional(parent_id.as_ref(), |out, id| out.id(id));
    out.text(name);
    out.byte(kind.map_or(0, |kind| place_in(&KINDS, &kind)));
    out.byte(place_in(&STATUS_CODES, &status.status_code));
    out.optional(status.description.as_ref(), |out, text| out.text(text));
    out.entries(attributes.iter().filter(|(name, _)| is_inline(name)));
    out.list(events, |out, Event { name, attributes, timestamp }| {
        out.text(name);
        out.entries(attributes.iter());
        out.optional(timestamp.as_ref(), |out, time| out.number(time.unix_nanos));
    });
    out.list(links, |out, Link { context, attributes }| {
        out.context(context);
        out.optional(attributes.as_ref(), |out, attributes| out.entries(attributes.iter()));
    });
    out.own_context(context.as_ref(), own_context(trace_id, Some(&span.span_id)).as_ref());
    out.own_context(parent.as_ref(), own_context(trace_id, parent_id.as_deref()).as_ref());
    let Resource { attributes, schema_url } = resource;
    out.entries(attributes.iter());
    out.text(schema_url);
    out.into_bytes()
}

/// The span with this record and these columns.
pub(super) fn decode(record: &[u8], columns: RowColumns) -> Result<Span> {
    let mut record = Reader::new(record);
    record.version(VERSION)?;
    let trace_id = record.id()?;
    let parent_id = record.optional(Reader::id)?;
    let name = record.text()?;
    let kind = match record.byte()? {
        0 => None,
        place => Some(at_place(&KINDS, place, "kind of span")?),
    };
    let status_code = at_place(&STATUS_CODES, record.byte()?, "status")?;
    let status = Status { status_code, description: record.optional(Reader::text)? };
    let attributes = record.entries()?;
    let events = record.list(|record| {
        let (name, attributes) = (record.text()?, record.entries()?);
        let timestamp = record.optional(Reader::number)?.map(Timestamp::from_unix_nanos);
        Ok(Event { name, attributes, timestamp })
    })?;
    let links =
        record.list(|record| Ok(Link { context: record.context()?, attributes: record.optional(Reader::entries)? }))?;
    let SpanKey { rollout_id, attempt_id, span_id } = columns.key;
    let context = record.own_context(|| own_context(&trace_id, Some(&span_id)))?;
    let parent = record.own_context(|| own_context(&trace_id, parent_id.as_deref()))?;
    let resource = Resource { attributes: record.entries()?, schema_url: record.text()? };
    record.end()?;
    Ok(Span {
        rollout_id,
        attempt_id,
        sequence_id: columns.sequence_id,
        trace_id,
        span_id,
        parent_id,
        name,
        kind,
        status,
        attributes,
        events,
        links,
        start_time: columns.start_time,
        end_time: columns.end_time,
        context,
        parent,
        resource,
    })
}

/// The trace of a record, without reading the rest.
pub(super) fn trace_id(record: &[u8]) -> Result<String> {
    let mut record = Reader::new(record);
    record.version(VERSION)?;
    record.id()
}

/// The identity of a span of the same trace in this process, which needs no bytes of its own.
fn own_context(trace_id: &str, span_id: Option<&str>) -> Option<SpanContext> {
    let (trace_id, span_id) = (trace_id.to_owned(), span_id?.to_owned());
    Some(SpanContext { trace_id, span_id, is_remote: false, trace_state: BTreeMap::new() })
}

/// In the order of their numbers, counted from 1; 0 is none. Entries are only added.
const KINDS: [SpanKind; 5] =
    [SpanKind::Internal, SpanKind::Server, SpanKind::Client, SpanKind::Producer, SpanKind::Consumer];

/// As [`KINDS`].
const STATUS_CODES: [StatusCode; 3] = [StatusCode::Unset, StatusCode::Ok, StatusCode::Error];

fn place_in<T: PartialEq>(all: &[T], one: &T) -> u8 {
    let place = all.iter().position(|other| other == one).map(|at| at + 1);
    place.and_then(|place| u8::try_from(place).ok()).unwrap_or(0)
}

fn at_place<T: Copy>(all: &[T], place: u8, what: &'static str) -> Result<T> {
    let at = usize::from(place).checked_sub(1);
    at.and_then(|at| all.get(at)).copied().ok_or(RecordError::Unknown(what))
}

/// About the record of an LLM call without its content.
const RECORD_BYTES: usize = 1536;

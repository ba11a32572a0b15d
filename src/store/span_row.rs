//! A span's JSON without what is stored elsewhere or could not be read back. Nothing is copied for it.

use super::blob::ExternalizedValue;
use crate::trace::span::{Event, Link, Resource, SpanContext};
use crate::trace::{AttemptId, Attributes, RolloutId, Span, SpanKind, Status, Timestamp, Value};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

/// The JSON of `span`, less the attributes in `taken`.
pub(super) fn json(span: &Span, taken: &[ExternalizedValue]) -> serde_json::Result<String> {
    if !is_readable(span) {
        return lean(&readable(span), taken);
    }
    lean(span, taken)
}

fn lean(span: &Span, taken: &[ExternalizedValue]) -> serde_json::Result<String> {
    serde_json::to_string(&Lean {
        rollout_id: &span.rollout_id,
        attempt_id: &span.attempt_id,
        sequence_id: span.sequence_id,
        trace_id: &span.trace_id,
        span_id: &span.span_id,
        parent_id: span.parent_id.as_deref(),
        name: &span.name,
        kind: span.kind,
        status: &span.status,
        attributes: Kept(&span.attributes, taken),
        events: &span.events,
        links: &span.links,
        start_time: span.start_time,
        end_time: span.end_time,
        context: span.context.as_ref(),
        parent: span.parent.as_ref(),
        resource: &span.resource,
    })
}

/// [`Span`]'s fields.
#[derive(Serialize)]
struct Lean<'a> {
    rollout_id: &'a RolloutId,
    attempt_id: &'a AttemptId,
    sequence_id: u64,
    trace_id: &'a str,
    span_id: &'a str,
    parent_id: Option<&'a str>,
    name: &'a str,
    kind: SpanKind,
    status: &'a Status,
    attributes: Kept<'a>,
    events: &'a [Event],
    links: &'a [Link],
    start_time: Option<Timestamp>,
    end_time: Option<Timestamp>,
    context: Option<&'a SpanContext>,
    parent: Option<&'a SpanContext>,
    resource: &'a Resource,
}

struct Kept<'a>(&'a Attributes, &'a [ExternalizedValue]);

impl Serialize for Kept<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        let is_taken = |name: &String| self.1.iter().any(|taken| taken.attribute == *name);
        for (name, value) in self.0.iter().filter(|(name, _)| !is_taken(name)) {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

/// JSON has no infinity, and the null written instead could not be read back: such attributes are left out.
fn is_readable(span: &Span) -> bool {
    let events = span.events.iter().map(|event| &event.attributes);
    let links = span.links.iter().filter_map(|link| link.attributes.as_ref());
    let all = [&span.attributes, &span.resource.attributes].into_iter().chain(events).chain(links);
    all.flat_map(|attributes| attributes.values()).all(is_finite)
}

fn readable(span: &Span) -> Span {
    let mut span = span.clone();
    let clean = |attributes: &mut Attributes| attributes.retain(|_, value| is_finite(value));
    clean(&mut span.attributes);
    clean(&mut span.resource.attributes);
    span.events.iter_mut().for_each(|event| clean(&mut event.attributes));
    span.links.iter_mut().filter_map(|link| link.attributes.as_mut()).for_each(clean);
    span
}

fn is_finite(value: &Value) -> bool {
    match value {
        Value::Float(number) => number.is_finite(),
        Value::Floats(numbers) => numbers.iter().all(|number| number.is_finite()),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::blob::Kind;

    #[test]
    fn a_span_is_written_as_it_writes_itself() {
        let text = r#"{"rollout_id":"r","attempt_id":"a","sequence_id":1,"trace_id":"t","span_id":"s","parent_id":null,
            "name":"GET","kind":"CLIENT","status":{"status_code":"OK","description":null},"attributes":{"a":1,"b":"x"},
            "events":[],"links":[],"start_time":1.5,"end_time":null,"context":null,"parent":null,
            "resource":{"attributes":{},"schema_url":""}}"#;
        let mut span: Span = serde_json::from_str(text).unwrap();
        assert_eq!(json(&span, &[]).unwrap(), serde_json::to_string(&span).unwrap());
        span.set("a", f64::NAN);
        let taken = ExternalizedValue { attribute: "b".to_owned(), kind: Kind::Text, pieces: Vec::new() };
        let written = json(&span, &[taken]).unwrap();
        let read: Span = serde_json::from_str(&written).unwrap();
        assert!(read.attributes.is_empty());
    }
}

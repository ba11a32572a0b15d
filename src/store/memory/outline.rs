//! Spans without their long attributes, or without the values of some of them, as databases return them.

use crate::store::externalized::is_long;
use crate::store::span_query::SpanContent;
use crate::trace::{Attributes, Span, Value};

/// The span without its long attributes.
pub(super) fn outline(span: &Span) -> Span {
    let short = span.attributes.iter().filter(|(_, value)| !is_long(value));
    with_attributes(span, short.map(|(name, value)| (name.clone(), value.clone())).collect())
}

/// The span with empty values for the long attributes that `content` leaves out.
pub(super) fn restricted(span: &Span, content: SpanContent) -> Span {
    let value = |(name, value): (&String, &Value)| {
        let is_wanted = !is_long(value) || content.includes(name);
        (name.clone(), if is_wanted { value.clone() } else { empty(value) })
    };
    with_attributes(span, span.attributes.iter().map(value).collect())
}

/// An empty text or list.
fn empty(value: &Value) -> Value {
    match value {
        Value::Ints(_) => Value::Ints(Vec::new()),
        Value::Floats(_) => Value::Floats(Vec::new()),
        _ => Value::String(String::new()),
    }
}

fn with_attributes(span: &Span, attributes: Attributes) -> Span {
    Span {
        attributes,
        rollout_id: span.rollout_id.clone(),
        attempt_id: span.attempt_id.clone(),
        sequence_id: span.sequence_id,
        trace_id: span.trace_id.clone(),
        span_id: span.span_id.clone(),
        parent_id: span.parent_id.clone(),
        name: span.name.clone(),
        kind: span.kind,
        status: span.status.clone(),
        events: span.events.clone(),
        links: span.links.clone(),
        start_time: span.start_time,
        end_time: span.end_time,
        context: span.context.clone(),
        parent: span.parent.clone(),
        resource: span.resource.clone(),
    }
}

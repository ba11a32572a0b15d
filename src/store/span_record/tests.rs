//! Records are read as they were written, by every later program; what is damaged is an error.

use super::words::{WORDS, number_of_word};
use super::{RecordError, decode, encode};
use crate::store::span_columns::{RowColumns, SpanKey};
use crate::trace::span::{Event, Link, Resource, SpanContext};
use crate::trace::{Attributes, Span, SpanKind, Status, StatusCode, Timestamp, Value};
use proptest::prelude::*;

fn columns(span: &Span) -> RowColumns {
    RowColumns {
        key: SpanKey::of(span),
        sequence_id: span.sequence_id,
        start_time: span.start_time,
        end_time: span.end_time,
    }
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof!["[a-z.]{0,12}", any::<String>(), prop::sample::select(WORDS).prop_map(str::to_owned)]
}

fn id() -> impl Strategy<Value = String> {
    prop_oneof!["[0-9a-f]{32}", "[0-9a-f]{16}", "[0-9a-fA-F]{0,35}", text()]
}

fn float() -> impl Strategy<Value = f64> {
    prop_oneof![any::<f64>(), any::<f32>().prop_map(f64::from)]
        .prop_filter("NaN is not equal to itself", |one| !one.is_nan())
}

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::Int),
        float().prop_map(Value::Float),
        text().prop_map(Value::String),
        prop::collection::vec(any::<bool>(), 0..3).prop_map(Value::Bools),
        prop::collection::vec(any::<i64>(), 0..3).prop_map(Value::Ints),
        prop::collection::vec(float(), 0..3).prop_map(Value::Floats),
        prop::collection::vec(text(), 0..3).prop_map(Value::Strings),
    ]
}

fn attributes() -> impl Strategy<Value = Attributes> {
    prop::collection::btree_map(text(), value(), 0..4)
}

fn context() -> impl Strategy<Value = SpanContext> {
    let state = prop::collection::btree_map(text(), text(), 0..2);
    (id(), id(), any::<bool>(), state).prop_map(|(trace_id, span_id, is_remote, trace_state)| SpanContext {
        trace_id,
        span_id,
        is_remote,
        trace_state,
    })
}

fn time() -> impl Strategy<Value = Option<Timestamp>> {
    prop::option::of(any::<u64>().prop_map(Timestamp::from_unix_nanos))
}

prop_compose! {
    fn span()(
        (trace_id, span_id, parent_id) in (id(), id(), prop::option::of(id())),
        (name, kind, status) in (text(), prop::option::of(prop::sample::select(&super::KINDS[..])),
            (prop::sample::select(&super::STATUS_CODES[..]), prop::option::of(text()))),
        attributes in attributes(),
        events in prop::collection::vec((text(), attributes(), time()), 0..3),
        links in prop::collection::vec((context(), prop::option::of(attributes())), 0..2),
        (start_time, end_time) in (time(), time()),
        (context, parent, has_own) in (prop::option::of(context()), prop::option::of(context()), any::<bool>()),
        resource in (attributes(), text()),
    ) -> Span {
        let own = |id: Option<&str>| super::own_context(&trace_id, id);
        let (context, parent) =
            if has_own { (own(Some(&span_id)), own(parent_id.as_deref())) } else { (context, parent) };
        Span {
            rollout_id: "r".into(), attempt_id: "a".into(), sequence_id: 7, trace_id, span_id, parent_id, name, kind,
            status: Status { status_code: status.0, description: status.1 }, attributes,
            events: events.into_iter().map(|(name, attributes, timestamp)| Event { name, attributes, timestamp }).collect(),
            links: links.into_iter().map(|(context, attributes)| Link { context, attributes }).collect(),
            start_time, end_time, context, parent,
            resource: Resource { attributes: resource.0, schema_url: resource.1 },
        }
    }
}

proptest! {
    #[test]
    fn a_record_is_read_as_it_was_written(span in span(), cut in any::<prop::sample::Index>(), bits in 1..=255_u8) {
        let record = encode(&span, |_| true);
        prop_assert_eq!(&decode(&record, columns(&span)).unwrap(), &span);
        let at = cut.index(record.len());
        prop_assert!(decode(&record[..at], columns(&span)).is_err(), "cut at {}", at);
        let mut damaged = record.clone();
        damaged[at] ^= bits;
        // It may be another span; it must not panic, and not take memory that its length does not justify.
        drop(decode(&damaged, columns(&span)));
        damaged = record;
        damaged.push(0);
        prop_assert!(matches!(decode(&damaged, columns(&span)), Err(RecordError::TooLong)));
    }
}

/// A record that version 1 wrote.
const STORED: &str = "01100123456789abcdef0123456789abcdef0108fedcba98765432100e6368617420c3a90303010635303006026106030203d80402620802\
    000000bf0000803f026307019a9999999999b93f0104b103e30101d30102e0c508019903000184e682c39d93fef51800010001e90204eb02c504";

#[test]
fn records_of_earlier_programs_are_read() {
    let span = Span {
        rollout_id: "r".into(),
        attempt_id: "a".into(),
        sequence_id: 7,
        trace_id: "0123456789abcdef0123456789abcdef".to_owned(),
        span_id: "0123456789abcdef".to_owned(),
        parent_id: Some("fedcba9876543210".to_owned()),
        name: "chat é".to_owned(),
        kind: Some(SpanKind::Client),
        status: Status { status_code: StatusCode::Error, description: Some("500".to_owned()) },
        attributes: Attributes::from([
            ("a".to_owned(), Value::Ints(vec![1, -2, 300])),
            ("b".to_owned(), Value::Floats(vec![-0.5, 1.0])),
            ("c".to_owned(), Value::Floats(vec![0.1])),
            ("http.request.method".to_owned(), Value::String("POST".to_owned())),
            ("tracewire.response.frames".to_owned(), Value::Int(70_000)),
            ("tracewire.connection.reused".to_owned(), Value::Bool(true)),
        ]),
        events: vec![Event {
            name: "exception".to_owned(),
            attributes: Attributes::default(),
            timestamp: Some(Timestamp::from_unix_nanos(1_795_802_216_081_175_300)),
        }],
        links: Vec::new(),
        start_time: Some(Timestamp::from_unix_nanos(1)),
        end_time: None,
        context: super::own_context("0123456789abcdef0123456789abcdef", Some("0123456789abcdef")),
        parent: None,
        resource: Resource {
            attributes: Attributes::from([("service.name".to_owned(), Value::String("tracewire".to_owned()))]),
            schema_url: "https://opentelemetry.io/schemas/1.41.1".to_owned(),
        },
    };
    assert_eq!(const_hex::encode(encode(&span, |_| true)), STORED);
    assert_eq!(decode(&const_hex::decode(STORED).unwrap(), columns(&span)).unwrap(), span);
    let without = encode(&span, |name| name != "a");
    assert_eq!(decode(&without, columns(&span)).unwrap().attributes.len(), 5);
    let mut newer = without;
    newer[0] = 9;
    assert!(matches!(decode(&newer, columns(&span)), Err(RecordError::UnknownVersion(9))));
}

#[test]
fn each_word_has_one_number() {
    for (number, word) in (0..).zip(WORDS) {
        assert_eq!(number_of_word(word), Some(number), "{word}");
    }
}

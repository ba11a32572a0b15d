//! Requests with values that strict decoders reject.

use super::message::{Any, AnyValue, ArrayValue, KeyValue, ResourceSpans, ScopeSpans, SpanMessage, TraceRequest};
use super::{DecodedSpan, OtlpFormat, encoded, spans};
use crate::trace::{Attributes, Span, SpanKind, StatusCode, Timestamp, Value};
use prost::Message;
use serde_json::{Value as JsonValue, json};

/// A span with these fields besides its ids.
fn span(fields: &JsonValue) -> JsonValue {
    let mut span = json!({ "traceId": "0a".repeat(16), "spanId": "0b".repeat(8) });
    span.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    span
}

fn decoded(spans_of: &JsonValue) -> Vec<DecodedSpan> {
    let request = json!({ "resourceSpans": [{ "scopeSpans": [{ "spans": spans_of }] }] });
    spans(OtlpFormat::Json, request.to_string().as_bytes()).unwrap()
}

fn only(fields: &JsonValue) -> Span {
    decoded(&json!([span(fields)])).remove(0).unwrap().0
}

fn attributes(list: &[(&str, JsonValue)]) -> Attributes {
    let list: Vec<JsonValue> = list.iter().map(|(key, value)| json!({ "key": key, "value": value })).collect();
    only(&json!({ "attributes": list })).attributes
}

#[test]
fn json_values_are_kept_in_every_spelling() {
    for (given, expected) in [
        (json!({ "intValue": "7" }), Value::Int(7)),
        (json!({ "intValue": 7.0 }), Value::Int(7)),
        (json!({ "int_value": 7 }), Value::Int(7)),
        (json!({ "intValue": i64::MIN.to_string() }), Value::Int(i64::MIN)),
        (json!({ "intValue": 1e21 }), Value::Float(1e21)),
        (json!({ "intValue": 1.5 }), Value::Float(1.5)),
        (json!({ "intValue": u64::MAX }), "18446744073709551615".into()),
        (json!({ "intValue": "18446744073709551615" }), "18446744073709551615".into()),
        (json!({ "intValue": "seven" }), "seven".into()),
        (json!({ "intValue": true }), "true".into()),
        (json!({ "doubleValue": 2 }), Value::Float(2.0)),
        (json!({ "doubleValue": "1.5" }), Value::Float(1.5)),
        (json!({ "doubleValue": "NaN" }), "NaN".into()),
        (json!({ "doubleValue": "-Infinity" }), "-Infinity".into()),
        (json!({ "boolValue": "true" }), Value::Bool(true)),
        (json!({ "boolValue": 1 }), "1".into()),
        (json!({ "stringValue": 5 }), "5".into()),
        (json!({ "stringValue": { "a": [1] } }), "{\"a\":[1]}".into()),
        (json!({ "stringValue": null, "intValue": "1", "unknown": {} }), Value::Int(1)),
        (json!({ "bytesValue": "AP8" }), "00ff".into()),
        (json!({ "bytesValue": "no base64" }), "no base64".into()),
        (json!({ "arrayValue": {} }), Value::Bools(Vec::new())),
        (json!({ "arrayValue": { "values": [{ "intValue": "1" }, { "intValue": 2.0 }] } }), Value::Ints(vec![1, 2])),
        (json!({ "arrayValue": { "values": [{ "intValue": 1 }, null, {}] } }), "[1,null,null]".into()),
        (json!({ "kvlistValue": { "values": null } }), "{}".into()),
        (json!("bare"), "bare".into()),
        (json!(1.5), Value::Float(1.5)),
        (json!([1, "a"]), "[1,\"a\"]".into()),
    ] {
        assert_eq!(attributes(&[("v", given.clone())])["v"], expected, "{given}");
    }
    let none = [("a", json!({})), ("b", json!(null)), ("c", json!({ "doubleValue": null })), ("d", json!({ "x": 1 }))];
    assert_eq!(attributes(&none), Attributes::new());
}

#[test]
fn json_fields_are_read_in_every_spelling() {
    let one = only(&json!({ "kind": "SPAN_KIND_SERVER", "status": { "code": "STATUS_CODE_ERROR", "message": "m" },
        "start_time_unix_nano": 1_700_000_000_000_000_000_u64, "endTimeUnixNano": "1.7e18", "unknown": [{}] }));
    let at = Some(Timestamp::from_unix_nanos(1_700_000_000_000_000_000));
    assert_eq!((one.kind, one.status.status_code), (Some(SpanKind::Server), StatusCode::Error));
    assert_eq!((one.start_time, one.end_time, one.status.description.as_deref()), (at, at, Some("m")));
    let two = only(&json!({ "kind": "3", "status": { "code": "1" }, "parentSpanId": "0C".repeat(8) }));
    assert_eq!((two.kind, two.status.status_code), (Some(SpanKind::Client), StatusCode::Ok));
    assert_eq!(two.parent_id, Some("0c".repeat(8)));
    for empty in [json!(null), json!([]), json!([null])] {
        let fields = json!({ "attributes": empty, "events": empty, "links": empty, "kind": null, "name": null,
            "status": null, "parentSpanId": null, "traceState": null, "startTimeUnixNano": null, "endTimeUnixNano": -1 });
        let span = only(&fields);
        assert_eq!((span.name.as_str(), span.start_time, span.end_time), ("", None, None));
    }
    let base64 = only(&json!({ "traceId": "AAAAAAAAAAAAAAAAAAAKvA==", "spanId": "AAAAAAAAAAM=" }));
    assert_eq!((base64.trace_id, base64.span_id), (format!("{:032x}", 0xabc), format!("{:016x}", 3)));
}

#[test]
fn a_json_span_that_cannot_be_kept_costs_no_other() {
    let good = span(&json!({}));
    for bad in [
        json!(7),
        span(&json!({ "spanId": "no hex" })),
        span(&json!({ "attributes": { "a": "b" } })),
        span(&json!({ "attributes": [7] })),
        span(&json!({ "events": "none" })),
        span(&json!({ "status": 2 })),
    ] {
        let decoded = decoded(&json!([good, bad, good]));
        assert_eq!(decoded.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false, true], "{bad}");
    }
    for (resource_spans, expected) in [
        (json!([7, null, {}]), vec![false]),
        (json!([{ "scopeSpans": 7 }, { "scopeSpans": [7, { "spans": [good] }] }]), vec![false, false, true]),
        (json!([{ "resource": { "attributes": 7 }, "scopeSpans": [{ "spans": [good] }] }]), vec![false]),
    ] {
        let request = json!({ "resourceSpans": resource_spans }).to_string();
        let decoded = spans(OtlpFormat::Json, request.as_bytes()).unwrap();
        assert_eq!(decoded.iter().map(Result::is_ok).collect::<Vec<_>>(), expected, "{resource_spans}");
    }
    for body in ["[]", "{\"resourceSpans\":7}", "{", "7"] {
        assert!(spans(OtlpFormat::Json, body.as_bytes()).is_err(), "{body}");
    }
}

#[test]
fn json_that_is_almost_json_is_read() {
    let request = json!({ "resourceSpans": [{ "scopeSpans": [{ "spans": [span(&json!({ "name": "NAME" }))] }] }] });
    for (name, expected) in [(&br"cut \ud83e"[..], "cut \u{fffd}"), (b"caf\xe9", "caf\u{fffd}"), (b"a\tb", "a\tb")] {
        let (before, after) =
            request.to_string().split_once("NAME").map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
        let body = [before.as_bytes(), name, after.as_bytes()].concat();
        assert_eq!(spans(OtlpFormat::Json, &body).unwrap()[0].as_ref().unwrap().0.name, expected);
    }
    let mut deep = json!(1);
    for _ in 0..60 {
        deep = json!({ "arrayValue": { "values": [deep] } });
    }
    assert!(only(&json!({ "attributes": [{ "key": "deep", "value": deep }] })).attributes["deep"].as_str().is_some());
}

#[test]
fn a_protobuf_span_that_cannot_be_kept_costs_no_other() {
    let message = |value: Any| SpanMessage {
        trace_id: vec![1; 16],
        span_id: vec![2; 8],
        name: b"caf\xe9".to_vec(),
        attributes: vec![KeyValue { key: b"k\xff".to_vec(), value: Some(AnyValue { value: Some(value) }) }],
        ..SpanMessage::default()
    };
    let mut deep = Any::Int(1);
    for _ in 0..60 {
        deep = Any::List(ArrayValue { values: vec![AnyValue { value: Some(deep) }] });
    }
    let request = |resource: &[u8]| {
        let good = message(Any::Text(b"\xed\xa0\xbe".to_vec())).encode_to_vec();
        let spans = vec![good.clone(), vec![0xff; 9], message(deep.clone()).encode_to_vec(), good];
        let resource_spans = ResourceSpans {
            resource: resource.to_vec(),
            scope_spans: vec![ScopeSpans { scope: Vec::new(), spans }],
            schema_url: Vec::new(),
        };
        spans_of(&TraceRequest { resource_spans: vec![resource_spans] }.encode_to_vec())
    };
    let decoded = request(&[]);
    assert_eq!(decoded.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false, false, true]);
    let span = &decoded[0].as_ref().unwrap().0;
    assert_eq!(
        (span.name.as_str(), &span.attributes["k\u{fffd}"]),
        ("caf\u{fffd}", &"\u{fffd}\u{fffd}\u{fffd}".into())
    );
    assert!(request(&[0xff]).iter().all(Result::is_err), "the damaged resource may have named a rollout");
    assert!(spans(OtlpFormat::Protobuf, b"\x7f\x7f").is_err());
}

fn spans_of(body: &[u8]) -> Vec<DecodedSpan> {
    spans(OtlpFormat::Protobuf, body).unwrap()
}

/// Spans are written as the messages that are read would be, whatever the lengths of their parts.
#[test]
fn both_formats_write_all_of_a_span() {
    let json = json!({ "rollout_id": "r", "attempt_id": "a", "sequence_id": 7, "trace_id": "0a".repeat(16), "span_id": "no id",
        "parent_id": "0c".repeat(8), "name": "n", "kind": "CLIENT", "status": { "status_code": "ERROR", "description": "failed" },
        "attributes": {}, "start_time": 1.5, "end_time": 2.5, "context": null,
        "parent": { "trace_id": "0a".repeat(16), "span_id": "0c".repeat(8), "is_remote": true, "trace_state": {} },
        "events": [{ "name": "e", "attributes": { "k": "v".repeat(300) }, "timestamp": 1.75 }],
        "links": [{ "context": { "trace_id": "0b".repeat(16), "span_id": "0d".repeat(8), "is_remote": false,
            "trace_state": { "a": "b" } }, "attributes": { "k": [1.5, -2.0] } }],
        "resource": { "attributes": { "service.name": "s" }, "schema_url": "https://example.com/schema" } });
    let mut one: Span = serde_json::from_value(json).unwrap();
    for (name, value) in [
        ("", Value::Bool(true)),
        ("int", Value::Int(-1)),
        ("float", Value::Float(0.5)),
        ("text", Value::String(String::new())),
        ("long", Value::String("é".repeat(20_000))),
        ("bools", Value::Bools(vec![true, false])),
        ("ints", Value::Ints((0..300).map(|number| number * number * number).collect())),
        ("texts", Value::Strings(vec!["a".to_owned(), "b".repeat(200)])),
        ("tracewire.dropped", Value::Floats(Vec::new())),
    ] {
        one.attributes.insert(name.to_owned(), value);
    }
    let mut other = one.clone();
    other.resource.attributes.clear();
    other.span_id = "0e".repeat(8);
    let all = [one.clone(), other, one];
    let protobuf = encoded(OtlpFormat::Protobuf, &all).unwrap();
    // Another encoder writes the same bytes of what it reads.
    assert!(TraceRequest::decode(&*protobuf).unwrap().encode_to_vec() == protobuf);
    let spans_of_all =
        TraceRequest::decode(&*protobuf).unwrap().resource_spans.into_iter().flat_map(|one| one.scope_spans);
    for span in spans_of_all.flat_map(|scope| scope.spans) {
        assert!(SpanMessage::decode(&*span).unwrap().encode_to_vec() == span);
    }
    let decoded = |format, body: &[u8]| {
        let decoded = spans(format, body).unwrap().into_iter().map(Result::unwrap);
        decoded.map(|(span, attribution)| (span, attribution.rollout, attribution.sequence_id)).collect::<Vec<_>>()
    };
    let from_protobuf = decoded(OtlpFormat::Protobuf, &protobuf);
    assert_eq!(from_protobuf, decoded(OtlpFormat::Json, &encoded(OtlpFormat::Json, &all).unwrap()));
    let (span, rollout, sequence_id) = &from_protobuf[0];
    assert_eq!((rollout.as_deref(), *sequence_id, from_protobuf.len()), (Some("r"), Some(7), 3));
    assert_eq!(
        (&span.attributes["long"], &span.attributes["ints"]),
        (&all[0].attributes["long"], &all[0].attributes["ints"])
    );
    assert_eq!((&span.events, &span.links, span.start_time), (&all[0].events, &all[0].links, all[0].start_time));
}

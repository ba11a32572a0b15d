//! Limits of spans and of rollouts: what is left out, what never is, and where that is said.

use crate::support::client::{ask, get, post};
use crate::support::postgres::database;
use crate::support::{Bench, Running, eventually, say, tracewire};
use serde_json::{Map, Value, json};

/// A server with settings.
fn serve(bench: &Bench, settings: &str) -> Running {
    let config = bench.home().join("limits.toml");
    std::fs::write(&config, settings).unwrap();
    bench.serve(&["--config", config.to_str().unwrap()])
}

fn text_attribute(name: &str, value: &str) -> Value {
    json!({ "key": name, "value": { "stringValue": value } })
}

/// Sends a span over OTLP, with further fields.
fn send(serve: &Running, rollout: &str, id: &str, attributes: &[Value], fields: &Value) {
    let mut span: Map<String, Value> = fields.as_object().cloned().unwrap_or_default();
    span.extend([
        ("traceId".to_owned(), json!("0af7651916cd43dd8448eb211c80319c")),
        ("spanId".to_owned(), json!(id)),
        ("name".to_owned(), json!("step")),
        ("attributes".to_owned(), json!(attributes)),
    ]);
    let resource = json!({ "attributes": [text_attribute("agentlightning.rollout_id", rollout)] });
    let body = json!({ "resourceSpans": [{ "resource": resource, "scopeSpans": [{ "spans": [span] }] }] });
    let reply = post(serve.address("server"), "/v1/traces", &body);
    assert_eq!(reply.status, 200, "{}", reply.text());
}

fn metrics(serve: &Running) -> String {
    get(serve.address("server"), "/metrics").text()
}

/// Requests a path of the mock through the proxy.
fn fetch(bench: &Bench, serve: &Running, rollout: &str, path: &str) {
    let request = format!(
        "GET {}{path} HTTP/1.1\r\nHost: x\r\nx-rollout-id: {rollout}\r\nConnection: close\r\n\r\n",
        bench.http()
    );
    let answer = say(serve.address("proxy"), request.as_bytes());
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

/// An LLM call through the proxy.
fn call(bench: &Bench, serve: &Running, rollout: &str, attempt: &str) {
    let body = json!({ "model": "m", "messages": [{ "role": "user", "content": "hi" }] }).to_string();
    let request = format!(
        "POST {}/v1/chat/completions HTTP/1.1\r\nHost: x\r\nx-rollout-id: {rollout}\r\nx-attempt-id: {attempt}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        bench.http(),
        body.len()
    );
    let answer = say(serve.address("proxy"), request.as_bytes());
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

/// A registered rollout and its attempt.
fn registered(serve: &Running) -> (String, String) {
    let started = post(serve.address("server"), "/v1/agl/rollouts", &json!({ "input": {} })).json();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    (text(&started["rollout_id"]), text(&started["attempt"]["attempt_id"]))
}

/// The stored spans, and the sum of an attribute over those that count the others.
fn stored(bench: &Bench, rollout: &str, counted: &str) -> (Vec<Value>, i64) {
    let (counts, spans): (Vec<Value>, Vec<Value>) =
        bench.spans(rollout).into_iter().partition(|span| span["name"] == "spans_not_stored");
    let counted = format!("tracewire.not_stored.{counted}");
    (spans, counts.iter().map(|span| span["attributes"][&counted].as_i64().unwrap()).sum())
}

fn verdict(serve: &Running, rollout: &str) -> Vec<(String, String)> {
    let view = get(serve.address("server"), &format!("/v1/tracewire/rollouts/{rollout}/verdict")).json();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let reasons = view["reasons"].as_array().unwrap_or_else(|| panic!("no verdict in {view:#}"));
    reasons.iter().map(|reason| (text(&reason["name"]), text(&reason["detail"]))).collect()
}

#[test]
fn without_settings_everything_is_stored() {
    let bench = Bench::new();
    let serve = serve(&bench, "");
    let attributes: Vec<Value> =
        (0..300).map(|number| text_attribute(&format!("a.{number}"), &"x".repeat(5000))).collect();
    let events = vec![json!({ "name": "e" }); 300];
    send(&serve, "ro-all", "00f067aa0ba902b7", &attributes, &json!({ "events": events }));
    let span = &bench.spans("ro-all")[0];
    assert_eq!((span["attributes"].as_object().unwrap().len(), span["events"].as_array().unwrap().len()), (300, 300));
    assert!(!metrics(&serve).contains("not_stored"));
}

#[test]
fn a_span_over_otlp_is_cut_and_says_so_but_for_its_llm_call() {
    let bench = Bench::new();
    let serve = serve(
        &bench,
        "[limits]\nmax_attributes = 4\nmax_attribute_chars = 5\nmax_events = 1\nmax_links = 1\nmax_event_attributes = 1\n",
    );
    let messages = json!([{ "role": "user", "parts": [{ "type": "text", "content": "a long message" }] }]).to_string();
    let attributes = [
        text_attribute("a", "äöüßéè"),
        text_attribute("b", "short"),
        text_attribute("c", "c"),
        text_attribute("gen_ai.input.messages", &messages),
        text_attribute("gen_ai.operation.name", "chat"),
        text_attribute("input.value", &messages),
    ];
    let event = json!({ "name": "e", "attributes": [text_attribute("x", "1"), text_attribute("y", "2")] });
    let link = json!({ "traceId": "1af7651916cd43dd8448eb211c80319c", "spanId": "00f067aa0ba902b8" });
    let fields = json!({ "events": [event, event, event], "links": [link, link], "droppedEventsCount": 5 });
    send(&serve, "ro-cut", "00f067aa0ba902b7", &attributes, &fields);
    let span = &bench.spans("ro-cut")[0];
    let expected = json!({ "a": "äöüßé", "gen_ai.input.messages": messages, "gen_ai.operation.name": "chat",
        "input.value": messages, "tracewire.span.dropped_attributes": 2, "tracewire.span.dropped_events": 7,
        "tracewire.span.dropped_links": 1, "tracewire.span.truncated_attributes": ["a"] });
    assert_eq!(span["attributes"], expected);
    assert_eq!(span["events"][0]["attributes"], json!({ "x": "1", "tracewire.dropped_attributes": 1 }));
    let metrics = metrics(&serve);
    for (part, count) in [("attributes", 3), ("values", 1), ("events", 2), ("links", 1)] {
        assert!(metrics.contains(&format!("tracewire_span_parts_cut_total{{part=\"{part}\"}} {count}\n")), "{metrics}");
    }
    // OTLP has fields for these counts.
    let output = tracewire(bench.home()).args(["export", "--format", "otlp-json", "ro-cut"]).output().unwrap();
    let exported = String::from_utf8(output.stdout).unwrap();
    for field in [
        "\"droppedAttributesCount\":2",
        "\"droppedEventsCount\":7",
        "\"droppedLinksCount\":1",
        "\"droppedAttributesCount\":1",
    ] {
        assert!(exported.replace(": ", ":").contains(field), "{field}: {exported}");
    }
}

#[test]
fn limits_hold_for_spans_of_rest_clients_and_exchanges() {
    let bench = Bench::new();
    let serve =
        serve(&bench, "[limits]\nmax_attributes = 8\nmax_attribute_chars = 10\n[capture]\ninclude_bodies = true\n");
    let (rollout, attempt) = registered(&serve);
    let span = json!({ "rollout_id": rollout, "attempt_id": attempt, "sequence_id": 1, "trace_id": "t", "span_id": "s-1",
        "parent_id": null, "name": "step", "status": { "status_code": "OK" }, "attributes": { "note": "x".repeat(99) },
        "events": [], "links": [], "start_time": null, "end_time": null, "context": null, "parent": null,
        "resource": { "attributes": {}, "schema_url": "" } });
    assert_eq!(post(serve.address("server"), "/v1/agl/spans", &span).status, 201);
    assert_eq!(bench.spans(&rollout)[0]["attributes"]["note"], "x".repeat(10));
    fetch(&bench, &serve, "ro-own", "/echo?a=long-enough");
    let attributes = &bench.exchanges("ro-own", 1)[0]["attributes"];
    assert!(attributes["url.full"].as_str().unwrap().ends_with("/echo?a=long-enough"), "{attributes:#}");
    assert_eq!(attributes["http.response.status_code"], 200);
    let dropped = attributes["tracewire.span.dropped_attributes"].as_i64().unwrap_or(0);
    let cut = attributes["tracewire.span.truncated_attributes"].as_array().map_or(0, Vec::len);
    assert!(dropped > 0 || cut > 0, "{attributes:#}");
    // A call keeps what it is made of.
    call(&bench, &serve, "ro-call", "at-1");
    let attributes = &bench.exchanges("ro-call", 1)[0]["attributes"];
    assert!(attributes["gen_ai.input.messages"].as_str().unwrap().len() > 10, "{attributes:#}");
    assert!(attributes["gen_ai.output.messages"].as_str().unwrap().len() > 10, "{attributes:#}");
}

#[test]
fn a_rollout_at_its_limit_counts_what_it_does_not_store() {
    let bench = Bench::new();
    let settings = "[limits]\nmax_rollout_spans = 3\n";
    let serve = serve(&bench, settings);
    for _ in 0..7 {
        fetch(&bench, &serve, "ro-loop", "/echo");
    }
    call(&bench, &serve, "ro-loop", "at-1");
    // Another rollout has a limit of its own.
    fetch(&bench, &serve, "ro-other", "/echo");
    eventually(|| (stored(&bench, "ro-loop", "spans").1 == 5).then_some(()));
    assert_eq!(stored(&bench, "ro-loop", "spans").0.len(), 3);
    assert_eq!(stored(&bench, "ro-loop", "llm_calls").1, 1);
    assert!(stored(&bench, "ro-loop", "output_tokens").1 > 0);
    assert_eq!(bench.exchanges("ro-other", 1).len(), 1);
    let metrics = metrics(&serve);
    let counted = "tracewire_spans_not_stored_total{reason=\"rollout_limit\",rule=\"limits.max_rollout_spans\"} 5\n";
    assert!(metrics.contains(counted) && metrics.contains("tracewire_spans_lost_total 0\n"), "{metrics}");
    let listed = get(serve.address("server"), "/v1/tracewire/rollouts?q=ro-loop").json();
    let totals = &listed["rollouts"][0]["totals"];
    assert_eq!(totals["not_stored"], json!({ "spans": 5, "errors": 0, "llm_calls": 1 }), "{listed:#}");
    assert!(totals["output_tokens"].as_i64().unwrap() > 0, "{listed:#}");
    // Nothing is lost, and the limit holds after a restart.
    assert_eq!(serve.stop(), Some(0));
    let serve = self::serve(&bench, settings);
    fetch(&bench, &serve, "ro-loop", "/echo");
    assert_eq!(serve.stop(), Some(0));
    let (spans, left_out) = stored(&bench, "ro-loop", "spans");
    assert_eq!((spans.len(), left_out), (3, 6));
}

#[test]
fn calls_and_rewards_of_registered_rollouts_are_stored_beyond_the_limit() {
    for (beyond, calls, reason) in [("registered_calls", 2, "spans_not_stored"), ("nothing", 0, "llm_calls_not_stored")]
    {
        let bench = Bench::new();
        let settings = format!("[limits]\nmax_rollout_spans = 1\nbeyond_rollout_limit = \"{beyond}\"\n");
        let serve = serve(&bench, &settings);
        let (rollout, attempt) = registered(&serve);
        for _ in 0..3 {
            fetch(&bench, &serve, &format!("{rollout}\r\nx-attempt-id: {attempt}"), "/echo");
        }
        call(&bench, &serve, &rollout, &attempt);
        call(&bench, &serve, &rollout, &attempt);
        let path = format!("/v1/agl/rollouts/{rollout}/attempts/{attempt}");
        let span = json!({ "rollout_id": rollout, "attempt_id": attempt, "sequence_id": 99, "trace_id": "t", "span_id": "reward",
            "parent_id": null, "name": "agentlightning.annotation", "status": { "status_code": "OK" },
            "attributes": { "agentlightning.reward.0.value": 1.0 }, "events": [], "links": [], "start_time": null,
            "end_time": null, "context": null, "parent": null, "resource": { "attributes": {}, "schema_url": "" } });
        assert_eq!(post(serve.address("server"), "/v1/agl/spans", &span).status, 201);
        let ended = ask(serve.address("server"), "POST", &path, &[], &json!({ "status": "succeeded" }).to_string());
        assert_eq!(ended.status, 200, "{}", ended.text());
        let expected = 4 - calls;
        eventually(|| (stored(&bench, &rollout, "spans").1 == expected).then_some(()));
        let spans = stored(&bench, &rollout, "spans").0;
        let is_call = |span: &&Value| span["attributes"]["gen_ai.operation.name"] == "chat";
        assert_eq!(spans.iter().filter(is_call).count() as i64, calls, "{spans:#?}");
        assert!(spans.iter().any(|span| span["span_id"] == "reward"));
        let reasons = verdict(&serve, &rollout);
        let (_, detail) = reasons.iter().find(|(name, _)| name == reason).unwrap_or_else(|| panic!("{reasons:?}"));
        assert!(
            detail.contains("limits.max_rollout_spans") && detail.contains(&format!("{expected} spans")),
            "{detail}"
        );
    }
}

#[test]
fn bytes_of_a_rollout_are_limited() {
    let bench = Bench::new();
    let serve = serve(&bench, "[limits]\nmax_rollout_bytes = 20000\n");
    for number in 0..6_u64 {
        let attributes = [text_attribute("text", &"x".repeat(9000))];
        send(&serve, "ro-big", &format!("{:016x}", number + 1), &attributes, &Value::Null);
    }
    eventually(|| (stored(&bench, "ro-big", "spans").1 == 3).then_some(()));
    assert_eq!(stored(&bench, "ro-big", "spans").0.len(), 3);
    assert!(metrics(&serve).contains("rule=\"limits.max_rollout_bytes\"} 3\n"));
}

#[test]
fn limits_of_rollouts_hold_in_every_store() {
    let database = database();
    for store in ["memory:", &database] {
        let bench = Bench::new();
        let config = bench.home().join("limits.toml");
        std::fs::write(&config, "[limits]\nmax_rollout_spans = 2\n").unwrap();
        let serve = bench.serve(&["--config", config.to_str().unwrap(), "--store", store]);
        let (rollout, attempt) = registered(&serve);
        for _ in 0..5 {
            fetch(&bench, &serve, &format!("{rollout}\r\nx-attempt-id: {attempt}"), "/echo");
        }
        call(&bench, &serve, &rollout, &attempt);
        let path = format!("/v1/agl/rollouts/{rollout}/attempts/{attempt}");
        let ended = ask(serve.address("server"), "POST", &path, &[], &json!({ "status": "succeeded" }).to_string());
        assert_eq!(ended.status, 200, "{}", ended.text());
        let (stored, left_out) = eventually(|| {
            let page = get(serve.address("server"), &format!("/v1/agl/spans?rollout_id={rollout}&limit=-1")).json();
            let counted = |span: &Value| span["attributes"]["tracewire.not_stored.spans"].as_i64();
            let spans = page["items"].as_array()?;
            let left_out: i64 = spans.iter().filter_map(counted).sum();
            (left_out == 3).then(|| (spans.iter().filter(|span| counted(span).is_none()).count(), left_out))
        });
        assert_eq!((stored, left_out), (3, 3), "{store}: two exchanges and the call are stored");
        assert!(verdict(&serve, &rollout).iter().any(|(name, _)| name == "spans_not_stored"), "{store}");
        assert_eq!(serve.stop(), Some(0));
    }
}

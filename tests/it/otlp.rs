//! OTLP over HTTP, byte by byte: forms, codings, what is refused and what stays. And who may use the server door.

use crate::support::{Bench, Running, eventually, node_modules, python, root, say, text};
use serde_json::{Value, json};
use std::process::Command;

/// A request to the server door: status and body.
fn ask(serve: &Running, method: &str, path: &str, fields: &str, body: &str) -> (u16, String) {
    let length = body.len();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nconnection: close\r\n{fields}content-length: {length}\r\n\r\n"
    );
    let answer = say(serve.address("server"), format!("{head}{body}").as_bytes());
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

const JSON: &str = "content-type: application/json\r\n";

fn request(resource: &Value, spans: &Value) -> String {
    json!({ "resourceSpans": [{ "resource": { "attributes": resource }, "scopeSpans": [{ "spans": spans }] }] })
        .to_string()
}

fn span(trace: &str, id: &str) -> Value {
    json!({ "traceId": trace, "spanId": id, "name": "s", "kind": 1, "startTimeUnixNano": "1700000000000000000",
            "endTimeUnixNano": "1700000001000000000", "attributes": [{ "key": "n", "value": { "intValue": "7" } }] })
}

#[test]
fn good_spans_stay_when_others_are_refused() {
    let bench = Bench::new();
    let serve = bench.serve(&[]);
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let named = json!([{ "key": "agentlightning.rollout_id", "value": { "stringValue": "ro-json" } }]);
    let mut root = span(trace, "00f067aa0ba902b7");
    root["parentSpanId"] = json!("0000000000000000");
    let mixed = json!([root, span("00", "00f067aa0ba902b8"), span(trace, ""), span("no hex", "00f067aa0ba902b8")]);
    let (status, body) = ask(&serve, "POST", "/v1/traces", JSON, &request(&named, &mixed));
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((status, &body["partialSuccess"]["rejectedSpans"]), (200, &json!("3")), "{body:#}");
    let reason = body["partialSuccess"]["errorMessage"].as_str().unwrap();
    assert!(reason.contains("trace id") && reason.contains("span id"), "{reason}");
    let spans = bench.spans("ro-json");
    assert_eq!((spans.len(), &spans[0]["attributes"]["n"], &spans[0]["sequence_id"]), (1, &json!(7), &json!(1)));
    // Nobody's: kept, and counted.
    let nobody = request(&json!([]), &json!([span("1af7651916cd43dd8448eb211c80319c", "00f067aa0ba902b9")]));
    assert_eq!(ask(&serve, "POST", "/v1/traces", JSON, &nobody).0, 200);
    assert_eq!(bench.spans("unassigned").len(), 1);
    let metrics = ask(&serve, "GET", "/metrics", "", "").1;
    for counted in ["otlp_spans_total 2", "otlp_spans_rejected_total 3", "otlp_spans_unassigned_total 1"] {
        assert!(metrics.contains(&format!("tracewire_{counted}\n")), "{counted}: {metrics}");
    }
    // The caller's word, when the span has none.
    let fields = format!("{JSON}x-rollout-id: ro-caller\r\nx-attempt-id: at-caller\r\n");
    let mine = request(&json!([]), &json!([span("2af7651916cd43dd8448eb211c80319c", "00f067aa0ba902ba")]));
    assert_eq!(ask(&serve, "POST", "/v1/traces", &fields, &mine).0, 200);
    assert_eq!(bench.spans("ro-caller")[0]["attempt_id"], "at-caller");
    // Whose trace it is counts before that.
    let joined = request(&json!([]), &json!([span(trace, "00f067aa0ba902bb")]));
    assert_eq!(ask(&serve, "POST", "/v1/traces", &fields, &joined).0, 200);
    assert_eq!(bench.spans("ro-json").len(), 2);
}

#[test]
fn bad_requests_are_told_why() {
    let bench = Bench::new();
    let serve = bench.serve(&[]);
    for (fields, body, status, word) in [
        ("content-type: text/plain\r\n", "x", 415, "content type"),
        (JSON, "{\"resourceSpans\":7}", 400, "no ExportTraceServiceRequest"),
        ("content-type: application/x-protobuf\r\n", "\u{7f}\u{7f}", 400, "no ExportTraceServiceRequest"),
        ("content-type: application/json\r\ncontent-encoding: gzip\r\n", "{}", 400, "gzip"),
        ("content-type: application/json\r\ncontent-encoding: br\r\n", "{}", 400, "br data is cut or damaged"),
        ("content-type: application/json\r\ncontent-encoding: snappy\r\n", "{}", 400, "unknown coding snappy"),
        ("content-type: application/x-protobuf\r\n", "", 200, ""),
        (JSON, "", 200, ""),
    ] {
        let (got, answer) = ask(&serve, "POST", "/v1/traces", fields, body);
        assert_eq!(got, status, "{fields}{body}: {answer}");
        assert!(answer.contains(word), "{fields}{body}: {answer}");
    }
    assert_eq!(ask(&serve, "POST", "/v1/metrics", JSON, "{}").0, 501);
    assert_eq!(ask(&serve, "GET", "/v1/agl/nothing", "", "").0, 404);
}

#[test]
fn one_bad_value_costs_no_batch() {
    let bench = Bench::new();
    let serve = bench.serve(&[]);
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let named = json!([{ "key": "agentlightning.rollout_id", "value": { "stringValue": "ro-odd" } }]);
    let odd = |id: &str, value: Value| {
        let mut span = span(trace, id);
        span["kind"] = json!("SPAN_KIND_CLIENT");
        span["attributes"] = json!([{ "key": "v", "value": value }, { "key": "none", "value": null }]);
        span
    };
    let spans = json!([
        odd("00f067aa0ba90201", json!({ "stringValue": "HALF" })),
        odd("00f067aa0ba90202", json!({ "doubleValue": "NaN" })),
        odd("00f067aa0ba90203", json!({ "intValue": "18446744073709551615" })),
        odd("00f067aa0ba90204", json!({ "intValue": 7.0 })),
        { "traceId": trace, "spanId": "00f067aa0ba90205", "attributes": 7 },
    ]);
    let body = request(&named, &spans).replace("HALF", "cut \\ud83e");
    let (status, answer) = ask(&serve, "POST", "/v1/traces", JSON, &body);
    let answer: Value = serde_json::from_str(&answer).unwrap();
    assert_eq!((status, &answer["partialSuccess"]["rejectedSpans"]), (200, &json!("1")), "{answer}");
    assert_eq!(answer["partialSuccess"]["errorMessage"], "attributes is not a list");
    let stored = bench.spans("ro-odd");
    let values: Vec<&Value> = stored.iter().map(|span| &span["attributes"]["v"]).collect();
    assert_eq!(values, [&json!("cut \u{fffd}"), &json!("NaN"), &json!("18446744073709551615"), &json!(7)]);
    assert!(stored.iter().all(|span| span["kind"] == "CLIENT"));

    // Protobuf: fields of a length, by number.
    let field = |number: u8, data: &[u8]| {
        let length = data.len();
        let low = u8::try_from(length & 127).unwrap();
        let prefix = if length < 128 { vec![low] } else { vec![low | 128, u8::try_from(length >> 7).unwrap()] };
        [&[number << 3 | 2], prefix.as_slice(), data].concat()
    };
    let attribute = |key: &[u8], text: &[u8]| [field(1, key), field(2, &field(1, text))].concat();
    let span = |id: u8, text: &[u8]| {
        let ids = [field(1, &[7; 16]), field(2, &[id; 8])].concat();
        field(2, &[ids, field(5, b"s"), field(9, &attribute(b"v", text))].concat())
    };
    let resource = field(1, &field(1, &attribute(b"agentlightning.rollout_id", b"ro-bytes")));
    let spans = [span(1, b"fine"), span(2, b"caf\xe9"), field(2, b"\x07"), span(3, b"fine")].concat();
    let body = field(1, &[resource, field(2, &spans)].concat());
    let head = format!(
        "POST /v1/traces HTTP/1.1\r\nHost: localhost\r\ncontent-type: application/x-protobuf\r\ncontent-length: {}\r\n\
         connection: close\r\n\r\n",
        body.len()
    );
    let answer = say(serve.address("server"), &[head.into_bytes(), body].concat());
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("it cannot be decoded"), "{answer}");
    let stored = bench.spans("ro-bytes");
    let values: Vec<&Value> = stored.iter().map(|span| &span["attributes"]["v"]).collect();
    assert_eq!(values, ["fine", "caf\u{fffd}", "fine"]);
}

#[test]
fn every_spelling_of_gzip_is_decoded() {
    let bench = Bench::new();
    let serve = bench.serve(&[]);
    let named = json!([{ "key": "agentlightning.rollout_id", "value": { "stringValue": "ro-gzip" } }]);
    for (number, (coding, members)) in
        [("gzip", 1), ("GZIP", 1), ("x-gzip", 1), ("gzip", 3), ("identity, gzip", 2)].into_iter().enumerate()
    {
        let id = format!("00f067aa0ba902b{number}");
        let json = request(&named, &json!([span("0af7651916cd43dd8448eb211c80319c", &id)]));
        let parts = json.as_bytes().chunks(json.len().div_ceil(members));
        let body: Vec<u8> = parts.flat_map(|part| tracewire::internals::gzip(part).unwrap()).collect();
        let head = format!(
            "POST /v1/traces HTTP/1.1\r\nHost: localhost\r\n{JSON}content-encoding: {coding}\r\naccept-encoding: gzip;q=0\r\n\
             content-length: {}\r\nConnection: close\r\n\r\n",
            body.len()
        );
        let answer = say(serve.address("server"), &[head.into_bytes(), body].concat());
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("{}"), "{coding} {members}: {answer}");
        assert_eq!(bench.spans("ro-gzip").len(), number + 1);
    }
}

#[test]
fn what_is_wrong_with_a_request_to_the_store_is_said_in_its_shapes() {
    let bench = Bench::new();
    let serve = bench.serve(&[]);
    let post = |path: &str, body: Value| ask(&serve, "POST", &format!("/v1/agl{path}"), JSON, &body.to_string());
    let get = |path: &str| ask(&serve, "GET", &format!("/v1/agl{path}"), "", "");
    let (_, made) = post("/rollouts", json!({ "input": null }));
    let made: Value = serde_json::from_str(&made).unwrap();
    let (rollout, attempt) = (made["rollout_id"].as_str().unwrap(), made["attempt"]["attempt_id"].as_str().unwrap());
    let span = |attributes: Value| {
        json!({ "rollout_id": rollout, "attempt_id": attempt, "sequence_id": 1, "trace_id": "t", "span_id": "s", "parent_id": null,
                "name": "n", "status": { "status_code": "OK" }, "attributes": attributes, "events": [], "links": [],
                "start_time": 1.0, "end_time": 2.0, "context": null, "parent": null, "resource": { "attributes": {}, "schema_url": "" } })
    };
    let without_parent = {
        let mut span = span(json!({}));
        span.as_object_mut().unwrap().remove("parent_id");
        span
    };
    for ((status, body), expected, word) in [
        (post("/queues/rollouts/enqueue", json!({ "rollouts": [{}] })), 422, "input"),
        (post("/queues/rollouts/enqueue", json!({ "rollouts": [] })), 201, "[]"),
        (post("/queues/rollouts/enqueue", json!({ "rollouts": [{ "input": 1, "mode": "sleep" }] })), 422, "mode"),
        (post("/rollouts", json!({ "input": 1, "config": { "max_attempts": 0 } })), 422, "max_attempts"),
        (post("/queues/rollouts/dequeue", Value::Null), 200, "[]"),
        (post("/queues/rollouts/dequeue", json!({ "limit": 0 })), 200, "[]"),
        (get("/rollouts?limit=0"), 400, "Limit must be greater than 0 or -1 for no limit"),
        (get("/rollouts?offset=-1"), 400, "Offset must be greater than or equal to 0"),
        (get("/rollouts?sort_by=nope"), 400, "Invalid sort_by: nope, allowed fields are: rollout_id, input,"),
        (get("/rollouts?sort_order=up"), 422, "sort_order"),
        (get("/rollouts?status_in=asleep"), 422, "status_in"),
        (get("/rollouts?limit=many"), 422, "integer"),
        (get("/rollouts/ro-none"), 404, "Rollout ro-none not found"),
        (
            post("/rollouts/ro-none", json!({ "status": "failed" })),
            404,
            "Item does not exist with primary key(s): rollout_id=ro-none",
        ),
        (
            post(&format!("/rollouts/{rollout}"), json!({ "status": null })),
            400,
            "status is invalid; it cannot be a null value.",
        ),
        (
            post(&format!("/rollouts/{rollout}/attempts/at-none"), json!({ "status": "failed" })),
            404,
            "Attempt at-none not found for rollout",
        ),
        (
            post(&format!("/rollouts/{rollout}/attempts/latest"), json!({ "metadata": null })),
            400,
            "metadata is invalid",
        ),
        (post("/workers/w", json!({ "heartbeat_stats": null })), 400, "heartbeat_stats is invalid"),
        (post("/workers/w", json!({ "heartbeat_stats": 7 })), 422, "dictionary"),
        (get("/workers/nobody"), 200, "null"),
        (get("/resources/latest"), 200, "null"),
        (post("/resources", json!({ "x": { "resource_type": "gpu" } })), 422, "resource_type"),
        (get("/spans"), 422, "rollout_id"),
        (get("/spans?rollout_id=ro-none&attempt_id=latest"), 200, "\"total\":0"),
        (post("/spans", span(json!({ "a": null }))), 422, "attributes"),
        (post("/spans", span(json!({ "a": [[1]] }))), 422, "attributes"),
        (post("/spans", span(json!({ "a": [1, "b"] }))), 422, "attributes"),
        (post("/spans", without_parent), 422, "parent_id"),
        (post("/spans", span(json!({ "a": [1, 2.5] }))), 201, "[1.0,2.5]"),
        (post("/spans", span(json!({}))), 201, "null"),
    ] {
        assert_eq!(status, expected, "{body}");
        assert!(body.contains(word), "{word}: {body}");
    }
    let odd = {
        let mut odd = span(json!({}));
        odd["span_id"] = json!("odd");
        odd["color"] = json!({ "is": ["kept"] });
        odd
    };
    assert!(post("/spans", odd).1.contains("\"color\":{\"is\":[\"kept\"]}"));
    let kept: Value = serde_json::from_str(&get(&format!("/spans?rollout_id={rollout}&span_id=odd")).1).unwrap();
    assert_eq!((&kept["items"][0]["color"], &kept["items"][0]["attributes"]), (&json!({ "is": ["kept"] }), &json!({})));
    let huge = ask(&serve, "POST", "/v1/agl/rollouts", &format!("{JSON}expect: \r\n"), &"x".repeat((64 << 20) + 1));
    assert_eq!(huge.0, 413);
}

#[test]
fn tokens_say_who_may_do_what() {
    let bench = Bench::new();
    let config = bench.home().join("proxy.toml");
    let tokens = r#"
        [[server.tokens]]
        token = "reader-1"
        scopes = ["read"]
        [[server.tokens]]
        token = "runner-1"
        rollouts = ["ro-mine*"]
    "#;
    std::fs::write(&config, format!("[server]\ncors_origins = [\"http://other.test\"]\n{tokens}")).unwrap();
    let serve = bench.serve(&["--config", config.to_str().unwrap(), "--cors-origin", "http://page.test"]);
    let bearer = |token: &str| format!("authorization: Bearer {token}\r\n{JSON}");
    let list = |token: &str| ask(&serve, "GET", "/v1/agl/rollouts", &bearer(token), "").0;
    assert_eq!(["", "wrong", "reader-1", "runner-1"].map(list), [401, 401, 200, 403]);
    let span_of = |rollout: &str| {
        let named = json!([{ "key": "agentlightning.rollout_id", "value": { "stringValue": rollout } }]);
        request(&named, &json!([span("0af7651916cd43dd8448eb211c80319c", "00f067aa0ba902b7")]))
    };
    assert_eq!(ask(&serve, "POST", "/v1/traces", &bearer("reader-1"), &span_of("ro-mine-1")).0, 403);
    let mine = ask(&serve, "POST", "/v1/traces", &bearer("runner-1"), &span_of("ro-mine-1"));
    assert_eq!(mine, (200, "{}".to_owned()));
    let others = ask(&serve, "POST", "/v1/traces", &bearer("runner-1"), &span_of("ro-yours"));
    assert!(others.1.contains("the token is not for this rollout"), "{others:?}");
    let spans =
        |rollout: &str| ask(&serve, "GET", &format!("/v1/agl/spans?rollout_id={rollout}"), &bearer("runner-1"), "").0;
    assert_eq!((spans("ro-mine-1"), spans("ro-yours")), (200, 403));
    assert_eq!((ask(&serve, "GET", "/readyz", "", "").0, ask(&serve, "GET", "/metrics", "", "").0), (200, 401));
    let preflight = "origin: http://page.test\r\naccess-control-request-method: POST\r\n";
    assert_eq!(ask(&serve, "OPTIONS", "/v1/agl/rollouts", preflight, "").0, 200);
    for (origin, is_allowed) in [("http://page.test", true), ("http://other.test", true), ("http://third.test", false)]
    {
        let request =
            format!("GET /healthz HTTP/1.1\r\nHost: localhost\r\norigin: {origin}\r\nconnection: close\r\n\r\n");
        let raw = say(serve.address("server"), request.as_bytes()).to_lowercase();
        assert_eq!(raw.contains(&format!("access-control-allow-origin: {origin}\r\n")), is_allowed, "{raw}");
        assert!(!is_allowed || raw.contains("access-control-allow-credentials: true"), "{raw}");
    }
    eventually(|| (bench.spans("ro-mine-1").len() == 1).then_some(()));
}

#[test]
fn what_is_asked_again_for_want_of_an_answer_is_done_once() {
    let bench = Bench::new();
    let serve = bench.serve(&[]);
    let enqueue = "/v1/agl/queues/rollouts/enqueue";
    let total = || -> Value {
        let (_, page) = ask(&serve, "GET", "/v1/agl/rollouts", "", "");
        serde_json::from_str::<Value>(&page).unwrap()["total"].clone()
    };
    // Two who ask the same are two.
    let same = json!({ "rollouts": [{ "input": "same" }] }).to_string();
    let ids: Vec<String> = (0..2).map(|_| ask(&serve, "POST", enqueue, JSON, &same).1).collect();
    assert_ne!(ids[0], ids[1]);
    // A name makes them one.
    let named = format!("{JSON}idempotency-key: once\r\n");
    let ids: Vec<(u16, String)> = (0..2).map(|_| ask(&serve, "POST", enqueue, &named, &same)).collect();
    assert_eq!((ids[0].0, &ids[0]), (201, &ids[1]));
    assert_eq!(total(), 3);
}

#[test]
fn what_the_document_describes_is_served() {
    let bench = Bench::new();
    let serve = bench.serve(&[]);
    let document: Value = serde_json::from_str(&ask(&serve, "GET", "/v1/agl/openapi.json", "", "").1).unwrap();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for method in methods.as_object().unwrap().keys() {
            let path = path.replace(['{', '}'], "");
            let (status, body) = ask(&serve, &method.to_uppercase(), &path, JSON, "");
            assert_ne!(status, 405, "{method} {path}: {body}");
            // The fallback says it otherwise.
            assert!(
                status != 404 || body.contains(" not found\"") || body.contains("Item does not exist"),
                "{method} {path}: {body}"
            );
        }
    }
}

/// Runs one of the scripts in tests/clients/otel; what it printed.
fn agent(program: &str, script: &str, arguments: &[&str]) -> Value {
    let script = root().join("tests/clients/otel").join(script);
    let output = Command::new(program).arg(script).args(arguments).env("NODE_PATH", node_modules()).output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn an_agents_own_spans_and_ours_are_one_tree() {
    let bench = Bench::new();
    let serve = bench.serve(&["--otlp-grpc", "127.0.0.1:0"]);
    let (server, grpc, proxy, mock) = (serve.url("server"), serve.url("otlp_grpc"), serve.url("proxy"), bench.http());
    // Named by its resource, over HTTP and gRPC, from Python and Node; then by nothing but the trace that the proxy saw.
    for (rollout, told) in [
        ("ro-otel-http", agent(&python(), "sdk.py", &["http", &server, &proxy, &mock, "ro-otel-http"])),
        ("ro-otel-grpc", agent(&python(), "sdk.py", &["grpc", &grpc, &proxy, &mock, "ro-otel-grpc"])),
        ("ro-otel-node", agent("node", "sdk.cjs", &[&server, &proxy, &mock, "ro-otel-node"])),
        ("ro-by-trace", agent(&python(), "sdk.py", &["http", &server, &proxy, &mock, ""])),
    ] {
        let spans = eventually(|| {
            let spans = bench.spans(rollout);
            (spans.len() >= 2).then_some(spans)
        });
        let step = spans.iter().find(|span| span["name"] == "agent.step").unwrap();
        let call = spans.iter().find(|span| span["name"] == "chat m").unwrap();
        assert_eq!((&step["trace_id"], &step["span_id"]), (&told["trace_id"], &told["span_id"]));
        assert_eq!((&call["trace_id"], &call["parent_id"]), (&told["trace_id"], &told["span_id"]), "{call:#}");
        assert_eq!((&step["attempt_id"], &call["attempt_id"]), (&json!("at-otel"), &json!("at-otel")));
        assert_eq!((&step["attributes"]["tags"], &step["events"][0]["name"]), (&json!(["a", "b"]), &json!("called")));
        assert_eq!(step["resource"]["attributes"]["service.name"], "agent");
    }
}

#[test]
fn a_langchain_agents_spans_and_ours_are_one_tree() {
    let bench = Bench::new();
    let serve = bench.serve(&[]);
    let told =
        agent(&python(), "langchain.py", &[&serve.url("server"), &serve.url("proxy"), &bench.http(), "ro-chain"]);
    let spans = eventually(|| {
        let spans = bench.spans("ro-chain");
        (spans.len() >= 6).then_some(spans)
    });
    let by_id = |id: &Value| spans.iter().find(|span| span["span_id"] == *id);
    let call = spans.iter().find(|span| span["name"] == "chat m").unwrap();
    let above = |span: &Value| {
        let (mut above, mut span) = (Vec::new(), by_id(&span["parent_id"]));
        while let Some(parent) = span {
            above.push(parent["name"].as_str().unwrap());
            span = by_id(&parent["parent_id"]);
        }
        above
    };
    // Ours below the HTTP client's; the model's below the chain's; both below the agent's.
    assert_eq!(above(call), ["POST", "agent"], "{spans:#?}");
    let model = spans.iter().find(|span| span["name"] == "ChatOpenAI").unwrap();
    assert_eq!(above(model), ["RunnableSequence", "agent"]);
    assert!(model["attributes"].to_string().contains(told["said"].as_str().unwrap()));
    let shown = crate::support::tracewire(bench.home()).args(["trace", "show", "ro-chain"]).output().unwrap();
    let shown = text(&shown);
    assert!(shown.contains("RunnableSequence") && shown.contains("chat m"), "{shown}");
}

#[test]
fn exports_that_pass_are_taken_in() {
    let trace = "0af7651916cd43dd8448eb211c80319c";
    for (setting, forwarded) in [("on", true), ("local", false), ("off", true)] {
        let bench = Bench::new();
        let config = bench.home().join("proxy.toml");
        std::fs::write(&config, format!("[capture]\nabsorb_telemetry = \"{setting}\"\n")).unwrap();
        let serve = bench.serve(&["--config", config.to_str().unwrap()]);
        let mut secret = span(trace, "00f067aa0ba902b7");
        secret["attributes"] =
            json!([{ "key": "note", "value": { "stringValue": "key sk-proj-0123456789abcdefghijklmnopqrstuv" } }]);
        let body = request(&json!([]), &json!([secret]));
        let target = format!("{}/echo/v1/traces", bench.http());
        let head = format!(
            "POST {target} HTTP/1.1\r\nHost: x\r\nx-rollout-id: ro-absorb\r\n{JSON}connection: close\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        let answer = say(serve.address("proxy"), format!("{head}{body}").as_bytes());
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert_eq!(answer.contains("\"length\":"), forwarded, "{setting}: {answer}");
        let expected = if setting == "off" { 1 } else { 2 };
        let spans = eventually(|| {
            let spans = bench.spans("ro-absorb");
            (spans.len() >= expected).then_some(spans)
        });
        assert_eq!(spans.len(), expected, "{setting}");
        let absorbed = spans.iter().find(|span| span["name"] == "s");
        assert_eq!(absorbed.is_some(), setting != "off");
        if let Some(absorbed) = absorbed {
            assert_eq!((&absorbed["trace_id"], &absorbed["rollout_id"]), (&json!(trace), &json!("ro-absorb")));
            assert!(!absorbed.to_string().contains("0123456789abcdefghijklmnopqrstuv"), "{absorbed:#}");
        }
    }
}

#[test]
fn an_export_that_is_answered_locally_is_recorded_as_a_whole_or_rejected() {
    let bench = Bench::new();
    let config = bench.home().join("proxy.toml");
    std::fs::write(&config, "[capture]\nabsorb_telemetry = \"local\"\nmax_body_bytes = 1000\n").unwrap();
    let serve = bench.serve(&["--config", config.to_str().unwrap()]);
    let trace = "0af7651916cd43dd8448eb211c80319c";
    for (spans, status) in [(20, "503"), (1, "200")] {
        let spans: Vec<Value> = (0..spans).map(|number| span(trace, &format!("{:016x}", number + 1))).collect();
        let body = request(&json!([]), &json!(spans));
        let head = format!(
            "POST http://telemetry.invalid/v1/traces HTTP/1.1\r\nHost: x\r\nx-rollout-id: ro-whole\r\n{JSON}connection: close\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        let answer = say(serve.address("proxy"), format!("{head}{body}").as_bytes());
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{answer}");
    }
    let spans = eventually(|| {
        let spans = bench.spans("ro-whole");
        (spans.len() >= 3).then_some(spans)
    });
    let outcome = |status: u16| {
        let found = spans.iter().find(|span| span["attributes"]["http.response.status_code"] == status);
        found.map(|span| &span["attributes"]["tracewire.outcome"])
    };
    assert_eq!(outcome(200), Some(&json!("complete")), "{spans:#?}");
    assert_eq!(spans.iter().filter(|span| span["name"] == "s").count(), 1, "{spans:#?}");
}

#[test]
fn a_call_that_the_agent_recorded_too_is_linked_to_ours() {
    let bench = Bench::new();
    let serve = bench.serve(&[]);
    let body = json!({ "model": "m", "messages": [{ "role": "user", "content": "hi" }] }).to_string();
    let head = format!(
        "POST {}/v1/chat/completions HTTP/1.1\r\nHost: x\r\nx-rollout-id: ro-twice\r\n{JSON}connection: close\r\ncontent-length: {}\r\n\r\n",
        bench.http(),
        body.len()
    );
    say(serve.address("proxy"), format!("{head}{body}").as_bytes());
    let ours = bench.exchanges("ro-twice", 1)[0].clone();
    let mut theirs = span("0af7651916cd43dd8448eb211c80319c", "00f067aa0ba902b7");
    let id = &ours["attributes"]["gen_ai.response.id"];
    theirs["attributes"] = json!([{ "key": "gen_ai.response.id", "value": { "stringValue": id } }]);
    let named = json!([{ "key": "agentlightning.rollout_id", "value": { "stringValue": "ro-twice" } }]);
    assert_eq!(ask(&serve, "POST", "/v1/traces", JSON, &request(&named, &json!([theirs]))).0, 200);
    let spans = bench.spans("ro-twice");
    let link = &spans.iter().find(|span| span["name"] == "s").unwrap()["links"][0];
    assert_eq!(
        (&link["context"]["span_id"], &link["attributes"]["tracewire.link"]),
        (&ours["span_id"], &json!("same_call"))
    );
}

#[test]
fn ids_that_were_given_out_are_not_given_again_after_a_restart() {
    let bench = Bench::new();
    let serve = bench.serve(&[]);
    let started: Value =
        serde_json::from_str(&ask(&serve, "POST", "/v1/agl/rollouts", JSON, "{\"input\":1}").1).unwrap();
    let whose =
        json!({ "rollout_id": started["rollout_id"], "attempt_id": started["attempt"]["attempt_id"] }).to_string();
    let next = |serve: &Running| -> u64 {
        let (_, answer) = ask(serve, "POST", "/v1/agl/spans/next", JSON, &whose);
        serde_json::from_str::<Value>(&answer).unwrap()["sequence_id"].as_u64().unwrap()
    };
    let given: Vec<u64> = (0..70).map(|_| next(&serve)).collect();
    assert_eq!(given, (1..=70).collect::<Vec<_>>());
    serve.kill();
    assert!(next(&bench.serve(&[])) > 70);
}

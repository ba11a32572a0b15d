//! Exports of spans: every format of every odd rollout, what they hold, and what other programs read in them.

use crate::support::client::get;
use crate::support::{
    Bench, Running, browser, connect, endpoint, installed, python, read_head, read_to_end, root, say, text, tracewire,
};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::process::Command;

const FORMATS: [&str; 12] =
    ["json", "otlp-json", "otlp", "jaeger", "zipkin", "perfetto", "har", "atif", "eval", "csv", "markdown", "html"];

/// `serve` that records headers and bodies.
fn serve(bench: &Bench) -> Running {
    let config = bench.home().join("proxy.toml");
    std::fs::write(&config, "[capture]\ninclude_headers = true\ninclude_bodies = true\n").unwrap();
    bench.serve(&["--config", config.to_str().unwrap()])
}

/// A span of another tracer, in Agent Lightning's JSON.
fn span(rollout: &str, id: &str, parent: Option<&str>, times: Option<(f64, f64)>) -> Value {
    json!({
        "rollout_id": rollout, "attempt_id": "at-1", "sequence_id": 1, "trace_id": "not hexadecimal", "span_id": id,
        "parent_id": parent, "name": "näme \u{202e}\u{0}<script>|`*", "kind": "SERVER",
        "status": { "status_code": "ERROR", "description": "=1+1 \"quoted\"\nsecond line" },
        "attributes": { "text": "\u{1f468}\u{200d}\u{1f469} </script>", "big": i64::MAX, "float": 0.1, "list": [1, 2], "yes": true },
        "events": [{ "name": "exception", "attributes": { "event": "x" }, "timestamp": null }],
        "links": [{ "context": { "trace_id": "t", "span_id": "s", "is_remote": false, "trace_state": {} }, "attributes": null }],
        "start_time": times.map(|times| times.0), "end_time": times.map(|times| times.1),
        "context": null, "parent": null,
        "resource": { "attributes": { "service.name": "other" }, "schema_url": "" },
    })
}

/// Rollouts that no tracer should make: `ro-odd`.
fn record_odd_spans(bench: &Bench) {
    let times = Some((1_700_000_000.25, 1_700_000_001.5));
    let mut spans = [
        span("ro-odd", "root", None, times),
        span("ro-odd", "second root", None, Some((1_700_000_001.0, 1_700_000_000.0))),
        span("ro-odd", "timeless", Some("root"), None),
        span("ro-odd", "orphan", Some("never recorded"), times),
        span("ro-odd", "itself", Some("itself"), times),
        span("ro-odd", "cycle a", Some("cycle b"), times),
        span("ro-odd", "cycle b", Some("cycle a"), times),
        span("ro-odd", "below the cycle", Some("cycle a"), times),
    ];
    spans.iter_mut().enumerate().for_each(|(at, span)| span["sequence_id"] = json!(at + 1));
    let file = bench.home().join("odd.json");
    std::fs::write(&file, json!(spans).to_string()).unwrap();
    let output = tracewire(bench.home()).arg("import").arg(&file).output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
}

/// A WebSocket, an event stream, a binary body and a failed request: `ro-http`.
fn record_exchanges(bench: &Bench, serve: &Running) {
    let target = endpoint(|mut stream| {
        let head = read_head(&mut stream);
        if head.contains("/ws") {
            let _ = stream.write_all(
                b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\
                  Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n\x81\x05hello\x82\x02\xff\xfe",
            );
            let mut frames = [0; 11 + 8];
            let _ = stream.read_exact(&mut frames);
            let _ = stream.write_all(b"\x88\x02\x03\xe8");
        } else if head.contains("/binary") {
            let _ = stream.write_all(
                b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\nContent-Length: 4\r\nConnection: close\r\n\r\n\x89PN\xff",
            );
        } else {
            let _ = stream.write_all(
                b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nSet-Cookie: a=b; Path=/\r\nConnection: close\r\n\r\n\
                  data: one\n\ndata: two\n\n",
            );
        }
    });
    let proxy = serve.address("proxy");
    let begin =
        |path: &str| format!("GET http://{target}{path} HTTP/1.1\r\nHost: {target}\r\nx-rollout-id: ro-http\r\n");
    for path in ["/events?a=1&b=%C3%A4", "/binary"] {
        let request = format!("{}Connection: close\r\n\r\n", begin(path));
        assert!(say(proxy, request.as_bytes()).contains("200 OK"));
    }
    let upgrade = "Connection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let frames = b"\x81\x85\0\0\0\0there\x88\x82\0\0\0\0\x03\xe8";
    let request = [begin("/ws").as_bytes(), upgrade.as_bytes(), frames].concat();
    let mut stream = connect(proxy);
    stream.write_all(&request).unwrap();
    assert!(read_to_end(&mut stream).contains("hello"));
    // The exchange ends with both sides.
    drop(stream);
    assert!(say(proxy, b"GET http://127.0.0.1:1/ HTTP/1.1\r\nHost: 127.0.0.1:1\r\nx-rollout-id: ro-http\r\nConnection: close\r\n\r\n").contains("502"));
    bench.exchanges("ro-http", 4);
}

/// A conversation of two calls with a tool, and another one beside it: `ro-calls`.
fn record_calls(bench: &Bench, serve: &Running) {
    let target = bench.mock.address("http");
    let user = json!({ "role": "user", "content": "Weather?\n# no heading" });
    let tools = json!([{ "type": "function", "function": { "name": "weather", "parameters": { "type": "object" } } }]);
    let ask = |messages: Value| {
        let body = json!({ "model": "gpt-4o", "messages": messages, "tools": tools }).to_string();
        let request = format!(
            "POST http://{target}/v1/chat/completions HTTP/1.1\r\nHost: {target}\r\nx-rollout-id: ro-calls\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
        let answer = say(serve.address("proxy"), request.as_bytes());
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        let start = body.find('{').unwrap();
        let answer: Value = serde_json::Deserializer::from_str(&body[start..]).into_iter().next().unwrap().unwrap();
        answer["choices"][0]["message"].clone()
    };
    let system = json!({ "role": "system", "content": "Be brief." });
    let first = ask(json!([system, user]));
    let result = first["tool_calls"]
        .as_array()
        .map(|calls| json!({ "role": "tool", "tool_call_id": calls[0]["id"], "content": "```\nsunny\n```" }));
    let next = result.unwrap_or_else(|| json!({ "role": "user", "content": "And now?" }));
    ask(json!([system, user, first, next]));
    ask(json!([{ "role": "user", "content": "Another conversation" }]));
    bench.exchanges("ro-calls", 3);
}

fn export(bench: &Bench, format: &str, rollout: &str) -> Vec<u8> {
    let output = tracewire(bench.home()).args(["export", rollout, "--format", format]).output().unwrap();
    assert!(output.status.success(), "{format} {rollout}: {}", text(&output));
    output.stdout
}

#[test]
fn every_format_holds_odd_spans() {
    let bench = Bench::new();
    let serve = serve(&bench);
    record_odd_spans(&bench);
    for format in FORMATS {
        let exported = export(&bench, format, "ro-odd");
        let path = format!("/v1/tracewire/export?format={format}&rollout=ro-odd");
        assert_eq!(get(serve.address("server"), &path).body, exported, "{format}");
        let text = String::from_utf8_lossy(&exported);
        // Nothing of a span is markup, and nothing turns the direction of a document.
        if matches!(format, "html" | "markdown") {
            assert!(!text.contains("<script") && !text.contains("</script") && !text.contains('\u{202e}'), "{text}");
        }
    }
    let jaeger: Value = serde_json::from_slice(&export(&bench, "jaeger", "ro-odd")).unwrap();
    let spans = jaeger["data"][0]["spans"].as_array().unwrap();
    assert_eq!(spans.len(), 8);
    let parents = |at: usize| {
        spans[at]["references"].as_array().unwrap().iter().filter(|one| one["refType"] == "CHILD_OF").count()
    };
    let ids: Vec<usize> = (0..8).map(parents).collect();
    // The first of each cycle has lost its parent.
    assert_eq!(ids, [0, 0, 1, 1, 0, 0, 1, 1], "{jaeger:#}");
    assert!(spans.iter().all(|span| span["duration"].as_u64().is_some() && span["startTime"].as_u64().unwrap() > 0));
    let html = String::from_utf8(export(&bench, "html", "ro-odd")).unwrap();
    assert_eq!(html.matches("<tr").count(), 9);
    assert!(html.contains("default-src 'none'") && !html.contains("<script"));
    let parquet = ["export", "--all", "--format", "har", "-o", "x.parquet"];
    let refused = tracewire(bench.home()).args(parquet).output().unwrap();
    assert!(text(&refused).contains("the format har has no columns"), "{}", text(&refused));
}

#[test]
fn a_har_has_bodies_event_streams_and_messages_of_web_sockets() {
    let bench = Bench::new();
    let serve = serve(&bench);
    record_exchanges(&bench, &serve);
    let har: Value = serde_json::from_slice(&export(&bench, "har", "ro-http")).unwrap();
    let entries = har["log"]["entries"].as_array().unwrap();
    assert_eq!(entries.len(), 4, "{har:#}");
    let with =
        |path: &str| entries.iter().find(|entry| entry["request"]["url"].as_str().unwrap().contains(path)).unwrap();
    let events = with("/events");
    assert_eq!(events["response"]["content"]["text"], "data: one\n\ndata: two\n\n");
    assert_eq!(events["response"]["content"]["mimeType"], "text/event-stream");
    assert_eq!(events["request"]["queryString"][1], json!({ "name": "b", "value": "ä" }));
    let cookie = json!({ "name": "set-cookie", "value": "REDACTED" });
    assert!(events["response"]["headers"].as_array().unwrap().contains(&cookie), "{events:#}");
    let binary = &with("/binary")["response"]["content"];
    assert_eq!(
        (&binary["encoding"], &binary["text"], &binary["size"]),
        (&json!("base64"), &json!("iVBO/w=="), &json!(4))
    );
    let socket = with("/ws");
    let messages = socket["_webSocketMessages"].as_array().unwrap();
    let message = |data: &str| messages.iter().find(|message| message["data"] == data).unwrap();
    assert_eq!((&message("hello")["type"], &message("hello")["opcode"]), (&json!("receive"), &json!(1)));
    assert_eq!((&message("there")["type"], &message("//4=")["opcode"]), (&json!("send"), &json!(2)));
    assert_eq!((&socket["response"]["status"], &socket["_resourceType"]), (&json!(101), &json!("websocket")));
    let failed = with("127.0.0.1:1/");
    assert_eq!(failed["response"]["status"], 0, "{failed:#}");
    assert!(
        failed["response"]["_error"].is_string() && failed["comment"].as_str().unwrap().contains("did not complete")
    );
    for entry in entries {
        let sum: f64 = ["connect", "send", "wait", "receive"]
            .iter()
            .map(|phase| entry["timings"][phase].as_f64().unwrap().max(0.0))
            .sum();
        assert!((entry["time"].as_f64().unwrap() - sum).abs() < 1e-6);
    }
}

/// Chromium's own import of HAR files has every exchange, the messages of the WebSocket, and the bodies.
#[test]
fn the_network_panel_of_chromium_opens_a_har() {
    let Some(mut command) = browser("the network panel") else { return };
    let bench = Bench::new();
    let serve = serve(&bench);
    record_exchanges(&bench, &serve);
    let har = export(&bench, "har", "ro-http");
    let file = bench.home().join("export.har");
    std::fs::write(&file, &har).unwrap();
    let output = command.arg(root().join("tests/ui/network_panel.py")).arg(&file).output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    let shown: Value = serde_json::from_slice(&output.stdout).unwrap();
    let har: Value = serde_json::from_slice(&har).unwrap();
    let entries = har["log"]["entries"].as_array().unwrap();
    let count = |entry: &Value| entry["_webSocketMessages"].as_array().map_or(0, Vec::len);
    let row = |entry: &Value| {
        let (request, response) = (&entry["request"], &entry["response"]);
        json!([request["method"], request["url"], response["status"], count(entry)])
    };
    let expected: Vec<Value> = entries.iter().map(row).collect();
    let found: Vec<Value> =
        shown.as_array().unwrap().iter().map(|one| json!(one.as_array().unwrap()[..4].to_vec())).collect();
    assert_eq!(found, expected);
    assert!(entries.iter().any(|entry| count(entry) > 0));
    assert!(shown.as_array().unwrap().iter().any(|one| one[4].as_u64() > Some(0)), "no body: {shown}");
}

#[test]
fn transcripts_have_each_message_once() {
    let bench = Bench::new();
    let serve = serve(&bench);
    record_calls(&bench, &serve);
    let markdown = String::from_utf8(export(&bench, "markdown", "ro-calls")).unwrap();
    assert_eq!(
        (markdown.matches("> Weather?").count(), markdown.matches("## Conversation").count()),
        (1, 2),
        "{markdown}"
    );
    assert!(!markdown.lines().any(|line| line == "# no heading"), "{markdown}");
    let html = String::from_utf8(export(&bench, "html", "ro-calls")).unwrap();
    assert_eq!((html.matches("<pre>Weather?").count(), html.matches("<pre>Be brief.").count()), (1, 1), "{html}");
    let csv = String::from_utf8(export(&bench, "csv", "ro-calls")).unwrap();
    let lines: Vec<&str> = csv.lines().collect();
    assert_eq!(lines.len(), 4, "{csv}");
    let columns = |line: &str| line.split(',').count();
    assert!(lines.iter().all(|line| columns(line) == columns(lines[0])), "{csv}");
    let atif: Value = serde_json::from_slice(&export(&bench, "atif", "ro-calls")).unwrap();
    let sources: Vec<&str> =
        atif["steps"].as_array().unwrap().iter().map(|step| step["source"].as_str().unwrap()).collect();
    assert_eq!(sources[..3], ["system", "user", "agent"], "{atif:#}");
    assert_eq!(sources.iter().filter(|source| **source == "agent").count(), 2);
    assert_eq!(atif["subagent_trajectories"].as_array().unwrap().len(), 1, "{atif:#}");
}

/// OpenTelemetry's, ATIF's and a HAR package of Python, Inspect, mitmproxy, and checks of the models of Jaeger's UI, Zipkin and Chrome.
#[test]
fn other_programs_read_the_exports() {
    let bench = Bench::new();
    let serve = serve(&bench);
    record_odd_spans(&bench);
    record_exchanges(&bench, &serve);
    record_calls(&bench, &serve);
    for format in FORMATS {
        let file = bench.home().join(format!("export.{format}"));
        let mut command = tracewire(bench.home());
        let output = command.args(["export", "--all", "--format", format, "-o"]).arg(&file).output().unwrap();
        assert!(output.status.success(), "{}", text(&output));
    }
    let readers = [(python(), "read_spans.py"), (installed("readers/bin/python"), "read_with_others.py")];
    for (python, script) in readers {
        let script = root().join("tests/clients/exports").join(script);
        let output = Command::new(python).arg(script).arg(bench.home()).output().unwrap();
        assert!(output.status.success(), "{}", text(&output));
    }
}

/// OpenInference's own package knows the names, and reads what was recorded.
#[test]
fn phoenix_has_calls_in_the_attributes_of_openinference() {
    let bench = Bench::new();
    let serve = serve(&bench);
    record_calls(&bench, &serve);
    let [otlp, json] = ["otlp", "json"].map(|format| bench.home().join(format));
    std::fs::write(&json, export(&bench, "json", "ro-calls")).unwrap();
    let command = ["export", "ro-calls", "--format", "otlp", "--attributes", "openinference", "-o"];
    let output = tracewire(bench.home()).args(command).arg(&otlp).output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    let path = "/v1/tracewire/export?format=otlp&attributes=openinference&rollout=ro-calls";
    assert_eq!(get(serve.address("server"), path).body, std::fs::read(&otlp).unwrap());
    let script = root().join("tests/clients/exports/read_open_inference.py");
    let output = Command::new(python()).arg(script).args([&otlp, &json]).output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    assert_eq!(output.stdout, b"3\n");
    // Other formats have no attributes by name.
    let refused = ["export", "ro-calls", "--format", "har", "--attributes", "openinference"];
    let refused = tracewire(bench.home()).args(refused).output().unwrap();
    assert!(text(&refused).contains("only the formats otlp and otlp-json"), "{}", text(&refused));
    let path = "/v1/tracewire/export?format=har&attributes=openinference";
    assert_eq!(get(serve.address("server"), path).status, 422);
}

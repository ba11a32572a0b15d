//! The API listener: its guard on raw sockets, its OpenAPI document, and the cost of its listings.

use crate::support::client::{ask, get, post};
use crate::support::{Bench, Running, connect, read_head, read_to_end, say};
use serde_json::{Value, json};
use std::io::{Read, Write};

#[test]
fn sessions_are_counted_without_reading_their_spans() {
    let bench = Bench::new();
    let serve = bench.gateway("");
    let server = serve.address("server");
    let call = json!({ "model": "mock", "messages": [{ "role": "user", "content": "hi" }] });
    for _ in 0..2 {
        assert_eq!(post(server, "/sessions/s/v1/chat/completions", &call).status, 200);
    }
    assert_eq!(get(server, "/sessions/s/traces").json().as_array().unwrap().len(), 2);
    let store = rusqlite::Connection::open(bench.store()).unwrap();
    assert_eq!(store.execute("UPDATE span SET record = x'ff'", []).unwrap(), 2);
    assert!(get(server, "/sessions/s/traces").json().as_array().unwrap().is_empty(), "what is unreadable is no call");
    assert_eq!(get(server, "/sessions").json()[0]["trace_count"], 2);
    assert_eq!(get(server, "/sessions/s").json()["trace_count"], 2);
}

#[test]
fn the_document_describes_what_is_served() {
    let bench = Bench::new();
    let serve = bench.serve(&[]);
    let server = serve.address("server");
    let document = get(server, "/openapi.json").json();
    let text = document.to_string();
    assert!(text.contains("`null`") && !text.contains("`None`") && !text.contains("[`"), "Rust's words in {text}");
    let paths = document["paths"].as_object().unwrap();
    for path in
        ["/v1/agl/spans", "/api/rollouts/terminal", "/sessions/{session}", "/proxy/pause", "/v1/traces", "/metrics"]
    {
        assert!(paths.contains_key(path), "{path}");
    }
    for (path, item) in paths {
        for method in item.as_object().unwrap().keys().map(|method| method.to_uppercase()) {
            let reply = ask(server, &method, &path.replace(['{', '}'], ""), &[], "");
            assert_ne!(reply.status, 405, "{method} {path}");
            // The text of an unknown route.
            assert!(!reply.text().contains("\"detail\":\"Not Found\""), "{method} {path}: {}", reply.text());
        }
    }
    let unknown = get(server, "/v1/agl/nothing");
    assert_eq!((unknown.status, unknown.json()), (404, json!({ "detail": "Not Found" })));
    assert_eq!(ask(server, "DELETE", "/v1/agl/rollouts", &[], "").status, 405);
}

/// A server whose listeners take two connections each and wait half a second for a request head.
fn strict_server(bench: &Bench) -> Running {
    let config = bench.home().join("strict.toml");
    std::fs::write(&config, "[proxy]\nheader_timeout_ms = 500\nmax_connections = 2\n").unwrap();
    bench.serve(&["--config", config.to_str().unwrap(), "--otlp-grpc", "127.0.0.1:0"])
}

#[test]
fn a_body_of_another_shape_is_rejected_with_what_was_found() {
    let bench = Bench::new();
    let serve = bench.serve(&[]);
    let server = serve.address("server");
    let json_of = |answer: &str| -> Value { serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap() };
    let ask = |method: &str, path: &str, body: &str| {
        let length = body.len();
        let head = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nconnection: close\r\n");
        say(
            server,
            format!("{head}content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}").as_bytes(),
        )
    };
    let document = json_of(&ask("GET", "/openapi.json", ""));
    let mut rejected = 0;
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let body = &operation["requestBody"]["content"]["application/json"];
            // rLLM reads any body, OTLP has errors of its own, and calls are the backend's.
            if body.is_null() || ["rLLM", "OTLP", "LLM calls"].contains(&operation["tags"][0].as_str().unwrap()) {
                continue;
            }
            let answer = ask(&method.to_uppercase(), &path.replace(['{', '}'], ""), "[[7]]");
            if answer.starts_with("HTTP/1.1 404") {
                continue;
            }
            rejected += 1;
            assert!(answer.starts_with("HTTP/1.1 422"), "{method} {path}: {answer}");
            let problem = &json_of(&answer)["detail"][0];
            assert_eq!(problem["loc"][0], "body", "{method} {path}: {answer}");
            assert!(problem["input"] == json!([[7]]) || problem["input"] == json!([7]), "{method} {path}: {answer}");
            let message = problem["msg"].as_str().unwrap();
            assert!(message.starts_with("Input should be a valid dictionary"), "{method} {path}: {message}");
        }
    }
    assert!(rejected > 15, "{rejected}");
    for (body, loc, kind, input) in [
        (json!({ "rollouts": [{}] }), json!(["body", "rollouts", 0, "input"]), "missing", json!({})),
        (json!({ "rollouts": [{ "input": 1, "mode": 3 }] }), json!(["body", "rollouts", 0, "mode"]), "enum", json!(3)),
        (json!({ "rollouts": { "input": 1 } }), json!(["body", "rollouts"]), "list_type", json!({ "input": 1 })),
        (json!({ "rollouts": [["a"]] }), json!(["body", "rollouts", 0]), "model_attributes_type", json!(["a"])),
    ] {
        let answer = json_of(&ask("POST", "/v1/agl/queues/rollouts/enqueue", &body.to_string()));
        let problem = &answer["detail"][0];
        assert_eq!((&problem["loc"], &problem["type"], &problem["input"]), (&loc, &json!(kind), &input), "{answer}");
    }
}

#[test]
fn spans_are_returned_as_they_came() {
    let bench = Bench::new();
    let serve = bench.serve(&[]);
    let server = serve.address("server");
    let post = |path: &str, body: &Value| -> Value {
        let body = body.to_string();
        let head = format!("POST /v1/agl{path} HTTP/1.1\r\nHost: localhost\r\nconnection: close\r\n");
        let length = body.len();
        let head = format!("{head}content-type: application/json\r\ncontent-length: {length}\r\n\r\n");
        let answer = say(server, format!("{head}{body}").as_bytes());
        serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap()
    };
    let started = post("/rollouts", &json!({ "input": null }));
    let (rollout, attempt) = (&started["rollout_id"], &started["attempt"]["attempt_id"]);
    let base = json!({ "rollout_id": rollout, "attempt_id": attempt, "trace_id": "t", "parent_id": null, "name": "n",
        "status": { "status_code": "OK", "description": null }, "attributes": {}, "events": [], "links": [],
        "context": null, "parent": null, "resource": { "attributes": {}, "schema_url": "" } });
    let times = [json!(null), json!(1_795_712_204.266_324_5)];
    let extras =
        [json!({}), json!({ "kind": "CLIENT" }), json!({ "kind": "SpanKind.INTERNAL" }), json!({ "kind": null })];
    let mut sent = Vec::new();
    for (start, end) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        for extra in &extras {
            let mut span = base.clone();
            let number = sent.len() + 1;
            let own = json!({ "sequence_id": number, "span_id": format!("s{number}"), "start_time": times[start], "end_time": times[end] });
            for more in [&own, extra] {
                span.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            }
            assert_eq!(post("/spans", &span), span);
            sent.push(span);
        }
    }
    let found = post("/spans/search", &json!({ "rollout_id": rollout, "limit": "-1" }));
    assert_eq!(found["items"], json!(sent));
}

#[test]
fn ambiguous_requests_are_rejected_and_end_their_connection() {
    let bench = Bench::new();
    let serve = strict_server(&bench);
    for listener in ["server", "otlp_grpc"] {
        for (request, cause) in [
            (
                "POST /api/models HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
                "both Transfer-Encoding and Content-Length",
            ),
            (
                "POST /api/models HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n[]",
                "several Content-Length fields",
            ),
            ("GET /healthz HTTP/1.1\nHost: localhost\n\n", "a bare LF"),
            ("GET /healthz HTTP/1.1\r\n\r\n", "Host"),
        ] {
            let mut stream = connect(serve.address(listener));
            stream.write_all(request.as_bytes()).unwrap();
            // To the end: the connection must not go on.
            let response = read_to_end(&mut stream);
            assert!(response.starts_with("HTTP/1.1 400 "), "{listener}: {request:?}: {response}");
            assert!(response.contains(cause) && response.contains("http_request_error"), "{request:?}: {response}");
        }
    }
}

#[test]
fn half_a_head_does_not_keep_a_connection_open() {
    let bench = Bench::new();
    let serve = strict_server(&bench);
    let mut stream = connect(serve.address("server"));
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: loc").unwrap();
    // Returns because the server closes: the socket's own limit is much longer, and would be an error.
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).unwrap();
    assert!(!String::from_utf8_lossy(&rest).contains("200 OK"));
}

#[test]
fn connections_beyond_the_limit_wait() {
    let bench = Bench::new();
    let config = bench.home().join("few.toml");
    std::fs::write(&config, "[proxy]\nmax_connections = 1\n").unwrap();
    let serve = bench.serve(&["--config", config.to_str().unwrap()]);
    let request = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let mut first = connect(serve.address("server"));
    first.write_all(request).unwrap();
    assert!(read_head(&mut first).starts_with("HTTP/1.1 200"));
    let mut second = connect(serve.address("server"));
    second.write_all(request).unwrap();
    second.set_read_timeout(Some(std::time::Duration::from_millis(300))).unwrap();
    assert!(second.read(&mut [0]).is_err(), "a connection beyond the limit got a response");
    drop(first);
    second.set_read_timeout(None).unwrap();
    assert!(read_head(&mut second).starts_with("HTTP/1.1 200"));
}

#[test]
fn a_web_page_of_another_origin_changes_nothing() {
    let bench = Bench::new();
    let config = bench.home().join("proxy.toml");
    std::fs::write(&config, "[server]\ncors_origins = [\"http://page.test\"]\n").unwrap();
    let serve = bench.serve(&["--config", config.to_str().unwrap()]);
    let server = serve.address("server");
    let models = json!([{ "model": "m", "endpoint": format!("{}/v1", bench.http()) }]).to_string();
    let chat = json!({ "model": "m", "messages": [] }).to_string();
    let enqueue = json!({ "rollouts": [{ "input": "x" }] }).to_string();
    let changes = [
        ("POST", "/api/models", models.as_str()),
        ("DELETE", "/api/models", ""),
        ("POST", "/proxy/pause", "{}"),
        ("POST", "/v1/agl/queues/rollouts/enqueue", &enqueue),
        ("POST", "/rollout/ro/attempt/0/v1/chat/completions", &chat),
        ("POST", "/unknown", "{}"),
    ];
    let evil = [("Origin", "https://evil.test"), ("Sec-Fetch-Site", "cross-site")];
    for (method, path, body) in changes {
        for fields in [&evil[..], &evil[..1], &evil[1..], &[("Origin", "null")]] {
            let reply = ask(server, method, path, fields, body);
            assert_eq!(reply.status, 403, "{method} {path} {fields:?}");
            assert!(reply.text().contains("server.cors_origins"), "{}", reply.text());
        }
    }
    assert_eq!(get(server, "/api/models").json(), json!([]));
    assert_eq!(ask(server, "GET", "/api/models", &evil, "").status, 200, "reading is the browser's business");
    let socket = [evil[0], ("Upgrade", "websocket"), ("Connection", "upgrade")];
    assert_eq!(ask(server, "GET", "/rollout/ro/attempt/0/v1/responses", &socket, "").status, 403);
    // Its preflight is answered without leave.
    for (origin, allowed) in
        [("https://evil.test", None), ("null", None), ("http://page.test", Some("http://page.test"))]
    {
        let fields = [("Origin", origin), ("Access-Control-Request-Method", "POST")];
        let reply = ask(server, "OPTIONS", "/api/models", &fields, "");
        assert_eq!(reply.header("access-control-allow-origin"), allowed, "{origin}");
    }
    let own = format!("http://{server}");
    for origin in [own.as_str(), "http://page.test"] {
        assert_eq!(ask(server, "POST", "/api/models", &[("Origin", origin)], &models).status, 201, "{origin}");
    }
}

#[test]
fn a_form_of_a_web_page_is_no_request() {
    let bench = Bench::new();
    let serve = bench.serve(&[]);
    let server = serve.address("server");
    let body = "{}";
    for (content_type, status) in [
        ("text/plain;charset=UTF-8", 415),
        ("multipart/form-data; boundary=x", 415),
        ("application/x-www-form-urlencoded", 200),
        ("application/json", 200),
    ] {
        let head = format!(
            "POST /proxy/pause HTTP/1.1\r\nHost: {server}\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n\
             Connection: close\r\n\r\n{body}",
            body.len()
        );
        let reply = say(server, head.as_bytes());
        assert!(reply.starts_with(&format!("HTTP/1.1 {status}")), "{content_type}: {reply}");
        // Browsers name the page.
        for page in ["Origin: https://evil.test", "Origin: null", "Sec-Fetch-Site: cross-site"] {
            let by_page = head.replacen("\r\n", &format!("\r\n{page}\r\n"), 1);
            let reply = say(server, by_page.as_bytes());
            assert!(reply.starts_with("HTTP/1.1 403"), "{content_type}: {page}: {reply}");
        }
    }
    // What the form of a page would send if no browser named the page.
    let form = "%5B%7B%22model%22%3A%22m%22%7D%5D=";
    let urlencoded = [("Content-Type", "application/x-www-form-urlencoded")];
    assert_eq!(ask(server, "POST", "/api/models", &urlencoded, form).status, 422);
}

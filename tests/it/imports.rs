//! Imports: what was exported comes back, what others wrote becomes rollouts, and what is damaged is named.

use crate::support::{Bench, Running, endpoint, read_head, say, text, tracewire};
use serde_json::{Value, json};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Output;

fn serve(bench: &Bench) -> Running {
    let config = bench.home().join("proxy.toml");
    std::fs::write(&config, "[capture]\ninclude_headers = true\ninclude_bodies = true\n").unwrap();
    bench.serve(&["--config", config.to_str().unwrap()])
}

/// A call of an LLM with a tool, an event stream, and a span of another tracer with ids of its own: `ro-1`.
fn record(bench: &Bench, serve: &Running) {
    let target = bench.mock.address("http");
    let body =
        json!({ "model": "gpt-4o", "messages": [{ "role": "user", "content": "hi" }], "stream": true }).to_string();
    let request = format!(
        "POST http://{target}/v1/chat/completions HTTP/1.1\r\nHost: {target}\r\nx-rollout-id: ro-1\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    assert!(say(serve.address("proxy"), request.as_bytes()).contains("[DONE]"));
    let origin = endpoint(|mut stream| {
        read_head(&mut stream);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\nContent-Length: 3\r\n\r\n\x89P\xff");
    });
    let request = format!(
        "GET http://{origin}/a?b=c HTTP/1.1\r\nHost: {origin}\r\nx-rollout-id: ro-1\r\nConnection: close\r\n\r\n"
    );
    assert!(say(serve.address("proxy"), request.as_bytes()).contains("200 OK"));
    bench.exchanges("ro-1", 2);
    let span = json!({
        "rollout_id": "ro-1", "attempt_id": "at-other", "sequence_id": 7, "trace_id": "TRACE ä", "span_id": "own id",
        "parent_id": "elsewhere", "name": "other", "kind": "SERVER",
        "status": { "status_code": "ERROR", "description": "why" },
        "attributes": { "list": [1.5, 2.0], "texts": ["a", "b"], "big": i64::MAX },
        "events": [{ "name": "e", "attributes": { "n": 1 }, "timestamp": 1_700_000_000.5 }], "links": [],
        "start_time": 1_700_000_000.0, "end_time": 1_700_000_001.0, "context": null, "parent": null,
        "resource": { "attributes": { "service.name": "other" }, "schema_url": "s" },
    });
    let file = bench.home().join("span.json");
    std::fs::write(&file, span.to_string()).unwrap();
    let output = tracewire(bench.home()).arg("import").arg(&file).output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
}

fn export(bench: &Bench, format: &str, store: &Path) -> PathBuf {
    let file = bench.home().join(format!("{}.{format}", store.file_stem().unwrap().to_str().unwrap()));
    let mut command = tracewire(bench.home());
    command.args(["export", "--all", "--format", format, "-o"]).arg(&file).arg("--store").arg(store);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    file
}

fn import(bench: &Bench, file: &Path, store: &Path) -> Output {
    tracewire(bench.home()).arg("import").arg(file).arg("--store").arg(store).output().unwrap()
}

/// The rollouts of a store, from its export as JSON.
fn rollouts(bench: &Bench, store: &Path) -> Vec<Value> {
    let lines = std::fs::read_to_string(export(bench, "json", store)).unwrap();
    lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn spans(bench: &Bench, store: &Path) -> Vec<Value> {
    let spans = rollouts(bench, store).into_iter().flat_map(|one| one["spans"].as_array().unwrap().clone());
    spans.collect()
}

#[test]
fn what_is_exported_comes_back_once() {
    let bench = Bench::new();
    let serve = serve(&bench);
    record(&bench, &serve);
    let before = rollouts(&bench, &bench.store());
    for format in ["json", "otlp-json", "otlp", "jaeger", "har"] {
        let file = export(&bench, format, &bench.store());
        let store = bench.home().join(format!("copy-{format}.db"));
        let output = import(&bench, &file, &store);
        assert!(output.status.success() && !text(&output).contains("left out"), "{}", text(&output));
        let first = rollouts(&bench, &store);
        let output = import(&bench, &file, &store);
        assert!(
            text(&output).contains("0 spans stored") && text(&output).contains("stored before"),
            "{}",
            text(&output)
        );
        assert_eq!(rollouts(&bench, &store), first, "{format}: a second import changed something");
        assert_eq!(first.len(), 1, "{first:#?}");
        let (old, new) = (&before[0]["spans"].as_array().unwrap(), first[0]["spans"].as_array().unwrap());
        match format {
            // The other attempt has no record in the file, so that the places of both may differ.
            "json" => {
                let id = |rollout: &Value| rollout["attempt"]["attempt_id"].clone();
                assert_eq!((&first[0]["rollout"], id(&first[0])), (&before[0]["rollout"], id(&before[0])));
                assert_eq!(new, *old);
            }
            "har" => {
                assert_eq!(new.len(), 2);
                for span in new {
                    let same = old.iter().find(|one| one["span_id"] == span["span_id"]).unwrap();
                    for name in [
                        "url.full",
                        "http.response.status_code",
                        "http.response.body.content",
                        "gen_ai.output.messages",
                        "tracewire.response.body.base64",
                        "gen_ai.usage.output_tokens",
                        "http.request.header.content-type",
                    ] {
                        assert_eq!(span["attributes"][name], same["attributes"][name], "{name}");
                    }
                    assert_eq!((&span["trace_id"], &span["parent_id"]), (&same["trace_id"], &same["parent_id"]));
                }
            }
            _ => {
                assert_eq!(new.len(), old.len(), "{format}");
                for (old, new) in old.iter().zip(new) {
                    for name in ["rollout_id", "attempt_id", "sequence_id", "name", "kind", "status"] {
                        assert_eq!(new[name], old[name], "{format} {name}");
                    }
                    if format == "jaeger" {
                        continue;
                    }
                    for name in [
                        "trace_id",
                        "span_id",
                        "parent_id",
                        "attributes",
                        "events",
                        "links",
                        "start_time",
                        "end_time",
                        "resource",
                    ] {
                        assert_eq!(new[name], old[name], "{format} {name}");
                    }
                }
            }
        }
    }
}

#[test]
fn files_of_other_programs_become_rollouts() {
    let bench = Bench::new();
    let entry = |url: &str, start: &str, response: Value| {
        json!({
            "startedDateTime": start, "time": 12.5,
            "request": {
                "method": "POST", "url": url, "httpVersion": "HTTP/2.0", "cookies": [], "queryString": [],
                "headers": [{ "name": ":authority", "value": "x" }, { "name": "Authorization", "value": "Bearer sk-secretsecretsecret" }],
                "headersSize": -1, "bodySize": -1,
                "postData": { "mimeType": "application/json", "text": "{\"model\":\"gpt-4o\",\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]}" },
            },
            "response": response, "cache": {}, "timings": { "send": 1, "wait": 10, "receive": 1.5, "ssl": -1 },
        })
    };
    let answer = "{\"id\":\"c-1\",\"object\":\"chat.completion\",\"model\":\"gpt-4o\",\"choices\":[{\"index\":0,\"finish_reason\":\"stop\",\"message\":{\"role\":\"assistant\",\"content\":\"hello\"}}]}";
    let response = json!({
        "status": 200, "statusText": "", "httpVersion": "h2", "cookies": [], "headers": [{ "name": "Content-Encoding", "value": "br" }],
        "content": { "size": 5, "mimeType": "application/json", "text": answer }, "redirectURL": "", "headersSize": -1, "bodySize": 20,
    });
    let url = "https://api.openai.com/v1/chat/completions";
    let har = json!({ "log": { "version": "1.2", "creator": { "name": "x", "version": "1" }, "entries": [
        entry(url, "2026-01-01T00:00:02.000+01:00", json!({ "status": 0, "_error": "net::ERR_FAILED" })),
        entry(url, "2025-12-31T23:00:01.000Z", response),
        { "request": { "url": url } },
        entry("chrome://settings", "2026-01-01T00:00:00Z", json!({})),
        entry("not a url", "2026-01-01T00:00:00Z", json!({})),
    ] } });
    let file = bench.home().join("any name");
    std::fs::write(&file, format!("\u{feff}{har:#}")).unwrap();
    let store = bench.home().join("har.db");
    let output = import(&bench, &file, &store);
    let said = text(&output);
    assert!(output.status.success() && said.contains("(har): 1 rollout, 2 spans stored"), "{said}");
    for reason in
        ["an entry without a valid time", "an entry of another scheme than HTTP", "an entry without a valid URL"]
    {
        assert!(said.contains(reason), "{reason}: {said}");
    }
    let imported = rollouts(&bench, &store).remove(0);
    assert_eq!(
        (&imported["rollout"]["status"], &imported["rollout"]["metadata"]["imported_from"]),
        (&json!("succeeded"), &json!("any name"))
    );
    let call = &imported["spans"][0];
    assert!(call["attributes"]["gen_ai.output.messages"].as_str().unwrap().contains("hello"), "{call:#}");
    assert_eq!(call["attributes"]["http.request.header.authorization"], json!(["Bearer REDACTED"]));
    assert_eq!(imported["spans"][1]["status"]["status_code"], "ERROR");

    let jaeger = json!({ "traceID": "abc", "processes": { "p1": { "serviceName": "s", "tags": [] } }, "spans": [
        { "traceID": "abc", "spanID": "1", "operationName": "o", "startTime": 1_700_000_000_000_000_u64, "duration": 5, "processID": "p1",
          "references": [{ "refType": "CHILD_OF", "traceID": "abc", "spanID": "0" }, { "refType": "CHILD_OF", "traceID": "other", "spanID": "2" }],
          "tags": [{ "key": "error", "type": "bool", "value": true }, { "key": "big", "type": "int64", "value": "9223372036854775807" }],
          "logs": [{ "timestamp": 1, "fields": [{ "key": "message", "type": "string", "value": "m" }] }] },
        { "operationName": "without ids" },
    ] });
    std::fs::write(&file, jaeger.to_string()).unwrap();
    let store = bench.home().join("jaeger.db");
    let output = import(&bench, &file, &store);
    assert!(text(&output).contains("left out 1 times: a span without an id"), "{}", text(&output));
    let span = &spans(&bench, &store)[0];
    assert_eq!(
        (&span["rollout_id"], &span["parent_id"], &span["status"]["status_code"]),
        (&json!("abc"), &json!("0"), &json!("ERROR"))
    );
    assert_eq!((&span["attributes"]["big"], &span["links"][0]["context"]["span_id"]), (&json!(i64::MAX), &json!("2")));
    assert_eq!(
        (&span["events"][0]["name"], &span["resource"]["attributes"]["service.name"]),
        (&json!("log"), &json!("s"))
    );
}

#[test]
fn damaged_files_are_named_and_the_rest_of_them_is_kept() {
    let bench = Bench::new();
    let line = |id: &str| {
        json!({ "resourceSpans": [{ "scopeSpans": [{ "spans": [
            { "traceId": "0af7651916cd43dd8448eb211c80319c", "spanId": id, "name": "s" },
        ] }] }] })
        .to_string()
    };
    let file = bench.home().join("file");
    let store = bench.home().join("other.db");
    let cut =
        format!("{}\n{}\n{}", line("00f067aa0ba902b7"), line("00f067aa0ba902b8"), &line("00f067aa0ba902b9")[..40]);
    std::fs::write(&file, cut).unwrap();
    let output = import(&bench, &file, &store);
    assert!(output.status.success() && text(&output).contains("line 3: it is not JSON"), "{}", text(&output));
    assert_eq!(spans(&bench, &store).len(), 2);
    for (content, words) in [
        (&b"\x0a\x7fcut protobuf"[..], "it is not OTLP"),
        (b"", "its form is unknown"),
        (b"{}", "its form is unknown"),
        (b"{\"log\":{\"entries\":[", "it is not JSON"),
        (b"[1, 2]", "its form is unknown"),
        (b"{\"a\":1}\n{\"b\":2}\n", "none of its lines has a known form"),
        (b"{\"data\":[7]}", "no list of spans"),
    ] {
        std::fs::write(&file, content).unwrap();
        let output = import(&bench, &file, &store);
        assert!(output.status.code() == Some(2) && text(&output).contains(words), "{words}: {}", text(&output));
    }
    let output = import(&bench, bench.home(), &store);
    assert!(text(&output).contains("cannot read it"), "{}", text(&output));
    // One bad file does not keep the others out.
    let good = bench.home().join("good");
    std::fs::write(&good, line("00f067aa0ba902ba")).unwrap();
    let both = tracewire(bench.home()).arg("import").args([&file, &good]).arg("--store").arg(&store).output().unwrap();
    assert!(both.status.code() == Some(2) && text(&both).contains("1 span stored"), "{}", text(&both));
}

/// The calls of an imported file: the texts of their inputs and outputs, models, and the usage.
fn calls(bench: &Bench, name: &str, content: &[u8]) -> (Vec<Value>, String) {
    let (file, store) = (bench.home().join(name), bench.home().join(format!("{name}.db")));
    std::fs::write(&file, content).unwrap();
    let output = import(bench, &file, &store);
    assert!(output.status.success(), "{}", text(&output));
    let again = import(bench, &file, &store);
    assert!(text(&again).contains("0 spans stored"), "{}", text(&again));
    (spans(bench, &store), text(&output))
}

#[test]
fn sessions_of_coding_agents_become_calls() {
    let bench = Bench::new();
    let line = |kind: &str, at: usize, message: Value| {
        json!({ "type": kind, "uuid": format!("u-{at}"), "parentUuid": null, "sessionId": "s-1", "isSidechain": at == 6,
                "version": "2.0.1", "timestamp": format!("2026-01-01T00:00:0{at}.000Z"), "message": message })
        .to_string()
    };
    let usage = json!({ "input_tokens": 5, "cache_read_input_tokens": 100, "output_tokens": 7 });
    let answer = |id: &str, block: Value| json!({ "role": "assistant", "id": id, "model": "claude-x", "content": [block], "usage": usage });
    let session = [
        json!({ "type": "summary", "summary": "a title", "leafUuid": "u-1" }).to_string(),
        line("user", 1, json!({ "role": "user", "content": "list files" })),
        line("assistant", 2, answer("msg_1", json!({ "type": "thinking", "thinking": "hm", "signature": "x" }))),
        line(
            "assistant",
            3,
            answer("msg_1", json!({ "type": "tool_use", "id": "t-1", "name": "Bash", "input": { "command": "ls" } })),
        ),
        line(
            "user",
            4,
            json!({ "role": "user", "content": [{ "type": "tool_result", "tool_use_id": "t-1", "content": "a b" }] }),
        ),
        line("assistant", 5, answer("msg_2", json!({ "type": "text", "text": "two files" }))),
        line("assistant", 6, answer("msg_3", json!({ "type": "text", "text": "beside" }))),
        "{\"type\":\"user\",\"cut".to_owned(),
    ]
    .join("\n");
    let (spans, said) = calls(&bench, "claude.jsonl", session.as_bytes());
    assert!(said.contains("(claude-code): 1 rollout, 3 spans stored"), "{said}");
    assert!(said.contains("a line of the type summary") && said.contains("a line that is not JSON"), "{said}");
    let [first, second, beside] = spans.as_slice() else { panic!("{spans:#?}") };
    let attribute = |span: &Value, name: &str| span["attributes"][name].clone();
    assert_eq!((&first["rollout_id"], &first["name"]), (&json!("s-1"), &json!("chat claude-x")));
    let output = attribute(first, "gen_ai.output.messages").as_str().unwrap().to_owned();
    assert!(output.contains("reasoning") && output.contains("\"arguments\":{\"command\":\"ls\"}"), "{output}");
    let input = attribute(second, "gen_ai.input.messages").as_str().unwrap().to_owned();
    assert!(input.contains("list files") && input.contains("tool_call_response") && input.contains("a b"), "{input}");
    assert_eq!(
        (attribute(first, "gen_ai.usage.input_tokens"), attribute(beside, "tracewire.call.role")),
        (json!(105), json!("subagent"))
    );
    // The transcript shows each message once.
    let store = bench.home().join("claude.jsonl.db");
    let markdown = std::fs::read_to_string(export(&bench, "markdown", &store)).unwrap();
    assert_eq!(
        (markdown.matches("> list files").count(), markdown.matches("## Conversation").count()),
        (1, 2),
        "{markdown}"
    );

    let item = |at: usize, kind: &str, payload: Value| {
        json!({ "timestamp": format!("2026-01-01T00:00:0{at}.000Z"), "type": kind, "payload": payload }).to_string()
    };
    let session = [
        item(
            0,
            "session_meta",
            json!({ "id": "c-1", "originator": "codex_cli_rs", "cli_version": "1.0", "instructions": "be brief" }),
        ),
        item(1, "turn_context", json!({ "model": "gpt-x" })),
        item(
            2,
            "response_item",
            json!({ "type": "message", "role": "user", "content": [{ "type": "input_text", "text": "go" }] }),
        ),
        item(
            3,
            "response_item",
            json!({ "type": "reasoning", "summary": [{ "type": "summary_text", "text": "think" }] }),
        ),
        item(
            4,
            "response_item",
            json!({ "type": "function_call", "name": "shell", "arguments": "{\"a\":1}", "call_id": "c" }),
        ),
        item(
            5,
            "event_msg",
            json!({ "type": "token_count", "info": { "last_token_usage": { "input_tokens": 9, "output_tokens": 3 } } }),
        ),
        item(6, "response_item", json!({ "type": "function_call_output", "call_id": "c", "output": "done" })),
        item(
            7,
            "response_item",
            json!({ "type": "message", "role": "assistant", "content": [{ "type": "output_text", "text": "ok" }] }),
        ),
        item(8, "compacted", json!({ "message": "a summary" })),
        item(
            9,
            "response_item",
            json!({ "type": "message", "role": "assistant", "content": [{ "type": "output_text", "text": "on" }] }),
        ),
        item(9, "event_msg", json!({ "type": "from_the_future" })),
    ]
    .join("\n");
    let (spans, said) = calls(&bench, "codex.jsonl", session.as_bytes());
    assert!(
        said.contains("(codex): 1 rollout, 3 spans stored") && said.contains("event_msg from_the_future"),
        "{said}"
    );
    assert_eq!((&spans[0]["rollout_id"], &spans[0]["name"]), (&json!("c-1"), &json!("chat gpt-x")));
    assert_eq!(spans[0]["attributes"]["gen_ai.usage.output_tokens"], 3);
    let inputs: Vec<usize> = spans
        .iter()
        .map(|span| {
            serde_json::from_str::<Value>(span["attributes"]["gen_ai.input.messages"].as_str().unwrap())
                .unwrap()
                .as_array()
                .unwrap()
                .len()
        })
        .collect();
    assert_eq!(inputs, [2, 4, 1], "{spans:#?}");
}

#[test]
fn trajectories_of_atif_become_calls_and_come_back() {
    let bench = Bench::new();
    let step = |at: usize, source: &str, message: &str| json!({ "step_id": at, "source": source, "message": message, "timestamp": "2026-01-01T00:00:00Z" });
    let mut called = step(3, "agent", "calling");
    called["tool_calls"] = json!([{ "tool_call_id": "t", "function_name": "read", "arguments": { "a": 1 } }]);
    called["observation"] = json!({ "results": [{ "source_call_id": "t", "content": "content of a" }] });
    called["metrics"] =
        json!({ "prompt_tokens": 3, "completion_tokens": 2, "completion_token_ids": [7, 8], "logprobs": [-0.5, -1.5] });
    let mut copied = step(4, "agent", "copied");
    copied["is_copied_context"] = json!(true);
    let agent = json!({ "name": "a", "version": "1", "model_name": "m" });
    let sub = json!({ "schema_version": "ATIF-v1.7", "trajectory_id": "sub", "agent": agent, "steps": [step(1, "user", "u"), step(2, "agent", "sub answer")] });
    let trajectory = json!({
        "schema_version": "ATIF-v1.7", "session_id": "s-atif", "agent": agent, "from_the_future": 1,
        "steps": [step(1, "system", "sys"), step(2, "user", "hi"), called, copied, step(5, "agent", "last")],
        "subagent_trajectories": [sub],
    });
    let (spans, said) = calls(&bench, "trajectory.json", format!("{trajectory:#}").as_bytes());
    assert!(said.contains("(atif): 1 rollout, 3 spans stored") && said.contains("the field from_the_future"), "{said}");
    assert!(spans.iter().all(|span| span["rollout_id"] == "s-atif"));
    let store = bench.home().join("trajectory.json.db");
    let exported: Value = serde_json::from_slice(&std::fs::read(export(&bench, "atif", &store)).unwrap()).unwrap();
    let steps = exported["steps"].as_array().unwrap();
    let messages: Vec<&str> = steps.iter().map(|step| step["message"].as_str().unwrap()).collect();
    assert_eq!(messages, ["sys", "hi", "calling", "copied", "last"], "{exported:#}");
    assert_eq!(steps[2]["observation"]["results"][0]["content"], "content of a");
    assert_eq!(
        (&steps[2]["metrics"]["logprobs"], &steps[2]["tool_calls"][0]["arguments"]),
        (&json!([-0.5, -1.5]), &json!({ "a": 1 }))
    );
    assert_eq!(exported["subagent_trajectories"][0]["steps"][1]["message"], "sub answer");
}

/// A tagged netstring.
fn tagged(tag: char, payload: &[u8]) -> Vec<u8> {
    [format!("{}:", payload.len()).as_bytes(), payload, &[tag as u8]].concat()
}

fn map(fields: &[(&str, Vec<u8>)]) -> Vec<u8> {
    tagged(
        '}',
        &fields
            .iter()
            .flat_map(|(name, value)| [tagged(';', name.as_bytes()), value.clone()].concat())
            .collect::<Vec<u8>>(),
    )
}

#[test]
fn flows_of_mitmproxy_become_exchanges() {
    let bench = Bench::new();
    let bytes = |text: &str| tagged(',', text.as_bytes());
    let number = |text: &str| tagged('^', text.as_bytes());
    let header = |name: &str, value: &str| tagged(']', &[bytes(name), bytes(value)].concat());
    let request = map(&[
        ("method", bytes("POST")),
        ("scheme", bytes("https")),
        ("host", tagged(';', b"api.openai.com")),
        ("port", tagged('#', b"443")),
        ("path", bytes("/v1/chat/completions")),
        ("http_version", bytes("HTTP/2.0")),
        ("headers", tagged(']', &header("authorization", "Bearer sk-secretsecretsecret"))),
        ("content", bytes("{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]}")),
        ("timestamp_start", number("1700000000.5")),
        ("timestamp_end", number("1700000000.6")),
    ]);
    let answer = "{\"object\":\"chat.completion\",\"model\":\"m\",\"choices\":[{\"index\":0,\"finish_reason\":\"stop\",\"message\":{\"role\":\"assistant\",\"content\":\"hello\"}}]}";
    let response = map(&[
        ("status_code", tagged('#', b"200")),
        ("http_version", bytes("HTTP/2.0")),
        ("content", bytes(answer)),
        ("headers", tagged(']', &header("content-type", "application/json"))),
        ("timestamp_start", number("1700000001.0")),
        ("timestamp_end", number("1700000002.0")),
    ]);
    let flow = |kind: &str, response: Vec<u8>| {
        map(&[
            ("version", tagged('#', b"21")),
            ("type", tagged(';', kind.as_bytes())),
            ("request", request.clone()),
            ("response", response),
        ])
    };
    let file = [
        flow("http", response.clone()),
        flow("http", tagged('~', b"")),
        flow("tcp", tagged('~', b"")),
        flow("http", response)[..90].to_vec(),
    ]
    .concat();
    let (spans, said) = calls(&bench, "flows", &file);
    assert!(said.contains("(mitmproxy): 1 rollout, 2 spans stored"), "{said}");
    assert!(said.contains("a flow of the type tcp") && said.contains("cut or damaged"), "{said}");
    assert!(spans[0]["attributes"]["gen_ai.output.messages"].as_str().unwrap().contains("hello"), "{spans:#?}");
    assert_eq!(spans[0]["attributes"]["http.request.header.authorization"], json!(["Bearer REDACTED"]));
    assert_eq!((&spans[0]["start_time"], &spans[0]["end_time"]), (&json!(1_700_000_000.5), &json!(1_700_000_002.0)));
    assert_eq!(
        (&spans[0]["attributes"]["url.full"], &spans[1]["status"]["status_code"]),
        (&json!("https://api.openai.com/v1/chat/completions"), &json!("ERROR"))
    );
}

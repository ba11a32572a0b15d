//! LLM calls through the proxy and the gateway: stored token ids are those that were sent, tools and retries are related to
//! their calls, and settings hold.

use crate::support::client::{ask, post as post_json};
use crate::support::{Bench, Running, endpoint, eventually, python, read_head, say, text};
use serde_json::{Value, json};
use std::io::{Read, Write};

/// The token ids and logprobs that an SDK got, as one JSON line.
const SDK: &str = r#"
import json, sys
from openai import OpenAI
client = OpenAI(base_url=sys.argv[1] + "/v1", api_key="sk-test-0000000000000000000000")
asked = dict(model="m", messages=[{"role": "user", "content": "say something to me"}], logprobs=True,
             extra_body={"return_token_ids": True})
seen = []
def ids(choices):
    return [list(choice.model_extra["token_ids"]) for choice in choices]
for more in [{}, {"n": 2}]:
    answer = client.chat.completions.create(**asked, **more)
    logprobs = [[token.logprob for token in choice.logprobs.content] for choice in answer.choices]
    seen.append({"prompt": answer.model_extra["prompt_token_ids"], "ids": ids(answer.choices), "logprobs": logprobs})
prompt, streamed, logprobs = None, [], []
for chunk in client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}):
    prompt = prompt or chunk.model_extra.get("prompt_token_ids")
    for choice in chunk.choices:
        streamed += choice.model_extra.get("token_ids") or []
        logprobs += [token.logprob for token in choice.logprobs.content] if choice.logprobs else []
seen.append({"prompt": prompt, "ids": [streamed], "logprobs": [logprobs]})
print(json.dumps(seen))
"#;

#[test]
fn the_ids_in_the_store_are_those_that_the_sdk_was_sent() {
    let bench = Bench::new();
    let output = bench.run(&["--rollout", "ro-ids"], &[&python(), "-c", SDK, &bench.https()]);
    assert!(output.status.success(), "{}", text(&output));
    let seen: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    let spans = bench.exchanges("ro-ids", 3);
    assert_eq!(spans.len(), 3);
    for (seen, span) in seen.iter().zip(&spans) {
        let attributes = &span["attributes"];
        assert_eq!(attributes["prompt_token_ids"], seen["prompt"]);
        assert!(!seen["ids"][0].as_array().unwrap().is_empty());
        for (at, (ids, logprobs)) in
            seen["ids"].as_array().unwrap().iter().zip(seen["logprobs"].as_array().unwrap()).enumerate()
        {
            let end = if at == 0 { String::new() } else { format!(".{at}") };
            assert_eq!(&attributes[format!("response_token_ids{end}")], ids);
            assert_eq!(&attributes[format!("tracewire.response_logprobs{end}")], logprobs);
        }
        let reasons = &attributes["tracewire.tokens.reasons"];
        // The mock counts the tokens of one choice.
        let expected =
            if seen["ids"].as_array().unwrap().len() == 2 { json!(["usage_output_tokens"]) } else { Value::Null };
        assert_eq!(*reasons, expected);
    }
}

/// Posts JSON through the proxy.
fn post(serve: &Running, target: &str, fields: &str, body: &Value) -> String {
    let body = body.to_string();
    let head = format!(
        "POST {target} HTTP/1.1\r\nHost: x\r\ncontent-type: application/json\r\n{fields}content-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    say(serve.address("proxy"), [head.as_bytes(), body.as_bytes()].concat().as_slice())
}

#[test]
fn a_tool_is_a_span_below_the_call_that_called_it() {
    let bench = Bench::new();
    let serve = bench.serve(&[]);
    let chat = format!("{}/v1/chat/completions", bench.http());
    let user = json!({ "role": "user", "content": "add" });
    let tools = json!([{ "type": "function", "function": { "name": "add", "parameters": { "type": "object" } } }]);
    let routed = "x-rollout-id: ro-tools\r\nx-attempt-id: at-1\r\n";
    let answer = post(&serve, &chat, routed, &json!({ "model": "m", "messages": [user], "tools": tools }));
    assert!(answer.contains("call_mock_1"), "{answer}");
    let call = json!({ "role": "assistant", "content": null, "tool_calls": [{ "id": "call_mock_1", "type": "function",
        "function": { "name": "add", "arguments": "{}" } }] });
    let result =
        json!({ "role": "tool", "tool_call_id": "call_mock_1", "content": "4, and sk-abcdefghijklmnopqrstuvwx" });
    let messages = json!([user, call, result]);
    for _ in 0..2 {
        post(&serve, &chat, routed, &json!({ "model": "m", "messages": messages, "tools": tools }));
    }
    let calls = bench.exchanges("ro-tools", 3);
    let spans = bench.spans("ro-tools");
    let tools: Vec<&Value> = spans.iter().filter(|span| span["name"] == "execute_tool add").collect();
    assert_eq!(tools.len(), 1, "a result that is repeated is one result");
    assert_eq!(tools[0]["parent_id"], calls[0]["span_id"]);
    assert_eq!(tools[0]["attributes"]["gen_ai.tool.call.id"], "call_mock_1");
    assert_eq!(tools[0]["attributes"]["gen_ai.tool.call.result"], "\"4, and sk-REDACTED\"");
    let stored = serde_json::to_string(&spans).unwrap();
    assert!(!stored.contains("abcdefghijklmnopqrstuvwx"), "a secret was stored");
}

#[test]
fn a_retry_names_the_call_that_it_repeats_and_another_sample_is_no_retry() {
    let bench = Bench::new();
    let serve = bench.serve(&[]);
    let chat = format!("{}/v1/chat/completions", bench.http());
    let ask = |more: &str| {
        let body = json!({ "model": "m", "messages": [{ "role": "user", "content": "hello" }] });
        post(&serve, &chat, &format!("x-rollout-id: ro-retry\r\nx-attempt-id: at-1\r\n{more}"), &body);
    };
    ask("x-mock-status: 500\r\n");
    ask("x-stainless-retry-count: 1\r\n");
    ask("");
    let calls = bench.exchanges("ro-retry", 3);
    assert_eq!(calls[1]["attributes"]["http.request.resend_count"], 1);
    assert_eq!(calls[1]["links"][0]["context"]["span_id"], calls[0]["span_id"]);
    assert_eq!(calls[1]["links"][0]["attributes"]["tracewire.link"], "retry_of");
    assert_eq!(calls[2]["links"], json!([]));
    assert_eq!(calls[2]["attributes"].get("http.request.resend_count"), None);
}

#[test]
fn content_is_recorded_by_setting_and_missing_ids_are_counted() {
    let bench = Bench::new();
    let config = bench.home().join("proxy.toml");
    std::fs::write(&config, "[capture]\nllm_content = false\n").unwrap();
    let serve = bench.serve(&["--config", config.to_str().unwrap()]);
    let target = format!("{}/v1/messages", bench.http());
    let body = json!({ "model": "claude", "max_tokens": 5, "return_token_ids": true, "messages": [{ "role": "user", "content": "be silent" }] });
    post(&serve, &target, "x-rollout-id: ro-quiet\r\n", &body);
    let span = &bench.exchanges("ro-quiet", 1)[0];
    assert_eq!(span["name"], "chat claude");
    assert!(span["attributes"]["gen_ai.usage.input_tokens"].is_i64());
    assert!(!span.to_string().contains("silent"), "{span}");
    assert_eq!(span["attributes"]["tracewire.tokens.status"], "none");
    let counted = eventually(|| {
        let metrics =
            say(serve.address("server"), b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nconnection: close\r\n\r\n");
        metrics.contains("tracewire_token_ids_unproved_total{reason=\"ids_absent\"} 1").then_some(metrics)
    });
    assert_eq!(counted.matches("# TYPE tracewire_token_ids_unproved_total counter").count(), 1);
    let shown = crate::support::tracewire(bench.home()).args(["trace", "show", "ro-quiet"]).output().unwrap();
    assert!(String::from_utf8_lossy(&shown.stdout).contains("ids none (ids_absent"), "{}", text(&shown));
}

/// All that an SDK reads from its responses, as one JSON line. It requests no ids.
const OBJECTS: &str = r#"
import json, sys
from openai import OpenAI
client = OpenAI(base_url=sys.argv[1] + "/v1", api_key="sk-test-0000000000000000000000")
tools = [{"type": "function", "function": {"name": "add", "parameters": {"type": "object", "properties": {}}}}]
asked = dict(model="m", messages=[{"role": "user", "content": "say something to me"}])
chat = client.chat.completions.create
streamed = lambda **more: [chunk.model_dump() for chunk in chat(**asked, stream=True, **more)]
seen = [chat(**asked).model_dump(), chat(**asked, n=2).model_dump(), chat(**asked, tools=tools).model_dump(),
        chat(**asked, logprobs=True).model_dump(), streamed(), streamed(stream_options={"include_usage": True}),
        streamed(tools=tools), client.completions.create(model="m", prompt="go on").model_dump(),
        [chunk.model_dump() for chunk in client.completions.create(model="m", prompt="go on", stream=True)]]
print(json.dumps(seen))
"#;

#[test]
fn ids_are_requested_and_removed_without_any_change_for_the_agent() {
    let bench = Bench::with_mock(&["--vllm"]);
    let config = bench.home().join("proxy.toml");
    std::fs::write(&config, "[tokens]\nengines = [{ hosts = [\"127.0.0.1\"], engine = \"vllm\" }]\n").unwrap();
    let direct = std::process::Command::new(python()).args(["-c", OBJECTS, &bench.http()]).output().unwrap();
    assert!(direct.status.success(), "{}", text(&direct));
    let flags = ["--rollout", "ro-injected", "--config", config.to_str().unwrap()];
    let traced = bench.run(&flags, &[&python(), "-c", OBJECTS, &bench.http()]);
    assert!(traced.status.success(), "{}", text(&traced));
    let objects = |output: &std::process::Output| -> Vec<Value> { serde_json::from_slice(&output.stdout).unwrap() };
    for (number, (direct, traced)) in objects(&direct).iter().zip(&objects(&traced)).enumerate() {
        assert_eq!(direct, traced, "answer {number} looks different to the agent");
    }
    let spans = bench.exchanges("ro-injected", 9);
    assert_eq!(spans.len(), 9);
    // The ids that the endpoint sends to clients that request them.
    let serve = bench.serve(&[]);
    for span in &spans {
        let attributes = &span["attributes"];
        let is_chat = attributes["tracewire.dialect"] == "openai.chat";
        let messages: Value = serde_json::from_str(attributes["gen_ai.input.messages"].as_str().unwrap()).unwrap();
        let content = &messages[0]["parts"][0]["content"];
        let mut body = json!({ "model": "m", "return_token_ids": true, "logprobs": true });
        match is_chat {
            true => body["messages"] = json!([{ "role": "user", "content": content }]),
            false => body["prompt"] = content.clone(),
        }
        if let Some(tools) = attributes["gen_ai.tool.definitions"].as_str() {
            let tools: Value = serde_json::from_str(tools).unwrap();
            body["tools"] = json!([{ "type": "function", "function": tools[0] }]);
        }
        let path = if is_chat { "chat/completions" } else { "completions" };
        let answer = post(&serve, &format!("{}/v1/{path}", bench.http()), "", &body);
        let answer: Value = serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap();
        let choice = &answer["choices"][0];
        let prompt = if is_chat { &answer["prompt_token_ids"] } else { &choice["prompt_token_ids"] };
        assert_eq!(attributes["prompt_token_ids"], *prompt, "{span:#}");
        let sampled = attributes.get("response_token_ids").cloned().unwrap_or_else(|| json!([]));
        assert_eq!(sampled, choice["token_ids"], "{span:#}");
        assert_eq!(attributes["tracewire.tokens.injected"][0], "return_token_ids");
        assert_eq!(attributes["tracewire.tokens.stripped"], true);
    }
}

/// The length of the request that an echo answers.
fn length(answer: &str) -> usize {
    let digits = answer.split("\"length\":").nth(1).unwrap_or_default();
    digits.chars().take_while(char::is_ascii_digit).collect::<String>().parse().unwrap_or(usize::MAX)
}

#[test]
fn messages_that_can_not_be_changed_safely_pass_unchanged() {
    let bench = Bench::new();
    let config = bench.home().join("proxy.toml");
    std::fs::write(&config, "[tokens]\nengines = [{ hosts = [\"127.0.0.1\"], engine = \"vllm\" }]\n").unwrap();
    let serve = bench.serve(&["--config", config.to_str().unwrap()]);
    let send = |fields: &str, body: &str| {
        let echo = format!("{}/echo/v1/chat/completions", bench.http());
        let length = body.len();
        let head =
            format!("POST {echo} HTTP/1.1\r\nHost: x\r\n{fields}content-length: {length}\r\nconnection: close\r\n\r\n");
        say(serve.address("proxy"), format!("{head}{body}").as_bytes())
    };
    let json = "content-type: application/json\r\n";
    for (fields, body) in [
        ("content-type: text/plain\r\n", "{\"messages\":[]}"),
        (json, "[1]"),
        (json, "{\"messages\":"),
        ("content-type: application/json\r\nauthorization: AWS4-HMAC-SHA256 x\r\n", "{\"messages\":[]}"),
        ("content-type: application/json\r\ncontent-encoding: gzip\r\n", "{\"messages\":[]}"),
    ] {
        let answer = send(fields, body);
        assert_eq!(length(&answer), body.len(), "{fields}{body}: {answer}");
    }
    let changed = "{\"return_token_ids\":true,\"logprobs\":true,\"top_logprobs\":0,\"messages\":[]}";
    let answer = send(json, "{\"messages\":[]}");
    assert_eq!(length(&answer), changed.len(), "{answer}");
}

#[test]
fn a_stream_tells_when_its_chunks_came() {
    let bench = Bench::new();
    let serve = bench.serve(&[]);
    let chat = format!("{}/v1/chat/completions", bench.http());
    let body = json!({ "model": "m", "stream": true, "messages": [{ "role": "user", "content": "count" }] });
    for chunks in [40, 4] {
        let behavior = format!("x-mock-chunks: {chunks}\r\nx-mock-chunk-delay-ms: 3\r\n");
        // The whole response is read until its end.
        let routed = "Connection: close\r\nx-rollout-id: ro-stream\r\nx-attempt-id: at-1\r\n";
        post(&serve, &chat, &format!("{routed}{behavior}"), &body);
    }
    let spans = bench.exchanges("ro-stream", 2);
    let long = &spans[0]["attributes"];
    let counts = long["tracewire.response.chunk_counts"].as_array().unwrap();
    let sum: u64 = counts.iter().map(|count| count.as_u64().unwrap()).sum();
    assert_eq!((counts.len(), json!(sum)), (16, long["tracewire.response.chunks"].clone()));
    // The first and the last chunk bound the time.
    assert!(counts[0] != 0 && counts[15] != 0, "{counts:?}");
    assert_eq!(spans[1]["attributes"].get("tracewire.response.chunk_counts"), None);
}

#[test]
fn a_stream_that_the_agent_closes_keeps_every_id_that_came() {
    use crate::support::connect;
    use std::io::{Read, Write};
    let bench = Bench::new();
    let serve = bench.serve(&[]);
    let body = json!({ "model": "m", "stream": true, "return_token_ids": true, "logprobs": true,
        "messages": [{ "role": "user", "content": "say something to me" }] })
    .to_string();
    let target = format!("{}/v1/chat/completions", bench.http());
    let mut agent = connect(serve.address("proxy"));
    let head = format!(
        "POST {target} HTTP/1.1\r\nHost: x\r\nx-rollout-id: ro-left\r\nx-mock-chunk-delay-ms: 50\r\nx-mock-chunks: 100\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    agent.write_all(head.as_bytes()).unwrap();
    let (mut seen, mut part) = (Vec::new(), [0; 4096]);
    let mut got = String::new();
    while got.matches("token_ids\":[").count() < 6 {
        let read = agent.read(&mut part).unwrap();
        assert!(read > 0, "{got}");
        seen.extend_from_slice(&part[..read]);
        got = String::from_utf8_lossy(&seen).into_owned();
    }
    drop(agent);
    let span = &bench.exchanges("ro-left", 1)[0];
    let attributes = &span["attributes"];
    assert_eq!(
        (&span["status"]["status_code"], &attributes["tracewire.outcome"]),
        (&json!("UNSET"), &json!("aborted"))
    );
    assert_eq!(attributes["tracewire.tokens.status"], "partial");
    let reasons = attributes["tracewire.tokens.reasons"].as_array().unwrap();
    assert!(reasons.contains(&json!("aborted_by_agent")) && reasons.contains(&json!("no_end")), "{reasons:?}");
    // The ids of the events that the agent got, and perhaps of one more.
    let events = got.lines().filter_map(|line| serde_json::from_str::<Value>(line.strip_prefix("data: ")?).ok());
    let sent: Vec<Value> =
        events.flat_map(|event| event["choices"][0]["token_ids"].as_array().cloned().unwrap_or_default()).collect();
    let kept = attributes["response_token_ids"].as_array().unwrap();
    assert!(sent.len() >= 5 && kept.len() >= sent.len() && kept[..sent.len()] == sent, "{kept:?} {sent:?}");
    assert_eq!(attributes["tracewire.response_logprobs"].as_array().unwrap().len(), kept.len());
}

#[test]
fn an_engine_is_detected_from_its_responses() {
    let bench = Bench::with_mock(&["--vllm"]);
    let serve = bench.serve(&[]);
    let chat = format!("{}/v1/chat/completions", bench.http());
    let body = json!({ "model": "m", "messages": [{ "role": "user", "content": "say something to me" }] });
    let answer = |fields: &str| {
        let answer = post(&serve, &chat, &format!("x-rollout-id: ro-known\r\n{fields}"), &body);
        answer.split_once("\r\n\r\n").unwrap().1.to_owned()
    };
    let first = answer("");
    assert!(bench.exchanges("ro-known", 1)[0]["attributes"].get("response_token_ids").is_none());
    assert_eq!(answer(""), first, "the agent sees the same");
    let second = bench.exchanges("ro-known", 2)[1]["attributes"].clone();
    assert_eq!(second["tracewire.tokens.status"], "exact", "{second:#}");
    answer("x-mock-status: 400\r\n");
    assert_eq!(answer(""), first);
    let after = bench.exchanges("ro-known", 4)[3]["attributes"].clone();
    assert_eq!(after["tracewire.tokens.injected"][0], "return_token_ids", "a request may be bad for other reasons");
}

#[test]
fn an_engine_that_refuses_the_added_fields_is_not_asked_again() {
    use crate::support::{endpoint, read_head};
    use std::io::{Read, Write};
    let bench = Bench::new();
    let serve = bench.serve(&[]);
    let target = endpoint(|mut stream| {
        let head = read_head(&mut stream).to_lowercase();
        let length = head.split("content-length: ").nth(1).unwrap().split("\r\n").next().unwrap().parse().unwrap();
        let mut body = vec![0; length];
        stream.read_exact(&mut body).unwrap();
        let (status, answer) = match String::from_utf8(body).unwrap().contains("return_token_ids") {
            true => ("400 Bad Request", r#"{"error":{"message":"unknown field return_token_ids"}}"#),
            false => ("200 OK", r#"{"choices":[{"message":{"content":"hi"}}],"prompt_token_ids":null}"#),
        };
        let head = format!("HTTP/1.1 {status}\r\ncontent-type: application/json\r\nconnection: close\r\n");
        write!(stream, "{head}content-length: {}\r\n\r\n{answer}", answer.len()).unwrap();
    });
    let body = json!({ "model": "m", "messages": [{ "role": "user", "content": "hi" }] });
    let asked = |count| {
        let reply = post(&serve, &format!("http://{target}/v1/chat/completions"), "x-rollout-id: ro-no\r\n", &body);
        assert!(reply.starts_with("HTTP/1.1 200"), "{reply}");
        let injected = &bench.exchanges("ro-no", count)[count - 1]["attributes"]["tracewire.tokens.injected"];
        !injected.is_null()
    };
    assert_eq!([asked(1), asked(2), asked(3)], [false; 3], "a refused request is sent again as it was");
}

/// The same with Anthropic's SDK.
const ANTHROPIC: &str = r#"
import json, sys
from anthropic import Anthropic
client = Anthropic(base_url=sys.argv[1], api_key="sk-ant-test-0000000000000000000000")
tools = [{"name": "add", "description": "adds", "input_schema": {"type": "object", "properties": {}}}]
asked = dict(model="m", max_tokens=50, messages=[{"role": "user", "content": "say something to me"}])
seen = [client.messages.create(**asked).model_dump(), client.messages.create(**asked, tools=tools).model_dump()]
for more in [{}, {"tools": tools}]:
    with client.messages.stream(**asked, **more) as stream:
        seen.append([event.model_dump(mode="json") for event in stream])
print(json.dumps(seen))
"#;

#[test]
fn anthropics_sdk_gets_the_same_and_its_calls_are_recorded() {
    let bench = Bench::new();
    let direct = std::process::Command::new(python()).args(["-c", ANTHROPIC, &bench.http()]).output().unwrap();
    assert!(direct.status.success(), "{}", text(&direct));
    let traced = bench.run(&["--rollout", "ro-anthropic"], &[&python(), "-c", ANTHROPIC, &bench.http()]);
    assert_eq!(String::from_utf8_lossy(&direct.stdout), String::from_utf8_lossy(&traced.stdout));
    let spans = bench.exchanges("ro-anthropic", 4);
    let output = |at: usize| -> Value {
        serde_json::from_str(spans[at]["attributes"]["gen_ai.output.messages"].as_str().unwrap()).unwrap()
    };
    assert_eq!((output(0), output(1)), (output(2), output(3)), "streamed or not, it is the same answer");
    assert_eq!(output(1)[0]["parts"][0]["type"], "tool_call");
    assert!(spans.iter().all(|span| span["name"] == "chat m" && span["status"]["status_code"] == "UNSET"));
}

#[test]
fn the_traceparent_in_the_body_of_a_tool_call_is_its_parent() {
    let bench = Bench::new();
    let serve = bench.serve(&[]);
    let (trace, parent) = ("0af7651916cd43dd8448eb211c80319c", "00f067aa0ba902b7");
    let params =
        json!({ "name": "add", "arguments": {}, "_meta": { "traceparent": format!("00-{trace}-{parent}-01") } });
    let body = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params });
    post(&serve, &format!("{}/echo/mcp", bench.http()), "x-rollout-id: ro-mcp\r\n", &body);
    let span = &bench.exchanges("ro-mcp", 1)[0];
    assert_eq!((&span["trace_id"], &span["parent_id"]), (&json!(trace), &json!(parent)), "{span:#}");
    assert_eq!((&span["parent"]["is_remote"], &span["context"]["trace_id"]), (&json!(true), &json!(trace)));
}

#[tokio::test(flavor = "multi_thread")]
async fn responses_over_a_websocket_are_calls_below_it() {
    use futures_util::{SinkExt, StreamExt};
    use tokio_tungstenite::tungstenite::Message;
    let bench = Bench::new();
    let serve = bench.serve(&[]);
    let target = bench.mock.address("http");
    let stream = crate::support::tunnel(serve.address("proxy"), target, "ro-socket");
    stream.set_nonblocking(true).unwrap();
    let stream = tokio::net::TcpStream::from_std(stream).unwrap();
    let (mut socket, _) = tokio_tungstenite::client_async(format!("ws://{target}/v1/responses"), stream).await.unwrap();
    let mut events = Vec::new();
    for (number, left_early) in [false, false, true].into_iter().enumerate() {
        let input = json!([{ "role": "user", "content": format!("question {number}") }]);
        let asked =
            json!({ "type": "response.create", "model": "m", "input": input, "enable_response_messages": true });
        socket.send(Message::text(asked.to_string())).await.unwrap();
        let last = if left_early { "response.output_text.delta" } else { "response.completed" };
        loop {
            let Message::Text(text) = socket.next().await.unwrap().unwrap() else { continue };
            let event: Value = serde_json::from_str(&text).unwrap();
            if event["type"] == last {
                events.push(event);
                break;
            }
        }
    }
    socket.close(None).await.unwrap();
    while socket.next().await.is_some() {}
    drop(socket);
    let spans = eventually(|| {
        let spans = bench.spans("ro-socket");
        (spans.len() >= 4).then_some(spans)
    });
    let socket = spans.iter().find(|span| span["name"] == "WEBSOCKET").unwrap();
    assert!(!socket.to_string().contains("question"), "bodies are not recorded: {socket:#}");
    let mut calls: Vec<_> = spans.iter().filter(|span| span["attributes"]["gen_ai.operation.name"] == "chat").collect();
    calls.sort_by_key(|span| span["attributes"]["gen_ai.input.messages"].to_string());
    assert_eq!(calls.len(), 3);
    for (number, (span, event)) in calls.iter().zip(&events).enumerate() {
        let attributes = &span["attributes"];
        assert_eq!(span["parent_id"], socket["span_id"]);
        let input: Value = serde_json::from_str(attributes["gen_ai.input.messages"].as_str().unwrap()).unwrap();
        assert_eq!(input[0]["parts"][0]["content"], format!("question {number}"));
        if number < 2 {
            let response = &event["response"];
            assert_eq!(attributes["response_token_ids"], response["output_messages"][0]["tokens"]);
            assert_eq!(attributes["prompt_token_ids"], response["input_messages"][0]["tokens"]);
            assert_eq!(attributes["gen_ai.usage.output_tokens"], response["usage"]["output_tokens"]);
            assert_eq!(attributes["tracewire.tokens.status"], "exact", "{span:#}");
            assert!(attributes["gen_ai.response.time_to_first_chunk"].as_f64().is_some(), "{span:#}");
        }
    }
}

/// A model server that answers each call and passes its body to the test.
fn recording_backend() -> (std::net::SocketAddr, std::sync::mpsc::Receiver<String>) {
    let (sender, bodies) = std::sync::mpsc::channel();
    let address = endpoint(move |mut stream| {
        loop {
            let head = read_head(&mut stream).to_ascii_lowercase();
            if head.is_empty() {
                return;
            }
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
            stream.read_exact(&mut body).unwrap();
            if head.starts_with("post ") {
                let _ = sender.send(String::from_utf8(body).unwrap());
            }
            let answer = r#"{"id":"a","object":"chat.completion","model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"hi"},"finish_reason":"stop"}]}"#;
            let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length:";
            if write!(stream, "{head} {}\r\n\r\n{answer}", answer.len()).is_err() {
                return;
            }
        }
    });
    (address, bodies)
}

#[test]
fn a_backend_gets_the_enforced_values_however_an_agent_spells_their_names() {
    let bench = Bench::new();
    let settings = "[gateway]\nmodel = \"policy\"\n[gateway.train]\nmax_tokens = 16\ntemperature = 0.5\n";
    let serve = bench.gateway_without_backends(settings);
    let server = serve.address("server");
    let (backend, bodies) = recording_backend();
    let registration = json!({ "model": "policy", "url": format!("http://{backend}/v1"), "engine": "openai" });
    assert_eq!(post_json(server, "/v1/tracewire/backends", &registration).status, 200);
    let rollout = post_json(server, "/v1/agl/rollouts", &json!({ "input": 1, "mode": "train" })).json();
    let path = format!("/rollout/{}/attempt/0/v1/chat/completions", rollout["rollout_id"].as_str().unwrap());
    for request in [
        r#"{"mod\u0065l":"mine","max_token\u0073":4000,"\u0074emperature":2,"messages":[]}"#,
        r#"{"model":"policy","mod\u0065l":"mine","max_tokens":4,"max_token\u0073":4000,"messages":[]}"#,
        r#"{"mod\u0065l":"mine","model":"policy","max_token\u0073":4000,"max_tokens":4,"temperature":2,"temperatur\u0065":3}"#,
        r#"{"max_completion_tokens":4,"max\u005ftokens":4000,"\u006d\u006f\u0064\u0065\u006c":"mine"}"#,
        r#"{"max_completion_tokens":"4000","max_tokens":4}"#,
        "{}",
    ] {
        assert_eq!(ask(server, "POST", &path, &[], request).status, 200);
        let body = bodies.recv().unwrap();
        for wrong in ["mine", "4000", "temperature\":2", ":3"] {
            assert!(!body.contains(wrong), "{body}");
        }
        let read: Value = serde_json::from_str(&body).unwrap();
        assert_eq!((&read["model"], &read["temperature"]), (&json!("policy"), &json!(0.5)), "{body}");
        let limits = ["max_tokens", "max_completion_tokens"].map(|name| read[name].as_u64());
        assert!(limits.iter().flatten().all(|limit| *limit <= 16) && limits != [None, None], "{body}");
    }
}

#[test]
fn an_endpoint_that_rejects_an_added_field_gets_the_request_of_the_agent_and_no_such_field_again() {
    let requests = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let seen = std::sync::Arc::clone(&requests);
    let engine = endpoint(move |mut stream| {
        while let Some(Some(body)) = crate::support::model_server::read_request(&mut stream) {
            let request: Value = serde_json::from_slice(&body).unwrap();
            let (status, response) = match (request.get("logprobs"), request["max_tokens"].as_i64()) {
                (_, Some(0)) => (400, json!({"error": {"message": "max_tokens must be positive"}})),
                (Some(_), _) => (400, json!({"error": {"message": "logprobs must be at most 0", "param": "logprobs"}})),
                (None, _) => {
                    let ids = if request["return_token_ids"] == true { json!([1, 2]) } else { Value::Null };
                    let message = json!({"role": "assistant", "content": "hi"});
                    let choice = json!({"index": 0, "message": message, "finish_reason": "stop", "token_ids": ids});
                    (200, json!({"id": "c", "model": "m", "prompt_token_ids": ids, "choices": [choice]}))
                }
            };
            seen.lock().unwrap().push(request);
            let body = response.to_string();
            let head = format!(
                "HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
                body.len()
            );
            if stream.write_all(&[head.as_bytes(), body.as_bytes()].concat()).is_err() {
                return;
            }
        }
    });
    let bench = Bench::new();
    let settings = bench.folder.path().join("tokens.toml");
    std::fs::write(&settings, format!("[tokens]\nengines = [{{ hosts = [\"{engine}\"], engine = \"vllm\" }}]\n"))
        .unwrap();
    let serve = bench.serve(&["--config", settings.to_str().unwrap()]);
    let url = format!("http://{engine}/v1/chat/completions");
    let call = |rollout: &str, max_tokens: i64| {
        let body = json!({"model": "m", "messages": [], "max_tokens": max_tokens}).to_string();
        ask(serve.address("proxy"), "POST", &url, &[("x-rollout-id", rollout)], &body)
    };
    let first = call("ro-1", 5);
    assert_eq!((first.status, &first.json()["prompt_token_ids"]), (200, &Value::Null));
    assert_eq!(call("ro-2", 5).status, 200);
    // A bad request of the agent's own is refused as it would be, and changes nothing.
    assert_eq!((call("ro-3", 0).status, call("ro-4", 5).status), (400, 200));
    let fields = |request: &Value| (request.get("return_token_ids").is_some(), request.get("logprobs").is_some());
    let sent: Vec<_> = requests.lock().unwrap().iter().map(fields).collect();
    let (plain, both, ids) = ((false, false), (true, true), (true, false));
    assert_eq!(sent, [both, plain, ids, ids, plain, ids]);
    assert_eq!(bench.exchanges("ro-4", 1)[0]["attributes"]["response_token_ids"], json!([1, 2]));
}

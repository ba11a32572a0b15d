//! `tracewire mock --script`: what real agents are driven with when there is no model.

use crate::support::client::{ask, get, post};
use crate::support::{Bench, Running, eventually, is_exchange, tracewire};
use serde_json::{Value, json};

/// A mock that plays these turns.
fn playing(bench: &Bench, turns: &Value) -> Running {
    let script = bench.folder.path().join("turns.json");
    std::fs::write(&script, json!({ "turns": turns }).to_string()).unwrap();
    let mut mock = tracewire(bench.home());
    mock.args(["mock", "--json", "--script"]).arg(script);
    Running::start(mock)
}

fn tools() -> Value {
    json!([{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}])
}

#[test]
fn a_script_is_played_to_clients_of_every_api() {
    let bench = Bench::new();
    let calls = json!([{"name": "look", "arguments": {"at": "x"}}, {"name": "look", "arguments": {"at": "y"}}]);
    let turn =
        json!({"thinking": "hm", "text": "one moment", "tool_calls": calls, "repeat": true, "when": {"tool": "look"}});
    let mock = playing(&bench, &json!([{"status": 529, "when": {"last": "fail"}}, turn]));
    let server = mock.address("http");
    let messages = json!([{"role": "user", "content": "go"}]);
    let chat = json!({"model": "m", "messages": messages, "tools": tools()});
    let whole = post(server, "/v1/chat/completions", &chat).json();
    let message = &whole["choices"][0]["message"];
    assert_eq!((&message["content"], &message["reasoning_content"]), (&json!("one moment"), &json!("hm")));
    assert_eq!(message["tool_calls"][1]["function"]["arguments"], "{\"at\":\"y\"}");
    let mut streamed = chat;
    streamed["stream"] = true.into();
    let stream = post(server, "/v1/chat/completions", &streamed).text();
    assert!(stream.contains("\"moment\"") && stream.ends_with("data: [DONE]\n\n"), "{stream}");
    let schema = json!({"type": "object"});
    let anthropic = json!({"model": "m", "max_tokens": 9, "messages": messages, "tools": [{"name": "look", "input_schema": schema}]});
    let answer = post(server, "/v1/messages", &anthropic).json();
    assert_eq!(answer["stop_reason"], "tool_use");
    assert_eq!(answer["content"].as_array().unwrap().last().unwrap()["input"], json!({"at": "y"}));
    let responses = json!({"model": "m", "stream": true, "input": "go", "tools": [{"type": "function", "name": "look", "parameters": schema}]});
    let stream = post(server, "/v1/responses", &responses).text();
    assert!(stream.contains("function_call_arguments") && stream.contains("response.completed"), "{stream}");
    let gemini = json!({"contents": [{"role": "user", "parts": [{"text": "go"}]}], "tools": [{"functionDeclarations": [{"name": "look"}]}]});
    let answer = post(server, "/v1beta/models/g:generateContent", &gemini).json();
    assert_eq!(
        answer["candidates"][0]["content"]["parts"].as_array().unwrap().last().unwrap()["functionCall"]["args"],
        json!({"at": "y"})
    );
    let failing = json!({"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "fail"}]});
    let failed = post(server, "/v1/messages", &failing);
    assert_eq!((failed.status, &failed.json()["error"]["type"]), (529, &json!("overloaded_error")));
    assert_eq!(post(server, "/v1/messages/count_tokens", &anthropic).json()["input_tokens"].as_u64(), Some(1));
    assert_eq!(ask(server, "GET", "/v1/responses", &[], "").status, 426);
}

#[test]
fn responses_of_a_script_have_ids_with_default_settings() {
    let bench = Bench::new();
    let mock = playing(&bench, &json!([{"text": "one moment", "repeat": true}]));
    let serve = bench.gateway_without_backends(&format!(
        "[gateway]\nbackends = [{{ model = \"\", url = \"http://{}/v1\", engine = \"vllm\" }}]\n",
        mock.address("http")
    ));
    for stream in [false, true] {
        let path = format!("/rollout/ro-{stream}/attempt/0/v1/responses");
        let reply = post(serve.address("server"), &path, &json!({"model": "m", "input": "go", "stream": stream}));
        assert_eq!(reply.status, 200);
        assert!(!reply.text().contains("raw_message_tokens"), "{}", reply.text());
        let span = eventually(|| bench.spans(&format!("ro-{stream}")).into_iter().find(is_exchange));
        let attributes = &span["attributes"];
        assert_eq!(attributes["tracewire.tokens.status"], "exact", "{span:#}");
        assert!(attributes["tracewire.gateway.translated_from"].is_null());
        assert_eq!(attributes["response_token_ids"].as_array().unwrap().len(), 2, "{span:#}");
    }
}

#[test]
fn a_scripted_sub_agent_is_recorded_below_the_call_that_started_it() {
    let bench = Bench::new();
    let task = json!([{"name": "look", "arguments": {"prompt": "find every use of it"}}]);
    let mock = playing(
        &bench,
        &json!([{"when": {"last": "go"}, "tool_calls": task}, {"when": {"last": "find"}, "text": "found"}]),
    );
    let serve = bench.gateway_without_backends(&format!(
        "[gateway]\nbackends = [{{ model = \"\", url = \"http://{}/v1\", engine = \"vllm\" }}]\n",
        mock.address("http")
    ));
    for (system, text) in [("main", "go"), ("explorer", "find every use of it")] {
        let messages = json!([{"role": "system", "content": system}, {"role": "user", "content": text}]);
        let body = json!({"model": "m", "messages": messages, "tools": tools()});
        assert_eq!(post(serve.address("server"), "/rollout/ro/attempt/0/v1/chat/completions", &body).status, 200);
    }
    let spans = eventually(|| {
        let spans: Vec<Value> = bench.spans("ro").into_iter().filter(is_exchange).collect();
        (spans.len() == 2).then_some(spans)
    });
    assert_eq!(spans[1]["attributes"]["tracewire.call.role"], "subagent");
    assert_eq!(spans[1]["parent_id"], spans[0]["span_id"]);
    assert!(spans.iter().all(|span| span["attributes"]["tracewire.tokens.status"] == "exact"));
    assert_eq!(spans[1]["attributes"]["response_token_ids"].as_array().map(Vec::len), Some(1));
}

#[test]
fn a_streamed_response_is_continued_by_its_id() {
    let bench = Bench::new();
    let mock = playing(&bench, &json!([{"text": "first"}, {"text": "second"}]));
    let serve = bench.gateway_without_backends(&format!(
        "[gateway]\nbackends = [{{ model = \"\", url = \"http://{}/v1\", engine = \"sglang\" }}]\n",
        mock.address("http")
    ));
    let call = |body: Value| post(serve.address("server"), "/rollout/ro/attempt/0/v1/responses", &body);
    let stream = call(json!({"model": "m", "input": "one", "stream": true})).text();
    let last = stream.lines().rfind(|line| line.starts_with("data: ")).unwrap();
    let response: Value = serde_json::from_str(last.trim_start_matches("data: ")).unwrap();
    let second = call(json!({"model": "m", "input": "two", "previous_response_id": response["response"]["id"]}));
    assert_eq!((second.status, &second.json()["output"][0]["content"][0]["text"]), (200, &json!("second")));
    let requests = get(mock.address("http"), "/requests").json();
    let sent = requests.as_array().unwrap().last().unwrap()["body"]["messages"].clone();
    let said = |role: &str, text: &str| json!({"role": role, "content": text});
    assert_eq!(sent, json!([said("user", "one"), said("assistant", "first"), said("user", "two")]));
}

#[test]
fn a_request_may_refer_to_an_item_of_an_answer() {
    let bench = Bench::new();
    let mock = playing(&bench, &json!([{"text": "first"}, {"text": "second"}, {"text": "third"}]));
    let call = |body: Value| post(mock.address("http"), "/v1/responses", &body);
    let referring = |item: &Value| json!({"model": "m", "input": [{"type": "item_reference", "id": item}]});
    let first = call(json!({"model": "m", "input": "one"})).json();
    assert_eq!(call(referring(&first["output"][0]["id"])).json()["output"][0]["content"][0]["text"], "second");
    assert_eq!(call(referring(&json!("msg_unknown_0"))).status, 400);
}

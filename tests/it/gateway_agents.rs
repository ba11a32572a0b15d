//! What coding agents send to the gateway, to a backend that has only chat completions.

use crate::support::client::{Reply, ask, get, post};
use crate::support::{Bench, Running, endpoint, eventually, is_exchange, read_head};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};

/// A model server with chat completions, and the requests that it got.
#[derive(Clone, Default)]
struct ModelServer(Arc<Mutex<Vec<Value>>>);

/// The tokens of its context.
const CONTEXT: u64 = 1000;

impl ModelServer {
    /// It calls the first function of each request; without functions it says yes.
    fn answer(&self, request: Value) -> Value {
        let function = request["tools"][0]["function"]["name"].clone();
        let message = if function.is_null() {
            json!({"role": "assistant", "content": "yes"})
        } else {
            let function = json!({"name": function, "arguments": "{\"input\":\"ls\"}"});
            json!({"role": "assistant", "content": null, "tool_calls": [{"id": "call", "type": "function", "function": function}]})
        };
        let mut requests = self.0.lock().unwrap();
        requests.push(request);
        let id = format!("c-{}", requests.len());
        let usage = json!({"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5});
        json!({
            "id": id, "object": "chat.completion", "created": 1, "model": "m", "usage": usage,
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        })
    }

    fn serve(&self, mut stream: TcpStream) {
        loop {
            let head = read_head(&mut stream).to_ascii_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
            let mut body = vec![0; length.unwrap_or(0)];
            if head.is_empty() || stream.read_exact(&mut body).is_err() {
                return;
            }
            let answer = match serde_json::from_slice(&body) {
                Ok(request) => self.answer(request).to_string(),
                // The list of models.
                Err(_) => json!({"data": [{"id": "m", "max_model_len": CONTEXT}]}).to_string(),
            };
            let length = answer.len();
            let head = format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n");
            if stream.write_all(&[head.as_bytes(), answer.as_bytes()].concat()).is_err() {
                return;
            }
        }
    }

    fn last(&self) -> Value {
        self.0.lock().unwrap().last().unwrap().clone()
    }
}

/// A gateway before such a model server.
struct Gateway {
    server: SocketAddr,
    model: ModelServer,
    serve: Running,
    _bench: Bench,
}

impl Gateway {
    fn start(engine: &str, settings: &str) -> Self {
        let (bench, model) = (Bench::new(), ModelServer::default());
        let answering = model.clone();
        let address = endpoint(move |stream| answering.serve(stream));
        let backend = format!("backends = [{{ model = \"m\", url = \"http://{address}/v1\", engine = \"{engine}\" }}]");
        let serve = bench.gateway_without_backends(&format!("[gateway]\nretries = 0\n{settings}\n{backend}\n"));
        Self { server: serve.address("server"), model, serve, _bench: bench }
    }

    fn call(&self, path: &str, body: &Value) -> Reply {
        ask(self.server, "POST", &format!("/rollout/ro/attempt/at{path}"), &[], &body.to_string())
    }

    /// The id of a new rollout that is registered with these fields.
    fn registered(&self, fields: &Value) -> String {
        let mut rollout = fields.clone();
        rollout["input"] = json!({});
        post(self.server, "/v1/agl/rollouts", &rollout).json()["rollout_id"].as_str().unwrap().to_owned()
    }

    /// The attributes of the only exchange's span.
    fn span(&self) -> Value {
        let span = eventually(|| {
            let page = get(self.serve.address("server"), "/v1/agl/spans?rollout_id=ro").json();
            page["items"].as_array().unwrap().iter().find(|span| is_exchange(span)).cloned()
        });
        span["attributes"].clone()
    }

    /// What the span of the only call says was left out.
    fn dropped(&self) -> Value {
        self.span()["tracewire.gateway.dropped"].clone()
    }
}

/// As Claude Code 2.1 sends it, in short.
fn of_claude_code() -> Value {
    json!({
        "model": "claude-sonnet-4-5",
        "max_tokens": 64,
        "system": [
            {"type": "text", "text": "x-anthropic-billing-header: cc_version=2.1; cch=1;"},
            {"type": "text", "text": "be kind", "cache_control": {"type": "ephemeral"}},
        ],
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "hi"}]},
            {"role": "system", "content": "2 agents", "output_config": {"effort": "medium"}},
        ],
        "tools": [
            {"name": "Bash", "description": "runs", "input_schema": {"type": "object"}},
            {"name": "Fetch", "input_schema": {"type": "object"}, "defer_loading": true},
            {"type": "web_search_20250305", "name": "web_search"},
        ],
        "diagnostics": {"previous_message_id": "x"},
        "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
    })
}

/// As Codex 0.169 sends it, in short.
fn of_codex() -> Value {
    let exec = json!({
        "type": "custom", "name": "exec", "description": "runs",
        "format": {"type": "grammar", "syntax": "lark", "definition": "start: X"},
    });
    json!({
        "model": "gpt-6",
        "instructions": "be kind",
        "input": [
            {"type": "additional_tools", "role": "developer", "tools": [
                {"type": "namespace", "name": "functions", "description": "", "tools": [exec]},
            ]},
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hi"}],
             "internal_chat_message_metadata_passthrough": {"turn_id": "1"}},
            {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "be brief"}]},
            {"type": "configuration_update"},
        ],
        "tools": [{"type": "web_search"}],
        "tool_choice": "auto",
        "reasoning": {"effort": "low", "context": "all"},
        "include": ["reasoning.encrypted_content"],
        "store": false,
    })
}

#[test]
fn claude_code_is_answered_by_a_backend_of_chat_completions() {
    let gateway = Gateway::start("sglang", "");
    let reply = gateway.call("/v1/messages?beta=true", &of_claude_code());
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert_eq!(reply.json()["content"][0]["name"], "Bash");
    let request = gateway.model.last();
    let messages = json!([{"role": "system", "content": "be kind"}, {"role": "user", "content": "hi\n2 agents"}]);
    assert_eq!((&request["messages"], request["tools"].as_array().unwrap().len()), (&messages, 1));
    assert_eq!(
        gateway.dropped(),
        json!(["context_management", "diagnostics", "messages[].output_config", "system[]", "tools[]"])
    );
    let metrics = get(gateway.server, "/metrics").text();
    assert!(metrics.lines().any(|line| line == "tracewire_gateway_reduced_total 1"), "{metrics}");
}

#[test]
fn codex_is_answered_by_a_backend_of_chat_completions() {
    // vLLM has responses, but not the tools of Codex.
    for engine in ["sglang", "vllm"] {
        let gateway = Gateway::start(engine, "");
        let reply = gateway.call("/v1/responses", &of_codex());
        assert_eq!(reply.status, 200, "{engine}: {}", reply.text());
        let call = &reply.json()["output"][0];
        for (name, value) in
            [("type", "custom_tool_call"), ("name", "exec"), ("namespace", "functions"), ("input", "ls")]
        {
            assert_eq!(call[name], value, "{engine}: {call}");
        }
        let request = gateway.model.last();
        assert_eq!(
            request["messages"],
            json!([{"role": "system", "content": "be kind"}, {"role": "user", "content": "hi\nbe brief"}])
        );
        assert_eq!(request["tools"][0]["function"]["name"], "functions__exec");
        let places = [
            "input[]",
            "input[].internal_chat_message_metadata_passthrough",
            "input[].tools[].tools[].format",
            "reasoning.context",
            "tools[]",
        ];
        assert_eq!(gateway.dropped(), json!(places));
    }
}

#[test]
fn numbers_of_tool_calls_stay_exact() {
    let gateway = Gateway::start("vllm", "");
    // Beyond 64 bits, so that no number type has it.
    let input = r#"{"n":9223372036854775808,"m":-340282366920938463463374607431768211456}"#;
    let body = r#"{"model":"m","max_tokens":9,"messages":[{"role":"user","content":"hi"},{"role":"assistant","content":[
        {"type":"tool_use","id":"t","name":"f","input":INPUT}]},{"role":"user","content":[{"type":"tool_result","tool_use_id":"t","content":"ok"}]}]}"#;
    let reply = ask(gateway.server, "POST", "/rollout/ro/attempt/at/v1/messages", &[], &body.replace("INPUT", input));
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert_eq!(gateway.model.last()["messages"][1]["tool_calls"][0]["function"]["arguments"], input);
    let messages = gateway.span()["gen_ai.input.messages"].as_str().unwrap().to_owned();
    assert!(messages.contains("9223372036854775808") && !messages.contains("e+18"), "{messages}");
}

#[test]
fn a_websocket_is_refused_in_a_way_that_codex_understands() {
    let gateway = Gateway::start("sglang", "");
    let upgrade = [("upgrade", "websocket"), ("connection", "upgrade"), ("sec-websocket-version", "13")];
    let reply = ask(gateway.server, "GET", "/rollout/ro/attempt/at/v1/responses", &upgrade, "");
    assert_eq!((reply.status, reply.header("upgrade")), (426, Some("http/1.1")));
    assert!(reply.text().contains("websocket_refused"), "{}", reply.text());
    // It is no call that failed.
    let span = gateway.span();
    assert_eq!((&span["error.type"], &span["gen_ai.operation.name"]), (&json!("websocket_refused"), &json!(null)));
}

#[test]
fn a_response_is_continued_by_its_id_within_its_rollout() {
    let gateway = Gateway::start("sglang", "");
    let first = gateway.call("/v1/responses", &json!({"model": "m", "input": "hi", "metadata": {"k": "v"}})).json();
    assert_eq!(
        (&first["id"], &first["store"], &first["previous_response_id"]),
        (&json!("c-1"), &json!(true), &json!(null))
    );
    let second = json!({"model": "m", "input": [{"role": "user", "content": "more"}], "previous_response_id": "c-1", "stream": true});
    let stream = gateway.call("/v1/responses", &second).text();
    assert!(stream.contains("\"previous_response_id\":\"c-1\""), "{stream}");
    let said = |role: &str, text: &str| json!({"role": role, "content": text});
    let history = [said("user", "hi"), said("assistant", "yes"), said("user", "more")];
    assert_eq!(gateway.model.last()["messages"], json!(history));
    // The Vercel AI SDK refers to what it got.
    let item = first["output"][0]["id"].clone();
    let third = json!({"model": "m", "input": [said("user", "hi"), {"type": "item_reference", "id": item}, said("user", "x")], "store": false});
    assert_eq!(gateway.call("/v1/responses", &third).status, 200);
    assert_eq!(gateway.model.last()["messages"][1], said("assistant", "yes"));
    let continued = |previous: &str| json!({"model": "m", "input": "go on", "previous_response_id": previous});
    assert_eq!(gateway.call("/v1/responses", &continued("c-2")).status, 200);
    assert_eq!(gateway.model.last()["messages"].as_array().unwrap().len(), 5);
    // It was not to be stored; nobody answered it; it is another rollout's.
    for (rollout, previous) in [("ro", "c-3"), ("ro", "resp_unknown"), ("other", "c-1")] {
        let path = format!("/rollout/{rollout}/attempt/at/v1/responses");
        let refused = ask(gateway.server, "POST", &path, &[], &continued(previous).to_string());
        assert_eq!(refused.status, 400);
        let mut error = refused.json()["error"].take();
        let cause = error["message"].take();
        assert!(cause.as_str().unwrap().contains("gateway.stored_responses"), "{cause}");
        let (kind, param) = ("invalid_request_error", "previous_response_id");
        assert_eq!(
            error,
            json!({"message": null, "type": kind, "param": param, "code": "previous_response_not_found"})
        );
    }
}

#[test]
fn a_stored_response_is_read_and_deleted_within_its_rollout() {
    let gateway = Gateway::start("sglang", "");
    let first = gateway.call("/v1/responses", &json!({"model": "m", "input": "hi"})).json();
    let streamed = gateway.call("/v1/responses", &json!({"model": "m", "input": "hi", "stream": true})).text();
    gateway.call("/v1/responses", &json!({"model": "m", "input": "hi", "store": false}));
    let ask_for = |method: &str, rollout: &str, id: &str| {
        ask(gateway.server, method, &format!("/rollout/{rollout}/attempt/at/v1/responses/{id}"), &[], "")
    };
    assert_eq!(ask_for("GET", "ro", "c-1").json(), first);
    let second = ask_for("GET", "ro", "c-2");
    assert!(streamed.contains(&format!("\"response\":{}", second.text())), "{streamed}");
    for (method, rollout, id, kind) in [
        ("GET", "other", "c-1", "response_unknown"),
        ("DELETE", "other", "c-1", "response_unknown"),
        ("GET", "ro", "c-3", "response_unknown"),
        ("GET", "ro", "c-1/input_items", "route_unknown"),
        ("POST", "ro", "c-1/cancel", "route_unknown"),
        ("POST", "ro", "compact", "route_unknown"),
    ] {
        let refused = ask_for(method, rollout, id);
        assert_eq!(refused.status, 404, "{method} {id}");
        assert_eq!(refused.header("proxy-status").unwrap(), format!("tracewire; error={kind}"), "{method} {id}");
        assert_eq!(refused.json()["error"]["type"], "invalid_request_error");
    }
    let deleted = ask_for("DELETE", "ro", "c-1");
    assert_eq!((deleted.status, deleted.json()), (200, json!({"id": "c-1", "object": "response", "deleted": true})));
    assert_eq!((ask_for("DELETE", "ro", "c-1").status, ask_for("GET", "ro", "c-1").status), (404, 404));
    let continued = json!({"model": "m", "input": "go on", "previous_response_id": "c-1"});
    assert_eq!(gateway.call("/v1/responses", &continued).status, 400);
}

#[test]
fn a_call_that_only_warms_up_is_marked_and_gets_no_answer() {
    let gateway = Gateway::start("sglang", "train = { max_tokens = 9 }");
    let warmup = json!({"model": "m", "input": "hi", "generate": false});
    let reply = gateway.call("/v1/responses", &warmup).json();
    assert_eq!((&reply["output"], &reply["status"]), (&json!([]), &json!("completed")));
    assert_eq!(gateway.model.last()["max_tokens"], 1);
    assert_eq!(gateway.span()["tracewire.call.role"], "warmup");
    let sampling = json!({"max_tokens": 9, "max_completion_tokens": 9, "min_tokens": 3, "n": 4});
    let rollout = gateway.registered(&json!({"mode": "train", "metadata": {"sampling_params": sampling}}));
    let path = format!("/rollout/{rollout}/attempt/at/v1/responses");
    assert_eq!(ask(gateway.server, "POST", &path, &[], &warmup.to_string()).status, 200);
    let sent = gateway.model.last();
    assert_eq!(sent["max_tokens"], 1);
    assert!(["max_completion_tokens", "min_tokens", "n"].iter().all(|name| sent.get(name).is_none()), "{sent}");
}

#[test]
fn settings_and_limits_hold_for_a_gemini_backend_too() {
    let gateway = Gateway::start("gemini", "train = { temperature = 0.5, top_p = 0.25, max_tokens = 7 }");
    let with =
        |sampling: Value| gateway.registered(&json!({"mode": "train", "metadata": {"sampling_params": sampling}}));
    let rollout = with(json!({"seed": 3, "top_k": 4}));
    let contents = json!([{"role": "user", "parts": [{"text": "hi"}]}]);
    for config in [json!(null), json!({"temperature": 1.0, "maxOutputTokens": 9999, "topP": 1})] {
        let path = format!("/rollout/{rollout}/attempt/at/v1beta/models/m:generateContent");
        let body = json!({"contents": contents, "generationConfig": config}).to_string();
        assert_eq!(ask(gateway.server, "POST", &path, &[], &body).status, 200);
        let sent = gateway.model.last();
        let expected = json!({"temperature": 0.5, "topP": 0.25, "maxOutputTokens": 7, "seed": 3, "topK": 4});
        assert_eq!((&sent["generationConfig"], &sent["model"]), (&expected, &json!(null)));
    }
    let path = format!("/rollout/{}/attempt/at/v1beta/models/m:generateContent", with(json!({"min_p": 0.1})));
    let refused = ask(gateway.server, "POST", &path, &[], &json!({"contents": contents}).to_string());
    assert!(refused.status == 400 && refused.text().contains("sampling_params.min_p"), "{}", refused.text());
}

#[test]
fn errors_of_the_gateway_repeat_no_secrets() {
    let gateway = Gateway::start("sglang", "");
    let secret = format!("sk-proj-{}", "aB3dE5gH7jK9mN1pQ3sT5vW7".repeat(3));
    let role = json!({"model": "m", "messages": [{"role": secret, "content": "hi"}]});
    let refused = [
        gateway.call("/v1/messages", &role),
        gateway.call(&format!("/v1/{secret}"), &json!({})),
        ask(gateway.server, "POST", &format!("/proxy/rollout/ro/attempt/0/mode/train/openai/v1/{secret}"), &[], "{}"),
        ask(gateway.serve.address("proxy"), "GET", &format!("/{secret}"), &[], ""),
    ];
    for refused in refused {
        assert!(refused.status >= 400 && !refused.text().contains(&secret), "{}", refused.text());
    }
}

#[test]
fn the_settings_decide_where_there_is_a_choice() {
    let gateway = Gateway::start("sglang", "server_tools = \"refuse\"\nturns = \"keep\"");
    let reply = gateway.call("/v1/messages", &of_claude_code());
    assert_eq!(reply.status, 400);
    assert!(reply.text().contains("tools[2]") && reply.text().contains("gateway.server_tools"), "{}", reply.text());
    let mut without = of_claude_code();
    without["tools"] = json!([]);
    assert_eq!(gateway.call("/v1/messages", &without).status, 200);
    let roles: Vec<Value> =
        gateway.model.last()["messages"].as_array().unwrap().iter().map(|message| message["role"].clone()).collect();
    assert_eq!(roles, ["system", "user", "system"]);
}

#[test]
fn a_backend_with_the_api_gets_chat_completions_if_a_setting_says_so() {
    let request = json!({"model": "m", "input": "hi"});
    let native = Gateway::start("vllm", "");
    native.call("/v1/responses", &request);
    assert_eq!(native.model.last()["input"], "hi");
    let translated = Gateway::start("vllm", "translate = \"always\"");
    let reply = translated.call("/v1/responses", &request);
    assert_eq!(reply.json()["output"][0]["content"][0]["text"], "yes");
    assert_eq!(translated.model.last()["messages"], json!([{"role": "user", "content": "hi"}]));
}

#[test]
fn an_openai_backend_gets_only_fields_of_its_api() {
    let gateway = Gateway::start("openai", "");
    let reply = gateway.call("/v1/messages", &json!({
        "model": "m",
        "max_tokens": 9,
        "top_k": 5,
        "thinking": {"type": "enabled", "budget_tokens": 1024},
        "metadata": {"user_id": "u".repeat(65)},
        "messages": [
            {"role": "user", "content": "hi"},
            {"role": "assistant", "content": [{"type": "thinking", "thinking": "hm", "signature": ""}, {"type": "text", "text": "{"}]},
        ],
    }));
    assert_eq!(reply.status, 200, "{}", reply.text());
    let messages = json!([{"role": "user", "content": "hi"}, {"role": "assistant", "content": "{"}]);
    assert_eq!(gateway.model.last(), json!({"model": "m", "max_tokens": 9, "messages": messages}));
    let mut dropped: Vec<String> = serde_json::from_value(gateway.dropped()).unwrap();
    dropped.sort();
    assert_eq!(dropped, ["add_generation_prompt", "chat_template_kwargs", "continue_final_message", "top_k", "user"]);
}

#[test]
fn agent_lightnings_routes_ask_a_known_engine_in_its_own_way() {
    for (engine, is_asked) in [("vllm", true), ("sglang", false), ("openai", false)] {
        let gateway = Gateway::start(engine, "");
        let made = post(gateway.server, "/api/rollouts", &json!([{"rollout_id": "ro", "input": {}}]));
        assert_eq!(made.status, 201, "{}", made.text());
        let path = "/proxy/rollout/ro/attempt/0/mode/train/openai/v1/chat/completions";
        let body = json!({"stream": true, "messages": [{"role": "user", "content": "hi"}]});
        let reply = ask(gateway.server, "POST", path, &[], &body.to_string());
        assert_eq!(reply.status, 200, "{}", reply.text());
        // SGLang refuses it for streams, and OpenAI always.
        assert_eq!(gateway.model.last().get("return_token_ids").is_some(), is_asked, "{engine}");
        assert_eq!(gateway.model.last()["logprobs"] == true, engine != "openai", "{engine}");
    }
}

#[test]
fn a_limit_beyond_the_backends_context_is_lifted() {
    let sent = |gateway: &Gateway, limit: u64| {
        let body = json!({"model": "m", "max_tokens": limit, "messages": [{"role": "user", "content": "hi"}]});
        assert_eq!(gateway.call("/v1/chat/completions", &body).status, 200);
        gateway.model.last()["max_tokens"].clone()
    };
    let gateway = Gateway::start("vllm", "");
    // The context is known once the backend's list of models was read.
    eventually(|| sent(&gateway, CONTEXT).is_null().then_some(()));
    assert_eq!(sent(&gateway, CONTEXT / 2), CONTEXT / 2);
    let as_it_came = Gateway::start("vllm", "limit_to_context = false");
    assert_eq!(sent(&as_it_came, CONTEXT), CONTEXT);
}

#[test]
fn a_stream_is_known_by_its_bytes() {
    for content_type in ["application/json", "text/plain", "text/event-stream"] {
        let (bench, asked) = (Bench::new(), Arc::new(Mutex::new(0)));
        let count = Arc::clone(&asked);
        let address = endpoint(move |mut stream| {
            let head = read_head(&mut stream);
            if head.starts_with("POST ") {
                *count.lock().unwrap() += 1;
            }
            let chunk =
                json!({"id": "c", "choices": [{"index": 0, "delta": {"content": "yes"}, "finish_reason": "stop"}]});
            let answer = format!(
                "HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\nConnection: close\r\n\r\ndata: {chunk}\n\ndata: [DONE]\n\n"
            );
            drop(stream.write_all(answer.as_bytes()));
        });
        let backend = format!("backends = [{{ model = \"m\", url = \"http://{address}/v1\", engine = \"openai\" }}]");
        let serve = bench.gateway_without_backends(&format!("[gateway]\n{backend}\n"));
        let call = |path: &str| {
            let body =
                json!({"model": "m", "max_tokens": 9, "stream": true, "messages": [{"role": "user", "content": "x"}]});
            ask(serve.address("server"), "POST", &format!("/rollout/ro/attempt/at{path}"), &[], &body.to_string())
        };
        let (chat, messages) = (call("/v1/chat/completions"), call("/v1/messages"));
        for (reply, end) in [(&chat, "[DONE]"), (&messages, "message_stop")] {
            assert_eq!(reply.header("content-type"), Some("text/event-stream"), "{content_type}: {}", reply.text());
            assert!(reply.text().contains("yes") && reply.text().contains(end), "{content_type}: {}", reply.text());
        }
        assert_eq!(*asked.lock().unwrap(), 2, "{content_type}");
    }
}

#[test]
fn a_backend_that_does_not_stream_costs_no_response() {
    let gateway = Gateway::start("sglang", "");
    let body = json!({"model": "m", "max_tokens": 9, "stream": true, "messages": [{"role": "user", "content": "x"}]});
    let reply = gateway.call("/v1/messages", &body);
    assert_eq!((reply.status, reply.header("content-type")), (200, Some("text/event-stream")));
    for word in ["message_start", "\"yes\"", "end_turn", "message_stop"] {
        assert!(reply.text().contains(word), "{word}: {}", reply.text());
    }
}

#[test]
fn ids_that_are_not_proved_carry_their_mark_to_trainers() {
    let bench = Bench::new();
    let answer = |tokens: i64| {
        let choice = json!({"index": 0, "message": {"content": "x"}, "finish_reason": "stop", "token_ids": [4, 5]});
        let usage = json!({"prompt_tokens": 1, "completion_tokens": tokens, "total_tokens": tokens + 1});
        json!({"id": "c", "model": "m", "choices": [choice], "prompt_token_ids": [tokens], "usage": usage}).to_string()
    };
    // The first response has as many ids as its usage says.
    let answers = Mutex::new(vec![answer(9), answer(2)]);
    let address = endpoint(move |mut stream| {
        let is_call = read_head(&mut stream).starts_with("POST ");
        let answer = if is_call { answers.lock().unwrap().pop().unwrap() } else { "{}".to_owned() };
        let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n";
        drop(stream.write_all(format!("{head}Content-Length: {}\r\n\r\n{answer}", answer.len()).as_bytes()));
    });
    let backend = format!("backends = [{{ model = \"m\", url = \"http://{address}/v1\", engine = \"vllm\" }}]");
    let serve = bench.gateway_without_backends(&format!("[gateway]\nretries = 0\n{backend}\n"));
    let server = serve.address("server");
    ask(server, "POST", "/sessions", &[], "{\"session_id\": \"s\"}");
    let body = json!({"model": "m", "logprobs": false, "messages": [{"role": "user", "content": "x"}]}).to_string();
    for _ in 0..2 {
        assert_eq!(ask(server, "POST", "/sessions/s/v1/chat/completions", &[], &body).status, 200);
    }
    let marks = |view: &str| {
        let listed = eventually(|| {
            let listed = get(server, view).json();
            listed.as_array().is_some_and(|listed| listed.len() == 2).then_some(listed)
        });
        [0, 1].map(|index| listed[index]["metadata"]["token_ids_reasons"].clone())
    };
    assert_eq!(marks("/sessions/s/traces"), [json!(null), json!(["usage_output_tokens"])]);
}

#[test]
fn a_client_that_looks_whether_the_server_is_there_makes_no_call() {
    let gateway = Gateway::start("sglang", "");
    for (method, path) in [("HEAD", ""), ("GET", ""), ("HEAD", "/"), ("GET", "/api/hello")] {
        let reply = ask(gateway.server, method, &format!("/rollout/ro/attempt/at{path}"), &[], "");
        assert_eq!(reply.status, 200, "{method} {path}");
    }
    assert_eq!(ask(gateway.server, "POST", "/rollout/ro/attempt/at", &[], "{}").status, 404);
    assert_eq!(ask(gateway.server, "GET", "/rollout//attempt/at", &[], "").status, 404);
    gateway.call("/v1/messages", &json!({"model": "m", "messages": [{"role": "user", "content": "x"}]}));
    gateway.dropped();
    let metrics = get(gateway.server, "/metrics").text();
    assert!(metrics.lines().any(|line| line == "tracewire_gateway_calls_total 3"), "{metrics}");
}

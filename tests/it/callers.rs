//! Who made a call, and what for, as recorded.

use crate::support::client::{ask, get};
use crate::support::model_server::{read_request, respond};
use crate::support::{Bench, Running, endpoint, eventually, is_exchange};
use serde_json::{Value, json};

const TASK: &str = "look for all uses of the parser";

/// A gateway before a model that starts a sub-agent when its user says "spawn".
fn start(bench: &Bench) -> Running {
    let model = endpoint(|mut stream| {
        while let Some(body) = read_request(&mut stream) {
            let Some(body) = body else {
                respond(&mut stream, "application/json", "{}");
                continue;
            };
            let request: Value = serde_json::from_slice(&body).unwrap();
            let arguments = json!({"description": "look", "prompt": TASK, "subagent_type": "Explore"}).to_string();
            let call = json!({"id": "t1", "type": "function", "function": {"name": "Task", "arguments": arguments}});
            let spawns = request["messages"].as_array().unwrap().last().unwrap()["content"] == "spawn";
            let message = match spawns {
                true => json!({"role": "assistant", "content": null, "tool_calls": [call]}),
                false => json!({"role": "assistant", "content": "yes"}),
            };
            let body = json!({"id": "c", "model": "m", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]});
            respond(&mut stream, "application/json", &body.to_string());
        }
    });
    bench.gateway_without_backends(&format!(
        "[gateway]\nbackends = [{{ model = \"\", url = \"http://{model}/v1\", engine = \"other\" }}]\n"
    ))
}

/// Makes a call and returns its span.
fn call(serve: &Running, headers: &[(&str, &str)], system: &str, users: &[&str], more: Value) -> Value {
    let seen = exchanges(serve).len();
    let mut body = json!({"model": "m", "tools": [{"type": "function", "function": {"name": "Task"}}]});
    let system = json!({"role": "system", "content": system});
    let users = users.iter().map(|text| json!({"role": "user", "content": text}));
    body["messages"] = std::iter::once(system).chain(users).collect();
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let reply =
        ask(serve.address("server"), "POST", "/rollout/ro/attempt/0/v1/chat/completions", headers, &body.to_string());
    assert_eq!(reply.status, 200, "{}", reply.text());
    eventually(|| exchanges(serve).get(seen).cloned())
}

fn exchanges(serve: &Running) -> Vec<Value> {
    let page = get(serve.address("server"), "/v1/agl/spans?rollout_id=ro&limit=-1").json();
    page["items"].as_array().unwrap().iter().filter(|span| is_exchange(span)).cloned().collect()
}

#[track_caller]
fn check(span: &Value, role: &str, source: &str) {
    let attributes = &span["attributes"];
    let seen = (&attributes["tracewire.call.role"], &attributes["tracewire.call.role_source"]);
    assert_eq!(seen, (&json!(role), &json!(source)), "{span:#}");
}

#[test]
fn sub_agents_are_known_by_what_started_them() {
    let bench = Bench::new();
    let serve = start(&bench);
    let main = call(&serve, &[], "You are a coder", &["spawn"], json!({}));
    check(&main, "main", "assumed");
    let mut sub = call(&serve, &[], "You explore", &["<reminder/>", TASK], json!({}));
    check(&sub, "subagent", "tool_call");
    assert_eq!(sub["attributes"]["gen_ai.agent.name"], "Explore");
    assert_eq!(sub["parent_id"], main["span_id"]);
    // It goes on in the same conversation.
    sub = call(&serve, &[], "You explore", &["<reminder/>", TASK, "more"], json!({}));
    check(&sub, "subagent", "tool_call");
    assert_eq!(sub["parent_id"], main["span_id"]);
    let again = call(&serve, &[], "You are a coder", &["spawn", "and"], json!({}));
    check(&again, "main", "assumed");
    assert_eq!(again["parent_id"], main["parent_id"]);
}

#[test]
fn clients_say_who_calls() {
    let bench = Bench::new();
    let serve = start(&bench);
    let claude = [("user-agent", "claude-cli/2.1.332 (external, cli)"), ("x-claude-code-session-id", "s1")];
    let main = call(&serve, &claude, "x", &["spawn"], json!({}));
    check(&main, "main", "assumed");
    let attributes = &main["attributes"];
    assert_eq!(
        (&attributes["tracewire.client.name"], &attributes["tracewire.client.version"]),
        (&json!("claude-code"), &json!("2.1.332"))
    );
    assert_eq!(attributes["gen_ai.conversation.id"], "s1");
    let agent = [&claude[..], &[("x-claude-code-agent-id", "a1"), ("x-claude-code-parent-agent-id", "a0")]].concat();
    let sub = call(&serve, &agent, "y", &[TASK], json!({}));
    check(&sub, "subagent", "header");
    assert_eq!(sub["attributes"]["gen_ai.agent.id"], "a1");
    assert_eq!(sub["attributes"]["tracewire.agent.parent_id"], "a0");
    assert_eq!(sub["parent_id"], main["span_id"]);
    let nested = [&claude[..], &[("x-claude-code-agent-id", "a2"), ("x-claude-code-parent-agent-id", "a1")]].concat();
    assert_eq!(call(&serve, &nested, "z", &["another task"], json!({}))["parent_id"], sub["span_id"]);
}

#[test]
fn first_agents_name_no_parent_and_forked_ones_have_its_history() {
    let bench = Bench::new();
    let serve = start(&bench);
    let claude = [("user-agent", "claude-cli/2.1.197"), ("x-claude-code-session-id", "s1")];
    let main = call(&serve, &claude, "x", &["spawn"], json!({}));
    let noted = format!("<reminder/>\n\n{TASK}");
    for (agent, text) in [("a1", noted.as_str()), ("a2", "a task that no call shows")] {
        let agent = [&claude[..], &[("x-claude-code-agent-id", agent)]].concat();
        let sub = call(&serve, &agent, "y", &[text], json!({}));
        check(&sub, "subagent", "header");
        assert_eq!(sub["parent_id"], main["span_id"]);
    }
    let codex = [("user-agent", "codex_exec/0.171.0"), ("session-id", "t1"), ("thread-id", "t1")];
    let main = call(&serve, &codex, "x", &["spawn"], json!({}));
    let later = call(&serve, &codex, "x", &["spawn", "and"], json!({}));
    let forked = [
        ("user-agent", "codex_exec/0.171.0"),
        ("session-id", "t1"),
        ("thread-id", "t2"),
        ("x-codex-parent-thread-id", "t1"),
        ("x-openai-subagent", "collab_spawn"),
    ];
    let sub = call(&serve, &forked, "x", &["spawn", &format!("Payload:\n{TASK}")], json!({}));
    check(&sub, "subagent", "header");
    assert_eq!((&sub["parent_id"], &later["parent_id"]), (&main["span_id"], &main["parent_id"]));
    assert_eq!(sub["attributes"]["tracewire.agent.parent_id"], "t1");
}

#[test]
fn requests_show_side_calls() {
    let bench = Bench::new();
    let serve = start(&bench);
    let no_tools = json!({"tools": null});
    check(&call(&serve, &[], "You are a title generator.", &["fix it"], no_tools.clone()), "title", "request");
    check(&call(&serve, &[], "x", &["quota"], json!({"tools": null, "max_tokens": 1})), "probe", "request");
    let summary = "Your task is to create a detailed summary of the conversation so far";
    check(&call(&serve, &[], "x", &["fix it", summary], json!({})), "compaction", "request");
    check(&call(&serve, &[("x-openai-subagent", "review")], "x", &["diff"], no_tools), "judge", "header");
}

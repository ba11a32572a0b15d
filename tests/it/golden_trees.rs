//! Golden trees: whole runs of three agents, and what `tracewire trajectory` and each shape of export make of them.
//!
//! `tests/golden_trees/AGENT/` has `tree.txt` and a file for each shape. `UPDATE_GOLDEN=1` rewrites those that differ: read
//! them before you commit them. The engine has a word for a token and a template that keeps prefixes.

use crate::support::client::{ask, get, post};
use crate::support::model_server::{read_request, respond};
use crate::support::{Bench, Running, endpoint, eventually, root, text, tracewire};
use serde_json::{Value, json};
use std::net::{SocketAddr, TcpStream};

const SHAPES: [&str; 13] = [
    "trajectories",
    "prime-rl",
    "slime",
    "verl",
    "trl",
    "skyrl",
    "nemo-gym",
    "areal",
    "tinker",
    "rllm",
    "agent-lightning-0.3",
    "agent-lightning-1.0",
    "messages",
];

/// What the engine says to a last message with this text: words, and a tool with its argument.
type Turn = (&'static str, &'static str, Option<(&'static str, &'static str, &'static str)>);

const END: u64 = 1;

/// A word for a token.
fn ids(text: &str) -> Vec<u64> {
    let id = |word: &str| word.bytes().fold(17, |id: u64, byte| (id * 31 + u64::from(byte)) % 32_000);
    text.split_whitespace().map(id).collect()
}

/// The text of a message with its tool calls, as the engine reads and samples it.
fn said(message: &Value) -> String {
    let mut text = match &message["content"] {
        Value::Array(parts) => parts.iter().map(|part| part["text"].as_str().unwrap()).collect::<Vec<_>>().join(" "),
        content => content.as_str().unwrap_or_default().to_owned(),
    };
    for call in message["tool_calls"].as_array().into_iter().flatten() {
        let function = &call["function"];
        let arguments: Value = serde_json::from_str(function["arguments"].as_str().unwrap()).unwrap();
        text.push_str(&format!(" <call> {} {arguments}", function["name"].as_str().unwrap()));
    }
    text
}

fn prompt(messages: &Value) -> Vec<u64> {
    let rendered = |message: &Value| [ids(message["role"].as_str().unwrap()), ids(&said(message)), vec![END]].concat();
    let all = messages.as_array().unwrap().iter().flat_map(rendered);
    all.chain(ids("assistant")).collect()
}

/// vLLM, which plays these turns.
fn engine(turns: &'static [Turn]) -> SocketAddr {
    endpoint(move |mut stream: TcpStream| {
        while let Some(body) = read_request(&mut stream) {
            let answer = match body {
                Some(body) => answer(turns, &serde_json::from_slice(&body).unwrap()),
                None => json!({"data": [{"id": "m", "owned_by": "vllm"}]}),
            };
            respond(&mut stream, "application/json", &answer.to_string());
        }
    })
}

fn answer(turns: &[Turn], request: &Value) -> Value {
    let (messages, has_tools) = (&request["messages"], request["tools"].is_array());
    let last = said(messages.as_array().unwrap().last().unwrap());
    let fits = |turn: &&Turn| last.contains(turn.0) && (has_tools || turn.2.is_none());
    let (_, words, tool) = turns.iter().find(fits).unwrap_or_else(|| panic!("no turn for {last}"));
    let mut message = json!({"role": "assistant", "content": words});
    if let Some((name, argument, value)) = tool {
        let number = messages.as_array().unwrap().len();
        let function = json!({"name": name, "arguments": json!({*argument: value}).to_string()});
        message["tool_calls"] = json!([{"id": format!("toolu_{number}"), "type": "function", "function": function}]);
    }
    let (prompt, sampled) = (prompt(messages), [ids(&said(&message)), vec![END]].concat());
    let logprobs: Vec<Value> =
        (1..=sampled.len()).map(|at| json!({"token": "", "logprob": -(at as f64) / 64.0})).collect();
    json!({
        "id": format!("c-{}", prompt.len()), "object": "chat.completion", "model": "m", "prompt_token_ids": prompt,
        "choices": [{
            "index": 0, "finish_reason": if tool.is_some() { "tool_calls" } else { "stop" }, "message": message,
            "token_ids": sampled, "logprobs": {"content": logprobs},
        }],
        "usage": {"prompt_tokens": prompt.len(), "completion_tokens": sampled.len()},
    })
}

/// A run of an agent against the gateway.
struct Run {
    bench: Bench,
    serve: Running,
    agent: &'static str,
}

impl Run {
    fn start(agent: &'static str, turns: &'static [Turn]) -> Self {
        let bench = Bench::new();
        let backend =
            format!("backends = [{{ model = \"\", url = \"http://{}/v1\", engine = \"vllm\" }}]", engine(turns));
        let serve = bench.gateway_without_backends(&format!("[gateway]\n{backend}\ntranslate = \"always\"\n"));
        let rollout = json!([{"rollout_id": agent, "input": {"task_id": "t-1"}, "is_train": true}]);
        let started = post(serve.address("server"), "/api/rollouts", &rollout);
        assert!(started.status < 300, "{}", started.text());
        Self { bench, serve, agent }
    }

    fn call(&self, path: &str, headers: &[(&str, &str)], body: &Value) -> Value {
        let path = format!("/rollout/{}/attempt/at-1{path}", self.agent);
        let reply = ask(self.serve.address("server"), "POST", &path, headers, &body.to_string());
        assert_eq!(reply.status, 200, "{}", reply.text());
        reply.json()
    }

    /// Rewards the run, and compares its tree and its exports with the files.
    fn check(self, calls: usize) {
        let server = self.serve.address("server");
        let view = || get(server, &format!("/v1/tracewire/rollouts/{}/trajectory", self.agent)).json();
        eventually(|| (view()["calls"].as_array()?.len() == calls).then_some(()));
        let run = |arguments: &[&str]| {
            let output = tracewire(self.bench.home()).args(arguments).output().unwrap();
            assert!(output.status.success(), "{}", text(&output));
            String::from_utf8(output.stdout).unwrap()
        };
        run(&["reward", self.agent, "0.5", "--server", &self.serve.url("server")]);
        let ended =
            post(server, &format!("/v1/agl/rollouts/{}/attempts/at-1", self.agent), &json!({"status": "succeeded"}));
        assert_eq!(ended.status, 200, "{}", ended.text());
        let span_ids: Vec<String> = view()["calls"]
            .as_array()
            .unwrap()
            .iter()
            .map(|call| call["span_id"].as_str().unwrap().to_owned())
            .collect();
        // Ids of spans are random.
        let named = |text: String| {
            span_ids.iter().enumerate().fold(text, |text, (at, id)| text.replace(id, &format!("call-{}", at + 1)))
        };
        let mut wrong = Vec::new();
        let mut compare = |name: &str, found: String| {
            let file = root().join("tests/golden_trees").join(self.agent).join(name);
            if std::env::var_os("UPDATE_GOLDEN").is_some() {
                std::fs::create_dir_all(file.parent().unwrap()).unwrap();
                std::fs::write(&file, &found).unwrap();
            }
            if std::fs::read_to_string(&file).unwrap_or_default() != found {
                wrong.push(format!("{}:\n{found}", file.display()));
            }
        };
        compare("tree.txt", named(run(&["trajectory", self.agent])));
        for shape in SHAPES {
            compare(&format!("{shape}.jsonl"), named(run(&["export", self.agent, "--format", shape])));
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }
}

fn user(text: &str) -> Value {
    json!({"role": "user", "content": text})
}

#[test]
fn a_tool_agent_of_five_turns_has_its_golden_tree() {
    const TURNS: &[Turn] = &[
        ("mend it", "I look around.", Some(("bash", "command", "ls"))),
        ("src tests", "I read.", Some(("bash", "command", "cat src"))),
        ("fn main", "I mend.", Some(("bash", "command", "sed"))),
        ("mended", "I test.", Some(("bash", "command", "make test"))),
        ("all passed", "It is mended.", None),
    ];
    let run = Run::start("five_turns", TURNS);
    let tools = json!([{"type": "function", "function": {"name": "bash", "parameters": {"type": "object"}}}]);
    let mut messages = vec![json!({"role": "system", "content": "You are an agent."}), user("mend it")];
    for output in ["src tests", "fn main", "mended", "all passed", ""] {
        let body = json!({"model": "m", "messages": messages, "tools": tools, "temperature": 1.0});
        let message = run.call("/v1/chat/completions", &[], &body)["choices"][0]["message"].clone();
        if let Some(id) = message["tool_calls"][0]["id"].as_str() {
            let id = id.to_owned();
            messages.push(message);
            messages.push(json!({"role": "tool", "tool_call_id": id, "content": output}));
        }
    }
    run.check(5);
}

#[test]
fn an_agent_that_rewrites_its_history_has_its_golden_tree() {
    const TURNS: &[Turn] =
        &[("count", "one two three", None), ("go on", "four five six", None), ("further", "seven eight", None)];
    let run = Run::start("rewritten_history", TURNS);
    let mut messages = vec![json!({"role": "system", "content": "You count."}), user("count")];
    for next in ["go on", "further", ""] {
        let body = json!({"model": "m", "messages": messages, "temperature": 1.0});
        messages.push(run.call("/v1/chat/completions", &[], &body)["choices"][0]["message"].clone());
        messages.push(user(next));
        if next == "further" {
            messages[2] = json!({"role": "assistant", "content": "one to three"});
        }
    }
    run.check(3);
}

/// A conversation of Claude Code: its requests, and the answers in them.
struct ClaudeConversation<'a> {
    run: &'a Run,
    headers: Vec<(&'static str, &'static str)>,
    request: Value,
}

impl ClaudeConversation<'_> {
    /// Sends a message, and keeps it with its answer.
    fn say(&mut self, content: Value) -> Value {
        let messages = self.request["messages"].as_array_mut().unwrap();
        messages.push(json!({"role": "user", "content": content}));
        let answer = self.run.call("/v1/messages", &self.headers, &self.request);
        let messages = self.request["messages"].as_array_mut().unwrap();
        messages.push(json!({"role": "assistant", "content": answer["content"]}));
        answer
    }

    /// Returns what a tool printed.
    fn give(&mut self, answer: &Value, output: &str) -> Value {
        let call = answer["content"].as_array().unwrap().iter().find(|block| block["type"] == "tool_use").unwrap();
        self.say(json!([{"type": "tool_result", "tool_use_id": call["id"], "content": output}]))
    }
}

#[test]
fn a_run_of_claude_code_has_its_golden_tree() {
    const TURNS: &[Turn] = &[
        ("quota", "#", None),
        ("detailed summary of the conversation", "The parser is mended.", None),
        ("This session is being continued", "I test.", Some(("Bash", "command", "make test"))),
        ("mend the parser", "I look.", Some(("Bash", "command", "ls"))),
        ("mend the parser", "Parser repair", None),
        ("find every use", "I search.", Some(("Bash", "command", "grep parser"))),
        ("src lib", "A scout searches.", Some(("Task", "prompt", "find every use of the parser"))),
        ("a.rs b.rs", "There are two uses.", None),
        ("two uses", "I mend it.", Some(("Bash", "command", "sed parser"))),
        ("ok mended", "Both are mended.", None),
        ("all passed", "The parser is mended and tested.", None),
    ];
    let run = Run::start("claude_code", TURNS);
    let billing = json!({"type": "text", "text": "x-anthropic-billing-header: cc_version=2.1; cch=1;"});
    let tool = |name: &str| json!({"name": name, "description": "a tool", "input_schema": {"type": "object"}});
    let conversation = |system: &str, tools: &[&str], agent: Option<&'static str>| {
        let mut headers =
            vec![("user-agent", "claude-cli/2.1.332 (external, cli)"), ("x-claude-code-session-id", "s-1")];
        headers.extend(agent.map(|id| ("x-claude-code-agent-id", id)));
        let system = json!([billing, {"type": "text", "text": system, "cache_control": {"type": "ephemeral"}}]);
        let mut request = json!({"model": "claude-sonnet-4-5", "max_tokens": 64, "temperature": 1.0, "system": system, "messages": []});
        if !tools.is_empty() {
            request["tools"] = tools.iter().map(|name| tool(name)).collect();
        }
        ClaudeConversation { run: &run, headers, request }
    };
    let mut probe = conversation("You are Claude Code.", &[], None);
    probe.request["max_tokens"] = 1.into();
    probe.say("quota".into());
    conversation("Generate a concise, sentence-case title of the conversation.", &[], None)
        .say("mend the parser".into());
    let mut main = conversation("You are Claude Code.", &["Bash", "Task"], None);
    let looks = main.say("mend the parser".into());
    let sends = main.give(&looks, "src lib");
    let mut scout = conversation("You are an explorer.", &["Bash"], Some("a-1"));
    let searches = scout.say("find every use of the parser".into());
    scout.give(&searches, "a.rs b.rs");
    let mends = main.give(&sends, "two uses");
    main.give(&mends, "ok mended");
    main.say("Your task is to create a detailed summary of the conversation so far".into());
    let mut later = conversation("You are Claude Code.", &["Bash", "Task"], None);
    let tests = later.say("This session is being continued. Summary: The parser is mended.".into());
    later.give(&tests, "all passed");
    run.check(11);
}

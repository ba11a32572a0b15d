//! Real clients of the gateway: the SDKs of OpenAI and Anthropic by every route and rerouted, and the commands of workers.

use crate::support::client::{ask, get, post};
use crate::support::{
    Bench, Running, endpoint, eventually, installed, is_exchange, node_modules, python, root, signal, text, tracewire,
};
use serde_json::{Value, json};
use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tracewire::trace::AttemptId;

/// Runs a script of tests/clients/gateway.
fn client(script: &str) -> Command {
    let mut command = Command::new(if script.ends_with(".py") { python() } else { "node".to_owned() });
    command.arg(root().join("tests/clients/gateway").join(script));
    command.env("NODE_PATH", node_modules());
    command
}

/// The output of a command, which must be JSON.
fn printed(command: &mut Command) -> Value {
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("no JSON but {}", text(&output)))
}

fn question(text: &str) -> Value {
    json!([{ "role": "user", "content": text }])
}

/// The response of the mock to a request for token ids: the text, the ids of the prompt, and those of the response.
fn from_mock(bench: &Bench, messages: &Value, more: &Value) -> [Value; 3] {
    let mut body = json!({ "model": "mock", "messages": messages, "return_token_ids": true });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let mut answer = post(bench.mock.address("http"), "/v1/chat/completions", &body).json();
    let mut choice = answer["choices"][0].take();
    [choice["message"]["content"].take(), answer["prompt_token_ids"].take(), choice["token_ids"].take()]
}

fn spans(serve: &Running, rollout: &str) -> Vec<Value> {
    let page = get(serve.address("server"), &format!("/v1/agl/spans?rollout_id={rollout}")).json();
    let mut spans = page["items"].as_array().unwrap().clone();
    spans.sort_by_key(|span| span["sequence_id"].as_u64());
    spans
}

/// The exchanges of a rollout, once there are `count`; fails if there are more.
fn exchanges(serve: &Running, rollout: &str, count: usize) -> Vec<Value> {
    let found = eventually(|| {
        let found: Vec<_> = spans(serve, rollout).into_iter().filter(is_exchange).collect();
        (found.len() >= count).then_some(found)
    });
    assert_eq!(found.len(), count, "{found:#?}");
    found
}

/// Checks that the span of a call has these ids, and that they were validated.
fn check_ids(call: &Value, [_, prompt, answer]: &[Value; 3]) {
    let attributes = &call["attributes"];
    assert_eq!(attributes["tracewire.tokens.status"], "exact", "{call:#}");
    assert_eq!((&attributes["prompt_token_ids"], &attributes["response_token_ids"]), (prompt, answer), "{call:#}");
    assert!(!prompt.as_array().unwrap().is_empty() && !answer.as_array().unwrap().is_empty());
}

/// Each way to name a rollout: its name, the base URL before its /v1, the API key, and the identity source that spans record.
const WAYS: &[(&str, &str, &str, &str)] = &[
    ("url", "/rollout/ROLLOUT/attempt/at-1", "sk-test", "url"),
    ("v1", "/proxy/rollout/ROLLOUT/attempt/at-1/mode/train/openai", "sk-test", "url"),
    ("session", "/sessions/ROLLOUT", "sk-test", "url"),
    ("key", "", "sk-tw-ROLLOUT.at-1", "key"),
    ("headers", "", "sk-test", "headers"),
    ("signed", "", "", "key"),
];

#[test]
fn sdks_reach_the_gateway_by_every_route() {
    let bench = Bench::new();
    let store = "[store]\npath = \"memory:\"\n";
    let (open, signed) = (bench.gateway(store), bench.gateway(&format!("{store}[gateway]\nsigning_key = \"s\"\n")));
    let serve = |way: &str| if way == "signed" { &signed } else { &open };
    for (script, language) in [("sdks.py", "python"), ("sdks.cjs", "node")] {
        let id = |way: &str| format!("ro-{way}-{language}");
        let messages = |way: &str| question(&format!("what does {language} say by {way}"));
        let arguments: Vec<Value> = WAYS
            .iter()
            .map(|(way, base, key, _)| {
                let (rollout, server) = (id(way), serve(way).address("server"));
                let fill = |text: &str| text.replace("ROLLOUT", &rollout);
                let identity = json!({ "rollout_id": rollout, "attempt_id": "at-1" });
                let key = match *way {
                    "signed" => post(server, "/v1/tracewire/keys", &identity).json()["key"].clone(),
                    _ => fill(key).into(),
                };
                if *way == "v1" {
                    let made = post(server, "/api/rollouts", &json!([{ "rollout_id": rollout, "input": {} }]));
                    assert_eq!(made.status, 201, "{}", made.text());
                }
                let headers = match *way {
                    "headers" => json!({ "x-rollout-id": rollout, "x-attempt-id": "at-1" }),
                    _ => json!({}),
                };
                let base = format!("http://{server}{}", fill(base));
                json!({ "base": base, "key": key, "headers": headers, "messages": messages(way) })
            })
            .collect();
        let output = printed(client(script).arg(json!(arguments).to_string()));
        for ((way, _, _, source), output) in WAYS.iter().zip(output.as_array().unwrap()) {
            let (rollout, from_mock) = (id(way), from_mock(&bench, &messages(way), &json!({})));
            assert_eq!(*output, json!(vec![&from_mock[0]; 6]), "{rollout}");
            let attempt = match *way {
                "session" => AttemptId::default_of(&rollout.as_str().into()).to_string(),
                _ => "at-1".to_owned(),
            };
            // In the order of the scripts: chat, responses, messages, each plain and streamed.
            for (at, call) in exchanges(serve(way), &rollout, 6).iter().enumerate() {
                let attributes = &call["attributes"];
                assert_eq!(
                    (&call["attempt_id"], call["status"]["status_code"].as_str()),
                    (&json!(attempt), Some("UNSET"))
                );
                assert_eq!(attributes["tracewire.identity.source"], *source, "{call:#}");
                let dialect = if at < 4 { Value::Null } else { json!("anthropic.messages") };
                assert_eq!(attributes["tracewire.gateway.translated_from"], dialect, "{call:#}");
                check_ids(call, &from_mock);
            }
        }
    }
}

/// A gateway that gets what agents send to OpenAI and Anthropic. Also returns the number of connections to those hosts.
fn rerouting(bench: &Bench) -> (Running, Arc<AtomicUsize>) {
    let dialled = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&dialled);
    let refusing = endpoint(move |_| {
        count.fetch_add(1, Ordering::SeqCst);
    });
    let hosts = ["api.openai.com", "api.anthropic.com"];
    let rules = hosts.map(|host| format!("{host}:443:{refusing}"));
    (bench.gateway(&format!("[upstream]\nconnect_to = {rules:?}\n[[reroute]]\nhosts = {hosts:?}\n")), dialled)
}

/// Runs a script of tests/clients/gateway behind the proxy.
fn unmodified(bench: &Bench, serve: &Running, rollout: &str, script: &str) -> Command {
    let proxy = format!("http://{rollout}.at-1:x@{}", serve.address("proxy"));
    let ca = serve.path("ca");
    let mut env = tracewire(bench.home());
    let variables = printed(env.args(["env", "--format", "json", "--proxy", &proxy, "--ca"]).arg(ca));
    let mut command = client(script);
    command.envs(variables["set"].as_object().unwrap().iter().map(|(name, value)| (name, value.as_str().unwrap())));
    for name in ["OPENAI_BASE_URL", "ANTHROPIC_BASE_URL"].into_iter().chain(strings(&variables["unset"])) {
        command.env_remove(name);
    }
    command.env("OPENAI_API_KEY", "dummy").env("ANTHROPIC_API_KEY", "dummy");
    command
}

fn strings(list: &Value) -> impl Iterator<Item = &str> {
    list.as_array().unwrap().iter().map(|text| text.as_str().unwrap())
}

#[test]
fn an_unmodified_agent_of_anthropics_sdk_trains_the_gateways_model() {
    let bench = Bench::new();
    let (serve, dialled) = rerouting(&bench);
    let output = printed(&mut unmodified(&bench, &serve, "ro-agent", "anthropic_agent.py"));
    assert_eq!(dialled.load(Ordering::SeqCst), 0);
    let calls = exchanges(&serve, "ro-agent", 4);
    let requests = get(bench.mock.address("http"), "/requests").json();
    let requests = requests.as_array().unwrap().iter().filter(|request| request["path"] == "/v1/chat/completions");
    let requests: Vec<&Value> = requests.map(|request| &request["body"]).collect();
    assert_eq!(requests.len(), 4, "{requests:#?}");
    for (at, (body, call)) in requests.into_iter().zip(&calls).enumerate() {
        // Not streamed first, then streamed. Both call the tool first.
        let mut expected = json!([{ "role": "system", "content": "You know the weather." }]);
        let ask = if at < 2 { "Is it clear in Paris?" } else { "And is it warm there?" };
        expected.as_array_mut().unwrap().push(json!({ "role": "user", "content": ask }));
        if at % 2 == 1 {
            let function = json!({ "name": "weather", "arguments": "{\"city\":\"Paris\"}" });
            let called = json!([{ "id": "call_mock_1", "type": "function", "function": function }]);
            expected.as_array_mut().unwrap().extend([
                json!({ "role": "assistant", "content": null, "tool_calls": called }),
                json!({ "role": "tool", "tool_call_id": "call_mock_1", "content": "It is clear in Paris, 21 degrees" }),
            ]);
        }
        assert_eq!(body["messages"], expected);
        assert_eq!(body["stream"] == true, at >= 2);
        let from_mock = from_mock(&bench, &body["messages"], &json!({ "tools": body["tools"] }));
        check_ids(call, &from_mock);
        if at % 2 == 1 {
            assert_eq!(output[at / 2], from_mock[0]);
        }
        let attributes = &call["attributes"];
        assert_eq!(call["attempt_id"], "at-1");
        assert_eq!(attributes["tracewire.identity.source"], "credentials");
        assert_eq!(attributes["tracewire.gateway.translated_from"], "anthropic.messages");
        assert_eq!(attributes["tracewire.gateway.called"], "https://api.anthropic.com/v1/messages");
        assert_eq!(attributes["tracewire.gateway.requested_model"], "claude-test");
    }
    let tools = spans(&serve, "ro-agent").into_iter().filter(|span| span["name"] == "execute_tool weather");
    let parents: Vec<Value> = tools.map(|mut span| span["parent_id"].take()).collect();
    assert_eq!(json!(parents), json!([calls[0]["span_id"], calls[2]["span_id"]]));
}

#[test]
fn unmodified_agents_of_openais_sdks_are_rerouted_and_nothing_else_reaches_the_host() {
    let bench = Bench::new();
    let (serve, dialled) = rerouting(&bench);
    for (at, script) in ["openai_agent.py", "openai_agent.cjs"].into_iter().enumerate() {
        let (rollout, messages) = (format!("ro-{at}"), question(&format!("what does {script} do")));
        let output = printed(unmodified(&bench, &serve, &rollout, script).arg(messages.to_string()));
        let from_mock = from_mock(&bench, &messages, &json!({}));
        // The last request is for the list of files, which the gateway does not have.
        assert_eq!(output, json!([from_mock[0], from_mock[0], 404]));
        assert_eq!(dialled.load(Ordering::SeqCst), 0);
        let calls = exchanges(&serve, &rollout, 3);
        for call in &calls[..2] {
            check_ids(call, &from_mock);
            assert_eq!(call["attributes"]["tracewire.gateway.called"], "https://api.openai.com/v1/chat/completions");
            assert_eq!(call["attributes"]["tracewire.gateway.requested_model"], "gpt-5");
        }
        let files = &calls[2]["attributes"];
        assert_eq!(
            (&files["url.full"], &files["error.type"]),
            (&json!("https://api.openai.com/v1/files"), &json!("reroute_refused"))
        );
    }
    assert!(!get(bench.mock.address("http"), "/requests").text().contains("files"));
}

#[test]
fn calls_that_the_gateway_does_not_serve_reach_no_model_service() {
    let (bench, dialled) = (Bench::new(), Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&dialled);
    let refusing = endpoint(move |_| {
        count.fetch_add(1, Ordering::SeqCst);
    });
    let hosts = ["api.openai.com", "api.anthropic.com", "generativelanguage.googleapis.com", "models.example"];
    let rules = hosts.map(|host| format!("{host}:80:{refusing}"));
    let settings = format!("[upstream]\nconnect_to = {rules:?}\n[[reroute]]\nhosts = {hosts:?}\n");
    let serve = bench.gateway(&settings);
    let call = |url: &str| {
        let method = if url.ends_with("/models") { "GET" } else { "POST" };
        let reply = ask(serve.address("proxy"), method, url, &[("x-rollout-id", "ro")], "{\"prompt\":\"secret\"}");
        (reply.status, reply.json())
    };
    let (status, error) = call("http://api.anthropic.com/v1/complete");
    assert_eq!((status, &error["type"]), (404, &json!("error")));
    let (status, error) = call("http://generativelanguage.googleapis.com/v1beta/models/g:batchGenerateContent");
    assert_eq!((status, &error["error"]["status"]), (404, &json!("NOT_FOUND")));
    let (status, error) = call("http://api.openai.com/v1/responses/compact");
    assert_eq!((status, &error["error"]["type"]), (404, &json!("invalid_request_error")));
    let (status, models) = call("http://api.openai.com/v1/models");
    assert_eq!((status, &models["object"]), (200, &json!("list")));
    assert_eq!(dialled.load(Ordering::SeqCst), 0);
    for (number, url) in ["http://api.openai.com/oauth/token", "http://models.example/v1/images"].iter().enumerate() {
        assert_eq!(call(url).0, 502);
        assert_eq!(dialled.load(Ordering::SeqCst), number + 1, "{url}");
    }
    let refused = eventually(|| {
        let spans = spans(&serve, "ro");
        spans.into_iter().find(|span| span["attributes"]["gen_ai.operation.name"] == "chat")
    });
    assert_eq!(refused["attributes"]["error.type"], "reroute_refused");
    assert_eq!(refused["attributes"]["tracewire.dialect"], "openai.responses");
}

#[test]
fn calls_to_the_gateway_through_the_proxy_are_recorded_once() {
    let bench = Bench::new();
    let serve = bench.gateway("");
    let messages = question("what passes twice");
    for (at, script) in ["openai_agent.py", "openai_agent.cjs"].into_iter().enumerate() {
        let rollout = format!("ro-through-{at}");
        let base = format!("{}/rollout/{rollout}/attempt/at-1/v1", serve.url("server"));
        let mut agent = unmodified(&bench, &serve, &rollout, script);
        let output = printed(agent.env("OPENAI_BASE_URL", base).arg(messages.to_string()));
        let from_mock = from_mock(&bench, &messages, &json!({}));
        // The gateway has no list of files; it records the request.
        assert_eq!(output, json!([from_mock[0], from_mock[0], 404]));
        for call in &exchanges(&serve, &rollout, 3)[..2] {
            check_ids(call, &from_mock);
            assert_eq!(call["attributes"]["tracewire.identity.source"], "url");
        }
    }
}

/// Enqueues tasks through the API of Agent Lightning 0.3; returns the ids of the rollouts.
fn enqueued(serve: &Running, inputs: &[Value]) -> Vec<String> {
    let rollouts: Vec<Value> = inputs.iter().map(|input| json!({ "input": input, "mode": "train" })).collect();
    ids(&post(serve.address("server"), "/v1/agl/queues/rollouts/enqueue", &json!({ "rollouts": rollouts })).json())
}

fn ids(rollouts: &Value) -> Vec<String> {
    rollouts.as_array().unwrap().iter().map(|rollout| rollout["rollout_id"].as_str().unwrap().to_owned()).collect()
}

/// The command of a worker, not started yet.
fn worker(bench: &Bench, serve: &Running, flags: &[&str], command: &[&str]) -> Command {
    let mut worker = tracewire(bench.home());
    worker.args(["worker", "--server", &serve.url("server")]).args(flags).arg("--").args(command);
    worker.current_dir(root()).stdin(Stdio::null());
    worker
}

/// The statuses of the latest attempt of a rollout, and of the rollout.
fn statuses(serve: &Running, rollout: &str) -> [Value; 2] {
    let rollout = get(serve.address("server"), &format!("/v1/agl/rollouts/{rollout}")).json();
    [rollout["attempt"]["status"].clone(), rollout["status"].clone()]
}

/// The agents in tests/clients/worker: how each is run, how many calls it makes, and its reward.
const AGENTS: &[(&[&str], usize, f64)] =
    &[(&["sh", "tests/clients/worker/agent.sh"], 1, 1.0), (&["node", "tests/clients/worker/agent.mjs"], 2, 0.5)];

/// The responses of the mock to the calls of an agent.
fn from_mock_for_agent(bench: &Bench, input: &Value, calls: usize) -> Vec<[Value; 3]> {
    let mut messages = question(&input.to_string());
    let first = from_mock(bench, &messages, &json!({}));
    let again = [
        json!({ "role": "assistant", "content": first[0] }),
        json!({ "role": "user", "content": "Say it again, shorter." }),
    ];
    messages.as_array_mut().unwrap().extend(again);
    let second = from_mock(bench, &messages, &json!({}));
    [first, second].into_iter().take(calls).collect()
}

#[test]
fn workers_run_agents_in_any_language_and_agent_lightning_reads_the_calls() {
    let bench = Bench::new();
    let serve = bench.gateway("");
    for (from, (command, calls, reward)) in [0, 25].into_iter().zip(AGENTS) {
        let inputs: Vec<Value> = (from..from + 25).map(|number| json!({ "n": number })).collect();
        let rollouts = enqueued(&serve, &inputs);
        let output = worker(&bench, &serve, &["--jobs", "4", "--until-empty"], command).output().unwrap();
        assert!(output.status.success(), "{}", text(&output));
        let mut adapter = Command::new(installed("agent-lightning/bin/python"));
        adapter.arg(root().join("tests/clients/gateway/triplets.py")).arg(serve.url("server")).args(&rollouts);
        let triplets = printed(adapter.env("AGENTOPS_API_KEY", ""));
        for (at, (rollout, input)) in rollouts.iter().zip(&inputs).enumerate() {
            assert_eq!(statuses(&serve, rollout), ["succeeded", "succeeded"], "{}", text(&output));
            let from_mock = from_mock_for_agent(&bench, input, *calls);
            let spans = exchanges(&serve, rollout, *calls);
            let triplets = triplets[at].as_array().unwrap();
            assert_eq!(triplets.len(), *calls);
            for ((span, triplet), from_mock) in spans.iter().zip(triplets).zip(&from_mock) {
                check_ids(span, from_mock);
                assert_eq!(
                    [&triplet["prompt"]["token_ids"], &triplet["response"]["token_ids"]],
                    [&from_mock[1], &from_mock[2]]
                );
            }
            assert_eq!(triplets.last().unwrap()["reward"], *reward, "{triplets:#?}");
        }
    }
}

#[test]
fn workers_use_the_api_of_version_1() {
    let bench = Bench::new();
    let serve = bench.gateway("");
    let server = serve.address("server");
    for (from, (command, calls, reward)) in [0, 5].into_iter().zip(AGENTS) {
        let inputs: Vec<Value> = (from..from + 5).map(|number| json!({ "n": number })).collect();
        let new: Vec<Value> = inputs.iter().map(|input| json!({ "input": input })).collect();
        let rollouts = ids(&post(server, "/api/rollouts", &json!(new)).json());
        let flags = ["--api", "v1.0", "--jobs", "4", "--until-empty"];
        let output = worker(&bench, &serve, &flags, command).output().unwrap();
        assert!(output.status.success(), "{}", text(&output));
        for (rollout, input) in rollouts.iter().zip(&inputs) {
            let shown = get(server, &format!("/api/rollouts/{rollout}")).json();
            assert_eq!(shown["rollout"]["status"]["state"], "succeeded", "{shown:#}");
            let from_mock = from_mock_for_agent(&bench, input, *calls);
            let events = eventually(|| {
                let events = get(server, &format!("/api/rollouts/{rollout}/events?format=triplet")).json();
                (events.as_array().unwrap().len() > *calls).then_some(events)
            });
            let seen: Vec<Value> = events
                .as_array()
                .unwrap()
                .iter()
                .map(|event| {
                    let (kind, data) = (&event["event_type"], &event["data"]);
                    json!([kind, data["prompt_token_ids"], data["response_token_ids"], data["value"]])
                })
                .collect();
            let calls = from_mock.iter().map(|[_, prompt, answer]| json!(["model_request", prompt, answer, null]));
            let expected: Vec<Value> = calls.chain([json!(["reward", null, null, reward])]).collect();
            assert_eq!(seen, expected, "{events:#}");
        }
    }
}

#[test]
fn a_command_that_fails_or_times_out_ends_its_attempt() {
    let bench = Bench::new();
    let serve = bench.gateway("");
    for (flags, command, status, code) in [
        (&[] as &[&str], &["sh", "-c", "exit 3"] as &[&str], "failed", 3),
        (&["--timeout", "0.3"], &["sleep", "300"], "timeout", 124),
        (&[], &["sh", "-c", "kill -9 $$"], "failed", 137),
    ] {
        let rollout = enqueued(&serve, &[json!({})]).remove(0);
        let line = printed(&mut worker(&bench, &serve, &[&["--json", "--until-empty"][..], flags].concat(), command));
        assert_eq!(
            (&line["status"], &line["exit_code"], &line["reward"]),
            (&json!(status), &json!(code), &Value::Null)
        );
        assert_eq!(line["rollout_id"], rollout);
        assert_eq!(statuses(&serve, &rollout), [status, "failed"]);
    }
}

#[test]
fn rewards_are_stored_only_for_existing_attempts() {
    let bench = Bench::new();
    let serve = bench.gateway("");
    let rollout = enqueued(&serve, &[json!({})]).remove(0);
    let reward = |rollout: &str| {
        let arguments = ["reward", rollout, "-0.75", "--name", "style", "--server", &serve.url("server")];
        tracewire(bench.home()).args(arguments).output().unwrap()
    };
    for (rollout, words) in [
        ("ro-none", "rollout ro-none does not exist at http://127.0.0.1"),
        ("ro-none", "check its spelling, or set --server"),
        (rollout.as_str(), "has no attempt yet; wait until one has started, or name one with --attempt"),
    ] {
        let refused = reward(rollout);
        assert!(refused.status.code() == Some(2) && text(&refused).contains(words), "{}", text(&refused));
        assert!(spans(&serve, rollout).is_empty());
    }
    assert!(worker(&bench, &serve, &["--until-empty"], &["true"]).output().unwrap().status.success());
    let output = reward(&rollout);
    assert!(output.status.success(), "{}", text(&output));
    let spans = spans(&serve, &rollout);
    let expected = json!({ "agentlightning.reward.0.name": "style", "agentlightning.reward.0.value": -0.75 });
    assert_eq!((spans.len(), &spans[0]["name"]), (1, &json!("agentlightning.annotation")));
    assert_eq!(spans[0]["attributes"], expected);
}

#[test]
fn a_stopped_worker_finishes_its_running_attempts() {
    let bench = Bench::new();
    let serve = bench.gateway("");
    let rollouts = enqueued(&serve, &[json!({}), json!({})]);
    let (started, go) = (bench.home().join("begun"), bench.home().join("go"));
    let script = "mkfifo \"$1\" && touch \"$0\" && read -r _ < \"$1\" && echo 0.5";
    let paths = [started.to_str().unwrap(), go.to_str().unwrap()];
    let mut worker = worker(&bench, &serve, &["--timeout", "60"], &["sh", "-c", script, paths[0], paths[1]]);
    let mut running = worker.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    eventually(|| started.exists().then_some(()));
    signal(running.id(), rustix::process::Signal::TERM);
    let mut output = BufReader::new(running.stderr.take().unwrap()).lines();
    assert!(output.any(|line| line.unwrap().contains("waiting for running commands")));
    assert_eq!(statuses(&serve, &rollouts[0]), ["running", "running"]);
    // Opened for reading too, so that it does not block.
    let mut gate = OpenOptions::new().read(true).write(true).open(&go).unwrap();
    gate.write_all(b"\n").unwrap();
    assert_eq!(running.wait().unwrap().code(), Some(0), "{:?}", output.collect::<Vec<_>>());
    assert_eq!(statuses(&serve, &rollouts[0]), ["succeeded", "succeeded"]);
    assert_eq!(spans(&serve, &rollouts[0])[0]["attributes"]["agentlightning.reward.0.value"], 0.5);
    assert_eq!(statuses(&serve, &rollouts[1]), [Value::Null, json!("queuing")]);
}

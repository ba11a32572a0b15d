//! Agent Lightning's own package (0.3.0, unmodified) against our server: its store client, and its adapters on traffic
//! that only we saw.

use crate::support::client::{self, get};
use crate::support::postgres::database;
use crate::support::{Bench, installed, root, say, text};
use crate::training;
use serde_json::{Value, json};
use std::process::{Command, Output};

/// Runs one of the scripts in tests/clients/agent_lightning.
fn run(script: &str, arguments: &[&str]) -> Output {
    let python = installed("agent-lightning/bin/python");
    let script = root().join("tests/clients/agent_lightning").join(script);
    let output = Command::new(python).arg(script).args(arguments).env("AGENTOPS_API_KEY", "").output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    output
}

#[test]
fn its_client_does_everything_it_does_with_its_own_server() {
    let bench = Bench::new();
    let database = database();
    for store in [&[] as &[&str], &["--store", "memory:"], &["--store", &database]] {
        let serve = bench.serve(store);
        run("store.py", &[&serve.url("server")]);
    }
}

#[test]
fn its_adapters_read_what_we_recorded() {
    let bench = Bench::new();
    let serve = bench.serve(&[]);
    let seen = adapters_read(&bench, &serve.url("server"), &serve.url("proxy"));
    let path = format!("/v1/tracewire/rollouts/{}/triplets", seen["rollout"].as_str().unwrap());
    let ours = get(serve.address("server"), &path).json();
    let (ours, theirs) = (ours.as_array().unwrap(), seen["tracer"].as_array().unwrap());
    assert_eq!(ours.len(), theirs.len());
    for (ours, theirs) in ours.iter().zip(theirs) {
        for field in [
            "/prompt/token_ids",
            "/prompt/image_urls",
            "/response/token_ids",
            "/response/logprobs",
            "/reward",
            "/metadata/response_id",
        ] {
            assert_eq!(ours.pointer(field), theirs.pointer(field), "{field}");
        }
        // The messages differ in form: ours are OpenAI's.
        for side in ["/prompt/raw_content", "/response/raw_content"] {
            let said = |triplet: &Value| -> Vec<[Value; 2]> {
                let messages = triplet.pointer(side).unwrap().as_array().unwrap();
                messages.iter().map(|message| [message["role"].clone(), message["content"].clone()]).collect()
            };
            assert_eq!(said(ours), said(theirs), "{side}");
        }
    }
}

#[test]
fn its_adapters_read_what_another_process_recorded() {
    let bench = Bench::new();
    let database = database();
    // Two programs on one server: one for the trainer, one for the agent.
    let (trainers, agents) = (bench.serve(&["--store", &database]), bench.serve(&["--store", &database]));
    adapters_read(&bench, &trainers.url("server"), &agents.url("proxy"));
}

fn adapters_read(bench: &Bench, server: &str, proxy: &str) -> Value {
    let output = run("rollout.py", &[server, proxy, &bench.http()]);
    let seen: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(seen["status"], "succeeded");
    let sent = seen["sent"].as_array().unwrap();
    for adapter in ["tracer", "proxy"] {
        let triplets = seen[adapter].as_array().unwrap();
        // A call without ids is no sample for the one, and one without ids for the other.
        let with_ids: Vec<_> = triplets.iter().filter(|one| one["response"]["token_ids"] != json!([])).collect();
        assert_eq!(with_ids.len(), sent.len(), "{adapter}: {triplets:#?}");
        for (triplet, sent) in with_ids.iter().zip(sent) {
            assert_eq!(triplet["prompt"]["token_ids"], sent["prompt"], "{adapter}");
            assert_eq!(triplet["response"]["token_ids"], sent["response"], "{adapter}");
        }
        assert_eq!(with_ids.last().unwrap()["reward"], 0.75, "{adapter}: {triplets:#?}");
    }
    let first = &seen["tracer"][0];
    let logprobs = first["response"]["logprobs"].as_array().unwrap();
    let numbers: Vec<&Value> = logprobs.iter().map(|token| &token["logprob"]).collect();
    assert_eq!(json!(numbers), sent[0]["logprobs"]);
    assert_eq!(first["prompt"]["raw_content"][0]["content"], "be brief");
    let messages = seen["messages"].as_array().unwrap();
    let roles = |at: usize| -> Vec<&str> {
        messages[at]["messages"].as_array().unwrap().iter().filter_map(|message| message["role"].as_str()).collect()
    };
    assert_eq!(roles(0), ["system", "user", "assistant"]);
    assert_eq!(messages[0]["messages"][2]["content"], seen["text"]);
    assert_eq!(messages[1]["messages"][1]["tool_calls"][0]["function"]["name"], "add");
    assert_eq!(messages[1]["tools"][0]["function"]["name"], "add");
    assert_eq!(roles(2), ["user", "assistant", "tool", "assistant"]);
    assert_eq!(messages.len(), 4);
    seen
}

#[test]
fn its_trainer_runs_against_our_store() {
    let bench = Bench::new();
    let serve = bench.serve(&[]);
    trains(&bench, &serve.url("server"), &serve.url("proxy"));
    let serve = bench.serve(&["--store", "memory:"]);
    trains(&bench, &serve.url("server"), &serve.url("proxy"));
    // Two programs on one server: one for the trainer, one for its agents.
    let database = database();
    let (trainers, agents) = (bench.serve(&["--store", &database]), bench.serve(&["--store", &database]));
    trains(&bench, &trainers.url("server"), &agents.url("proxy"));
}

fn trains(bench: &Bench, server: &str, proxy: &str) {
    let output = run("trainer.py", &[server, proxy, &bench.http()]);
    let stdout = String::from_utf8_lossy(&output.stdout);
    let told =
        stdout.lines().find_map(|line| line.strip_prefix("TOLD ")).unwrap_or_else(|| panic!("{}", text(&output)));
    let told: Vec<Value> = serde_json::from_str(told).unwrap();
    assert_eq!(told.len(), 4);
    for (number, rollout) in told.iter().enumerate() {
        assert_eq!((&rollout["status"], rollout["triplets"].as_array().unwrap().len()), (&json!("succeeded"), 1));
        let triplet = &rollout["triplets"][0];
        assert_eq!(triplet["reward"], rollout["worth"], "{triplet:#}");
        let question = json!({ "model": "m", "logprobs": true, "return_token_ids": true,
            "messages": [{ "role": "user", "content": format!("question {number}") }] });
        let answer = post(&format!("{}/v1/chat/completions", bench.http()), &question);
        assert_eq!(triplet["prompt"]["token_ids"], answer["prompt_token_ids"]);
        assert_eq!(triplet["response"]["token_ids"], answer["choices"][0]["token_ids"]);
    }
}

/// Posts JSON to an endpoint itself.
fn post(url: &str, body: &Value) -> Value {
    let (host, path) = url.trim_start_matches("http://").split_once('/').unwrap();
    let body = body.to_string();
    let length = body.len();
    let head = format!(
        "POST /{path} HTTP/1.1\r\nHost: {host}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n"
    );
    let answer = say(host.parse().unwrap(), format!("{head}{body}").as_bytes());
    serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap()
}

/// A tracer that reads the listing of one server gives it to the store of another, beside an instrumentation's spans.
#[test]
fn calls_that_a_tracer_gives_back_are_counted_once() {
    let bench = Bench::new();
    let serve = training::serve(&bench);
    let server = serve.address("server");
    let recorded = training::rollout(&serve);
    let listed = |rollout: &str| get(server, &format!("/v1/agl/spans?rollout_id={rollout}&limit=-1")).json();
    let trajectory = |rollout: &str| get(server, &format!("/v1/tracewire/rollouts/{rollout}/trajectory")).json();
    let given = listed(&recorded)["items"].as_array().unwrap().clone();
    let copy = client::post(server, "/v1/agl/rollouts", &json!({"input": {"task_id": "t-2"}})).json();
    let give = |mut span: Value| {
        span["rollout_id"] = copy["rollout_id"].clone();
        span["attempt_id"] = copy["attempt"]["attempt_id"].clone();
        assert_eq!(client::post(server, "/v1/agl/spans", &span).status, 201);
    };
    for span in &given {
        if span["name"] == "openai.chat.completion" {
            // It ends first, and has the ids of the call.
            let mut own = span.clone();
            own["span_id"] = json!(format!("a{}", &span["span_id"].as_str().unwrap()[1..]));
            own["name"] = json!("openai.chat");
            let attributes = own["attributes"].as_object_mut().unwrap();
            attributes.retain(|name, _| !name.starts_with("tracewire.") && !name.starts_with("http."));
            attributes.insert("gen_ai.output.messages".to_owned(), json!("[{\"role\": \"assistant\"}]"));
            own["context"]["span_id"] = own["span_id"].clone();
            give(own);
        }
        give(span.clone());
    }
    let copy = copy["rollout_id"].as_str().unwrap();
    let names = |list: Value| -> Vec<String> {
        let mut names: Vec<String> =
            list["items"].as_array().unwrap().iter().map(|span| span["name"].to_string()).collect();
        names.retain(|name| name != "\"openai.chat\"");
        names.sort();
        names
    };
    assert_eq!(names(listed(copy)), names(listed(&recorded)));
    assert_eq!(given.iter().filter(|span| span["name"] == "tool_call.read").count(), 1);
    let ids = |rollout: &str| -> Vec<Value> {
        trajectory(rollout)["calls"].as_array().unwrap().iter().map(|call| call["span_id"].clone()).collect()
    };
    assert_eq!(ids(copy), ids(&recorded), "{:#}", trajectory(copy));
    // Without its call, nothing would make it again.
    let mut alone = given.iter().find(|span| span["name"] == "tool_call.read").unwrap().clone();
    let other = client::post(server, "/v1/agl/rollouts", &json!({"input": {"task_id": "t-3"}})).json();
    alone["rollout_id"] = other["rollout_id"].clone();
    alone["attempt_id"] = other["attempt"]["attempt_id"].clone();
    assert_eq!(client::post(server, "/v1/agl/spans", &alone).status, 201);
    assert_eq!(names(listed(other["rollout_id"].as_str().unwrap())), ["\"tool_call.read\""]);
}

//! `tracewire emit`, within `run` and `worker` and outside of them.

use crate::support::client::get;
use crate::support::{Bench, TRACEWIRE, text, tracewire};
use serde_json::{Value, json};

/// The spans of a rollout by name, without the root.
fn emitted(spans: &[Value]) -> Vec<&Value> {
    spans.iter().filter(|span| !span["parent_id"].is_null()).collect()
}

#[test]
fn spans_of_a_shell_are_in_the_rollout_that_it_runs_in() {
    let bench = Bench::new();
    let script = r#"
        set -e
        "$0" emit reward 0.75
        "$0" emit reward task=1 style=-0.5 --tag judge --about span_id=0123456789abcdef
        "$0" emit message 'tests passed' --attributes '{"tests": {"passed": 7}}'
        echo '{"a": 1}' | "$0" emit object -
        "$0" emit annotation '{"a": {"b": [1, 2]}}'
        "$0" emit exception 'disk full' --type OSError --stacktrace 'line 1'
        "$0" emit span compile --duration 2.5 --status error"#;
    let output = bench.run(&["--rollout", "ro-1", "--attempt", "at-1"], &["sh", "-c", script, TRACEWIRE]);
    assert!(output.status.success(), "{}", text(&output));
    let spans = bench.spans("ro-1");
    let root = spans.iter().find(|span| span["parent_id"].is_null()).unwrap();
    let emitted = emitted(&spans);
    let shown: Vec<_> = emitted.iter().map(|span| (span["name"].as_str().unwrap(), &span["attributes"])).collect();
    let named = |name: &str, value: f64, at: usize| {
        [
            (format!("agentlightning.reward.{at}.name"), json!(name)),
            (format!("agentlightning.reward.{at}.value"), json!(value)),
        ]
    };
    let rewards = |rewards: &[(&str, f64)]| -> Value {
        let all = rewards.iter().enumerate().flat_map(|(at, (name, value))| named(name, *value, at));
        Value::Object(all.collect())
    };
    let mut about_a_span = rewards(&[("task", 1.0), ("style", -0.5)]);
    about_a_span["agentlightning.tag.0"] = json!("judge");
    about_a_span["agentlightning.link.0.key_match"] = json!("span_id");
    about_a_span["agentlightning.link.0.value_match"] = json!("0123456789abcdef");
    assert_eq!(
        shown,
        [
            ("agentlightning.annotation", &rewards(&[("primary", 0.75)])),
            ("agentlightning.annotation", &about_a_span),
            ("agentlightning.message", &json!({ "agentlightning.message.body": "tests passed", "tests.passed": 7 })),
            (
                "agentlightning.object",
                &json!({ "agentlightning.object.type": "dict", "agentlightning.object.json": "{\"a\":1}" })
            ),
            ("agentlightning.annotation", &json!({ "a.b": [1, 2] })),
            (
                "agentlightning.exception",
                &json!({ "exception.type": "OSError", "exception.message": "disk full", "exception.escaped": true,
                    "exception.stacktrace": "line 1" })
            ),
            ("compile", &json!({})),
        ]
    );
    for span in &emitted {
        assert_eq!((&span["parent_id"], &span["trace_id"]), (&root["span_id"], &root["trace_id"]));
        assert_eq!((&span["rollout_id"], &span["attempt_id"]), (&json!("ro-1"), &json!("at-1")));
    }
    let (compile, time) = (emitted.last().unwrap(), |span: &Value, key: &str| span[key].as_f64().unwrap());
    assert!((time(compile, "end_time") - time(compile, "start_time") - 2.5).abs() < 1e-3, "{compile}");
    assert_eq!(compile["status"]["status_code"], "ERROR");
}

#[test]
fn another_rollout_does_not_get_the_attempt_of_the_environment() {
    let bench = Bench::new();
    let script = r#""$0" emit message '--not an option' && "$0" emit message other --rollout ro-2 \
        && "$0" emit message same --rollout ro-1 && test -n "$TRACEPARENT""#;
    let output = bench.run(&["--rollout", "ro-1", "--attempt", "at-1"], &["sh", "-c", script, TRACEWIRE]);
    assert!(output.status.success(), "{}", text(&output));
    let messages = |rollout: &str| -> Vec<(String, Value)> {
        let of = |span: &Value| {
            let text = span["attributes"]["agentlightning.message.body"].as_str()?;
            Some((text.to_owned(), span["attempt_id"].clone()))
        };
        bench.spans(rollout).iter().filter_map(of).collect()
    };
    assert_eq!(messages("ro-1"), [("--not an option".to_owned(), json!("at-1")), ("same".to_owned(), json!("at-1"))]);
    let other = messages("ro-2");
    assert!(other.len() == 1 && other[0].1 != "at-1", "{other:?}");
}

#[test]
fn a_workers_command_emits_to_its_server() {
    let bench = Bench::new();
    let serve = bench.gateway("");
    let server = serve.address("server");
    let queued = crate::support::client::post(
        server,
        "/v1/agl/queues/rollouts/enqueue",
        &json!({ "rollouts": [{ "input": {} }] }),
    );
    let rollout = queued.json()[0]["rollout_id"].as_str().unwrap().to_owned();
    let script = r#""$0" emit reward 0.5 > /dev/null && "$0" emit message hi > /dev/null"#;
    let mut worker = tracewire(bench.home());
    worker.args(["worker", "--until-empty", "--server", &serve.url("server"), "--", "sh", "-c", script, TRACEWIRE]);
    let output = worker.output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    let page = get(server, &format!("/v1/agl/spans?rollout_id={rollout}&sort_by=sequence_id")).json();
    let names: Vec<_> = page["items"].as_array().unwrap().iter().map(|span| &span["name"]).collect();
    assert_eq!(names, ["agentlightning.annotation", "agentlightning.message"]);
    assert_eq!(page["items"][0]["attributes"]["agentlightning.reward.0.value"], 0.5);
}

#[test]
fn what_is_missing_is_named_with_its_fix() {
    let bench = Bench::new();
    let store = bench.store();
    let store = ["--store", store.to_str().unwrap()];
    for (arguments, words) in [
        (&["message", "hi"][..], "within `tracewire run` or `tracewire worker`, or name one with --server or --store"),
        (&["message", "hi", store[0], store[1]], "or name one with --rollout"),
        (&["reward", "NaN"], "a reward must be a finite number"),
        (&["reward"], "required"),
        (&["object", "{", "--rollout", "r", store[0], store[1]], "is not valid JSON"),
        (&["annotation", "[1]", "--rollout", "r", store[0], store[1]], "attributes are a JSON object"),
        (&["message", "hi", "--attributes", "{\"a\": null}"], "null is no attribute"),
        (&["message", "hi", "--about", "span_id"], "write KEY=VALUE"),
        (
            &["message", "hi", "--rollout", "r", "--server", "http://127.0.0.1:1", store[0], store[1]],
            "cannot be used with",
        ),
    ] {
        let mut command = tracewire(bench.home());
        command.arg("emit").args(arguments);
        for name in ["TRACEWIRE_ROLLOUT_ID", "TRACEWIRE_ATTEMPT_ID", "TRACEWIRE_STORE", "AGL_EVENT_URL"] {
            command.env_remove(name);
        }
        let output = command.output().unwrap();
        assert!(output.status.code() == Some(2) && text(&output).contains(words), "{arguments:?}: {}", text(&output));
    }
    let mut run = tracewire(bench.home());
    run.args(["run", "--store", "memory:", "--", TRACEWIRE, "emit", "message", "hi"]);
    let output = run.output().unwrap();
    assert!(text(&output).contains("start it with --store FILE"), "{}", text(&output));
}

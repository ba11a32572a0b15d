//! Sampling: which spans are stored, by trace, host, mode and what a rollout did in the end, and what is kept always; and what is said
//! about the others.

use crate::support::client::{ask, get, post};
use crate::support::{Bench, Running, eventually, say, text, tracewire};
use serde_json::{Value, json};

/// A server with settings.
fn serve(bench: &Bench, settings: &str) -> Running {
    let config = bench.home().join("sampling.toml");
    std::fs::write(&config, settings).unwrap();
    bench.serve(&["--config", config.to_str().unwrap()])
}

/// Requests a path of the mock through the proxy, as the mock answers it.
fn fetch(bench: &Bench, serve: &Running, fields: &str, path: &str) -> String {
    let request = format!("GET {}{path} HTTP/1.1\r\nHost: x\r\n{fields}Connection: close\r\n\r\n", bench.http());
    say(serve.address("proxy"), request.as_bytes())
}

/// The trace ids of stored spans, and the sums of `tracewire.not_stored.*` of the others.
fn stored(bench: &Bench, rollout: &str) -> (Vec<String>, [i64; 3]) {
    let (counts, spans): (Vec<Value>, Vec<Value>) =
        bench.spans(rollout).into_iter().partition(|span| span["name"] == "spans_not_stored");
    let sum = |name: &str| {
        let name = format!("tracewire.not_stored.{name}");
        counts.iter().map(|span| span["attributes"][&name].as_i64().unwrap()).sum()
    };
    let traces = spans.iter().map(|span| span["trace_id"].as_str().unwrap().to_owned()).collect();
    (traces, [sum("spans"), sum("errors"), sum("llm_calls")])
}

/// Waits until as many spans were left out.
fn left_out(bench: &Bench, rollout: &str, count: i64) -> (Vec<String>, [i64; 3]) {
    eventually(|| Some(stored(bench, rollout)).filter(|(_, [spans, ..])| *spans == count))
}

fn metrics(serve: &Running) -> String {
    get(serve.address("server"), "/metrics").text()
}

fn not_stored(rule: &str, count: u64) -> String {
    format!("tracewire_spans_not_stored_total{{reason=\"sampling\",rule=\"{rule}\"}} {count}\n")
}

/// A registered rollout with a mode, and its attempt.
fn registered(serve: &Running, mode: &str) -> (String, String) {
    let started = post(serve.address("server"), "/v1/agl/rollouts", &json!({ "input": {}, "mode": mode })).json();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    (text(&started["rollout_id"]), text(&started["attempt"]["attempt_id"]))
}

/// An LLM call through the proxy, as the mock answers it.
fn call(bench: &Bench, serve: &Running, fields: &str) {
    let body = json!({ "model": "m", "messages": [{ "role": "user", "content": "hi" }] }).to_string();
    let request = format!(
        "POST {}/v1/chat/completions HTTP/1.1\r\nHost: x\r\n{fields}Content-Type: application/json\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{body}",
        bench.http(),
        body.len()
    );
    assert!(say(serve.address("proxy"), request.as_bytes()).starts_with("HTTP/1.1 200"));
}

/// Rewards an attempt of a registered rollout.
fn reward(serve: &Running, rollout: &str, attempt: &str) {
    let reward = json!({ "rollout_id": rollout, "attempt_id": attempt, "sequence_id": 99, "trace_id": "t", "span_id": "reward",
        "parent_id": null, "name": "agentlightning.annotation", "status": { "status_code": "OK" },
        "attributes": { "agentlightning.reward.0.value": 1.0 }, "events": [], "links": [], "start_time": null,
        "end_time": null, "context": null, "parent": null, "resource": { "attributes": {}, "schema_url": "" } });
    assert_eq!(post(serve.address("server"), "/v1/agl/spans", &reward).status, 201);
}

/// Ends the only attempt of a registered rollout, and so the rollout.
fn end(serve: &Running, rollout: &str, attempt: &str) {
    let path = format!("/v1/agl/rollouts/{rollout}/attempts/{attempt}");
    assert_eq!(ask(serve.address("server"), "POST", &path, &[], r#"{"status": "succeeded"}"#).status, 200);
}

/// The detail of a reason of a verdict.
fn detail(serve: &Running, rollout: &str, reason: &str) -> String {
    let view = get(serve.address("server"), &format!("/v1/tracewire/rollouts/{rollout}/verdict")).json();
    let reasons = view["reasons"].as_array().unwrap();
    let found = reasons.iter().find(|one| one["name"] == reason).unwrap_or_else(|| panic!("{view:#}"));
    found["detail"].as_str().unwrap().to_owned()
}

/// A span of another tracer over OTLP, that took a minute.
fn send_slow(serve: &Running, rollout: &str, id: &str, attributes: &Value) {
    let named = json!([{ "key": "agentlightning.rollout_id", "value": { "stringValue": rollout } }]);
    let span = json!({ "traceId": format!("{id:0>32}"), "spanId": format!("{id:0>16}"), "name": "step", "attributes": attributes,
        "startTimeUnixNano": "1700000000000000000", "endTimeUnixNano": "1700000060000000000" });
    let body =
        json!({ "resourceSpans": [{ "resource": { "attributes": named }, "scopeSpans": [{ "spans": [span] }] }] });
    assert_eq!(post(serve.address("server"), "/v1/traces", &body).status, 200);
}

#[test]
fn the_trace_id_decides_whatever_brings_the_span() {
    let bench = Bench::new();
    let serve = serve(&bench, "[sampling]\nratio = 0.5\n");
    let traces: Vec<String> = (0..16_u64).map(|number| format!("{:018x}{:x}{:013x}", 1, number, 7)).collect();
    for (number, trace) in traces.iter().enumerate() {
        let fields = format!("x-rollout-id: ro-half\r\ntraceparent: 00-{trace}-00f067aa0ba902b7-01\r\n");
        assert!(fetch(&bench, &serve, &fields, "/echo").starts_with("HTTP/1.1 200"));
        let named = json!([{ "key": "agentlightning.rollout_id", "value": { "stringValue": "ro-half" } }]);
        let span = json!({ "traceId": trace, "spanId": format!("{:016x}", number + 1), "name": "step" });
        let body =
            json!({ "resourceSpans": [{ "resource": { "attributes": named }, "scopeSpans": [{ "spans": [span] }] }] });
        assert_eq!(post(serve.address("server"), "/v1/traces", &body).status, 200);
    }
    // A random number in the agent's `tracestate` decides for its exchanges too.
    let state = "tracestate: a=b, ot=th:0;rv:ffffffffffffff\r\n";
    let fields = format!("x-rollout-id: ro-half\r\ntraceparent: 00-{}-00f067aa0ba902b7-01\r\n{state}", traces[0]);
    fetch(&bench, &serve, &fields, "/echo");
    let (mut kept, counts) = eventually(|| Some(left_out(&bench, "ro-half", 16)).filter(|(kept, _)| kept.len() == 17));
    kept.sort();
    assert_eq!(kept.remove(0), traces[0]);
    // Of each trace in the upper half, the exchange and the step.
    let expected: Vec<String> = traces[8..].iter().flat_map(|trace| [trace.clone(), trace.clone()]).collect();
    assert_eq!((kept, counts), (expected, [16, 0, 0]));
    assert!(metrics(&serve).contains(&not_stored("default", 16)), "{}", metrics(&serve));
    // A sampled-out span is no lost span.
    assert_eq!(serve.stop(), Some(0));
}

#[test]
fn the_first_rule_that_matches_decides_and_errors_are_kept() {
    let bench = Bench::new();
    let rules = "[sampling]\nratio = 0.0\nrules = [\n  { name = \"other\", hosts = [\"other.invalid\"], ratio = 1.0 },\n  \
                 { name = \"mock\", hosts = [\"127.0.0.1\"], ratio = 0.0 },\n]\n";
    let serve = serve(&bench, rules);
    for _ in 0..3 {
        assert!(fetch(&bench, &serve, "x-rollout-id: ro-rules\r\n", "/echo").starts_with("HTTP/1.1 200"));
    }
    let failed = fetch(&bench, &serve, "x-rollout-id: ro-rules\r\n", "/status/500");
    assert!(failed.starts_with("HTTP/1.1 5") || failed.starts_with("HTTP/1.1 4"), "{failed}");
    let (kept, counts) = left_out(&bench, "ro-rules", 3);
    assert_eq!((kept.len(), counts), (1, [3, 0, 0]));
    assert!(metrics(&serve).contains(&not_stored("mock", 3)), "{}", metrics(&serve));
    // Registered rollouts are kept whole.
    let (rollout, attempt) = registered(&serve, "train");
    fetch(&bench, &serve, &format!("x-rollout-id: {rollout}\r\nx-attempt-id: {attempt}\r\n"), "/echo");
    assert_eq!(bench.exchanges(&rollout, 1).len(), 1);
}

#[test]
fn rollouts_are_sampled_by_mode_and_their_verdict_says_so() {
    let bench = Bench::new();
    let settings = "[sampling]\nalways = []\nrules = [{ name = \"validation\", modes = [\"val\"], ratio = 0.0 }]\n";
    let serve = serve(&bench, settings);
    let server = serve.address("server");
    for (mode, is_kept) in [("train", true), ("val", false)] {
        let (rollout, attempt) = registered(&serve, mode);
        call(&bench, &serve, &format!("x-rollout-id: {rollout}\r\nx-attempt-id: {attempt}\r\n"));
        reward(&serve, &rollout, &attempt);
        if is_kept {
            assert_eq!(bench.exchanges(&rollout, 1).len(), 1);
            continue;
        }
        let (kept, counts) = left_out(&bench, &rollout, 1);
        assert_eq!((kept, counts), (vec!["t".to_owned()], [1, 0, 1]));
        assert!(detail(&serve, &rollout, "llm_calls_not_stored").ends_with("validation"));
        let listed = get(server, &format!("/v1/tracewire/rollouts?q={rollout}")).json();
        let totals = &listed["rollouts"][0]["totals"];
        assert_eq!(totals["not_stored"], json!({ "spans": 1, "errors": 0, "llm_calls": 1 }), "{listed:#}");
        assert!(totals["output_tokens"].as_i64().unwrap() > 0, "{listed:#}");
        end(&serve, &rollout, &attempt);
    }
}

#[test]
fn rollouts_are_sampled_by_what_they_did_in_the_end() {
    let bench = Bench::new();
    let rules = "[sampling.tail]\ndelay_ms = 1500\nratio = 0.0\nrules = [\n  { query = \"reward>0\", ratio = 1.0 },\n  \
                 { name = \"slow\", query = \"duration>30s\", ratio = 1.0 },\n]\n";
    let serve = serve(&bench, rules);
    let field = |rollout: &str| format!("x-rollout-id: {rollout}\r\n");
    fetch(&bench, &serve, &field("ro-error"), "/status/500");
    send_slow(&serve, "ro-slow", "1", &json!([]));
    let given = json!([{ "key": "agentlightning.reward.0.value", "value": { "doubleValue": 1.0 } }]);
    send_slow(&serve, "ro-rewarded", "2", &given);
    fetch(&bench, &serve, &field("ro-rewarded"), "/echo");
    let (rollout, attempt) = registered(&serve, "train");
    fetch(&bench, &serve, &format!("x-rollout-id: {rollout}\r\nx-attempt-id: {attempt}\r\n"), "/echo");
    end(&serve, &rollout, &attempt);
    // The last one to be decided on.
    call(&bench, &serve, &field("ro-plain"));
    fetch(&bench, &serve, &field("ro-plain"), "/echo");
    eventually(|| Some(()).filter(|()| stored(&bench, "ro-plain").0.len() == 2));
    let (kept, counts) = eventually(|| Some(stored(&bench, "ro-plain")).filter(|(kept, _)| kept.is_empty()));
    assert_eq!((kept.len(), counts), (0, [2, 0, 1]));
    for (rollout, spans) in [("ro-error", 1), ("ro-slow", 1), ("ro-rewarded", 2), (rollout.as_str(), 1)] {
        assert_eq!(stored(&bench, rollout), (stored(&bench, rollout).0, [0; 3]), "{rollout}");
        assert_eq!(stored(&bench, rollout).0.len(), spans, "{rollout}");
    }
    let counted = metrics(&serve);
    let line = "tracewire_spans_not_stored_total{reason=\"tail_sampling\",rule=\"default\"} 2\n";
    assert!(counted.contains(line), "{counted}");
    assert!(detail(&serve, "ro-plain", "llm_calls_not_stored").ends_with("default"));
    let listed = get(serve.address("server"), "/v1/tracewire/rollouts?q=ro-plain").json();
    let totals = &listed["rollouts"][0]["totals"];
    assert_eq!(totals["not_stored"], json!({ "spans": 2, "errors": 0, "llm_calls": 1 }), "{listed:#}");
    assert!(totals["output_tokens"].as_i64().unwrap() > 0, "{listed:#}");
    assert_eq!(serve.stop(), Some(0));
}

#[test]
fn what_was_not_decided_before_a_stop_is_decided_after_the_next_start() {
    let bench = Bench::new();
    let settings = |delay: u64| {
        format!(
            "[sampling]\nalways = []\n[sampling.tail]\ndelay_ms = {delay}\nrules = [{{ name = \"unsound\", sound = false, ratio = 0 }}]\n"
        )
    };
    // Nothing is due in this run.
    let first = serve(&bench, &settings(3_600_000));
    let (rollout, attempt) = registered(&first, "train");
    let fields = format!("x-rollout-id: {rollout}\r\nx-attempt-id: {attempt}\r\n");
    fetch(&bench, &first, &fields, "/echo");
    reward(&first, &rollout, &attempt);
    end(&first, &rollout, &attempt);
    let (running, running_attempt) = registered(&first, "train");
    fetch(&bench, &first, &format!("x-rollout-id: {running}\r\nx-attempt-id: {running_attempt}\r\n"), "/echo");
    assert_eq!(first.stop(), Some(0));
    assert_eq!(stored(&bench, &rollout).1, [0; 3]);
    let second = serve(&bench, &settings(0));
    // Without calls, a rollout is not sound. The reward stays.
    let (kept, counts) = left_out(&bench, &rollout, 1);
    assert_eq!((kept, counts), (vec!["t".to_owned()], [1, 0, 0]));
    assert!(detail(&second, &rollout, "spans_not_stored").ends_with("unsound"));
    // A rollout in progress is decided on after its end.
    assert_eq!(stored(&bench, &running).0.len(), 1);
    end(&second, &running, &running_attempt);
    assert_eq!(left_out(&bench, &running, 1), (Vec::new(), [1, 0, 0]));
    assert_eq!(second.stop(), Some(0));
}

#[test]
fn rules_that_keep_nothing_are_said_and_impossible_ones_refused() {
    let bench = Bench::new();
    let config = bench.home().join("rules.toml");
    let run = |settings: &str| {
        std::fs::write(&config, settings).unwrap();
        let mut run = tracewire(bench.home());
        run.env("TRACEWIRE_LOG", "warn").args(["run", "--config", config.to_str().unwrap(), "--", "true"]);
        let output = run.output().unwrap();
        (output.status.success(), text(&output))
    };
    let (is_started, said) = run("[sampling]\nrules = [{ name = \"quiet\", hosts = [\"a.example\"], ratio = 0.0 }]\n");
    assert!(is_started && said.contains("stores nothing") && said.contains("quiet"), "{said}");
    let (is_started, said) =
        run("[sampling.tail]\nrules = [{ name = \"short\", query = \"duration<1s\", ratio = 0.0 }]\n");
    assert!(is_started && said.contains("keeps no rollout") && said.contains("short"), "{said}");
    for (settings, words) in [
        ("ratio = 1.5", "`1.5` is not a share of traces; use a number from 0.0 (none) to 1.0 (all)"),
        ("rules = [{ ratio = 0.5 }, { hosts = [\"a\"], ratio = 1.0 }]", "rule 2 is never used"),
        ("rules = [{ modes = [\"val\"], ratio = 0.5 }]", "set `always = [\"errors\"]`"),
        ("rules = [{ hosts = [\"a b\"], ratio = 0.5 }]", "is not a pattern of hosts"),
        ("rules = [{ hosts = [\"a\"], ratio = 0.5, mode = \"val\" }]", "did you mean `modes`?"),
        (
            "tail = { rules = [{ query = \"colour:red\", ratio = 0.5 }] }",
            "`colour:red` of rule 1 of `tail` can't be used",
        ),
        (
            "tail = { rules = [{ ratio = 0.5 }, { sound = false, ratio = 1.0 }] }",
            "rule 1 of `tail` matches every rollout",
        ),
        ("tail = { rules = [{ query = \"mode:val\", ratio = 0.5 }] }", "set `always = [\"errors\"]`"),
    ] {
        let (is_started, said) = run(&format!("[sampling]\n{settings}\n"));
        assert!(!is_started && said.contains(words), "{settings}: {said}");
    }
}

/// A kill or an error between the counts of spans and the removal of these spans counts none of them twice.
#[test]
fn spans_that_could_not_be_removed_are_counted_once() {
    let bench = Bench::new();
    // A trigger in the file rejects the first removal, in place of a kill.
    let prepared = bench.serve(&[]);
    assert_eq!(prepared.stop(), Some(0));
    let file = rusqlite::Connection::open(bench.store()).unwrap();
    file.execute_batch("CREATE TRIGGER kept BEFORE DELETE ON span BEGIN SELECT RAISE(ABORT, 'not now'); END").unwrap();
    let (config, log) = (bench.home().join("sampling.toml"), bench.home().join("log"));
    std::fs::write(&config, "[sampling.tail]\ndelay_ms = 200\nratio = 0.0\n").unwrap();
    let mut serve = tracewire(bench.home());
    serve.args(["serve", "--json", "--proxy", "127.0.0.1:0", "--server", "127.0.0.1:0", "--config"]).arg(&config);
    serve.env("TRACEWIRE_LOG", "warn").stderr(std::fs::File::create(&log).unwrap());
    let serve = Running::start(serve);
    for path in ["/echo", "/echo?again"] {
        fetch(&bench, &serve, "x-rollout-id: ro-late\r\n", path);
    }
    let is_rejected = || std::fs::read_to_string(&log).unwrap().contains("tail sampling leaves out can't be");
    eventually(|| is_rejected().then_some(()));
    // A span that comes late.
    fetch(&bench, &serve, "x-rollout-id: ro-late\r\n", "/echo?late");
    eventually(|| Some(()).filter(|()| stored(&bench, "ro-late").0.len() == 3));
    file.execute_batch("DROP TRIGGER kept").unwrap();
    let (_, counts) = eventually(|| Some(stored(&bench, "ro-late")).filter(|(kept, _)| kept.is_empty()));
    assert_eq!(counts, [3, 0, 0]);
    eventually(|| metrics(&serve).contains("tail_sampling\",rule=\"default\"} 3\n").then_some(()));
    assert_eq!(serve.stop(), Some(0));
}

/// As many spans as before are others.
#[test]
fn totals_follow_spans_that_were_replaced() {
    let bench = Bench::new();
    let serve = serve(&bench, "[sampling.tail]\ndelay_ms = 1500\nratio = 0.0\n");
    let totals = || {
        let listed = get(serve.address("server"), "/v1/tracewire/rollouts?q=ro-one").json();
        listed["rollouts"][0]["totals"].clone()
    };
    fetch(&bench, &serve, "x-rollout-id: ro-one\r\n", "/echo");
    let before = eventually(|| Some(totals()).filter(|totals| totals["exchanges"] == 1));
    assert_eq!(before.get("not_stored"), None, "{before:#}");
    left_out(&bench, "ro-one", 1);
    let after = totals();
    assert_eq!(after["exchanges"], 0, "{after:#}");
    assert_eq!(after["not_stored"], json!({ "spans": 1, "errors": 0, "llm_calls": 0 }), "{after:#}");
    assert_eq!(serve.stop(), Some(0));
}

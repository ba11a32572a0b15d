//! Training data: trajectories, exports and the queue, through the command line and the API.

use crate::support::client::{ask, get, post};
use crate::support::model_server::{npy, read_request, respond};
use crate::support::{Bench, Running, TRACEWIRE, endpoint, eventually, python, root, text, tracewire};
use serde_json::{Value, json};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Output};

/// The ids of a text: one for each byte.
fn ids(text: &str) -> Vec<u32> {
    text.bytes().map(u32::from).collect()
}

/// What the engine's template makes of messages. The answer `ok` ends with its stop token, as in the next prompt.
fn prompt(messages: &Value) -> Vec<u32> {
    let said =
        |message: &Value| format!("<{}>{}", message["role"].as_str().unwrap(), message["content"].as_str().unwrap());
    let all: Vec<u32> =
        messages.as_array().unwrap().iter().flat_map(|one| [ids(&said(one)), vec![1]].concat()).collect();
    [all, ids("<assistant>")].concat()
}

/// vLLM, which always answers `ok`.
fn engine() -> SocketAddr {
    endpoint(move |mut stream: TcpStream| {
        while let Some(body) = read_request(&mut stream) {
            let Some(body) = body else {
                respond(
                    &mut stream,
                    "application/json",
                    &json!({"data": [{"id": "m", "owned_by": "vllm"}]}).to_string(),
                );
                continue;
            };
            let request: Value = serde_json::from_slice(&body).unwrap();
            let (prompt, sampled) = (prompt(&request["messages"]), [ids("ok"), vec![1]].concat());
            let logprobs: Vec<Value> =
                sampled.iter().map(|id| json!({"token": "", "logprob": -f64::from(*id) / 64.0})).collect();
            let mut message = json!({"role": "assistant", "content": "ok"});
            if let Some(tool) = request.pointer("/tools/0/function/name") {
                let function = json!({"name": tool, "arguments": "{\"path\": \"a\"}"});
                message["tool_calls"] = json!([{"id": "t-1", "type": "function", "function": function}]);
            }
            let experts: Vec<u8> =
                (0..prompt.len() + 2).flat_map(|at| [at % 8, at % 5, 7, 0]).map(|one| one as u8).collect();
            let answer = json!({
                "id": format!("c-{}", prompt.len()), "object": "chat.completion", "model": "m",
                "prompt_token_ids": prompt,
                "choices": [{
                    "index": 0, "finish_reason": "stop", "message": message,
                    "token_ids": sampled, "logprobs": {"content": logprobs},
                    "sampling_mask": [[sampled[0], 5], [sampled[1]], [1, 2, 3]], "routed_experts": npy(&experts, [2, 2]),
                }],
                "usage": {"prompt_tokens": prompt.len(), "completion_tokens": sampled.len()},
            });
            respond(&mut stream, "application/json", &answer.to_string());
        }
    })
}

/// A finished rollout of task `t-1` with the reward 0.5. Returns its id.
pub(crate) fn rollout(serve: &Running) -> String {
    rollout_with(serve, "0.5")
}

/// A finished rollout: two calls of one conversation, another conversation, and a reward. Returns its id.
fn rollout_with(serve: &Running, reward: &str) -> String {
    let server = serve.address("server");
    let started = post(server, "/v1/agl/rollouts", &json!({"input": {"task_id": "t-1"}})).json();
    let (rollout, attempt) =
        (started["rollout_id"].as_str().unwrap(), started["attempt"]["attempt_id"].as_str().unwrap());
    let first = json!({"role": "user", "content": "go"});
    let longer = json!([first, {"role": "assistant", "content": "ok"}, {"role": "user", "content": "more"}]);
    let tools = json!([{"type": "function", "function": {"name": "read", "parameters": {"type": "object"}}}]);
    let other = json!([{"role": "system", "content": "another"}, {"role": "user", "content": "other"}]);
    for (messages, tools) in [(json!([first]), Value::Null), (longer, Value::Null), (other, tools)] {
        let path = format!("/rollout/{rollout}/attempt/{attempt}/v1/chat/completions");
        let reply = ask(
            server,
            "POST",
            &path,
            &[],
            &json!({"model": "m", "messages": messages, "tools": tools, "temperature": 1.0}).to_string(),
        );
        assert_eq!(reply.status, 200, "{}", reply.text());
    }
    eventually(|| {
        let view = get(server, &format!("/v1/tracewire/rollouts/{rollout}/trajectory")).json();
        (view["calls"].as_array()?.len() == 3).then_some(())
    });
    let output = tracewire_at(serve, &["reward", rollout, reward]);
    assert!(output.status.success(), "{}", text(&output));
    let path = format!("/v1/agl/rollouts/{rollout}/attempts/{attempt}");
    assert_eq!(post(server, &path, &json!({"status": "succeeded"})).status, 200);
    rollout.to_owned()
}

fn tracewire_at(serve: &Running, arguments: &[&str]) -> Output {
    let home = tempfile::tempdir().unwrap();
    tracewire(home.path()).args(arguments).args(["--server", &serve.url("server")]).output().unwrap()
}

pub(crate) fn serve(bench: &Bench) -> Running {
    let engine = engine();
    bench.gateway_without_backends(&format!(
        "[capture]\nrouted_experts = true\nsampling_masks = true\n[gateway]\nbackends = [{{ model = \"\", url = \"http://{engine}/v1\", engine = \"vllm\" }}]\n"
    ))
}

#[test]
fn calls_become_rows_of_training_data() {
    let bench = Bench::new();
    let serve = serve(&bench);
    let rollout = rollout(&serve);
    let view = |name: &str| get(serve.address("server"), &format!("/v1/tracewire/rollouts/{rollout}/{name}")).json();
    assert_eq!(view("verdict"), json!({"sound": true, "reasons": []}));
    assert_eq!(view("reward")["reward"], 0.5);
    let trajectory = view("trajectory");
    let calls = trajectory["calls"].as_array().unwrap();
    assert_eq!([0, 1, 2].map(|at| calls[at]["parent"].clone()), [Value::Null, json!(0), Value::Null]);
    assert_eq!(calls[2]["break"]["cause"], "new_conversation");
    let rows = trajectory["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 2);
    let row = &rows[0];
    let expected = prompt(&json!([
        {"role": "user", "content": "go"}, {"role": "assistant", "content": "ok"}, {"role": "user", "content": "more"},
    ]));
    assert_eq!(row["token_ids"], json!([expected, ids("ok"), vec![1]].concat()));
    let sampled: Vec<u64> = row["mask"].as_array().unwrap().iter().map(|one| one.as_u64().unwrap()).collect();
    assert_eq!(sampled.iter().sum::<u64>(), 6);
    let logprobs: f64 = row["logprobs"].as_array().unwrap().iter().map(|one| one.as_f64().unwrap()).sum();
    assert!((logprobs + 2.0 * f64::from(ids("ok").iter().sum::<u32>() + 1) / 64.0).abs() < 1e-6);
    assert_eq!((&row["group_id"], &row["reward"], &row["n_branches"]), (&json!("t-1"), &json!(0.5), &json!(2)));
    let weights: f64 = rows.iter().map(|row| row["weight"].as_f64().unwrap()).sum();
    assert!((weights - 1.0).abs() < 1e-12);
    assert_eq!(view("triplets").as_array().unwrap().len(), 3);
    let messages = view("messages");
    assert_eq!(messages[0]["messages"].as_array().unwrap().len(), 4);
    assert_eq!(get(serve.address("server"), "/v1/tracewire/rollouts/ro-none/verdict").status, 404);
}

#[test]
fn exports_are_whole_files_with_a_proof() {
    let bench = Bench::new();
    let serve = serve(&bench);
    let rollout = rollout(&serve);
    let run = |arguments: &[&str]| tracewire(bench.home()).args(arguments).output().unwrap();
    let shapes = [
        ("trajectories", 2),
        ("prime-rl", 2),
        ("slime", 2),
        ("verl", 2),
        ("trl", 2),
        ("skyrl", 1),
        ("nemo-gym", 3),
        ("areal", 2),
        ("tinker", 2),
        ("rllm", 1),
        ("agent-lightning-0.3", 3),
        ("agent-lightning-1.0", 3),
        ("messages", 2),
    ];
    for (shape, count) in shapes {
        let file = bench.home().join(format!("{shape}.jsonl"));
        let output = run(&["export", "--all", "--format", shape, "-o", file.to_str().unwrap()]);
        assert!(output.status.success(), "{}", text(&output));
        let lines = std::fs::read_to_string(&file).unwrap();
        assert_eq!(lines.lines().count(), count, "{shape}");
        let proof: Value =
            serde_json::from_slice(&std::fs::read(bench.home().join(format!("{shape}.jsonl.proof.json"))).unwrap())
                .unwrap();
        let expected =
            json!({"rollouts": 1, "rows": 2, "calls": 3, "sampled_tokens": 9, "trained_tokens": 9, "missing": {}});
        assert_eq!(proof, expected);
        let path = format!("/v1/tracewire/export?format={shape}&rollout={rollout}");
        assert_eq!(get(serve.address("server"), &path).text(), lines, "{shape}");
    }
    let slime: Value = serde_json::from_slice(
        run(&["export", &rollout, "--format", "slime"]).stdout.split(|b| *b == b'\n').next().unwrap(),
    )
    .unwrap();
    assert_eq!(slime["loss_mask"].as_array().unwrap().len(), slime["response_length"]);
    assert_eq!((&slime["remove_sample"], &slime["reward"]), (&json!(false), &json!(0.5)));
    for (arguments, words) in [
        (&["export", "ro-none", "--format", "slime"][..], "has no rollout"),
        (&["export", "--status", "failed", "--format", "slime"], "has no such rollouts"),
        (&["export", "--all", "--format", "slime", "-o", "/nowhere/x"], "cannot write"),
        (&["export", "--all", "--format", "wrong"], "possible values"),
    ] {
        let output = run(arguments);
        assert!(!output.status.success() && text(&output).contains(words), "{}", text(&output));
    }
    assert_eq!(get(serve.address("server"), "/v1/tracewire/export?format=wrong").status, 422);
    for (format, count) in [("trajectory", 2), ("triplets", 3), ("messages", 2)] {
        let shown = run(&["trace", "show", &rollout, "--format", format]);
        assert_eq!(String::from_utf8(shown.stdout).unwrap().lines().count(), count, "{format}");
    }
    let outline = text(&run(&["trajectory", &rollout]));
    assert!(outline.contains("9 of 9 sampled tokens trained") && outline.contains("verdict: sound"), "{outline}");
}

#[test]
fn an_export_without_a_reader_ends_quietly_and_one_without_space_leaves_nothing() {
    let bench = Bench::new();
    let serve = serve(&bench);
    rollout(&serve);
    for file_type in ["jsonl", "parquet"] {
        let arguments = ["export", "--all", "--format", "trajectories", "--file-type", file_type];
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = tracewire(bench.home()).args(arguments).stdout(writer).output().unwrap();
        assert!(output.status.code() == Some(0) && output.stderr.is_empty(), "{}", text(&output));
        let mut limited = Command::new("sh");
        limited.args(["-c", "trap '' XFSZ; ulimit -f 1; exec \"$@\"", "sh", TRACEWIRE]).args(arguments);
        let folder = tempfile::tempdir().unwrap();
        let output =
            limited.arg("-o").arg(folder.path().join("x")).env("TRACEWIRE_HOME", bench.home()).output().unwrap();
        let said = text(&output);
        assert!(
            output.status.code() == Some(2) && said.contains("cannot write") && said.contains("too large"),
            "{said}"
        );
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}

#[test]
fn exports_take_the_query_of_lists() {
    let bench = Bench::new();
    let serve = serve(&bench);
    let [worse, better] = ["0.25", "1"].map(|reward| rollout_with(&serve, reward));
    let exported =
        |query: &str| tracewire(bench.home()).args(["export", "--format", "slime", "--query", query]).output().unwrap();
    let of = |lines: &str| -> Vec<String> {
        let id = |line: &str| {
            serde_json::from_str::<Value>(line).unwrap()["metadata"]["rollout_id"].as_str().unwrap().to_owned()
        };
        let mut ids: Vec<String> = lines.lines().map(id).collect();
        ids.dedup();
        ids
    };
    for (query, expected) in
        [("reward>=1", vec![&better]), ("calls>0", vec![&worse, &better]), ("reward<0.5", vec![&worse])]
    {
        let lines = String::from_utf8(exported(query).stdout).unwrap();
        assert_eq!(of(&lines).iter().collect::<Vec<_>>(), expected, "{query}");
        let path = format!("/v1/tracewire/export?format=slime&q={}", query.replace('>', "%3E").replace('<', "%3C"));
        assert_eq!(get(serve.address("server"), &path).text(), lines, "{query}");
    }
    for (query, words) in [("reward>9", "has no such rollouts"), ("modle:x", "^^^^^")] {
        let output = exported(query);
        assert!(output.status.code() == Some(2) && text(&output).contains(words), "{}", text(&output));
    }
    for query in ["q=modle:x", "q=calls%3E0&since=1"] {
        assert_eq!(get(serve.address("server"), &format!("/v1/tracewire/export?{query}")).status, 422, "{query}");
    }
}

#[test]
fn rollouts_of_a_group_become_preference_pairs() {
    let bench = Bench::new();
    let serve = serve(&bench);
    let [worse, better, same] = ["0.25", "1", "0.25"].map(|reward| rollout_with(&serve, reward));
    let output = tracewire(bench.home()).args(["export", "--all", "--format", "preferences"]).output().unwrap();
    let lines = String::from_utf8(output.stdout.clone()).unwrap();
    assert_eq!(lines.lines().count(), 1, "{}", text(&output));
    let pair: Value = serde_json::from_str(&lines).unwrap();
    assert_eq!(pair["prompt"], json!([{"role": "user", "content": "go"}]));
    assert_eq!((&pair["score_chosen"], &pair["score_rejected"]), (&json!(1.0), &json!(0.25)));
    assert_eq!(pair["metadata"]["chosen"], json!({"rollout_id": better, "sound": true, "reasons": []}));
    let rejected = pair["metadata"]["rejected"]["rollout_id"].as_str().unwrap();
    assert!([worse.as_str(), same.as_str()].contains(&rejected));
    assert_eq!(pair["chosen"].as_array().unwrap().len(), 3);
    assert_eq!(get(serve.address("server"), "/v1/tracewire/export?format=preferences").text(), lines);
}

#[test]
fn pyarrow_and_datasets_read_the_parquet() {
    let bench = Bench::new();
    let serve = serve(&bench);
    rollout(&serve);
    let run = |arguments: &[&str]| tracewire(bench.home()).args(arguments).output().unwrap();
    for shape in ["trajectories", "messages"] {
        for suffix in ["jsonl", "parquet"] {
            let file = bench.home().join(format!("{shape}.{suffix}"));
            let output = run(&["export", "--all", "--format", shape, "-o", file.to_str().unwrap()]);
            assert!(output.status.success(), "{}", text(&output));
        }
        let file = std::fs::read(bench.home().join(format!("{shape}.parquet"))).unwrap();
        let path = format!("/v1/tracewire/export?format={shape}&file_type=parquet");
        let reply = get(serve.address("server"), &path);
        assert_eq!(reply.header("content-type"), Some("application/vnd.apache.parquet"));
        assert_eq!(reply.body, file, "{shape}");
        let printed = run(&["export", "--all", "--format", shape, "--file-type", "parquet"]);
        assert_eq!(printed.stdout, file, "{shape}");
    }
    let script = root().join("tests/clients/exports/read_parquet.py");
    let mut reader = Command::new(python());
    reader.arg(script).arg(bench.home()).env("HF_HOME", bench.home()).env("HF_HUB_OFFLINE", "1");
    let output = reader.output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    let output = run(&["export", "--all", "--format", "slime", "-o", "x.parquet"]);
    assert!(text(&output).contains("as Parquet there are: trajectories, messages"), "{}", text(&output));
    for query in ["format=slime&file_type=parquet", "file_type=arrow"] {
        assert_eq!(get(serve.address("server"), &format!("/v1/tracewire/export?{query}")).status, 422, "{query}");
    }
}

#[test]
fn a_policy_learns_from_the_rows_that_its_agents_left() {
    let (bench, steps) = (Bench::new(), 50);
    let mut train = Command::new(python());
    train.arg(root().join("examples/train/train.py")).args(["--tracewire", TRACEWIRE, "--steps", &steps.to_string()]);
    let output = train.env("TRACEWIRE_HOME", bench.home()).output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    let lines = String::from_utf8(output.stdout).unwrap();
    let reports: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(reports.len(), steps);
    for (step, report) in reports.iter().enumerate() {
        assert_eq!((&report["ratio_min"], &report["ratio_max"]), (&json!(1.0), &json!(1.0)), "{report}");
        // Every call was sampled with the weights of its step.
        assert_eq!(report["versions"], json!([step]));
    }
    let mean = |reports: &[Value]| {
        reports.iter().map(|report| report["reward"].as_f64().unwrap()).sum::<f64>() / reports.len() as f64
    };
    let (first, last) = (mean(&reports[..5]), mean(&reports[steps - 5..]));
    assert!(first < 0.5 && last > 0.7, "{first} {last}");
}

#[test]
fn tasks_are_enqueued_and_waited_for() {
    let bench = Bench::new();
    let serve = serve(&bench);
    let tasks = bench.home().join("tasks.jsonl");
    std::fs::write(&tasks, "{\"task_id\": 1}\n\n{\"task_id\": 2}\n").unwrap();
    let output = tracewire_at(&serve, &["enqueue", tasks.to_str().unwrap(), "--group-size", "2", "--mode", "train"]);
    let rollouts: Vec<String> = String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect();
    assert_eq!(rollouts.len(), 4);
    let server = serve.address("server");
    for (at, rollout) in rollouts.iter().enumerate() {
        let status = if at == 3 { "failed" } else { "succeeded" };
        assert_eq!(post(server, &format!("/v1/agl/rollouts/{rollout}"), &json!({"status": status})).status, 200);
    }
    let all: Vec<&str> = std::iter::once("wait").chain(rollouts.iter().map(String::as_str)).collect();
    let waited = tracewire_at(&serve, &all);
    assert_eq!(
        (waited.status.code(), String::from_utf8_lossy(&waited.stdout).lines().count()),
        (Some(1), 4),
        "{}",
        text(&waited)
    );
    assert_eq!(tracewire_at(&serve, &all[..4]).status.code(), Some(0));
    let unknown = tracewire_at(&serve, &["wait", "ro-none"]);
    assert!(text(&unknown).contains("does not exist"), "{}", text(&unknown));
    std::fs::write(&tasks, "{}\nnothing\n").unwrap();
    let refused = tracewire_at(&serve, &["enqueue", tasks.to_str().unwrap()]);
    assert!(text(&refused).contains("line 2 is not JSON"), "{}", text(&refused));
}

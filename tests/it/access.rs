//! Who may do what: tokens, scopes, signed keys, and proxies that want a secret.

use crate::support::client::{Reply, ask, post};
use crate::support::{Bench, Running, eventually, root, text, tracewire};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

const TOKENS: &str = r#"
[[server.tokens]]
token = "whole-token"
[[server.tokens]]
token = "worker-token-0123"
scopes = ["read", "write"]
[[server.tokens]]
token = "team-token"
rollouts = ["ro-team-*"]
[[server.tokens]]
token = "every-rollout"
rollouts = ["*"]
"#;

fn as_bearer(serve: &Running, token: &str, method: &str, path: &str, body: &Value) -> Reply {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    ask(serve.address("server"), method, path, &[("authorization", &format!("Bearer {token}"))], &body)
}

fn chat() -> Value {
    json!({ "model": "mock", "messages": [{ "role": "user", "content": "hi" }] })
}

/// Registers the mock as a backend, with a token that may.
fn register(bench: &Bench, serve: &Running, token: &str) {
    let models = json!([{ "model": "mock", "endpoint": format!("{}/v1", bench.http()) }]);
    assert_eq!(as_bearer(serve, token, "POST", "/api/models", &models).status, 201);
}

fn key_of(serve: &Running, token: &str, request: &Value) -> String {
    as_bearer(serve, token, "POST", "/v1/tracewire/keys", request).json()["key"].as_str().unwrap().to_owned()
}

#[test]
fn requests_that_concern_all_rollouts_need_the_scope_admin() {
    let bench = Bench::new();
    let serve = bench.gateway_without_backends(TOKENS);
    let rollouts = json!([{ "rollout_id": "ro-team-1", "input": 1 }, { "rollout_id": "ro-other", "input": 1 }]);
    assert_eq!(as_bearer(&serve, "worker-token-0123", "POST", "/api/rollouts", &rollouts).status, 201);
    let evil = json!([{ "model": "mock", "endpoint": "http://127.0.0.1:9/v1", "weight": 1e12 }]);
    let backend = json!({ "model": "mock", "url": "http://127.0.0.1:9/v1" });
    let reroutes = json!([{ "hosts": ["api.openai.com"] }]);
    for (method, path, body) in [
        ("POST", "/api/models", &evil),
        ("DELETE", "/api/models", &Value::Null),
        ("POST", "/v1/tracewire/backends", &backend),
        ("DELETE", "/v1/tracewire/backends/x", &Value::Null),
        ("PUT", "/v1/tracewire/reroutes", &reroutes),
        ("POST", "/admin/workers", &json!({ "url": "http://127.0.0.1:9" })),
        ("DELETE", "/admin/workers/x", &Value::Null),
        ("POST", "/admin/weight_version", &json!({ "weight_version": 7 })),
        ("POST", "/proxy/pause", &json!({})),
        ("POST", "/proxy/resume", &Value::Null),
        ("POST", "/proxy/drain", &json!({ "timeout_seconds": 1 })),
        ("DELETE", "/api/rollouts/ro-other", &Value::Null),
        ("DELETE", "/sessions/ro-other", &Value::Null),
        ("POST", "/sessions/batch_delete", &json!({ "session_ids": ["ro-other"] })),
    ] {
        for token in ["worker-token-0123", "team-token", "every-rollout"] {
            let reply = as_bearer(&serve, token, method, path, body);
            assert_eq!(reply.status, 403, "{token} {method} {path}: {}", reply.text());
        }
    }
    assert_eq!(as_bearer(&serve, "whole-token", "GET", "/api/models", &Value::Null).json(), json!([]));
    assert_eq!(as_bearer(&serve, "whole-token", "GET", "/proxy/state", &Value::Null).json()["paused"], false);
    // A team deletes its own, and who may do everything also that of others.
    for (token, rollout, expected) in
        [("team-token", "ro-other", 403), ("team-token", "ro-team-1", 204), ("whole-token", "ro-other", 204)]
    {
        let reply = as_bearer(&serve, token, "DELETE", &format!("/api/rollouts/{rollout}"), &Value::Null);
        assert_eq!(reply.status, expected, "{token} {rollout}: {}", reply.text());
    }
}

#[test]
fn tokens_that_mean_nothing_are_told_at_the_start() {
    let home = tempfile::tempdir().unwrap();
    let settings = home.path().join("t.toml");
    for (token, words) in [
        ("token = \"t\"\nscopes = [\"root\"]", "unknown variant `root`, expected one of `read`, `write`, `admin`"),
        ("token = \"t\"\nscopes = []", "entry 1 of server.tokens has an empty list of scopes"),
        ("token = \"\"", "entry 1 of server.tokens has an empty token"),
        ("token = \"a\\nb\"", "entry 1 of server.tokens has a token that no client can send"),
        ("token = \" a\"", "entry 1 of server.tokens has a token that no client can send"),
        ("token = \"sk-tw-a\"", "entry 1 of server.tokens has a token that begins with `sk-tw-`"),
        ("token = \"t\"\nrollouts = []", "entry 1 of server.tokens has an empty list of rollouts"),
        ("token = \"t\"\nrollouts = [\"\"]", "which no id matches"),
        ("token = \"t\"\nrollouts = [\"a\\tb\"]", "which no id matches"),
        ("token = \"t\"\n[[server.tokens]]\ntoken = \"t\"", "entry 2 of server.tokens has the same token"),
        (
            "token = \"t\"\nscopes = [\"admin\"]\nrollouts = [\"ro-*\"]",
            "has the scope \"admin\" and a list of rollouts",
        ),
        ("token = \"t\"\nscope = [\"read\"]", "unknown field `scope`"),
    ] {
        fs::write(&settings, format!("[[server.tokens]]\n{token}\n")).unwrap();
        let output = tracewire(home.path()).args(["serve", "--config", settings.to_str().unwrap()]).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{token}: {}", text(&output));
        assert!(text(&output).contains(words), "{token}: {}", text(&output));
    }
}

/// `serve`, `run` and `env`: also where `serve` made the server's token.
#[test]
fn a_token_of_the_server_is_refused_as_the_proxys() {
    let home = tempfile::tempdir().unwrap();
    let settings = home.path().join("t.toml");
    fs::write(&settings, "[[server.tokens]]\ntoken = \"of-the-settings\"\n").unwrap();
    fs::write(home.path().join("api-token"), "of-the-data-folder\n").unwrap();
    let output = |command: &[&str], token: &str| {
        let mut tracewire = tracewire(home.path());
        tracewire.args(&command[..1]).arg("--config").arg(&settings).args(&command[1..]);
        tracewire.env("TRACEWIRE_TOKEN", token).output().unwrap()
    };
    for token in ["of-the-settings", "of-the-data-folder"] {
        for command in [&["serve", "--proxy", "127.0.0.1:0"][..], &["run", "--", "env"], &["env"]] {
            let refused = output(command, token);
            assert_eq!(refused.status.code(), Some(2), "{command:?}: {}", text(&refused));
            assert!(
                text(&refused).contains("unset that here") && !text(&refused).contains(token),
                "{}",
                text(&refused)
            );
        }
    }
    assert!(output(&["run", "--", "true"], "of-the-proxy").status.success());
}

#[test]
fn a_signed_key_does_what_the_agent_of_its_attempt_does() {
    let bench = Bench::new();
    let serve = bench.gateway_without_backends(TOKENS);
    register(&bench, &serve, "whole-token");
    let rollouts =
        json!([{ "rollout_id": "ro-1", "input": { "answer": "hidden" } }, { "rollout_id": "ro-2", "input": 1 }]);
    assert_eq!(as_bearer(&serve, "whole-token", "POST", "/api/rollouts", &rollouts).status, 201);
    // No signing key is set: the server has made one, because it wants tokens.
    let key = key_of(&serve, "worker-token-0123", &json!({ "rollout_id": "ro-1", "attempt_id": "0" }));
    let short = key_of(
        &serve,
        "worker-token-0123",
        &json!({ "rollout_id": "ro-1", "attempt_id": "0", "expires_in_seconds": 1 }),
    );
    let reward = json!({ "event_type": "reward", "data": { "value": 1.0 } });
    let trace = |rollout: &str, attempt: &str| {
        let attribute = |key: &str, value: &str| json!({ "key": key, "value": { "stringValue": value } });
        let attributes =
            json!([attribute("agentlightning.rollout_id", rollout), attribute("agentlightning.attempt_id", attempt)]);
        json!({ "resourceSpans": [{ "resource": { "attributes": attributes }, "scopeSpans": [{ "spans": [{
            "traceId": "0af7651916cd43dd8448eb211c80319c", "spanId": "b7ad6b7169203331", "name": "step",
            "startTimeUnixNano": "1", "endTimeUnixNano": "2" }] }] }] })
    };
    let call = |rollout: &str, attempt: &str| format!("/rollout/{rollout}/attempt/{attempt}/v1/chat/completions");
    let events = |rollout: &str, attempt: &str| format!("/api/rollouts/{rollout}/attempt/{attempt}/events");
    for (path, body, expected) in [
        (call("ro-1", "0"), chat(), 200),
        ("/v1/chat/completions".to_owned(), chat(), 200),
        (events("ro-1", "0"), reward.clone(), 200),
        ("/v1/agl/spans/next".to_owned(), json!({ "rollout_id": "ro-1", "attempt_id": "0" }), 200),
        (call("ro-2", "0"), chat(), 403),
        (call("ro-1", "1"), chat(), 403),
        (events("ro-2", "0"), reward.clone(), 403),
        (events("ro-1", "1"), reward.clone(), 403),
        ("/v1/agl/spans/next".to_owned(), json!({ "rollout_id": "ro-2", "attempt_id": "0" }), 403),
        // Not its own business, not even of its own rollout: the input may have the answer.
        ("/v1/tracewire/keys".to_owned(), json!({ "rollout_id": "ro-1" }), 401),
        ("/v1/agl/rollouts/ro-1".to_owned(), json!({ "status": "succeeded" }), 401),
        ("/v1/agl/rollouts/ro-1/attempts/0".to_owned(), json!({ "status": "succeeded" }), 401),
        ("/v1/agl/spans/search".to_owned(), json!({ "rollout_id": "ro-1" }), 401),
        ("/api/models".to_owned(), json!([]), 401),
        ("/proxy/pause".to_owned(), json!({}), 401),
    ] {
        let reply = as_bearer(&serve, &key, "POST", &path, &body);
        assert_eq!(reply.status, expected, "{path}: {}", reply.text());
    }
    for path in ["/api/rollouts/ro-1", "/api/rollouts/ro-1/events", "/v1/agl/spans?rollout_id=ro-1", "/metrics"] {
        assert_eq!(as_bearer(&serve, &key, "GET", path, &Value::Null).status, 401, "{path}");
    }
    assert_eq!(as_bearer(&serve, &key, "DELETE", "/api/rollouts/ro-1", &Value::Null).status, 401);
    let headers = |attempt: &str| {
        let bearer = format!("Bearer {key}");
        let fields = [("authorization", bearer.as_str()), ("x-rollout-id", "ro-1"), ("x-attempt-id", attempt)];
        ask(serve.address("server"), "POST", "/v1/chat/completions", &fields, &chat().to_string()).status
    };
    assert_eq!((headers("0"), headers("1")), (200, 403));
    for (rollout, attempt, rejected) in
        [("ro-1", "0", Value::Null), ("ro-1", "1", json!("1")), ("ro-2", "0", json!("1"))]
    {
        let reply = as_bearer(&serve, &key, "POST", "/v1/traces", &trace(rollout, attempt));
        let seen = &reply.json()["partialSuccess"]["rejectedSpans"];
        assert_eq!((reply.status, seen), (200, &rejected), "{rollout} {attempt}: {}", reply.text());
    }
    // Forged, and expired.
    assert_eq!(as_bearer(&serve, &key.replace("ro-1", "ro-2"), "POST", &call("ro-2", "0"), &chat()).status, 401);
    assert_eq!(as_bearer(&serve, "sk-tw-ro-1.0", "POST", &call("ro-1", "0"), &chat()).status, 401);
    eventually(|| (as_bearer(&serve, &short, "POST", &call("ro-1", "0"), &chat()).status == 401).then_some(()));
    assert_eq!(as_bearer(&serve, &short, "POST", &events("ro-1", "0"), &reward).status, 401);
    assert_eq!(as_bearer(&serve, &key, "POST", &call("ro-1", "0"), &chat()).status, 200);
    let kept = bench.home().join("signing-key");
    assert_eq!(fs::metadata(&kept).unwrap().mode() & 0o777, 0o600);
    drop(serve);
    let again = bench.gateway_without_backends(TOKENS);
    register(&bench, &again, "whole-token");
    assert_eq!(as_bearer(&again, &key, "POST", &call("ro-1", "0"), &chat()).status, 200, "it outlives the server");
}

/// What an agent of a worker finds: its variables, and what it can do with its key.
const AGENT: &str = r#"
env > "$SEEN/env"
say() { curl -s -o /dev/null -w '%{http_code}\n' --noproxy '*' -H "Authorization: Bearer $AGL_KEY" -H 'Content-Type: application/json' "$@"; }
server=${OPENAI_BASE_URL%%/rollout/*}
question='{"model":"mock","messages":[{"role":"user","content":"hi"}]}'
{
    say "$OPENAI_BASE_URL/chat/completions" -d "$question"
    curl -s -o /dev/null -w '%{http_code}\n' -x "$HTTP_PROXY" --noproxy '' "$MOCK/v1/models"
    say "$server/v1/agl/rollouts"
    say "$server/api/rollouts/$TRACEWIRE_ROLLOUT_ID"
    say "$server/api/models" -d '[{"model":"mock","endpoint":"http://127.0.0.1:7/v1"}]'
    say "$server/rollout/ro-another/attempt/0/v1/chat/completions" -d "$question"
    curl -s -o /dev/null -w '%{http_code}\n' -x "$(echo "$HTTP_PROXY" | sed 's,//[^:]*:,//ro-another.0:,')" --noproxy '' "$MOCK/v1/models"
} > "$SEEN/statuses"
echo 1.0
"#;

fn run_worker(bench: &Bench, serve: &Running, api: &str, seen: &Path, token: &str) -> Output {
    let mut worker = tracewire(bench.home());
    worker.args(["worker", "--server", &serve.url("server"), "--api", api, "--until-empty", "--timeout", "60"]);
    worker.args(["--", "sh", "-c", AGENT]).current_dir(root()).stdin(Stdio::null());
    worker.env("TRACEWIRE_TOKEN", token).env("OPENAI_API_KEY", token).env("MINE", format!("Bearer {token}"));
    let proxy = format!("http://tracewire:{token}@127.0.0.1:9");
    worker.env("HTTPS_PROXY", &proxy).env("ALL_PROXY", proxy.replace('-', "%2D"));
    worker.env("JAVA_TOOL_OPTIONS", format!("-Dtoken={token}")).env("NODE_OPTIONS", format!("--title={token}"));
    worker.env("SEEN", seen).env("MOCK", bench.http()).env_remove("AGL_KEY").env_remove("ANTHROPIC_API_KEY");
    worker.output().unwrap()
}

#[test]
fn an_agent_gets_a_key_for_its_own_attempt_and_never_the_workers_token() {
    let bench = Bench::new();
    let serve = bench.gateway_without_backends(&format!("{TOKENS}\n[proxy]\ntoken = \"proxy-token-0123\"\n"));
    register(&bench, &serve, "whole-token");
    let token = "worker-token-0123";
    for api in ["v0.3", "v1.0"] {
        let created = match api {
            "v0.3" => {
                let rollouts = json!({ "rollouts": [{ "input": { "task": "a" } }] });
                as_bearer(&serve, token, "POST", "/v1/agl/queues/rollouts/enqueue", &rollouts)
            }
            _ => as_bearer(&serve, token, "POST", "/api/rollouts", &json!([{ "input": { "task": "a" } }])),
        };
        let rollout = created.json()[0]["rollout_id"].as_str().unwrap().to_owned();
        let seen = tempfile::tempdir().unwrap();
        let output = run_worker(&bench, &serve, api, seen.path(), token);
        assert!(output.status.success(), "{}", text(&output));
        let environment = fs::read_to_string(seen.path().join("env")).unwrap();
        assert!(!environment.contains(token) && !environment.contains("proxy-token"), "{environment}");
        assert!(!environment.contains("TRACEWIRE_TOKEN="), "{environment}");
        assert!(!environment.contains(&token.replace('-', "%2D")), "{environment}");
        let key = format!("sk-tw-{rollout}.");
        for name in ["AGL_KEY", "OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GEMINI_API_KEY"] {
            assert!(environment.contains(&format!("{name}={key}")), "{name}: {environment}");
        }
        let statuses = fs::read_to_string(seen.path().join("statuses")).unwrap();
        assert_eq!(statuses, "200\n200\n401\n401\n401\n403\n407\n", "{}", text(&output));
        let status = as_bearer(&serve, token, "GET", &format!("/v1/agl/rollouts/{rollout}"), &Value::Null).json();
        assert_eq!(status["status"], "succeeded");
    }
}

#[test]
fn agents_of_a_server_without_keys_get_the_key_that_was_passed() {
    let bench = Bench::new();
    let serve = bench.gateway("");
    let rollouts = json!({ "rollouts": [{ "input": 1 }] });
    assert_eq!(post(serve.address("server"), "/v1/agl/queues/rollouts/enqueue", &rollouts).status, 201);
    let mut worker = tracewire(bench.home());
    worker.args(["worker", "--server", &serve.url("server"), "--until-empty", "--agent-key", "agents-own"]);
    let output = worker.args(["--", "sh", "-c", "echo $AGL_KEY $OPENAI_API_KEY"]).env_remove("OPENAI_API_KEY").output();
    let output = output.unwrap();
    assert!(String::from_utf8_lossy(&output.stdout).contains("agents-own agents-own"), "{}", text(&output));
}

#[test]
fn rerouted_calls_want_a_secret_where_the_api_does() {
    let bench = Bench::new();
    let mock = bench.http();
    let settings = |tokens: &str| {
        format!(
            "[gateway]\nbackends = [{{ model = \"mock\", url = \"{mock}/v1\" }}]\n[[reroute]]\nhosts = [\"model.test\"]\n{tokens}"
        )
    };
    let call = |proxy: &str, key: &str| {
        let mut curl = Command::new("curl");
        curl.args(["-s", "-w", "\n%{http_code}", "-x", proxy, "http://model.test/v1/chat/completions"]);
        curl.args(["-H", &format!("Authorization: Bearer {key}"), "-d", &chat().to_string()]);
        String::from_utf8(curl.env("NO_PROXY", "").output().unwrap().stdout).unwrap()
    };
    let open = bench.gateway_without_backends(&settings(""));
    assert!(call(&open.url("proxy"), "agents-own").ends_with("\n200"));
    drop(open);
    let serve = bench.gateway_without_backends(&settings(TOKENS));
    let key = key_of(&serve, "whole-token", &json!({ "rollout_id": "ro-1", "attempt_id": "at-1" }));
    let refused = call(&serve.url("proxy"), "agents-own");
    assert!(refused.ends_with("\n401") && refused.contains("signed key"), "{refused}");
    assert!(call(&serve.url("proxy"), &key).ends_with("\n200"));
    assert!(call(&format!("http://ro-1.at-1:{key}@{}", serve.address("proxy")), "agents-own").ends_with("\n200"));
    assert!(call(&format!("http://ro-2.at-1:{key}@{}", serve.address("proxy")), "agents-own").ends_with("\n407"));
    // The key is for its own rollout, whatever header fields say.
    for (proxy, key) in
        [(serve.url("proxy"), &*key), (format!("http://ro-1.at-1:{key}@{}", serve.address("proxy")), "agents-own")]
    {
        let mut curl = Command::new("curl");
        curl.args(["-s", "-w", "\n%{http_code}", "-x", &proxy, "http://model.test/v1/chat/completions"]);
        curl.args([
            "-H",
            &format!("Authorization: Bearer {key}"),
            "-H",
            "x-rollout-id: ro-2",
            "-d",
            &chat().to_string(),
        ]);
        let refused = String::from_utf8(curl.env("NO_PROXY", "").output().unwrap().stdout).unwrap();
        assert!(refused.ends_with("\n401") && refused.contains("the request names the rollout ro-2"), "{refused}");
    }
    assert!(bench.spans("ro-2").is_empty());
    drop(serve);
    // The proxy of `run` has a token of its own then, which only its command gets.
    let file = bench.home().join("gateway.toml");
    let script = "echo $HTTP_PROXY; curl -s -o /dev/null -w '%{http_code} ' -d \"$0\" http://model.test/v1/chat/completions; \
                  curl -s -o /dev/null -w '%{http_code}' -x \"http://${HTTP_PROXY##*@}\" -d \"$0\" http://model.test/v1/chat/completions";
    let output = bench.run(&["--config", file.to_str().unwrap()], &["sh", "-c", script, &chat().to_string()]);
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(printed.starts_with("http://tracewire:") && printed.ends_with("\n200 407"), "{}", text(&output));
}

#[test]
fn agents_of_other_machines_do_not_reach_the_metadata_services_of_this_one() {
    let bench = Bench::new();
    let file = bench.home().join("open.toml");
    fs::write(&file, "[proxy]\ntoken = \"t\"\n").unwrap();
    let mut serve = tracewire(bench.home());
    serve.args(["serve", "--json", "--proxy", "0.0.0.0:0", "--server", "127.0.0.1:0", "--config"]).arg(&file);
    let serve = Running::start(serve);
    let proxy = format!("http://tracewire:t@127.0.0.1:{}", serve.address("proxy").port());
    let mut curl = Command::new("curl");
    curl.args(["-so", "/dev/null", "-w", "%{http_code}", "-x", &proxy, "http://169.254.169.254/latest/meta-data/"]);
    assert_eq!(curl.env("NO_PROXY", "").output().unwrap().stdout, b"403");
}

#[test]
fn a_secure_server_makes_its_tokens_once_and_blocks_metadata_services() {
    let bench = Bench::new();
    let start = || bench.serve(&["--secure"]);
    let serve = start();
    let token = |name: &str| {
        let path = serve.path(name);
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600, "{}", path.display());
        fs::read_to_string(path).unwrap().trim().to_owned()
    };
    let (server, proxy) = (token("server_token_file"), token("proxy_token_file"));
    assert!(server.len() == 64 && proxy.len() == 64 && server != proxy);
    assert_eq!(ask(serve.address("server"), "GET", "/v1/agl/rollouts", &[], "").status, 401);
    assert_eq!(as_bearer(&serve, &proxy, "GET", "/v1/agl/rollouts", &Value::Null).status, 401);
    assert_eq!(as_bearer(&serve, &server, "GET", "/v1/agl/rollouts", &Value::Null).status, 200);
    register(&bench, &serve, &server);
    let key = key_of(&serve, &server, &json!({ "rollout_id": "ro-1" }));
    assert_eq!(as_bearer(&serve, &key, "POST", "/v1/chat/completions", &chat()).status, 200);
    assert_eq!(as_bearer(&serve, "sk-tw-ro-1", "POST", "/v1/chat/completions", &chat()).status, 401);
    let status = |user: &str, url: &str| {
        let mut curl = Command::new("curl");
        curl.args(["-so", "/dev/null", "-w", "%{http_code}", "-x"]);
        curl.arg(format!("http://{user}{}", serve.address("proxy")));
        String::from_utf8(curl.arg(url).env("NO_PROXY", "").output().unwrap().stdout).unwrap()
    };
    let models = format!("{}/v1/models", bench.http());
    assert_eq!(status("", &models), "407");
    assert_eq!(status(&format!("tracewire:{server}@"), &models), "407", "that is the other token");
    assert_eq!(status(&format!("tracewire:{proxy}@"), &models), "200");
    assert_eq!(status(&format!("ro-1.at-1:{key}@"), &models), "200");
    assert_eq!(status(&format!("tracewire:{proxy}@"), "http://169.254.169.254/latest/meta-data/"), "403");
    drop(serve);
    let again = start();
    assert_eq!(as_bearer(&again, &server, "GET", "/v1/agl/rollouts", &Value::Null).status, 200);
    drop(again);
    // The same as a setting, which `env` and `run` read too.
    let settings = bench.home().join("secure.toml");
    fs::write(&settings, "[server]\nsecure = true\n").unwrap();
    let env = tracewire(bench.home()).args(["env", "--config", settings.to_str().unwrap()]).output().unwrap();
    assert!(text(&env).contains(&format!("http://tracewire:{proxy}@127.0.0.1:8080")), "{}", text(&env));
    let flags = ["--config", settings.to_str().unwrap()];
    let script = "echo $HTTP_PROXY; curl -s -o /dev/null -w '%{http_code}' http://169.254.169.254/";
    let run = bench.run(&flags, &["sh", "-c", script]);
    let printed = String::from_utf8_lossy(&run.stdout).into_owned();
    assert!(printed.starts_with("http://tracewire:") && !printed.contains(&proxy), "{printed}");
    assert!(printed.ends_with("\n403"), "{}", text(&run));
    // A token file that others can read is refused.
    let kept = bench.home().join("api-token");
    fs::set_permissions(&kept, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    let refused = tracewire(bench.home()).args(["serve", "--secure", "--proxy", "127.0.0.1:0"]).output().unwrap();
    assert!(!refused.status.success() && text(&refused).contains("chmod 600"), "{}", text(&refused));
    assert!(!text(&refused).contains(&server));
}

//! `doctor`: all clients of this machine work; bypasses and certificate rejections are explained.

use crate::support::{Bench, clients, installed, node_modules, python, root, text, tracewire};
use serde_json::Value;
use std::process::{Command, Output};

/// `doctor --json`, and what it found.
fn doctor(bench: &Bench, flags: &[&str], command: &[&str]) -> (Output, Value) {
    let mut doctor = tracewire(bench.home());
    let venv = clients().join("python/bin");
    let path =
        std::env::join_paths([venv].into_iter().chain(std::env::split_paths(&std::env::var_os("PATH").unwrap())));
    doctor.env("PATH", path.unwrap()).env("NODE_PATH", node_modules());
    doctor.current_dir(root()).args(["doctor", "--json"]).args(flags).arg("--upstream-ca").arg(bench.mock.path("ca"));
    if !command.is_empty() {
        doctor.arg("--").args(command);
    }
    let output = doctor.output().unwrap();
    let found = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", text(&output)));
    (output, found)
}

#[test]
fn the_clients_of_this_machine_work() {
    let bench = Bench::new();
    python();
    let (output, found) = doctor(&bench, &[], &[]);
    let checks = found["checks"].as_array().unwrap();
    let failing: Vec<_> =
        checks.iter().filter(|check| !["works", "not_here"].contains(&check["verdict"].as_str().unwrap())).collect();
    assert!(output.status.success() && failing.is_empty(), "{failing:#?}");
    assert_eq!(found["panics"], serde_json::json!([]), "{found:#}");
    let works = |client: &str| checks.iter().any(|check| check["client"] == client && check["verdict"] == "works");
    // Those that scripts/install-clients installs without a condition.
    for client in ["curl", "python3 requests", "python3 aiohttp", "python3 httpx", "python3 openai", "git", "cargo"] {
        assert!(works(client), "{client}: {found:#}");
    }
}

#[test]
fn programs_that_bypass_the_proxy_are_named() {
    // The delay makes connections as long as those of agents, so that they are observed on a busy machine too.
    let bench = Bench::with_mock(&["--delay-ms", "200"]);
    let (url, http, ca) = (bench.https(), bench.http(), bench.mock.path("ca"));
    let (ca, python, weather) = (ca.to_str().unwrap(), python(), format!("{url}/weather"));
    let go = installed("go-no-proxy");
    for (command, program, cure) in [
        (&["node", "tests/clients/untraceable/own_dispatcher.cjs", &url, ca][..], "node", "EnvHttpProxyAgent"),
        (&[&go, &url, ca], "go-no-proxy", "http.ProxyFromEnvironment"),
        (&["env", "-i", "curl", "--silent", "--insecure", &weather], "curl", "env -i"),
        (&[&python, "tests/clients/python/aiohttp_client.py", &http], "python", "trust_env"),
    ] {
        // What scripts/install-clients could not install is named there.
        if Command::new(command[0]).arg("--version").output().is_err() {
            continue;
        }
        let (output, found) = doctor(&bench, &["--no-hooks"], command);
        assert_eq!(output.status.code(), Some(1), "{}", text(&output));
        let bypass = &found["bypasses"][0];
        assert!(bypass["program"].as_str().unwrap().starts_with(program), "{bypass}");
        let remote = bypass["remote"].as_str().unwrap();
        assert!(url.ends_with(remote) || http.ends_with(remote), "{bypass}");
        assert!(bypass["advice"].as_str().unwrap().contains(cure), "{bypass}");
    }
}

#[test]
fn a_client_with_its_own_certificates_gets_advice() {
    let bench = Bench::new();
    let (url, ca, python) = (bench.https(), bench.mock.path("ca"), python());
    let command = [&python, "tests/clients/untraceable/pinned_bundle.py", &url, ca.to_str().unwrap()];
    let (output, found) = doctor(&bench, &[], &command);
    assert_eq!((output.status.code(), &found["exit_code"]), (Some(1), &Value::from(3)));
    let refused = &found["distrusts"][0];
    assert!(refused["client"].as_str().unwrap().starts_with("python"), "{refused}");
    assert!(refused["advice"].as_str().unwrap().contains("REQUESTS_CA_BUNDLE"), "{refused}");

    // The same under `run`: on the span, and in the log.
    let output = bench.run(&["--rollout", "ro-pinned"], &command);
    assert_eq!(output.status.code(), Some(3));
    let spans = bench.spans("ro-pinned");
    let span = spans.iter().find(|span| span["attributes"]["error.type"] == "client_tls_error").unwrap();
    let attribute = |name: &str| span["attributes"][name].as_str().unwrap_or_default().to_owned();
    assert!(attribute("tracewire.client.advice").contains("REQUESTS_CA_BUNDLE"), "{span:#}");
    assert!(attribute("tracewire.client.program").starts_with("python"), "{span:#}");
    assert!(attribute("tracewire.client.ja4").starts_with("t13"), "{span:#}");
}

#[test]
fn a_traced_command_is_healthy() {
    let bench = Bench::new();
    let (output, found) = doctor(&bench, &[], &["curl", "--silent", "--fail", &format!("{}/weather", bench.https())]);
    assert!(output.status.success(), "{}", text(&output));
    assert!(String::from_utf8_lossy(&output.stderr).contains("celsius"), "what it prints goes to stderr");
    assert_eq!((&found["exchanges"], &found["hosts"][0]), (&Value::from(1), &Value::from("127.0.0.1")));
    assert_eq!(found["bypasses"].as_array().unwrap().len(), 0);
}

#[test]
fn run_records_connections_past_the_proxy_and_the_verdict_names_them() {
    let bench = Bench::with_mock(&["--delay-ms", "1000"]);
    let weather = format!("{}/weather", bench.https());
    let run = |arguments: &[&str]| text(&tracewire(bench.home()).args(arguments).output().unwrap());
    let said = run(&["run", "--", "env", "-i", "curl", "--silent", "--insecure", &weather]);
    assert!(said.contains("curl connected to 127.0.0.1:") && said.contains("past the proxy"), "{said}");
    let outline = run(&["trajectory", "latest"]);
    assert!(outline.contains("verdict: bypassed_proxy: curl to 127.0.0.1:"), "{outline}");
}

//! The subcommands: exit codes, unchanged streams, messages, and nested environments.

use crate::support::{Bench, TRACEWIRE, at_home, text, tracewire};
use std::process::Command;

#[test]
fn run_returns_the_commands_exit_code_and_keeps_its_streams() {
    let bench = Bench::new();
    let output = bench.run(&["--rollout", "ro-exit"], &["sh", "-c", "echo out; exit 7"]);
    assert_eq!(output.status.code(), Some(7), "{}", text(&output));
    assert_eq!(output.stdout, b"out\n");
    assert!(String::from_utf8_lossy(&output.stderr).contains("no exchange was seen"), "{}", text(&output));
    assert_eq!(bench.run(&[], &["no-such-command-at-all"]).status.code(), Some(127));
    assert_eq!(bench.run(&["--timeout", "1"], &["sh", "-c", "sleep 60 & wait"]).status.code(), Some(124));
}

#[test]
fn run_prints_a_timeline_and_its_location() {
    let bench = Bench::new();
    let url = format!("{}/echo", bench.https());
    let output = bench.run(&["--name", "try", "--rollout", "ro-line"], &["curl", "-sS", "--fail", &url]);
    assert!(output.status.success(), "{}", text(&output));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("try") && stderr.contains("GET") && stderr.contains("traces.db"), "{stderr}");
    assert!(
        stderr.lines().filter(|line| !line.contains("tracewire:")).all(|line| line.chars().count() <= 80),
        "{stderr}"
    );
    let listed = tracewire(bench.home()).args(["trace", "list"]).output().unwrap();
    assert!(String::from_utf8_lossy(&listed.stdout).contains("ro-line"));
    let shown = tracewire(bench.home()).args(["trace", "show", "ro-line"]).output().unwrap();
    assert!(String::from_utf8_lossy(&shown.stdout).contains("/echo"));
}

#[test]
fn a_span_has_every_field_of_the_model() {
    let bench = Bench::new();
    let url = format!("{}/echo", bench.https());
    assert!(bench.run(&["--rollout", "ro-model"], &["curl", "-sS", &url]).status.success());
    let span = bench.exchanges("ro-model", 1).remove(0);
    for field in [
        "rollout_id",
        "attempt_id",
        "sequence_id",
        "trace_id",
        "span_id",
        "parent_id",
        "name",
        "status",
        "attributes",
        "events",
        "links",
        "start_time",
        "end_time",
        "context",
        "parent",
        "resource",
    ] {
        assert!(span.get(field).is_some(), "{field} is missing");
    }
    for attribute in [
        "http.request.method",
        "http.response.status_code",
        "url.full",
        "server.address",
        "server.port",
        "network.peer.address",
        "network.protocol.version",
        "tls.protocol.version",
        "http.response.body.size",
        "tracewire.timing.response_headers_ms",
        "tracewire.timing.first_body_byte_ms",
        "tracewire.connection.reused",
    ] {
        assert!(span["attributes"].get(attribute).is_some(), "{attribute} is missing in {span:#}");
    }
}

#[test]
fn env_and_ca_print_what_shells_need() {
    let bench = Bench::new();
    let env = tracewire(bench.home()).args(["env", "--proxy", "http://127.0.0.1:9"]).output().unwrap();
    assert!(env.status.success(), "{}", text(&env));
    let script = format!(
        "{}\nprintf '%s %s' \"$HTTPS_PROXY\" \"$https_proxy\"; test -s \"$SSL_CERT_FILE\"",
        String::from_utf8_lossy(&env.stdout)
    );
    let shell = Command::new("sh").args(["-c", &script]).output().unwrap();
    assert!(shell.status.success(), "{}", text(&shell));
    assert_eq!(shell.stdout, b"http://127.0.0.1:9 http://127.0.0.1:9");
    let path = tracewire(bench.home()).args(["ca", "path"]).output().unwrap();
    let pem = std::fs::read(String::from_utf8(path.stdout).unwrap().trim()).unwrap();
    let exported = tracewire(bench.home()).args(["ca", "export"]).output().unwrap();
    assert_eq!(exported.stdout, pem);
}

#[test]
fn the_demo_runs_without_setup() {
    let folder = tempfile::tempdir().unwrap();
    let output = tracewire(folder.path()).arg("demo").output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        stderr.contains("demo agent")
            && stderr.matches("✓ chat mock").count() == 3
            && stderr.contains("execute_tool get_weather")
            && stderr.contains("first chunk"),
        "{stderr}"
    );
}

#[test]
fn the_example_runs() {
    let folder = tempfile::tempdir().unwrap();
    let mut example = Command::new("bash");
    example.args(["examples/run-agent.sh", env!("CARGO_BIN_EXE_tracewire")]).env("TRACEWIRE_HOME", folder.path());
    let output = example.output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    assert!(String::from_utf8_lossy(&output.stdout).contains("chatcmpl-mock"), "{}", text(&output));
    assert!(String::from_utf8_lossy(&output.stderr).contains("1 exchange, 0 errors"), "{}", text(&output));
}

#[test]
fn a_run_in_the_environment_of_env_uses_its_own_files_only() {
    let bench = Bench::new();
    let env = tracewire(bench.home()).args(["env", "--proxy", "http://127.0.0.1:9"]).output().unwrap();
    let script = format!("{}\n\"$0\" run --store memory: -- sh -c 'env'", String::from_utf8_lossy(&env.stdout));
    let mut shell = at_home(Command::new("sh"), bench.home());
    let nested = shell.args(["-c", &script, TRACEWIRE]).output().unwrap();
    assert!(nested.status.success(), "{}", text(&nested));
    let variables = String::from_utf8_lossy(&nested.stdout);
    let outer_files = bench.home().join("ca/env");
    for name in
        ["JAVA_TOOL_OPTIONS", "NODE_OPTIONS", "PYTHONPATH", "PHP_INI_SCAN_DIR", "SSL_CERT_FILE", "SYSTEM_WGETRC"]
    {
        let prefix = format!("{name}=");
        let value = variables.lines().find_map(|line| line.strip_prefix(&prefix)).unwrap();
        assert!(!value.contains(outer_files.to_str().unwrap()) && value.contains("/tracewire-"), "{name}={value}");
    }
    assert_eq!(variables.matches("-Dhttps.proxyHost=").count(), 1, "{variables}");
    assert!(!text(&nested).contains("trust store"), "{}", text(&nested));
}

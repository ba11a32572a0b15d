//! Live export over gRPC, to a receiver of the package grpcio, and to ports that are none.

use crate::support::certificates::TestCa;
use crate::support::collector::{Answer, Collector, metric, readiness, span_ids, store_spans};
use crate::support::{Bench, Running, endpoint, eventually, python, root, text, tracewire};
use serde_json::{Value, json};
use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

/// A receiver of tests/clients/servers.
struct Receiver {
    running: Running,
    log: PathBuf,
}

impl Receiver {
    fn start(bench: &Bench, mut options: Value) -> Self {
        let log = bench.home().join("requests.jsonl");
        options["log"] = json!(log);
        let mut command = Command::new(python());
        command.arg(root().join("tests/clients/servers/otlp_receiver.py")).arg(options.to_string());
        Self { running: Running::start(command), log }
    }

    fn address(&self) -> String {
        self.running.address("address").to_string()
    }

    /// The requests that it and those before it accepted.
    fn requests(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        // The last line may not be whole yet.
        text.split_inclusive('\n')
            .filter(|line| line.ends_with('\n'))
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    fn span_ids(&self) -> Vec<String> {
        let requests = self.requests();
        let spans = requests.iter().filter_map(|request| request["spans"].as_array()).flatten();
        spans.map(|span| span.as_str().unwrap().to_owned()).collect()
    }

    /// Waits until it has as many spans as there are ids, and checks that it has them in the order of the store.
    fn has_each_once(&self, ids: &[String]) {
        eventually(|| (self.span_ids().len() >= ids.len()).then_some(()));
        assert_eq!(self.span_ids(), ids);
    }
}

/// A server that exports to `endpoint` every 20 ms, with further settings.
fn serve(bench: &Bench, endpoint: &str, settings: &str) -> Running {
    let config = bench.home().join("export.toml");
    let name = if settings.contains("name = ") { "" } else { "name = \"c\"" };
    let entry = format!("endpoint = \"{endpoint}\"\nprotocol = \"grpc\"\ninterval_ms = 20\n{name}\n{settings}\n");
    std::fs::write(&config, format!("[[export.otlp]]\n{entry}")).unwrap();
    bench.serve(&["--config", config.to_str().unwrap()])
}

fn sent(serve: &Running) -> u64 {
    metric(serve, "sent_total{export=\"c\"}")
}

fn dropped(serve: &Running, reason: &str) -> u64 {
    metric(serve, &format!("dropped_total{{export=\"c\",reason=\"{reason}\"}}"))
}

#[test]
fn a_grpc_receiver_gets_each_span_once_whatever_it_answers() {
    let bench = Bench::new();
    let failures = [
        json!({ "code": "UNAVAILABLE", "message": "starting", "retry": 0 }),
        json!({ "code": "RESOURCE_EXHAUSTED", "message": "too many", "retry": 0.01 }),
        json!("ok"),
        json!({ "code": "ABORTED", "message": "" }),
    ];
    let receiver = Receiver::start(&bench, json!({ "answers": failures }));
    let settings = "max_batch_spans = 7\nheaders = { x-key = \"secret\" }";
    let serve = serve(&bench, &format!("http://{}", receiver.address()), settings);
    let ids = span_ids(0..100);
    store_spans(serve.address("server"), "ro-a", &ids);
    receiver.has_each_once(&ids);
    let requests = receiver.requests();
    assert!(requests.iter().all(|request| request["spans"].as_array().unwrap().len() <= 7));
    let metadata = &requests[0]["metadata"];
    assert_eq!((&metadata["x-key"], &metadata["x-agentlightning-client"]), (&json!("secret"), &json!("true")));
    assert!(metadata["user-agent"].as_str().unwrap().starts_with("tracewire/"), "{metadata}");
    eventually(|| (sent(&serve) == 100).then_some(()));
    assert_eq!(metric(&serve, "retried_total{export=\"c\"}"), 3);
    assert_eq!(readiness(&serve)["warnings"], Value::Null);
    assert_eq!(serve.stop(), Some(0));
}

#[test]
fn calls_that_are_too_large_are_split_and_certificates_verified() {
    let bench = Bench::new();
    let ca = TestCa::new(bench.home());
    let (certificate, key) = ca.leaf("127.0.0.1", 30);
    let receiver = Receiver::start(&bench, json!({ "max_bytes": 1000, "certificate": certificate, "key": key }));
    let settings = format!("compression = \"none\"\ncertificate = \"{}\"", ca.path().display());
    let serve = serve(&bench, &format!("https://{}", receiver.address()), &settings);
    let ids = span_ids(0..60);
    store_spans(serve.address("server"), "ro-a", &ids);
    receiver.has_each_once(&ids);
    assert!(receiver.requests().iter().all(|request| request["bytes"].as_u64().unwrap() <= 1000));
    eventually(|| (sent(&serve) == 60).then_some(()));
}

#[test]
fn what_a_grpc_receiver_refuses_is_counted_and_not_sent_again() {
    let bench = Bench::new();
    let answers = [
        json!({ "partial": [2, "too old"] }),
        json!({ "code": "UNAUTHENTICATED", "message": "no key" }),
        json!({ "code": "RESOURCE_EXHAUSTED", "message": "quota" }),
        json!({ "code": "INVALID_ARGUMENT", "message": "odd" }),
    ];
    let receiver = Receiver::start(&bench, json!({ "answers": answers }));
    let serve = serve(&bench, &format!("http://{}", receiver.address()), "max_batch_spans = 10");
    store_spans(serve.address("server"), "ro-a", &span_ids(0..50));
    eventually(|| (sent(&serve) == 18).then_some(()));
    let reasons = ["rejected", "grpc_unauthenticated", "grpc_resource_exhausted", "grpc_invalid_argument"];
    assert_eq!(reasons.map(|reason| dropped(&serve, reason)), [2, 10, 10, 10]);
    assert_eq!(bench.spans("ro-a").len(), 50, "they stay in the store");
}

#[test]
fn a_grpc_receiver_that_was_away_gets_everything() {
    let bench = Bench::new();
    let first = Receiver::start(&bench, json!({}));
    let (address, ids) = (first.address(), span_ids(0..700));
    let serve = serve(&bench, &format!("http://{address}"), "");
    store_spans(serve.address("server"), "ro-a", &ids[..300]);
    first.has_each_once(&ids[..300]);
    eventually(|| (sent(&serve) == 300).then_some(()));
    first.running.kill();
    store_spans(serve.address("server"), "ro-b", &ids[300..]);
    eventually(|| (metric(&serve, "waiting{export=\"c\"}") == 400).then_some(()));
    assert!(readiness(&serve)["warnings"].to_string().contains("1 of 1 exports fail, 400 spans wait"));
    let port = address.rsplit_once(':').unwrap().1.parse::<u16>().unwrap();
    let second = Receiver::start(&bench, json!({ "port": port }));
    second.has_each_once(&ids);
    assert_eq!(serve.stop(), Some(0));
}

/// The sorted ids of a rollout's spans.
fn stored_ids(bench: &Bench, rollout: &str) -> Vec<String> {
    let spans = bench.spans(rollout);
    let mut ids: Vec<String> = spans.iter().map(|span| span["span_id"].as_str().unwrap().to_owned()).collect();
    ids.sort_unstable();
    ids
}

/// Runs a command, of which the spans are exported as these variables say. Returns what was written to stderr.
fn run_with(bench: &Bench, rollout: &str, variables: &[(&str, &str)]) -> String {
    let mut run = tracewire(bench.home());
    run.args(["run", "--rollout", rollout, "--", &python(), "-c"]);
    run.arg(format!("import urllib.request; urllib.request.urlopen('{}/v1/models')", bench.http()));
    run.envs(variables.iter().copied());
    let output = run.output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn the_variables_of_opentelemetry_export_a_run_over_grpc() {
    let bench = Bench::new();
    let receiver = Receiver::start(&bench, json!({}));
    run_with(
        &bench,
        "ro-run",
        &[
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", &receiver.address()),
            ("OTEL_EXPORTER_OTLP_INSECURE", "true"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "x-key=a%20b"),
        ],
    );
    let mut got = receiver.span_ids();
    got.sort_unstable();
    assert_eq!(got, stored_ids(&bench, "ro-run"));
    assert_eq!(receiver.requests()[0]["metadata"]["x-key"], "a b");
}

#[test]
fn a_port_without_grpc_is_named_and_loses_nothing() {
    let bench = Bench::new();
    let receiver = Receiver::start(&bench, json!({}));
    let collector = Collector::start(|_, _| Answer::Accept);
    let garbage = endpoint(|mut stream| drop(stream.write_all(b"\0\x01garbage that is no frame of HTTP/2")));
    let http = |address: SocketAddr| format!("http://{address}");
    let without_tls = format!("https://{}", receiver.address());
    let wrong = [http(collector.address), http(garbage), http(endpoint(drop)), without_tls.clone()];
    for (wrong, rollout) in wrong.iter().zip(["ro-0", "ro-1", "ro-2", "ro-3"]) {
        let variables = [("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"), ("OTEL_EXPORTER_OTLP_ENDPOINT", wrong.as_str())];
        let said = run_with(&bench, rollout, &variables);
        assert!(said.contains("gRPC needs a port that speaks HTTP/2, often 4317"), "{wrong}: {said}");
    }
    assert!(collector.accepted().is_empty() && receiver.requests().is_empty());
    // What the last run recorded waits for an export of the same name.
    let serve = serve(&bench, &http(receiver.running.address("address")), &format!("name = \"{without_tls}\""));
    let stored = stored_ids(&bench, "ro-3");
    eventually(|| (receiver.span_ids().len() >= stored.len()).then_some(()));
    assert_eq!(serve.stop(), Some(0));
    let mut got = receiver.span_ids();
    got.sort_unstable();
    assert_eq!(got, stored);
}

#[test]
fn settings_of_a_grpc_export_that_cannot_be_used_are_refused() {
    let bench = Bench::new();
    for (settings, words) in [
        ("endpoint = \"http://a:4317/v1/traces\"\nprotocol = \"grpc\"", "has a path, which gRPC does not use"),
        ("endpoint = \"http://a:4317\"\nprotocol = \"grpcs\"", "expected one of `http/protobuf`, `http/json`, `grpc`"),
        ("endpoint = \"grpc://a:4317\"\nprotocol = \"grpc\"", "write http(s)://HOST"),
    ] {
        let config = bench.home().join("wrong.toml");
        std::fs::write(&config, format!("[[export.otlp]]\n{settings}\n")).unwrap();
        let output = tracewire(bench.home()).args(["serve", "--config"]).arg(&config).output().unwrap();
        assert!(!output.status.success() && text(&output).contains(words), "{}", text(&output));
    }
    let said = run_with(
        &bench,
        "ro-run",
        &[("OTEL_EXPORTER_OTLP_PROTOCOL", "grcp"), ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://a:1")],
    );
    assert!(said.contains("OTEL_EXPORTER_OTLP_PROTOCOL is `grcp`"), "{said}");
    assert!(said.contains("grpc, http/protobuf and http/json"), "{said}");
}

//! Live export to a scripted collector: what it gets, whatever it answers, and whoever is away.

use crate::support::collector::{Answer, Collector, span_ids, store_spans};
use crate::support::{Bench, Running, eventually, python, root, say, text, tracewire};
use serde_json::json;
use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::process::Command;

/// A server that exports plain JSON to `collector` every 20 ms, with further settings.
fn serve(bench: &Bench, collector: SocketAddr, settings: &str) -> Running {
    let config = bench.home().join("export.toml");
    let export = "protocol = \"http/json\"\ncompression = \"none\"\ninterval_ms = 20\nname = \"c\"";
    let (export_settings, others) =
        settings.split_once('[').map_or((settings, String::new()), |(mine, rest)| (mine, format!("[{rest}")));
    let entry = format!("[[export.otlp]]\nendpoint = \"http://{collector}\"\n{export}\n{export_settings}\n{others}");
    std::fs::write(&config, entry).unwrap();
    bench.serve(&["--config", config.to_str().unwrap()])
}

/// The value of a metric; 0 if it has none.
fn metric(serve: &Running, name: &str) -> u64 {
    let request = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nconnection: close\r\n\r\n";
    let metrics = say(serve.address("server"), request);
    let line = metrics.lines().find_map(|line| line.strip_prefix(&format!("tracewire_export_{name} ")));
    line.map_or(0, |value| value.parse().unwrap())
}

fn readiness(serve: &Running) -> serde_json::Value {
    let request = b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nconnection: close\r\n\r\n";
    let response = say(serve.address("server"), request);
    assert!(response.starts_with("HTTP/1.1 200"), "{response}");
    serde_json::from_str(response.split_once("\r\n\r\n").unwrap().1).unwrap()
}

/// Waits until the collector has as many spans as there are ids, and checks that it has each of them once.
fn each_once(collector: &Collector, ids: &[String]) {
    eventually(|| (collector.span_ids().len() >= ids.len()).then_some(()));
    let mut got = collector.span_ids();
    got.sort_unstable();
    let mut expected = ids.to_vec();
    expected.sort_unstable();
    assert_eq!(got, expected);
}

#[test]
fn every_stored_span_is_sent_once() {
    let bench = Bench::new();
    let collector = Collector::start(|_, _| Answer::Accept);
    let serve = serve(&bench, collector.address, "max_batch_spans = 7\nheaders = { x-key = \"secret\" }");
    let ids = span_ids(0..100);
    store_spans(serve.address("server"), "ro-a", &ids[..50]);
    store_spans(serve.address("server"), "ro-b", &ids[50..]);
    // Again: they are stored once.
    store_spans(serve.address("server"), "ro-a", &ids[..50]);
    each_once(&collector, &ids);
    let requests = collector.accepted();
    assert!(requests.iter().all(|request| request.span_ids().len() <= 7));
    let head = requests[0].head.to_lowercase();
    assert!(head.starts_with("post /v1/traces http/1.1\r\n"), "{head}");
    for field in ["x-key: secret", "content-type: application/json", "user-agent: tracewire/"] {
        assert!(head.contains(field), "{field}: {head}");
    }
    // An exchange through the proxy is exported, and what exports it is no exchange.
    let exchange =
        format!("GET {}/get HTTP/1.1\r\nHost: x\r\nx-rollout-id: ro-c\r\nConnection: close\r\n\r\n", bench.http());
    say(serve.address("proxy"), exchange.as_bytes());
    eventually(|| (collector.span_ids().len() > 100).then_some(()));
    eventually(|| (metric(&serve, "sent_total{export=\"c\"}") == 101).then_some(()));
    assert_eq!(bench.exchanges("ro-c", 1).len(), 1);
    eventually(|| (metric(&serve, "waiting{export=\"c\"}") == 0).then_some(()));
    assert_eq!(readiness(&serve)["warnings"], serde_json::Value::Null);
    assert_eq!(serve.stop(), Some(0));
    assert_eq!(collector.span_ids().len(), 101);
}

#[test]
fn what_a_collector_does_not_take_is_sent_again() {
    let bench = Bench::new();
    let collector = Collector::start(|number, _| match number {
        0 => Answer::Status(429, "retry-after: 1\r\n"),
        1 => Answer::Status(503, "retry-after: 0\r\n"),
        2 => Answer::Close,
        3 => Answer::Garbage,
        4 => Answer::Status(502, "retry-after: 0\r\n"),
        _ => Answer::Accept,
    });
    let serve = serve(&bench, collector.address, "");
    let ids = span_ids(0..20);
    store_spans(serve.address("server"), "ro-a", &ids);
    eventually(|| {
        let warnings = readiness(&serve)["warnings"].to_string();
        warnings.contains("1 of 1 exports fail, 20 spans wait in the store").then_some(())
    });
    each_once(&collector, &ids);
    eventually(|| (metric(&serve, "sent_total{export=\"c\"}") == 20).then_some(()));
    assert_eq!(metric(&serve, "retried_total{export=\"c\"}"), 5);
    assert_eq!(readiness(&serve)["warnings"], serde_json::Value::Null);
}

#[test]
fn a_collector_that_comes_late_gets_everything() {
    let bench = Bench::new();
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let first = serve(&bench, address, "");
    let ids = span_ids(0..1500);
    store_spans(first.address("server"), "ro-a", &ids[..1000]);
    eventually(|| (metric(&first, "waiting{export=\"c\"}") == 1000).then_some(()));
    // Stopping does not wait for it, and the next program goes on.
    assert_eq!(first.stop(), Some(0));
    let second = serve(&bench, address, "");
    store_spans(second.address("server"), "ro-b", &ids[1000..]);
    let collector = Collector::at(TcpListener::bind(address).unwrap(), |_, _| Answer::Accept);
    each_once(&collector, &ids);
    assert_eq!(second.stop(), Some(0));
}

#[test]
fn requests_that_are_too_large_are_split() {
    let bench = Bench::new();
    let ids = span_ids(0..40);
    let large = ids[17].clone();
    let collector = Collector::start(move |_, request| {
        let ids = request.span_ids();
        if ids.len() > 3 || ids.contains(&large) { Answer::Status(413, "") } else { Answer::Accept }
    });
    let serve = serve(&bench, collector.address, "");
    store_spans(serve.address("server"), "ro-a", &ids);
    let expected: Vec<String> = ids.iter().enumerate().filter(|(at, _)| *at != 17).map(|(_, id)| id.clone()).collect();
    each_once(&collector, &expected);
    eventually(|| (metric(&serve, "sent_total{export=\"c\"}") == 39).then_some(()));
    assert_eq!(metric(&serve, "dropped_total{export=\"c\",reason=\"too_large\"}"), 1);
    // The order of the store.
    assert_eq!(collector.span_ids(), expected);
}

#[test]
fn what_a_collector_refuses_is_counted_and_not_sent_again() {
    let bench = Bench::new();
    let collector = Collector::start(|_, request| match request.span_ids()[0].as_str() {
        "0000000000000001" => {
            Answer::AcceptWith(json!({ "partialSuccess": { "rejectedSpans": "2", "errorMessage": "too old" } }))
        }
        "000000000000000b" => Answer::Status(401, ""),
        "0000000000000015" => Answer::Status(400, ""),
        _ => Answer::Accept,
    });
    let serve = serve(&bench, collector.address, "max_batch_spans = 10");
    store_spans(serve.address("server"), "ro-a", &span_ids(0..40));
    eventually(|| (metric(&serve, "sent_total{export=\"c\"}") == 18).then_some(()));
    for (reason, count) in [("rejected", 2), ("http_401", 10), ("http_400", 10)] {
        assert_eq!(metric(&serve, &format!("dropped_total{{export=\"c\",reason=\"{reason}\"}}")), count, "{reason}");
    }
    assert_eq!(collector.span_ids().len(), 20);
    assert_eq!(bench.spans("ro-a").len(), 40, "they stay in the store");
}

#[test]
fn a_killed_server_loses_no_span() {
    let bench = Bench::new();
    // Each request that a killed server sent last is taken without an answer.
    let hangs = |number: usize| [3, 9].contains(&number);
    let collector = Collector::start(move |number, _| if hangs(number) { Answer::Hang } else { Answer::Accept });
    let ids = span_ids(0..900);
    for part in ids.chunks(300) {
        let serve = serve(&bench, collector.address, "max_batch_spans = 50");
        store_spans(serve.address("server"), "ro-a", part);
        let is_last = part.last() == ids.last();
        let hung = collector.accepted().len();
        if is_last {
            eventually(|| {
                (metric(&serve, "waiting{export=\"c\"}") == 0 && metric(&serve, "sent_total{export=\"c\"}") > 0)
                    .then_some(())
            });
            assert_eq!(serve.stop(), Some(0));
        } else {
            eventually(|| (collector.accepted().len() > hung).then_some(()));
            serve.kill();
        }
    }
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    collector.span_ids().into_iter().for_each(|id| *counts.entry(id).or_default() += 1);
    assert_eq!(counts.keys().cloned().collect::<Vec<_>>(), ids, "all arrived");
    // A kill repeats one request at most.
    assert!(counts.values().filter(|count| **count > 1).count() <= 100, "{counts:?}");
    assert!(counts.values().all(|count| *count <= 3));
}

#[test]
fn what_retention_removes_before_it_is_sent_is_counted() {
    let bench = Bench::new();
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let serve = serve(&bench, address, "[store.retention]\nmax_spans = 100\n");
    store_spans(serve.address("server"), "ro-a", &span_ids(0..1000));
    let collector = Collector::at(TcpListener::bind(address).unwrap(), |_, _| Answer::Accept);
    let (sent, dropped) = eventually(|| {
        let sent = metric(&serve, "sent_total{export=\"c\"}");
        let dropped = metric(&serve, "dropped_total{export=\"c\",reason=\"removed\"}");
        (sent + dropped == 1000).then_some((sent, dropped))
    });
    assert!(sent >= 90 && dropped > 0, "{sent} {dropped}");
    assert_eq!(collector.span_ids().len() as u64, sent);
}

#[test]
fn of_two_programs_with_one_store_one_exports() {
    let bench = Bench::new();
    let collector = Collector::start(|_, _| Answer::Accept);
    let (first, second) = (serve(&bench, collector.address, ""), serve(&bench, collector.address, ""));
    let ids = span_ids(0..90);
    store_spans(first.address("server"), "ro-a", &ids[..30]);
    store_spans(second.address("server"), "ro-b", &ids[30..60]);
    each_once(&collector, &ids[..60]);
    // The other one goes on where it was.
    assert_eq!(first.stop(), Some(0));
    store_spans(second.address("server"), "ro-c", &ids[60..]);
    each_once(&collector, &ids);
}

#[test]
fn nothing_is_exported_to_ourselves() {
    let bench = Bench::new();
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let config = bench.home().join("loop.toml");
    std::fs::write(&config, format!("[[export.otlp]]\nendpoint = \"http://{address}\"\ninterval_ms = 20\n")).unwrap();
    let mut command = tracewire(bench.home());
    command
        .args(["serve", "--json", "--proxy", "127.0.0.1:0", "--server", &address.to_string(), "--config"])
        .arg(&config);
    let serve = Running::start(command);
    store_spans(serve.address("server"), "ro-a", &span_ids(0..3));
    eventually(|| readiness(&serve)["warnings"].to_string().contains("1 of 1 exports fail").then_some(()));
    assert_eq!(readiness(&serve)["store"]["spans"], 3);
}

#[test]
fn the_variables_of_opentelemetry_export_a_run() {
    let bench = Bench::new();
    let collector = Collector::start(|_, _| Answer::Accept);
    let mut run = tracewire(bench.home());
    run.args(["run", "--rollout", "ro-run", "--"]).args([python().as_str(), "-c"]);
    run.arg(format!("import urllib.request; urllib.request.urlopen('{}/get')", bench.http()));
    run.env("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{}", collector.address));
    run.env("OTEL_EXPORTER_OTLP_HEADERS", "x-key=a%20b");
    let output = run.output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    let requests = collector.accepted();
    assert!(!requests.is_empty(), "{}", text(&output));
    let head = requests[0].head.to_lowercase();
    for field in ["post /v1/traces ", "x-key: a b", "content-encoding: gzip", "content-type: application/x-protobuf"] {
        assert!(head.contains(field), "{field}: {head}");
    }
    // OpenTelemetry's own package reads what arrived.
    let folder = bench.home().join("requests");
    std::fs::create_dir(&folder).unwrap();
    for (number, request) in requests.iter().enumerate() {
        std::fs::write(folder.join(number.to_string()), &request.body).unwrap();
    }
    let script = root().join("tests/clients/exports/live_otlp.py");
    let read = Command::new(python()).arg(script).arg(&folder).output().unwrap();
    assert!(read.status.success(), "{}", text(&read));
    let mut got: Vec<String> = serde_json::from_slice(&read.stdout).unwrap();
    got.sort_unstable();
    let stored = bench.spans("ro-run");
    let mut expected: Vec<&str> = stored.iter().map(|span| span["span_id"].as_str().unwrap()).collect();
    expected.sort_unstable();
    assert_eq!(got, expected);
}

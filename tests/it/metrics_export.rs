//! Metrics of model calls, over OTLP as OpenTelemetry's package reads them, and at `/metrics`.

use crate::support::collector::{Answer, Collector, metric, readiness};
use crate::support::{Bench, Running, eventually, python, root, say, text, tracewire};
use serde_json::{Value, json};
use std::process::Command;

/// A call, and a streamed one, of the mock, with Python's standard library. `HTTP_PROXY` names the proxy.
fn calls(url: &str) -> String {
    format!(
        "import json, urllib.request\n\
         for stream in [False, True]:\n\
        \x20   body = dict(model='m', messages=[dict(role='user', content='say something')], stream=stream)\n\
        \x20   if stream: body['stream_options'] = dict(include_usage=True)\n\
        \x20   request = urllib.request.Request('{url}/v1/chat/completions', json.dumps(body).encode(), {{'content-type': 'application/json'}})\n\
        \x20   urllib.request.urlopen(request).read()\n"
    )
}

/// The count of a metric's values, all points together.
fn count(request: &Value, name: &str) -> u64 {
    let metrics = request["resourceMetrics"][0]["scopeMetrics"][0]["metrics"].as_array().unwrap();
    let Some(metric) = metrics.iter().find(|metric| metric["name"] == name) else { return 0 };
    assert_eq!(metric["histogram"]["aggregationTemporality"], "AGGREGATION_TEMPORALITY_CUMULATIVE");
    let points = metric["histogram"]["dataPoints"].as_array().unwrap();
    let count_of = |point: &Value| {
        let number = |value: &Value| value.as_str().unwrap().parse::<u64>().unwrap();
        let buckets = point["bucketCounts"].as_array().unwrap();
        assert_eq!(buckets.len(), point["explicitBounds"].as_array().unwrap().len() + 1);
        assert_eq!(buckets.iter().map(number).sum::<u64>(), number(&point["count"]));
        assert!(number(&point["timeUnixNano"]) >= number(&point["startTimeUnixNano"]));
        number(&point["count"])
    };
    points.iter().map(count_of).sum()
}

/// Checks the metrics of one call and one streamed call.
fn check(request: &Value) {
    assert_eq!(count(request, "gen_ai.client.token.usage"), 4, "{request:#}");
    assert_eq!(count(request, "gen_ai.client.operation.duration"), 2, "{request:#}");
    assert_eq!(count(request, "gen_ai.client.operation.time_to_first_chunk"), 1, "{request:#}");
    assert_eq!(count(request, "gen_ai.server.time_per_output_token"), 1, "{request:#}");
    let resource = request["resourceMetrics"][0]["resource"]["attributes"].to_string();
    assert!(resource.contains(r#""service.name","value":{"stringValue":"tracewire"}"#), "{resource}");
    let all = request.to_string();
    for attribute in [
        r#"{"key":"gen_ai.operation.name","value":{"stringValue":"chat"}}"#,
        r#"{"key":"gen_ai.request.model","value":{"stringValue":"m"}}"#,
        r#"{"key":"gen_ai.token.type","value":{"stringValue":"output"}}"#,
    ] {
        assert!(all.contains(attribute), "{attribute}: {request:#}");
    }
}

/// The last of some requests, as OpenTelemetry's package reads it.
fn read(bench: &Bench, bodies: &[Vec<u8>]) -> Value {
    let folder = bench.home().join("metrics");
    std::fs::create_dir_all(&folder).unwrap();
    for (number, body) in bodies.iter().enumerate() {
        std::fs::write(folder.join(number.to_string()), body).unwrap();
    }
    let script = root().join("tests/clients/exports/live_metrics.py");
    let output = Command::new(python()).arg(script).arg(&folder).output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn a_run_exports_its_metrics_at_its_end() {
    let bench = Bench::new();
    for protocol in ["http/protobuf", "http/json"] {
        let collector = Collector::start(|_, _| Answer::Accept);
        let mut run = tracewire(bench.home());
        run.args(["run", "--", python().as_str(), "-c", &calls(&bench.http())]);
        run.env("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{}", collector.address));
        run.env("OTEL_EXPORTER_OTLP_PROTOCOL", protocol).env("OTEL_METRICS_EXPORTER", "otlp");
        run.env("OTEL_TRACES_EXPORTER", "none");
        run.env("OTEL_EXPORTER_OTLP_METRICS_COMPRESSION", if protocol == "http/json" { "none" } else { "gzip" });
        let output = run.output().unwrap();
        assert!(output.status.success(), "{}", text(&output));
        let requests = collector.accepted();
        assert_eq!(requests.len(), 1, "{}", text(&output));
        assert!(requests[0].head.starts_with("POST /v1/metrics "), "{}", requests[0].head);
        check(&read(&bench, &[requests[0].body.clone()]));
    }
}

#[test]
fn metrics_are_sent_again_and_again_and_are_prometheus_too() {
    let bench = Bench::new();
    // The second one fails: the third has its values too.
    let collector = Collector::start(|number, _| match number {
        1 => Answer::Status(503, "retry-after: 0\r\n"),
        2 => Answer::Close,
        _ => Answer::Accept,
    });
    let config = bench.home().join("metrics.toml");
    let entry = format!(
        "[[export.otlp]]\nendpoint = \"http://{}\"\nname = \"c\"\nprotocol = \"http/json\"\ncompression = \"none\"\n\
         signals = [\"metrics\"]\nmetrics_interval_ms = 50\n",
        collector.address
    );
    std::fs::write(&config, entry).unwrap();
    let serve = bench.serve(&["--config", config.to_str().unwrap()]);
    let call = |serve: &Running| {
        let proxy = format!("http://{}", serve.address("proxy"));
        let output =
            Command::new(python()).args(["-c", &calls(&bench.http())]).env("HTTP_PROXY", proxy).output().unwrap();
        assert!(output.status.success(), "{}", text(&output));
    };
    call(&serve);
    eventually(|| (collector.accepted().len() >= 3).then_some(()));
    call(&serve);
    let last = eventually(|| {
        let bodies: Vec<Vec<u8>> = collector.accepted().into_iter().map(|request| request.body).collect();
        let last: Value = serde_json::from_slice(bodies.last()?).unwrap();
        (count_of_json(&last) == 4).then(|| read(&bench, &bodies))
    });
    assert_eq!(count(&last, "gen_ai.client.operation.duration"), 4, "{last:#}");
    eventually(|| (readiness(&serve)["warnings"] == Value::Null).then_some(()));
    assert!(metric(&serve, "sent_total{export=\"c\"}") >= 5);
    let metrics =
        say(serve.address("server"), b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nconnection: close\r\n\r\n");
    assert!(metrics.contains("# TYPE gen_ai_client_operation_duration_seconds histogram\n"), "{metrics}");
    let series = |name: &str| -> Vec<&str> { metrics.lines().filter(|line| line.starts_with(name)).collect() };
    let counts = series("gen_ai_client_operation_duration_seconds_count{");
    assert!(counts.len() == 1 && counts[0].ends_with(" 4"), "{counts:?}");
    assert!(counts[0].contains("gen_ai_request_model=\"m\"") && counts[0].contains("server_port="), "{counts:?}");
    let usage = series("gen_ai_client_token_usage_count{");
    assert!(usage.len() == 2 && usage.iter().all(|line| line.ends_with(" 4")), "{usage:?}");
    let buckets = series("gen_ai_client_token_usage_bucket{");
    let all: Vec<&&str> = buckets.iter().filter(|line| line.contains("le=\"+Inf\"")).collect();
    // One for each bound, and all.
    assert!(buckets.len() == 2 * 15 && all.len() == 2 && all.iter().all(|line| line.ends_with(" 4")), "{buckets:?}");
    assert!(metrics.contains("tracewire_exchanges_total 4\n"), "{metrics}");
    assert_eq!(serve.stop(), Some(0));
}

/// The number of calls in a request that is JSON.
fn count_of_json(request: &Value) -> u64 {
    let metrics = request["resourceMetrics"][0]["scopeMetrics"][0]["metrics"].as_array().unwrap();
    let duration = metrics.iter().find(|metric| metric["name"] == "gen_ai.client.operation.duration").unwrap();
    let points = duration["histogram"]["dataPoints"].as_array().unwrap();
    points.iter().map(|point| point["count"].as_str().unwrap().parse::<u64>().unwrap()).sum()
}

#[test]
fn metrics_go_over_grpc() {
    let bench = Bench::new();
    let log = bench.home().join("requests.jsonl");
    let mut receiver = Command::new(python());
    receiver.arg(root().join("tests/clients/servers/otlp_receiver.py")).arg(json!({ "log": log }).to_string());
    let receiver = Running::start(receiver);
    let mut run = tracewire(bench.home());
    run.args(["run", "--", python().as_str(), "-c", &calls(&bench.http())]);
    run.env("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{}", receiver.address("address")));
    run.env("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc").env("OTEL_METRICS_EXPORTER", "otlp");
    let output = run.output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    let log = std::fs::read_to_string(log).unwrap();
    let requests: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let metrics: Vec<&Value> = requests.iter().filter(|request| request["metrics"].is_object()).collect();
    assert_eq!(metrics.len(), 1, "{requests:?}");
    check(&metrics[0]["metrics"]);
    // The spans go to the same receiver.
    assert!(requests.iter().any(|request| request["spans"].is_array()));
}

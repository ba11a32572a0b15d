//! Live export to a scripted collector: what it gets, whatever it answers, and whoever is away.

use crate::support::collector::{Answer, Collector, metric, readiness, span_ids, store_spans};
use crate::support::{Bench, Running, eventually, python, root, say, signal, text, tracewire};
use serde_json::json;
use std::collections::BTreeMap;
use std::io::BufRead;
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
    for field in
        ["x-key: secret", "content-type: application/json", "user-agent: tracewire/", "x-agentlightning-client: true"]
    {
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
fn calls_have_the_attributes_of_openinference_if_the_settings_say_so() {
    let bench = Bench::new();
    let collector = Collector::start(|_, _| Answer::Accept);
    let serve = serve(&bench, collector.address, "attributes = \"openinference\"");
    let body = json!({ "model": "m", "messages": [{ "role": "user", "content": "hello" }] }).to_string();
    let call = format!(
        "POST {}/v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{body}",
        bench.http(),
        body.len()
    );
    assert!(say(serve.address("proxy"), call.as_bytes()).starts_with("HTTP/1.1 200"));
    eventually(|| (collector.span_ids().len() == 1).then_some(()));
    let request: serde_json::Value = serde_json::from_slice(&collector.accepted()[0].body).unwrap();
    let span = &request["resourceSpans"][0]["scopeSpans"][0]["spans"][0];
    let value = |name: &str| {
        let pair = span["attributes"].as_array().unwrap().iter().find(|pair| pair["key"] == name);
        pair.unwrap_or_else(|| panic!("no {name} in {span:#}"))["value"]["stringValue"].clone()
    };
    assert_eq!(value("openinference.span.kind"), "LLM");
    assert_eq!(value("llm.input_messages.0.message.content"), "hello");
    assert_eq!(value("gen_ai.request.model"), "m");
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
    // The fourth request is taken without an answer: the server is killed between sending and moving its cursor.
    let collector = Collector::start(|number, _| if number == 3 { Answer::Hang } else { Answer::Accept });
    let ids = span_ids(0..600);
    let first = serve(&bench, collector.address, "max_batch_spans = 50");
    store_spans(first.address("server"), "ro-a", &ids[..400]);
    eventually(|| (collector.accepted().len() == 4).then_some(()));
    first.kill();
    let second = serve(&bench, collector.address, "max_batch_spans = 50");
    store_spans(second.address("server"), "ro-a", &ids[400..]);
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    eventually(|| {
        counts.clear();
        collector.span_ids().into_iter().for_each(|id| *counts.entry(id).or_default() += 1);
        (counts.len() == ids.len()).then_some(())
    });
    assert!(counts.keys().eq(&ids), "{counts:?}");
    let repeated: Vec<&String> = counts.iter().filter(|(_, count)| **count > 1).map(|(id, _)| id).collect();
    let mut hung = collector.accepted()[3].span_ids();
    hung.sort_unstable();
    assert_eq!(repeated, hung.iter().collect::<Vec<_>>(), "only what had no answer is sent again");
    assert_eq!(second.stop(), Some(0));
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
    run.arg(format!("import urllib.request; urllib.request.urlopen('{}/v1/models')", bench.http()));
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

#[test]
fn the_end_of_a_rollout_is_a_signed_webhook() {
    let bench = Bench::new();
    let receiver = Collector::start(|number, _| match number {
        0 => Answer::Status(500, ""),
        1 => Answer::Status(503, "retry-after: 0\r\n"),
        _ => Answer::Accept,
    });
    let config = bench.home().join("webhook.toml");
    let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    let entry = format!(
        "[[export.webhook]]\nurl = \"http://{}/hook\"\nname = \"h\"\nsecret = \"{secret}\"\ndelay_ms = 0\n",
        receiver.address
    );
    std::fs::write(&config, entry).unwrap();
    let serve = bench.serve(&["--config", config.to_str().unwrap()]);
    let post = |path: &str, body: serde_json::Value| {
        let body = body.to_string();
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\ncontent-type: application/json\r\nconnection: close\r\n\
             content-length: {}\r\n\r\n",
            body.len()
        );
        let response = say(serve.address("server"), format!("{head}{body}").as_bytes());
        assert!(response.starts_with("HTTP/1.1 20"), "{response}");
        serde_json::from_str::<serde_json::Value>(response.split_once("\r\n\r\n").unwrap().1).unwrap()
    };
    let mut ended = Vec::new();
    for status in ["succeeded", "failed"] {
        let rollout = post("/v1/agl/rollouts", json!({ "input": 1, "metadata": { "task": status } }));
        let id = rollout["rollout_id"].as_str().unwrap().to_owned();
        store_spans(serve.address("server"), &id, &span_ids(0..3));
        post(&format!("/v1/agl/rollouts/{id}"), json!({ "status": status }));
        ended.push((id, status));
    }
    let requests = eventually(|| Some(receiver.accepted()).filter(|requests| requests.len() == 2));
    for (request, (id, status)) in requests.iter().zip(&ended) {
        let body: serde_json::Value = serde_json::from_slice(&request.body).unwrap();
        assert_eq!((&body["type"], &body["rollout_id"]), (&json!("rollout.ended"), &json!(id)));
        assert_eq!((&body["status"], &body["metadata"]["task"]), (&json!(status), &json!(status)));
        assert_eq!((&body["counts"]["spans"], &body["rewards"]), (&json!(3), &json!([])));
        assert!(body["verdict"]["sound"].is_boolean(), "{body}");
        assert!(request.head.starts_with("POST /hook "), "{}", request.head);
    }
    // A receiver verifies it with Python's standard library.
    let field = |name: &str| {
        let line = requests[0].head.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")));
        line.unwrap().to_owned()
    };
    let script = "import base64, hashlib, hmac, sys\n\
        key = base64.b64decode(sys.argv[1].removeprefix('whsec_'))\n\
        signed = f'{sys.argv[2]}.{sys.argv[3]}.'.encode() + sys.stdin.buffer.read()\n\
        print('v1,' + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode(), end='')";
    let mut python = Command::new(python())
        .args(["-c", script, secret, &field("webhook-id"), &field("webhook-timestamp")])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut python.stdin.take().unwrap(), &requests[0].body).unwrap();
    let signature = python.wait_with_output().unwrap().stdout;
    assert_eq!(String::from_utf8(signature).unwrap(), field("webhook-signature"));
    eventually(|| (metric(&serve, "sent_total{export=\"h\"}") == 2).then_some(()));
    assert_eq!(metric(&serve, "retried_total{export=\"h\"}"), 2);
    // What was sent is not sent again.
    assert_eq!(serve.stop(), Some(0));
    let again = bench.serve(&["--config", config.to_str().unwrap()]);
    eventually(|| (metric(&again, "waiting{export=\"h\"}") == 0).then_some(()));
    assert_eq!((again.stop(), receiver.accepted().len()), (Some(0), 2));
}

#[test]
fn each_span_is_a_line_of_json() {
    let bench = Bench::new();
    let file = bench.home().join("spans.jsonl");
    let emit = format!("jsonl:{}", file.display());
    let ids = span_ids(0..1200);
    for part in ids.chunks(600) {
        let serve = bench.serve(&["--emit", &emit]);
        store_spans(serve.address("server"), "ro-a", part);
        assert_eq!(serve.stop(), Some(0));
    }
    let text = std::fs::read_to_string(&file).unwrap();
    let spans: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let written: Vec<&str> = spans.iter().map(|span| span["span_id"].as_str().unwrap()).collect();
    assert_eq!(written, ids);
    assert!(spans.iter().all(|span| span["rollout_id"] == "ro-a"));

    // On stdout there are only lines.
    let mut serve = tracewire(bench.home());
    serve.args(["serve", "--json", "--proxy", "127.0.0.1:0", "--server", "127.0.0.1:0", "--emit", "jsonl"]);
    serve.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let mut child = serve.spawn().unwrap();
    let mut stderr = std::io::BufReader::new(child.stderr.take().unwrap()).lines();
    let hello = stderr.find_map(|line| serde_json::from_str::<serde_json::Value>(&line.unwrap()).ok()).unwrap();
    let server = hello["server"].as_str().unwrap().parse().unwrap();
    store_spans(server, "ro-b", &span_ids(5000..5001));
    let mut stdout = std::io::BufReader::new(child.stdout.take().unwrap()).lines();
    let line: serde_json::Value = serde_json::from_str(&stdout.next().unwrap().unwrap()).unwrap();
    assert_eq!((&line["rollout_id"], &line["span_id"]), (&json!("ro-b"), &json!(span_ids(5000..5001)[0])));
    // A reader that has gone ends the lines, not the server.
    drop(stdout);
    store_spans(server, "ro-b", &span_ids(5001..5002));
    signal(child.id(), rustix::process::Signal::TERM);
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

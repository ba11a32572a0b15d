//! Delivered responses and acknowledged spans are stored: after a kill of Tracewire or PostgreSQL, and after an orderly stop with
//! a response in flight.

use crate::support::client::get;
use crate::support::{Bench, connect, eventually, is_exchange, read_head, say, tracewire};
use serde_json::{Value, json};
use std::collections::HashSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

/// Requests a streamed response. True if it arrived completely.
fn is_answered(proxy: SocketAddr, mock: &str, call: &str) -> bool {
    let Ok(mut stream) = TcpStream::connect(proxy) else { return false };
    let body = r#"{"model":"m","stream":true,"messages":[{"role":"user","content":"hi"}]}"#;
    let request = format!(
        "POST {mock}/v1/chat/completions?call={call} HTTP/1.1\r\nHost: x\r\nx-rollout-id: ro-kill\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    let mut answer = Vec::new();
    stream.write_all(request.as_bytes()).is_ok()
        && stream.read_to_end(&mut answer).is_ok()
        && crate::support::find(&answer, b"[DONE]").is_some()
}

#[test]
fn every_answer_delivered_before_a_kill_is_stored() {
    let bench = Bench::new();
    let config = bench.home().join("proxy.toml");
    std::fs::write(&config, "[capture]\ndurability = \"commit\"\n").unwrap();
    let serve = bench.serve(&["--config", config.to_str().unwrap()]);
    let (proxy, mock) = (serve.address("proxy"), bench.http());
    let delivered = Arc::new(Mutex::new(Vec::new()));
    let over = Arc::new(AtomicBool::new(false));
    let callers: Vec<_> = (0..8)
        .map(|caller| {
            let (delivered, over, mock) = (Arc::clone(&delivered), Arc::clone(&over), mock.clone());
            std::thread::spawn(move || {
                for number in 0..10_000 {
                    let call = format!("{caller}-{number}");
                    if over.load(Ordering::Relaxed) || !is_answered(proxy, &mock, &call) {
                        return;
                    }
                    delivered.lock().unwrap().push(call);
                }
            })
        })
        .collect();
    eventually(|| (delivered.lock().unwrap().len() > 200).then_some(()));
    serve.kill();
    over.store(true, Ordering::Relaxed);
    callers.into_iter().for_each(|caller| caller.join().unwrap());
    let stored: HashSet<String> = bench
        .spans("ro-kill")
        .iter()
        .filter(|span| is_exchange(span))
        .filter_map(|span| Some(span["attributes"]["url.full"].as_str()?.split_once("call=")?.1.to_owned()))
        .collect();
    let delivered = delivered.lock().unwrap();
    let missing: Vec<_> = delivered.iter().filter(|call| !stored.contains(*call)).collect();
    assert!(missing.is_empty(), "{} of {} delivered answers are missing: {missing:?}", missing.len(), delivered.len());
}

#[test]
fn sigterm_lets_an_answer_finish_and_stores_it() {
    let bench = Bench::new();
    let serve = bench.serve(&[]);
    let mut stream = connect(serve.address("proxy"));
    let target = format!("{}/sse?events=10&interval_ms=50", bench.http());
    write!(stream, "GET {target} HTTP/1.1\r\nHost: x\r\nx-rollout-id: ro-drain\r\n\r\n").unwrap();
    assert!(read_head(&mut stream).starts_with("HTTP/1.1 200"));
    let stopping = std::thread::spawn(move || serve.stop());
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).unwrap();
    assert_eq!(String::from_utf8_lossy(&rest).matches("data:").count(), 10);
    assert_eq!(stopping.join().unwrap(), Some(0));
    assert_eq!(bench.exchanges("ro-drain", 1)[0]["attributes"]["tracewire.outcome"], "complete");
}

/// Exports spans by OTLP as fast as they are acknowledged, until `over`. Returns the ids of the acknowledged spans.
fn exporting(server: SocketAddr, worker: usize, over: Arc<AtomicBool>) -> std::thread::JoinHandle<Vec<String>> {
    std::thread::spawn(move || {
        let mut acknowledged = Vec::new();
        for number in 1.. {
            if over.load(Ordering::Relaxed) {
                break;
            }
            let id = format!("{worker:04x}{number:012x}");
            let body = json!({ "resourceSpans": [{
                "resource": { "attributes": [{ "key": "agentlightning.rollout_id", "value": { "stringValue": "ro-load" } }] },
                "scopeSpans": [{ "spans": [{ "traceId": "0af7651916cd43dd8448eb211c80319c", "spanId": id, "name": "s",
                    "startTimeUnixNano": "1700000000000000000", "endTimeUnixNano": "1700000001000000000" }] }],
            }] })
            .to_string();
            let head = format!(
                "POST /v1/traces HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
                body.len()
            );
            let mut answer = String::new();
            let Ok(mut stream) = TcpStream::connect(server) else { continue };
            let sent = stream.write_all(format!("{head}{body}").as_bytes()).is_ok();
            if sent && stream.read_to_string(&mut answer).is_ok() && answer.starts_with("HTTP/1.1 200") {
                acknowledged.push(id);
            }
        }
        acknowledged
    })
}

/// Asserts that each acknowledged span is stored once.
fn all_there(bench: &Bench, store: &[&str], acknowledged: &[String]) {
    let stored = eventually(|| {
        let command = [&["trace", "show", "ro-load", "--format", "json"], store].concat();
        let output = tracewire(bench.home()).args(command).output().unwrap();
        let spans: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap_or_default();
        let ids: Vec<String> = spans.iter().map(|span| span["span_id"].as_str().unwrap().to_owned()).collect();
        let known: HashSet<&String> = ids.iter().collect();
        assert_eq!(known.len(), ids.len(), "a span is stored twice");
        acknowledged.iter().all(|id| known.contains(id)).then_some(ids)
    });
    assert!(stored.len() >= acknowledged.len());
}

#[test]
fn every_span_acknowledged_before_a_kill_of_the_server_is_stored() {
    let bench = Bench::new();
    let serve = bench.serve(&[]);
    let over = Arc::new(AtomicBool::new(false));
    let workers: Vec<_> = (1..5).map(|worker| exporting(serve.address("server"), worker, Arc::clone(&over))).collect();
    eventually(|| (bench.spans("ro-load").len() > 200).then_some(()));
    serve.kill();
    over.store(true, Ordering::Relaxed);
    let acknowledged: Vec<String> = workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect();
    assert!(acknowledged.len() > 200);
    all_there(&bench, &[], &acknowledged);
}

#[test]
fn every_span_acknowledged_while_postgresql_is_killed_is_stored() {
    use crate::support::postgres::Server;
    let bench = Bench::new();
    let mut postgres = Server::start();
    let url = postgres.url();
    let store = ["--store", &url];
    let (one, other) = (bench.serve(&store), bench.serve(&store));
    let over = Arc::new(AtomicBool::new(false));
    let servers = [one.address("server"), other.address("server")];
    let workers: Vec<_> = (1..5).map(|worker| exporting(servers[worker % 2], worker, Arc::clone(&over))).collect();
    let stored = || {
        let output = tracewire(bench.home()).args(["trace", "list", "--json", "--store", &url]).output().unwrap();
        let rollouts: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        rollouts[0]["spans"].as_u64().unwrap_or(0)
    };
    let before = eventually(|| Some(stored()).filter(|count| *count > 100));
    postgres.kill();
    postgres.go_on();
    eventually(|| (stored() > before + 100).then_some(()));
    over.store(true, Ordering::Relaxed);
    let acknowledged: Vec<String> = workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect();
    all_there(&bench, &store, &acknowledged);
    assert_eq!((one.stop(), other.stop()), (Some(0), Some(0)));
    postgres.kill();
}

#[test]
fn serve_starts_while_postgresql_is_away_and_loses_nothing() {
    use crate::support::postgres::Server;
    let bench = Bench::new();
    let mut postgres = Server::start();
    let url = postgres.url();
    postgres.kill();
    let serve = bench.serve(&["--store", &url]);
    let call = |rollout: &str| {
        let url = format!("{}/weather", bench.http());
        let request = format!("GET {url} HTTP/1.1\r\nHost: x\r\nx-rollout-id: {rollout}\r\nConnection: close\r\n\r\n");
        assert!(say(serve.address("proxy"), request.as_bytes()).contains("celsius"));
    };
    let readiness = || get(serve.address("server"), "/readyz");
    assert_eq!(readiness().status, 503);
    (0..5).for_each(|_| call("ro-early"));
    let output = tracewire(bench.home()).args(["trace", "list", "--store", &url]).output().unwrap();
    assert!(!output.status.success() && crate::support::text(&output).contains("can't be reached"));
    postgres.go_on();
    let stored = |rollout: &str| {
        let output =
            tracewire(bench.home()).args(["trace", "show", rollout, "--format", "json", "--store", &url]).output();
        let spans: Vec<Value> = serde_json::from_slice(&output.unwrap().stdout).unwrap_or_default();
        let mut numbers: Vec<u64> = spans.iter().filter_map(|span| span["sequence_id"].as_u64()).collect();
        numbers.sort_unstable();
        numbers
    };
    eventually(|| (stored("ro-early").len() == 5).then_some(()));
    eventually(|| (readiness().status == 200).then_some(()));
    call("ro-early");
    let numbers = eventually(|| Some(stored("ro-early")).filter(|all| all.len() == 6));
    assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]), "a sequence id twice: {numbers:?}");
    assert_eq!(serve.stop(), Some(0));
    postgres.kill();
}

#[test]
fn a_store_file_that_is_removed_or_replaced_is_made_anew() {
    let bench = Bench::new();
    let serve = bench.serve(&[]);
    let call = |rollout: &str| {
        let url = format!("{}/weather", bench.http());
        let request = format!("GET {url} HTTP/1.1\r\nHost: x\r\nx-rollout-id: {rollout}\r\nConnection: close\r\n\r\n");
        assert!(say(serve.address("proxy"), request.as_bytes()).contains("celsius"));
        assert_eq!(bench.exchanges(rollout, 1).len(), 1);
    };
    let lost = |count: u64| {
        let metrics = get(serve.address("server"), "/metrics").text();
        assert!(metrics.contains(&format!("tracewire_store_lost_files_total {count}\n")), "{metrics}");
        let warnings = get(serve.address("server"), "/readyz").json()["warnings"].to_string();
        assert_eq!(warnings.contains("removed or replaced"), count > 0, "{warnings}");
    };
    call("ro-before");
    lost(0);
    std::fs::remove_file(bench.store()).unwrap();
    call("ro-removed");
    assert_eq!(bench.spans("ro-before").len(), 0);
    lost(1);
    // Another file in its place, as a restored backup is.
    let copy = bench.home().join("copy.db");
    std::fs::copy(bench.store(), &copy).unwrap();
    std::fs::rename(&copy, bench.store()).unwrap();
    call("ro-replaced");
    lost(2);
}

#[test]
fn a_store_that_takes_no_spans_is_reported_and_loses_none() {
    let bench = Bench::new();
    let serve = bench.serve(&[]);
    let warnings = || get(serve.address("server"), "/readyz").json()["warnings"].to_string();
    let call = |rollout: &str| {
        let url = format!("{}/weather", bench.http());
        let request = format!("GET {url} HTTP/1.1\r\nHost: x\r\nx-rollout-id: {rollout}\r\nConnection: close\r\n\r\n");
        assert!(say(serve.address("proxy"), request.as_bytes()).contains("celsius"));
    };
    call("ro-before");
    assert_eq!(bench.exchanges("ro-before", 1).len(), 1);
    let lock = rusqlite::Connection::open(bench.store()).unwrap();
    lock.execute_batch("BEGIN IMMEDIATE").unwrap();
    call("ro-during");
    eventually(|| warnings().contains("the store accepts no spans: 1 wait in memory").then_some(()));
    let metrics = get(serve.address("server"), "/metrics").text();
    assert!(metrics.contains("tracewire_spans_unstored 1\n"), "{metrics}");
    lock.execute_batch("ROLLBACK").unwrap();
    assert_eq!(bench.exchanges("ro-during", 1).len(), 1);
    eventually(|| (warnings() == "null").then_some(()));
}

#[test]
fn the_folder_of_a_run_is_its_users_whatever_the_umask() {
    let bench = Bench::new();
    let mut run = std::process::Command::new("sh");
    run.args(["-c", "umask 000; exec \"$@\"", "sh", crate::support::TRACEWIRE, "run", "--", "sh", "-c"]);
    run.arg("stat -c %a \"$(dirname \"$SSL_CERT_FILE\")\"");
    let output = crate::support::at_home(run, bench.home()).output().unwrap();
    assert_eq!(output.stdout, b"700\n", "{}", crate::support::text(&output));
}

//! What was delivered is stored: through a kill, and through an orderly stop with an answer in flight.

use crate::support::{Bench, connect, eventually, is_exchange, read_head};
use std::collections::HashSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

/// Asks for a streamed answer and reads it to its end; true if it came whole.
fn whole_answer(door: SocketAddr, mock: &str, call: &str) -> bool {
    let Ok(mut stream) = TcpStream::connect(door) else { return false };
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
    let (door, mock) = (serve.address("proxy"), bench.http());
    let delivered = Arc::new(Mutex::new(Vec::new()));
    let over = Arc::new(AtomicBool::new(false));
    let callers: Vec<_> = (0..8)
        .map(|caller| {
            let (delivered, over, mock) = (Arc::clone(&delivered), Arc::clone(&over), mock.clone());
            std::thread::spawn(move || {
                for number in 0..10_000 {
                    let call = format!("{caller}-{number}");
                    if over.load(Ordering::Relaxed) || !whole_answer(door, &mock, &call) {
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

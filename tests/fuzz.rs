//! Broken input for every format: golden exchanges with bytes changed, cut, doubled and mixed.
//!
//! It runs for one second by default, and for `TRACEWIRE_FUZZ_SECONDS` seconds a format if that is set (`scripts/fuzz`: 60).
//! A panic or a hang fails it; the input is written to `target/fuzz/`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    unreachable_pub,
    reason = "a test fails by panicking"
)]

#[path = "it/support/mutate.rs"]
mod mutate;

use http::HeaderMap;
use mutate::mutated;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tracewire::internals::{Change, Changes, change, insert};
use tracewire::internals::{HttpExchangeView, read};

/// A golden exchange, without its framing.
struct Seed {
    target: String,
    request: Vec<u8>,
    response: Vec<u8>,
}

fn folders(path: &Path) -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> = std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect();
    all.sort();
    all
}

fn body(raw: &[u8]) -> (String, Vec<u8>) {
    let at = raw.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
    (String::from_utf8_lossy(&raw[..at]).into_owned(), raw[at + 4..].to_vec())
}

fn seeds(api: &Path) -> Vec<Seed> {
    let seed = |folder: PathBuf| {
        let (head, request) = body(&std::fs::read(folder.join("request.http")).unwrap());
        // A body may keep its chunked framing: that is one more kind of broken input.
        let (_, response) = body(&std::fs::read(folder.join("response.http")).unwrap());
        Seed { target: head.split(' ').nth(1).unwrap().to_owned(), request, response }
    };
    folders(api).into_iter().map(seed).collect()
}

/// The CPU time of this thread, which other programs on the machine do not affect.
fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.try_into().unwrap(), time.tv_nsec.try_into().unwrap())
}

#[test]
fn no_input_panics_or_takes_long() {
    let seconds = std::env::var("TRACEWIRE_FUZZ_SECONDS").ok().and_then(|text| text.parse().ok());
    let each = seconds.map_or(Duration::from_millis(150), Duration::from_secs);
    let changes = Changes {
        root: vec![("prompt_token_ids", Change::Remove), ("sglext", Change::Remove)],
        choice: vec![("token_ids", Change::Remove), ("logprobs", Change::Null)],
        ..Changes::default()
    };
    let mut random = fastrand::Rng::new();
    let headers = HeaderMap::new();
    for api in folders(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")) {
        let seeds = seeds(&api);
        let (began, mut count) = (Instant::now(), 0_u64);
        while began.elapsed() < each {
            let (seed, other) = (random.choice(&seeds).unwrap(), random.choice(&seeds).unwrap());
            let request = mutated(&seed.request, &other.request, &mut random);
            let response = mutated(&seed.response, &other.response, &mut random);
            let before = cpu_time();
            let outcome = std::panic::catch_unwind(|| {
                let seen = HttpExchangeView {
                    host: "h",
                    port: 80,
                    target: &seed.target,
                    request_headers: &headers,
                    request_body: &request,
                    status: Some(200),
                    response_headers: &headers,
                    response_body: &response,
                };
                let read = read(&seen);
                (read.is_some(), change(&response, &changes), insert(&request, &[("a", "1")]))
            });
            let took = cpu_time() - before;
            if outcome.is_err() || took > Duration::from_secs(2) {
                let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/fuzz");
                std::fs::create_dir_all(&folder).unwrap();
                std::fs::write(folder.join("request"), &request).unwrap();
                std::fs::write(folder.join("response"), &response).unwrap();
                panic!("{}: {took:?}; the input is in {}", seed.target, folder.display());
            }
            count += 1;
        }
        println!("{}: {count} inputs", api.file_name().unwrap().to_string_lossy());
    }
}

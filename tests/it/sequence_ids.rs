//! Sequence ids are never used twice within a rollout: with several programs on one store, and over kills and outages.

use crate::support::client::post;
use crate::support::postgres::Server;
use crate::support::{Bench, Running, eventually, is_exchange, say, tracewire};
use serde_json::{Value, json};
use std::net::SocketAddr;

const ROLLOUT: &str = "ro-shared";

fn call(bench: &Bench, proxy: SocketAddr) {
    let url = format!("{}/weather", bench.http());
    let request = format!("GET {url} HTTP/1.1\r\nHost: x\r\nx-rollout-id: {ROLLOUT}\r\nConnection: close\r\n\r\n");
    let answer = say(proxy, request.as_bytes());
    assert!(answer.contains("celsius"), "{answer}");
}

/// An id for a span of a client, as Agent Lightning's tracers ask for it.
fn reserve(server: SocketAddr) -> u64 {
    let ids = json!({ "rollout_id": ROLLOUT, "attempt_id": "at-1" });
    post(server, "/v1/agl/spans/next", &ids).json()["sequence_id"].as_u64().unwrap()
}

fn assert_distinct(mut ids: Vec<u64>) {
    ids.sort_unstable();
    let repeated: Vec<_> = ids.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| pair[0]).collect();
    assert!(repeated.is_empty(), "{repeated:?} of {} ids are used twice", ids.len());
}

fn ids(spans: &[Value]) -> Vec<u64> {
    spans.iter().filter(|span| is_exchange(span)).map(|span| span["sequence_id"].as_u64().unwrap()).collect()
}

#[test]
fn three_programs_on_one_sqlite_file_share_the_ids_of_a_rollout() {
    let bench = Bench::new();
    let programs = [(); 3].map(|()| bench.serve(&[]));
    let mut reserved = Vec::new();
    std::thread::scope(|scope| {
        let reserving: Vec<_> = programs
            .iter()
            .map(|program| {
                scope.spawn(|| (0..40).for_each(|_| call(&bench, program.address("proxy"))));
                scope.spawn(|| (0..20).map(|_| reserve(program.address("server"))).collect::<Vec<_>>())
            })
            .collect();
        reserved.extend(reserving.into_iter().flat_map(|thread| thread.join().unwrap()));
    });
    let mut all = ids(&bench.exchanges(ROLLOUT, 120));
    assert_eq!(all.len(), 120);
    all.extend(&reserved);
    // The highest id is known after a restart, though no span has it.
    for program in programs {
        assert_eq!(program.stop(), Some(0));
    }
    all.push(reserve(bench.serve(&[]).address("server")));
    assert_distinct(all);
}

/// Kills of the server and of Tracewire, in an order that a seed decides, with calls in between. `TRACEWIRE_TEST_EVENTS` makes it
/// longer.
#[test]
fn kills_and_outages_of_postgresql_repeat_no_id() {
    let events: usize = std::env::var("TRACEWIRE_TEST_EVENTS").ok().map_or(8, |events| events.parse().unwrap());
    let seed = fastrand::u64(..);
    eprintln!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let bench = Bench::new();
    let mut postgres = Server::start();
    let url = postgres.url();
    let start = || -> Running { bench.serve(&["--store", &url]) };
    let (mut program, mut reserved, mut is_away) = (start(), Vec::new(), false);
    for _ in 0..events {
        if random.bool() {
            program.kill();
            program = start();
        } else if is_away {
            postgres.go_on();
            is_away = false;
        } else {
            postgres.kill();
            is_away = true;
        }
        for _ in 0..random.usize(1..6) {
            call(&bench, program.address("proxy"));
            reserved.push(reserve(program.address("server")));
        }
    }
    if is_away {
        postgres.go_on();
    }
    call(&bench, program.address("proxy"));
    let last = reserve(program.address("server"));
    assert_eq!(program.stop(), Some(0));
    let mut all = eventually(|| {
        let output =
            tracewire(bench.home()).args(["trace", "show", ROLLOUT, "--format", "json", "--store", &url]).output();
        let stored = ids(&serde_json::from_slice::<Vec<Value>>(&output.unwrap().stdout).unwrap_or_default());
        // The last call, unless an outage left it in the file.
        (!stored.is_empty()).then_some(stored)
    });
    all.extend(&reserved);
    all.push(last);
    assert_distinct(all);
    postgres.kill();
}

/// A span of an export; `requested` is the id that it names.
fn exported(name: &str, number: u64, requested: Option<u64>) -> Value {
    let id = requested
        .map(|id| json!({ "key": "agentlightning.span_sequence_id", "value": { "intValue": id.to_string() } }));
    json!({ "traceId": format!("{number:032x}"), "spanId": format!("{number:016x}"), "name": name, "kind": 1,
            "startTimeUnixNano": "1700000000000000000", "endTimeUnixNano": "1700000001000000000",
            "attributes": id.into_iter().collect::<Vec<_>>() })
}

fn export(server: SocketAddr, rollout: &str, spans: &[Value]) {
    let named = json!([{ "key": "agentlightning.rollout_id", "value": { "stringValue": rollout } }]);
    let request =
        json!({ "resourceSpans": [{ "resource": { "attributes": named }, "scopeSpans": [{ "spans": spans }] }] });
    let answer = post(server, "/v1/traces", &request);
    assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
}

/// Exports get ids in the order of their spans, whichever program takes them, and around ids that spans name.
#[test]
fn exports_to_two_programs_on_postgresql_are_numbered_in_order() {
    let (bench, mut postgres) = (Bench::new(), Server::start());
    let url = postgres.url();
    let programs = [(); 2].map(|()| bench.serve(&["--store", &url]));
    for request in 0..20 {
        let first = request as u64 * 20 + 1;
        let spans: Vec<Value> = (first..first + 20).map(|number| exported("shared", number, None)).collect();
        export(programs[request % 2].address("server"), ROLLOUT, &spans);
    }
    let mixed: Vec<Value> = [None, None, Some(50), None, Some(7), None]
        .into_iter()
        .zip(1000..)
        .map(|(requested, number)| exported("mixed", number, requested))
        .collect();
    export(programs[0].address("server"), "ro-mixed", &mixed);
    let numbered = |rollout: &str| {
        let output =
            tracewire(bench.home()).args(["trace", "show", rollout, "--format", "json", "--store", &url]).output();
        let spans: Vec<Value> = serde_json::from_slice(&output.unwrap().stdout).unwrap();
        let numbers = spans.iter().map(|span| {
            let id = u64::from_str_radix(span["span_id"].as_str().unwrap(), 16).unwrap();
            (id, span["sequence_id"].as_u64().unwrap())
        });
        numbers.collect::<std::collections::BTreeMap<u64, u64>>()
    };
    assert!(numbered(ROLLOUT).into_values().eq(1..=400));
    assert_eq!(numbered("ro-mixed").into_values().collect::<Vec<_>>(), [1, 2, 50, 51, 7, 52]);
    for program in programs {
        assert_eq!(program.stop(), Some(0));
    }
    postgres.kill();
}

//! `GET /metrics`: counters and latency histograms of exchanges that really passed.

use crate::support::{Bench, eventually, say};

#[test]
fn latencies_are_histograms_in_seconds_and_each_exchange_is_in_them_once() {
    let bench = Bench::new();
    let serve = bench.serve(&[]);
    let ask = |path: &str, fields: &str| {
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{fields}Connection: close\r\n\r\n");
        say(if path.starts_with('/') { serve.address("server") } else { serve.address("proxy") }, request.as_bytes())
    };
    for _ in 0..3 {
        assert!(ask(&format!("{}/echo", bench.http()), "x-rollout-id: ro-timed\r\n").starts_with("HTTP/1.1 200"));
    }
    assert_eq!(bench.exchanges("ro-timed", 3).len(), 3);
    let metrics = eventually(|| {
        let metrics = ask("/metrics", "");
        metrics.contains("tracewire_spans_stored_total 3\n").then_some(metrics)
    });
    assert!(metrics.contains("content-type: text/plain; version=0.0.4; charset=utf-8"), "{metrics}");
    for name in ["exchange_duration_seconds", "first_chunk_seconds", "queue_wait_seconds"] {
        assert_eq!(metrics.matches(&format!("# TYPE tracewire_{name} histogram\n")).count(), 1, "{name}: {metrics}");
        assert!(metrics.contains(&format!("tracewire_{name}_count 3\n")), "{name}: {metrics}");
        assert!(metrics.contains(&format!("tracewire_{name}_bucket{{le=\"+Inf\"}} 3\n")), "{name}: {metrics}");
    }
    let sum = metrics.lines().find_map(|line| line.strip_prefix("tracewire_exchange_duration_seconds_sum "));
    assert!(sum.unwrap().parse::<f64>().unwrap() > 0.0);
    assert!(metrics.contains("tracewire_panics_total 0\n"), "{metrics}");
    let appends = metrics.lines().find_map(|line| line.strip_prefix("tracewire_store_append_seconds_count "));
    assert!((1..=3).contains(&appends.unwrap().parse::<u64>().unwrap()), "{metrics}");
}

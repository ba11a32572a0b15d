//! What of an exchange is recorded, as `[capture]` and `[redact]` of the settings say.

use crate::support::client::{get, post};
use crate::support::{Bench, endpoint, eventually, read_head, say};
use serde_json::json;
use std::collections::BTreeSet;
use std::io::Write;
use std::sync::{Mutex, mpsc};

#[test]
fn header_patterns_have_stars_at_any_place() {
    let bench = Bench::new();
    let config = bench.home().join("proxy.toml");
    let settings = r#"
        [capture]
        include_headers = true
        header_allow = ["X-*", "*-type"]
        header_deny = ["*Private*", "x-*-note", "x-rollout-id"]
        [redact]
        extra_headers = ["x-*-pin"]
    "#;
    std::fs::write(&config, settings).unwrap();
    let serve = bench.serve(&["--config", config.to_str().unwrap()]);
    let target = endpoint(|mut stream| {
        read_head(&mut stream);
        let _ = stream.write_all(b"HTTP/1.1 204 No Content\r\nX-My-Private-Word: s\r\nX-Kept: y\r\n\r\n");
    });
    let request = format!(
        "GET http://{target}/ HTTP/1.1\r\nHost: {target}\r\nx-rollout-id: ro-1\r\nX-Kept: a\r\nX-Private-Word: s\r\n\
         X-Side-Note: s\r\nX-Card-Pin: s\r\nContent-Type: b\r\nConnection: close\r\n\r\n"
    );
    assert!(say(serve.address("proxy"), request.as_bytes()).contains("X-My-Private-Word: s"), "forwarded unchanged");
    let span = bench.exchanges("ro-1", 1).remove(0);
    let attributes = span["attributes"].as_object().unwrap();
    let headers: BTreeSet<&str> = attributes
        .keys()
        .filter_map(|name| name.strip_prefix("http.")?.split_once(".header."))
        .map(|(_, name)| name)
        .collect();
    assert_eq!(headers, BTreeSet::from(["content-type", "x-card-pin", "x-kept"]));
    assert_eq!(attributes["http.request.header.x-card-pin"], serde_json::json!(["REDACTED"]));
    assert_eq!(attributes["http.response.header.x-kept"], serde_json::json!(["y"]));
}

/// The queue has room for one exchange, which an endpoint holds. A request that must not be lost waits; others pass.
#[test]
fn a_full_queue_makes_requests_wait_or_pass_as_the_setting_says() {
    for (when_full, is_registered, waits) in [("auto", true, true), ("auto", false, false), ("wait", false, true)] {
        let bench = Bench::new();
        let config = bench.home().join("proxy.toml");
        let settings = format!("[capture]\nqueue_exchanges = 1\nworkers = 1\nwhen_full = \"{when_full}\"\n");
        std::fs::write(&config, settings).unwrap();
        let serve = bench.serve(&["--config", config.to_str().unwrap()]);
        let (proxy, server) = (serve.address("proxy"), serve.address("server"));
        let mut rollout = "ro-full".to_owned();
        if is_registered {
            let registered = post(server, "/v1/agl/rollouts", &json!({ "input": {} })).json();
            registered["rollout_id"].as_str().unwrap().clone_into(&mut rollout);
        }
        let (release, held) = mpsc::channel::<()>();
        let held = Mutex::new(held);
        let target = endpoint(move |mut stream| {
            if read_head(&mut stream).contains("/held") {
                let _ = held.lock().unwrap().recv();
            }
            let _ = stream.write_all(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n");
        });
        let request = |path: &str| {
            let request = format!(
                "GET http://{target}{path} HTTP/1.1\r\nHost: {target}\r\nx-rollout-id: {rollout}\r\nConnection: close\r\n\r\n"
            );
            std::thread::spawn(move || say(proxy, request.as_bytes()))
        };
        let metric = |name: &str| {
            let text = get(server, "/metrics").text();
            let value = text.lines().find_map(|line| line.strip_prefix(&format!("{name} ")));
            value.unwrap_or_default().parse::<u64>().unwrap()
        };
        // It has not ended, or is on its way into the store, or is there.
        let stages = || (metric("tracewire_exchanges_in_flight"), metric("tracewire_exchanges_unstored"));
        let warnings = || get(server, "/readyz").json()["warnings"].to_string();
        let first = request("/held");
        eventually(|| (metric("tracewire_exchanges_total") == 1).then_some(()));
        assert!(warnings().contains("the capture queue is full: 0 requests wait"), "{}", warnings());
        assert_eq!(stages(), (1, 0));
        let second = request("/next");
        if waits {
            eventually(|| (metric("tracewire_exchanges_waiting") == 1).then_some(()));
            assert!(!second.is_finished());
        } else {
            assert!(second.join().unwrap().starts_with("HTTP/1.1 204"));
        }
        release.send(()).unwrap();
        assert!(first.join().unwrap().starts_with("HTTP/1.1 204"));
        if waits {
            assert_eq!(bench.exchanges(&rollout, 2).len(), 2);
        }
        eventually(|| (stages() == (0, 0)).then_some(()));
        let dropped = metric("tracewire_exchanges_dropped_total");
        assert_eq!((dropped, metric("tracewire_exchanges_waited_total")), if waits { (0, 1) } else { (1, 0) });
        eventually(|| (warnings() == "null").then_some(()));
    }
}

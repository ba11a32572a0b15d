//! What of an exchange is recorded, as `[capture]` and `[redact]` of the settings say.

use crate::support::{Bench, endpoint, read_head, say};
use std::collections::BTreeSet;
use std::io::Write;

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

//! The API listener: its guard on raw sockets, its OpenAPI document, and the cost of its listings.

use crate::support::Bench;
use crate::support::client::{get, post};
use serde_json::json;

#[test]
fn sessions_are_counted_without_reading_their_spans() {
    let bench = Bench::new();
    let serve = bench.gateway("");
    let server = serve.address("server");
    let call = json!({ "model": "mock", "messages": [{ "role": "user", "content": "hi" }] });
    for _ in 0..2 {
        assert_eq!(post(server, "/sessions/s/v1/chat/completions", &call).status, 200);
    }
    assert_eq!(get(server, "/sessions/s/traces").json().as_array().unwrap().len(), 2);
    let store = rusqlite::Connection::open(bench.store()).unwrap();
    assert_eq!(store.execute("UPDATE span SET json = 'unreadable'", []).unwrap(), 2);
    assert_eq!(get(server, "/sessions/s/traces").status, 500);
    assert_eq!(get(server, "/sessions").json()[0]["trace_count"], 2);
    assert_eq!(get(server, "/sessions/s").json()["trace_count"], 2);
}

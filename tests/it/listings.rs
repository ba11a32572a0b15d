//! Listings of the API: their order, pages and conditions do not depend on how many pieces a response is sent in.

use crate::support::Bench;
use crate::support::client::{ask, get, post};
use crate::support::postgres::{Access, database, set_access};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

/// Runs a test at a server with a store of each kind.
fn with_every_store(test: fn(SocketAddr)) {
    let database = database();
    for flags in [vec![], vec!["--store", "memory:"], vec!["--store", &database]] {
        let bench = Bench::new();
        let serve = bench.serve(&flags);
        test(serve.address("server"));
    }
}

fn list(server: SocketAddr, path: &str) -> Value {
    let reply = get(server, path);
    assert_eq!(reply.status, 200, "{path}: {}", reply.text());
    reply.json()
}

/// The values of a field of the items of a page.
fn column(page: &Value, field: &str) -> Vec<Value> {
    page["items"].as_array().unwrap().iter().map(|item| item[field].clone()).collect()
}

#[test]
fn rollouts_are_listed_in_any_order_and_by_any_condition() {
    with_every_store(list_rollouts);
}

fn list_rollouts(server: SocketAddr) {
    let modes = ["train", "val", "test"];
    let new = |(number, mode)| json!({ "input": number, "mode": mode });
    let wanted: Vec<Value> = (0..600_u64).zip(modes.into_iter().cycle()).map(new).collect();
    let enqueued = post(server, "/v1/agl/queues/rollouts/enqueue", &json!({ "rollouts": wanted })).json();
    let ids: Vec<&str> = enqueued.as_array().unwrap().iter().map(|one| one["rollout_id"].as_str().unwrap()).collect();
    let path = |query: &str| format!("/v1/agl/rollouts?{query}");
    let all = list(server, &path("limit=-1"));
    assert_eq!((all["items"].as_array().unwrap().len(), &all["total"]), (600, &json!(600)));
    let numbers = |page: &Value| column(page, "input");
    for (query, expected) in [
        ("limit=3&offset=299", vec![299, 300, 301]),
        ("limit=3&offset=598", vec![598, 599]),
        ("limit=3&offset=900", vec![]),
        ("sort_by=input&sort_order=desc&limit=2&offset=1", vec![598, 597]),
        ("sort_by=mode&limit=4&offset=198", vec![596, 599, 0, 3]),
    ] {
        assert_eq!(numbers(&list(server, &path(query))), expected, "{query}");
    }
    let whole = list(server, &path("sort_by=input"));
    assert_eq!(numbers(&whole), (0..600).map(Value::from).collect::<Vec<_>>());
    let (one, other) = (ids[17], ids[401]);
    for (query, expected) in [
        (format!("rollout_id_contains={}", &one[3..]), vec![17]),
        (format!("rollout_id_in={one}&rollout_id_in={other}&rollout_id_contains={}", &other[3..]), vec![401]),
        (format!("rollout_id_in={one}&rollout_id_contains={}&filter_logic=or", &other[3..]), vec![17, 401]),
        (format!("rollout_id_in={one}&status_in=running"), vec![]),
    ] {
        let page = list(server, &path(&query));
        let found: Vec<u64> = numbers(&page).iter().filter_map(Value::as_u64).collect();
        assert_eq!((found.len() as u64, &found), (page["total"].as_u64().unwrap(), &expected), "{query}");
    }
    let sessions = |query: &str| list(server, &format!("/sessions?{query}")).as_array().unwrap().len();
    assert_eq!([sessions(""), sessions("limit=300"), sessions("limit=0"), sessions("since=4e9")], [600, 300, 0, 0]);
}

#[test]
fn spans_are_listed_in_any_order_and_by_any_condition() {
    with_every_store(list_spans);
}

fn list_spans(server: SocketAddr) {
    let started = post(server, "/v1/agl/rollouts", &json!({ "input": null })).json();
    let (rollout, attempt) =
        (started["rollout_id"].as_str().unwrap(), started["attempt"]["attempt_id"].as_str().unwrap());
    let sent: Vec<Value> = (0..40_u64)
        .zip(["alpha", "beta"].into_iter().cycle())
        .map(|(number, name)| {
            // Together they fill several pages of the store.
            let long = format!("text {number} ").repeat(4000);
            json!({ "rollout_id": rollout, "attempt_id": attempt, "trace_id": "t", "span_id": format!("s{number:02}"),
                "parent_id": null, "name": name, "sequence_id": number + 1,
                "start_time": 1000.0 + number as f64, "end_time": 2000.0 - number as f64,
                "status": { "status_code": "OK", "description": null },
                "attributes": { "long": long, "ids": vec![number; 300], "number": number }, "events": [], "links": [],
                "context": null, "parent": null, "resource": { "attributes": {}, "schema_url": "" }, "own": number })
        })
        .collect();
    for span in &sent {
        assert_eq!(post(server, "/v1/agl/spans", span).json(), *span);
    }
    let path = |query: &str| format!("/v1/agl/spans?rollout_id={rollout}&{query}");
    let all = list(server, &path("limit=-1"));
    assert_eq!((&all["items"], &all["total"]), (&json!(sent), &json!(40)));
    for (query, expected, total) in [
        ("limit=2&offset=37", vec!["s37", "s38"], 40),
        ("limit=2&sort_order=desc", vec!["s39", "s38"], 40),
        ("limit=2&sort_by=end_time", vec!["s39", "s38"], 40),
        ("limit=2&sort_by=name&offset=19", vec!["s38", "s01"], 40),
        ("limit=2&name=beta", vec!["s01", "s03"], 20),
        ("span_id_contains=3&name=alpha", vec!["s30", "s32", "s34", "s36", "s38"], 5),
        ("span_id=s05&name_contains=alph&filter_logic=or&limit=4", vec!["s00", "s02", "s04", "s05"], 21),
        ("attempt_id=none", vec![], 0),
    ] {
        let page = list(server, &path(query));
        assert_eq!(
            (column(&page, "span_id"), &page["total"]),
            (expected.into_iter().map(Value::from).collect(), &json!(total)),
            "{query}"
        );
        for item in page["items"].as_array().unwrap() {
            assert_eq!(item, &sent[item["own"].as_u64().unwrap() as usize], "{query}");
        }
    }
    // A response of one piece has a length.
    let reply = ask(server, "GET", &path("span_id=none"), &[], "");
    assert_eq!(reply.header("content-length").map(str::to_owned), Some(reply.text().len().to_string()));
}

/// A client can tell a listing that could not be completed from a whole one.
#[test]
fn a_listing_that_loses_its_store_ends_broken() {
    let (bench, database) = (Bench::new(), database());
    let serve = bench.serve(&["--store", &database]);
    let server = serve.address("server");
    let started = post(server, "/v1/agl/rollouts", &json!({ "input": null })).json();
    let (rollout, attempt) =
        (started["rollout_id"].as_str().unwrap(), started["attempt"]["attempt_id"].as_str().unwrap());
    for number in 0..24 {
        let span = json!({ "rollout_id": rollout, "attempt_id": attempt, "trace_id": "t", "span_id": number.to_string(),
            "parent_id": null, "name": "long", "sequence_id": number + 1, "start_time": 1.0, "end_time": 2.0,
            "status": { "status_code": "OK" }, "attributes": { "text": format!("{number} ").repeat(500_000) },
            "events": [], "links": [], "context": null, "parent": null,
            "resource": { "attributes": {}, "schema_url": "" } });
        assert_eq!(post(server, "/v1/agl/spans", &span).status, 201);
    }
    let request =
        format!("GET /v1/agl/spans?rollout_id={rollout} HTTP/1.1\r\nhost: {server}\r\nconnection: close\r\n\r\n");
    let read = |before_the_rest: &dyn Fn()| {
        let mut client = TcpStream::connect(server).unwrap();
        client.write_all(request.as_bytes()).unwrap();
        let mut response = vec![0; 1024];
        client.read_exact(&mut response).unwrap();
        before_the_rest();
        let _ = client.read_to_end(&mut response);
        response
    };
    let end = b"\r\n0\r\n\r\n";
    let whole = read(&|| {});
    assert!(whole.starts_with(b"HTTP/1.1 200") && whole.ends_with(end));
    let broken = read(&|| set_access(&database, Access::Nothing));
    assert!(broken.starts_with(b"HTTP/1.1 200") && broken.len() < whole.len() && !broken.ends_with(end));
}

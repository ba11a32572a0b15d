//! Request and response smuggling against the built binary: ambiguous messages are rejected with a span, and bytes behind
//! them are never read as another message.

use crate::support::{Bench, Running, connect, endpoint, eventually, read_head, read_to_end, say, tunnel};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use std::io::Write;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// An endpoint that answers every request, and the heads that it received.
fn listening() -> (SocketAddr, Arc<Mutex<String>>) {
    saying(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
}

/// An endpoint that says this to every request, and the heads that it received.
fn saying(answer: &'static [u8]) -> (SocketAddr, Arc<Mutex<String>>) {
    let seen = Arc::new(Mutex::new(String::new()));
    let kept = Arc::clone(&seen);
    let address = endpoint(move |mut stream| {
        loop {
            let head = read_head(&mut stream);
            if head.is_empty() {
                return;
            }
            kept.lock().unwrap().push_str(&head);
            let _ = stream.write_all(answer);
        }
    });
    (address, seen)
}

fn failed(bench: &Bench, rollout: &str) -> Value {
    let spans = bench.exchanges(rollout, 1);
    spans.into_iter().find(|span| span["attributes"]["tracewire.outcome"] == "failed").expect("a span that failed")
}

const REQUESTS: &[(&str, &str)] = &[
    ("POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "both"),
    ("POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n", "both"),
    ("POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", "several"),
    ("POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nab", "several"),
    ("POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: +2\r\n\r\nab", "plain number"),
    ("POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 2, 2\r\n\r\nab", "plain number"),
    ("POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n", "not chunked"),
    ("POST /a HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "HTTP/1.0"),
    ("GET /a HTTP/1.1\r\nHost: a\r\nX: 1\r\n folded\r\n\r\n", "folded"),
    ("GET /a HTTP/1.1\r\nHost: a\r\nX : 1\r\n\r\n", "token"),
    ("GET /a HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n", "bare CR"),
    ("GET /a HTTP/1.1\nHost: a\n\n", "bare LF"),
    ("GET /a HTTP/1.1\r\n\r\n", "no Host"),
    ("GET /a HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", "several Host"),
    ("POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "hexadecimal"),
    ("POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n", "overflows"),
    ("POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n", "longer than its size"),
];

#[test]
fn an_ambiguous_request_gets_a_400_and_nothing_behind_it_is_sent() {
    let bench = Bench::new();
    let serve = bench.serve(&[]);
    for (at, (request, cause)) in REQUESTS.iter().enumerate() {
        // An answer to the head alone would be right too, and could come before the faulty chunk is read.
        let (target, seen) = saying(b"");
        let rollout = format!("ro-request-{at}");
        let mut stream = tunnel(serve.address("proxy"), target, &rollout);
        // With the tunnel's host, only the framing is faulty.
        let request = request.replace("Host: a", &format!("Host: {target}"));
        let smuggled = format!("GET /smuggled HTTP/1.1\r\nHost: {target}\r\n\r\n");
        stream.write_all(format!("{request}{smuggled}").as_bytes()).unwrap();
        let answer = read_to_end(&mut stream);
        assert!(answer.starts_with("HTTP/1.1 400") && answer.contains(cause), "{request:?}: {answer}");
        assert_eq!(answer.lines().filter(|line| line.starts_with("HTTP/1.1 ")).count(), 1, "{request:?}: {answer}");
        assert!(!seen.lock().unwrap().contains("/smuggled"), "{request:?}");
        let span = failed(&bench, &rollout);
        assert_eq!(span["attributes"]["error.type"], "http_request_error", "{request:?}");
        assert!(span["status"]["description"].as_str().unwrap().contains(cause), "{span:#}");
    }
}

#[test]
fn the_listener_applies_the_same_rules_as_tunnels() {
    let bench = Bench::new();
    let serve = bench.serve(&[]);
    let (target, seen) = listening();
    let request = format!(
        "POST http://{target}/a HTTP/1.1\r\nHost: {target}\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    );
    let answer = say(serve.address("proxy"), request.as_bytes());
    assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("both Transfer-Encoding"), "{answer}");
    let many = "x-many: 1\r\n".repeat(600);
    let answer = say(
        serve.address("proxy"),
        format!("GET http://{target}/ HTTP/1.1\r\nHost: {target}\r\n{many}\r\n").as_bytes(),
    );
    assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
    let long = "a".repeat(70_000);
    let answer = say(
        serve.address("proxy"),
        format!("GET http://{target}/{long} HTTP/1.1\r\nHost: {target}\r\n\r\n").as_bytes(),
    );
    assert!(answer.starts_with("HTTP/1.1 414"), "{answer}");
    assert_eq!(*seen.lock().unwrap(), "");
}

const RESPONSES: &[(&str, &str)] = &[
    ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "both"),
    ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n0\r\n\r\n", "both"),
    ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc", "several"),
    ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nab", "several"),
    ("HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nab", "plain number"),
    ("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", "not chunked"),
    ("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "HTTP/1.0"),
    ("HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "204"),
    ("HTTP/1.1 200 OK\r\nX: 1\r\n folded\r\n\r\n", "folded"),
    ("HTTP/1.1 200 OK\r\nX : 1\r\n\r\n", "token"),
    ("HTTP/1.1 200 OK\nContent-Length: 0\n\n", "bare LF"),
];

fn get(serve: &Running, target: SocketAddr, rollout: &str) -> String {
    let request = format!(
        "GET http://{target}/ HTTP/1.1\r\nHost: {target}\r\nx-rollout-id: {rollout}\r\nConnection: close\r\n\r\n"
    );
    say(serve.address("proxy"), request.as_bytes())
}

#[test]
fn an_ambiguous_response_is_a_502_and_its_connection_is_not_reused() {
    let bench = Bench::new();
    let serve = bench.serve(&[]);
    for (at, (response, cause)) in RESPONSES.iter().enumerate() {
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&connections);
        let target = endpoint(move |mut stream| {
            counted.fetch_add(1, Ordering::Relaxed);
            while !read_head(&mut stream).is_empty() {
                let _ = stream.write_all(response.as_bytes());
            }
        });
        let rollout = format!("ro-response-{at}");
        for turn in 1..=2 {
            let answer = get(&serve, target, &rollout);
            assert!(answer.starts_with("HTTP/1.1 502") && answer.contains(cause), "{response:?}: {answer}");
            assert_eq!(connections.load(Ordering::Relaxed), turn, "{response:?}");
        }
        let span = failed(&bench, &rollout);
        assert_eq!(span["attributes"]["error.type"], "http_protocol_error");
        assert!(span["status"]["description"].as_str().unwrap().contains(cause), "{span:#}");
    }
}

#[test]
fn a_faulty_chunk_truncates_the_response_and_is_recorded() {
    let bench = Bench::new();
    let serve = bench.serve(&[]);
    for (at, chunk) in ["zz\r\n", "1\r\nabc\r\n", "1;\n\r\n", "0\r\nContent-Length: 9\r\n\r\n"].iter().enumerate() {
        let target = endpoint(move |mut stream| {
            read_head(&mut stream);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n");
            let _ = stream.write_all(chunk.as_bytes());
            // Kept open, so that the truncation is the proxy's.
            read_head(&mut stream);
        });
        let rollout = format!("ro-chunk-{at}");
        let answer = get(&serve, target, &rollout);
        assert!(answer.starts_with("HTTP/1.1 200") && !answer.ends_with("0\r\n\r\n"), "{chunk:?}: {answer}");
        assert_eq!(failed(&bench, &rollout)["attributes"]["error.type"], "http_protocol_error", "{chunk:?}");
    }
}

#[test]
fn extra_bytes_after_a_response_without_body_are_discarded() {
    let bench = Bench::new();
    let serve = bench.serve(&[]);
    for head in ["HTTP/1.1 204 No Content\r\n\r\n", "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n"] {
        let target = endpoint(move |mut stream| {
            while !read_head(&mut stream).is_empty() {
                let _ =
                    stream.write_all(format!("{head}HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison").as_bytes());
            }
        });
        let rollout = format!("ro-extra-{}", &head[9..12]);
        for _ in 0..2 {
            let answer = get(&serve, target, &rollout);
            assert!(answer.starts_with(&head[..12]) && !answer.contains("poison"), "{answer}");
        }
    }
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let bench = Bench::new();
    let serve = bench.serve(&[]);
    let target = bench.mock.address("http");
    let mut stream = tunnel(serve.address("proxy"), target, "ro-pipelined");
    let one = |path: &str, last: bool| {
        let close = if last { "Connection: close\r\n" } else { "" };
        format!(
            "POST {path} HTTP/1.1\r\nHost: {target}\r\n{close}Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
        )
    };
    let requests = [one("/echo?n=1", false), one("/echo?n=2", false), one("/echo?n=3", true)].concat();
    stream.write_all(requests.as_bytes()).unwrap();
    // The last request announced the end, so the client may close its sending side.
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let answers = read_to_end(&mut stream);
    let at = |n: u8| answers.find(&format!("/echo?n={n}")).unwrap_or_else(|| panic!("{n} is missing: {answers}"));
    assert!(at(1) < at(2) && at(2) < at(3));
    assert_eq!(bench.exchanges("ro-pipelined", 3).len(), 3);
}

#[test]
fn http_1_0_is_supported() {
    let bench = Bench::new();
    let serve = bench.serve(&[]);
    let target = bench.mock.address("http");
    let request = format!("GET http://{target}/sse?events=3 HTTP/1.0\r\nx-rollout-id: ro-old\r\n\r\n");
    let mut stream = connect(serve.address("proxy"));
    stream.write_all(request.as_bytes()).unwrap();
    let answer = read_to_end(&mut stream);
    assert!(answer.starts_with("HTTP/1.0 200") && answer.contains("\"event\":2"), "{answer}");
    assert!(!answer.to_lowercase().contains("transfer-encoding"), "{answer}");
    assert_eq!(bench.exchanges("ro-old", 1)[0]["attributes"]["tracewire.outcome"], "complete");
}

#[test]
fn requests_inside_a_tunnel_must_name_its_host() {
    let bench = Bench::new();
    let serve = bench.serve(&[]);
    let port = bench.mock.address("http").port();
    let target: SocketAddr = format!("127.0.0.1:{port}").parse().unwrap();
    let ask = |head: String| {
        let mut stream = tunnel(serve.address("proxy"), target, "ro-hosts");
        stream.write_all(head.as_bytes()).unwrap();
        read_to_end(&mut stream)
    };
    let answer = ask(format!("GET http://{target}/echo HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n"));
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    // Another port is another service. Many clients leave the port out.
    for (host, status) in [("127.0.0.1:1", 400), ("127.0.0.1", 200), ("app.test:1", 200)] {
        let answer = ask(format!("GET /echo HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"));
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{host}: {answer}");
        let cause = format!("the request names {host} inside a tunnel to {target}");
        assert_eq!(answer.contains(&cause), status == 400, "{answer}");
    }
    // A client that resolves names itself sends the name in the request only.
    let answer = ask(format!("GET /echo HTTP/1.1\r\nHost: localhost:{port}\r\nConnection: close\r\n\r\n"));
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("localhost"), "{answer}");
}

#[test]
fn the_block_list_applies_to_names_inside_tunnels() {
    let bench = Bench::new();
    let file = bench.home().join("block.toml");
    std::fs::write(&file, "[proxy]\nblock = [\"localhost\"]\n").unwrap();
    let serve = bench.serve(&["--config", file.to_str().unwrap()]);
    let (http, https) = (bench.mock.address("http").port(), bench.mock.address("https").port());
    for url in [format!("http://localhost:{http}/echo"), format!("https://localhost:{https}/echo")] {
        let proxy = format!("socks5://ro-blocked.at-1:@{}", serve.address("proxy"));
        let mut curl = std::process::Command::new("curl");
        curl.args(["-sS", "--ipv4", "--max-time", "30", "--proxy", &proxy, &url]).arg("--cacert").arg(serve.path("ca"));
        let output = curl.output().unwrap();
        assert!(String::from_utf8_lossy(&output.stdout).contains("http_request_denied"), "{url}: {output:?}");
    }
}

#[test]
fn the_block_list_sees_every_spelling_of_an_address() {
    let bench = Bench::new();
    let file = bench.home().join("block.toml");
    std::fs::write(&file, "[proxy]\nblock = [\"127.0.0.1\", \"metadata\"]\n").unwrap();
    let serve = bench.serve(&["--config", file.to_str().unwrap()]);
    let port = bench.mock.address("http").port();
    let hosts = ["127.0.0.1", "127.1", "0x7f.1", "2130706433", "0177.0.0.1", "[::ffff:127.0.0.1]", "127.0.0.1."];
    for host in hosts.into_iter().chain(["169.254.169.254", "metadata.google.internal."]) {
        let request = format!("GET http://{host}:{port}/ HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n");
        let answer = say(serve.address("proxy"), request.as_bytes());
        assert!(answer.contains("http_request_denied"), "{host}: {answer}");
    }
}

#[test]
fn a_rule_of_connect_to_does_not_lead_past_the_block_list() {
    let bench = Bench::new();
    let file = bench.home().join("block.toml");
    let [http, https] = ["http", "https"].map(|name| bench.mock.address(name));
    let rules = format!("connect_to = [\"ok.test:80:{http}\", \"ok.test:443:{https}\"]");
    let start = |block: &str| {
        std::fs::write(&file, format!("[proxy]\nblock = [{block}]\n[upstream]\n{rules}\n")).unwrap();
        bench.serve(&["--config", file.to_str().unwrap()])
    };
    let ask = |serve: &Running, request: &str| {
        say(
            serve.address("proxy"),
            format!("{request} HTTP/1.1\r\nHost: ok.test\r\nConnection: close\r\n\r\n").as_bytes(),
        )
    };
    let open = start("");
    assert!(ask(&open, "GET http://ok.test/echo").starts_with("HTTP/1.1 200"), "the rule leads to the mock");
    drop(open);
    let serve = start("\"127.0.0.1\"");
    for request in ["GET http://ok.test/echo", "CONNECT ok.test:443", "CONNECT ok.test:80"] {
        let answer = ask(&serve, request);
        assert!(answer.starts_with("HTTP/1.1 403") && answer.contains("http_request_denied"), "{request}: {answer}");
    }
}

#[test]
fn a_name_that_resolves_to_a_blocked_address_is_refused() {
    let bench = Bench::new();
    let file = bench.home().join("block.toml");
    let backend = format!("[[gateway.backends]]\nmodel = \"m\"\nurl = \"{}/v1\"\n", bench.http());
    // The name of the block list is written on no request.
    std::fs::write(&file, format!("[proxy]\nblock = [\"127.*\", \"::1\"]\n{backend}")).unwrap();
    let serve = bench.serve(&["--config", file.to_str().unwrap()]);
    let (proxy, port) = (serve.address("proxy"), bench.mock.address("http").port());
    let head = format!("Host: localhost:{port}\r\nConnection: close\r\n");
    for (rollout, request) in [
        ("ro-plain", format!("GET http://localhost:{port}/echo")),
        ("ro-case", format!("GET http://LocalHost:{port}/echo")),
        ("ro-any", format!("GET http://0.0.0.0:{port}/echo")),
        ("ro-connect", format!("CONNECT localhost:{port}")),
        ("ro-api", format!("GET http://localhost:{}/healthz", serve.address("server").port())),
    ] {
        // ROLLOUT.at-1 without a password.
        let credentials = STANDARD.encode(format!("{rollout}.at-1:"));
        let request = format!("{request} HTTP/1.1\r\n{head}Proxy-Authorization: Basic {credentials}\r\n\r\n");
        let answer = say(proxy, request.as_bytes());
        assert!(answer.starts_with("HTTP/1.1 403") && answer.contains("http_request_denied"), "{rollout}: {answer}");
        let is_refusal = |span: &Value| span["attributes"]["error.type"] == "http_request_denied";
        eventually(|| bench.spans(rollout).iter().any(is_refusal).then_some(()));
    }
    let mut curl = std::process::Command::new("curl");
    curl.args(["-sS", "--max-time", "30", "--proxy", &format!("socks5h://ro-socks.at-1:@{proxy}")]);
    let output = curl.arg(format!("http://localhost:{port}/echo")).output().unwrap();
    assert_eq!(output.status.code(), Some(97), "SOCKS5 says no: {output:?}");
    // The operator's own backends are no targets of agents.
    let body = r#"{"model":"m","messages":[{"role":"user","content":"hi"}]}"#;
    let call = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let answer = say(serve.address("server"), call.as_bytes());
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[test]
fn an_upgrade_to_http2_without_tls_is_ignored() {
    let bench = Bench::new();
    let serve = bench.serve(&[]);
    let mut curl = std::process::Command::new("curl");
    curl.args(["-sS", "--http2", "--max-time", "30", "--data", "x", "--proxy"]);
    curl.arg(format!("http://ro-h2c.at-1:@{}", serve.address("proxy"))).arg(format!("{}/echo", bench.http()));
    let output = curl.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).to_lowercase();
    assert!(text.contains("\"length\":1") && !text.contains("http2-settings") && !text.contains("h2c"), "{text}");
}

#[test]
fn a_client_that_closes_its_sending_side_still_gets_its_response() {
    let bench = Bench::new();
    let serve = bench.serve(&[]);
    for connection in ["close", "keep-alive"] {
        let mut stream = connect(serve.address("proxy"));
        let head = format!(
            "GET {}/weather?x-mock-delay-ms=300 HTTP/1.1\r\nHost: x\r\nx-rollout-id: ro-half\r\nConnection: {connection}\r\n\r\n",
            bench.http()
        );
        stream.write_all(head.as_bytes()).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let answer = read_to_end(&mut stream);
        assert!(answer.contains("celsius"), "{connection}: {answer}");
    }
    assert_eq!(bench.exchanges("ro-half", 2)[1]["attributes"]["tracewire.outcome"], "complete");
}

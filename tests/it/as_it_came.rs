//! What passes byte for byte although the HTTP library would change, drop or refuse it.

use crate::support::certificates::TestCa;
use crate::support::{Bench, Running, connect, endpoint, find, read_head, read_to_end, text, tunnel};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};

/// An endpoint that reads each request up to `end`, gives it to the receiver, and answers it with `answer`.
fn recording(end: &'static [u8], answer: &'static [u8]) -> (SocketAddr, Receiver<Vec<u8>>) {
    let (requests, seen) = channel();
    let address = endpoint(move |mut stream| {
        let mut request = Vec::new();
        let mut byte = [0];
        while stream.read(&mut byte).is_ok_and(|read| read > 0) {
            request.push(byte[0]);
            if request.ends_with(end) {
                let _ = requests.send(std::mem::take(&mut request));
                let _ = stream.write_all(answer);
            }
        }
    });
    (address, seen)
}

/// A connection to the proxy's port, or within a tunnel, and what is written before a path there.
fn ways(serve: &Running, target: SocketAddr, rollout: &str) -> [(TcpStream, String); 2] {
    let proxy = serve.address("proxy");
    [(connect(proxy), format!("http://{target}")), (tunnel(proxy, target, rollout), String::new())]
}

const EMPTY: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

#[test]
fn a_body_of_any_method_arrives() {
    let bench = Bench::new();
    let serve = bench.serve(&[]);
    let chunked = "Transfer-Encoding: chunked\r\n\r\n7\r\n{\"a\":1}\r\n0\r\n\r\n";
    for method in ["GET", "HEAD", "POST", "DELETE", "OPTIONS"] {
        for (at, (body, end)) in
            [(chunked, &b"0\r\n\r\n"[..]), ("Content-Length: 7\r\n\r\n{\"a\":1}", b"{\"a\":1}")].into_iter().enumerate()
        {
            let (target, seen) = recording(end, EMPTY);
            let rollout = format!("ro-{method}-{at}");
            for (mut stream, before) in ways(&serve, target, &rollout) {
                let head =
                    format!("{method} {before}/search HTTP/1.1\r\nHost: {target}\r\nx-rollout-id: {rollout}\r\n");
                stream.write_all(format!("{head}{body}").as_bytes()).unwrap();
                let answer = read_head(&mut stream);
                assert!(answer.starts_with("HTTP/1.1 200"), "{method}: {answer}");
                let request = seen.recv().unwrap();
                assert!(find(&request, b"{\"a\":1}").is_some(), "{method}: {}", String::from_utf8_lossy(&request));
            }
            for span in bench.exchanges(&rollout, 2) {
                assert_eq!(span["attributes"]["http.request.body.size"], 7, "{method}: {span:#}");
            }
        }
    }
}

#[test]
fn a_reason_phrase_passes_with_any_bytes() {
    let bench = Bench::new();
    let serve = bench.serve(&[]);
    for (line, answer) in [
        (&b"HTTP/1.1 200 D\xe9j\xe0 vu\r\n"[..], &b"HTTP/1.1 200 D\xe9j\xe0 vu\r\nContent-Length: 0\r\n\r\n"[..]),
        ("HTTP/1.1 404 não há\r\n".as_bytes(), "HTTP/1.1 404 não há\r\nContent-Length: 0\r\n\r\n".as_bytes()),
    ] {
        let (target, _seen) = recording(b"\r\n\r\n", answer);
        for (mut stream, before) in ways(&serve, target, "ro-reason") {
            stream.write_all(format!("GET {before}/ HTTP/1.1\r\nHost: {target}\r\n\r\n").as_bytes()).unwrap();
            let mut got = vec![0; line.len()];
            stream.read_exact(&mut got).unwrap();
            assert_eq!(got, line, "{}", String::from_utf8_lossy(&got));
        }
    }
}

#[test]
fn an_upgrade_that_is_ignored_leaves_the_request() {
    let bench = Bench::new();
    let serve = bench.serve(&[]);
    let offers = [
        ("Upgrade: TLS/1.2\r\n\r\n", &b"\r\n\r\n"[..]),
        ("Upgrade: TLS/1.2\r\nContent-Length: 5\r\n\r\n[\"a\"]", b"[\"a\"]"),
        ("Upgrade: websocket\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n[\"a\"]\r\n0\r\n\r\n", b"0\r\n\r\n"),
    ];
    for (offer, end) in offers {
        let (target, seen) = recording(end, EMPTY);
        for (mut stream, before) in ways(&serve, target, "ro-offer") {
            let head = format!("POST {before}/ HTTP/1.1\r\nHost: {target}\r\nConnection: Upgrade\r\n{offer}");
            stream.write_all(head.as_bytes()).unwrap();
            assert!(read_head(&mut stream).starts_with("HTTP/1.1 200"), "{offer}");
            let request = String::from_utf8(seen.recv().unwrap()).unwrap().to_lowercase();
            assert!(
                !request.contains("upgrade") && request.contains("[\"a\"]") == offer.contains("[\"a\"]"),
                "{request}"
            );
        }
    }
}

#[test]
fn a_target_that_servers_take_passes() {
    let bench = Bench::new();
    let serve = bench.serve(&[]);
    let (target, seen) = recording(b"\r\n\r\n", EMPTY);
    let [(mut listener, before), (mut inside, _)] = ways(&serve, target, "ro-target");
    let paths = [
        "/q?query=up{job=\"x\"}",
        "/s?q=age:>30",
        "/s?q=<b>",
        "/a`b",
        "/a<b>\"c\"",
        "/a|b^c\\d?e|f^g\\h`",
        "/a#fragment",
        "/a?b#c?d",
        "/%zz?%",
        "/caf\u{e9}?\u{6d4b}<",
        "/plain",
    ];
    for path in paths {
        for (stream, before) in [(&mut listener, before.as_str()), (&mut inside, "")] {
            stream.write_all(format!("GET {before}{path} HTTP/1.1\r\nHost: {target}\r\n\r\n").as_bytes()).unwrap();
            let answer = read_head(stream);
            assert!(answer.starts_with("HTTP/1.1 200"), "{path}: {answer}");
            let request = String::from_utf8(seen.recv().unwrap()).unwrap();
            assert!(request.starts_with(&format!("GET {path} HTTP/1.1\r\n")), "{path}: {request}");
        }
    }
    for (line, arrives) in [
        (format!("GET http://{target}?x=1"), "GET /?x=1 "),
        (format!("OPTIONS http://{target}"), "OPTIONS * "),
        (format!("OPTIONS http://{target}/"), "OPTIONS / "),
    ] {
        listener.write_all(format!("{line} HTTP/1.1\r\nHost: {target}\r\n\r\n").as_bytes()).unwrap();
        read_head(&mut listener);
        let request = String::from_utf8(seen.recv().unwrap()).unwrap();
        assert!(request.starts_with(arrives), "{line}: {request}");
    }
}

#[test]
fn requests_in_a_row_keep_their_own_targets() {
    let bench = Bench::new();
    let serve = bench.serve(&[]);
    let (target, seen) = recording(b"\r\n\r\n", EMPTY);
    for (mut stream, before) in ways(&serve, target, "ro-row") {
        let paths = ["/a<1>", "/b", "/c?\"3\"", "/d#4"];
        let all: String =
            paths.iter().map(|path| format!("GET {before}{path} HTTP/1.1\r\nHost: {target}\r\n\r\n")).collect();
        stream.write_all(all.as_bytes()).unwrap();
        for path in paths {
            read_head(&mut stream);
            let request = String::from_utf8(seen.recv().unwrap()).unwrap();
            assert!(request.starts_with(&format!("GET {path} HTTP/1.1\r\n")), "{path}: {request}");
        }
    }
}

#[test]
fn a_target_that_cannot_pass_is_refused_with_a_cause_and_a_span() {
    let bench = Bench::new();
    let serve = bench.serve(&[]);
    let (target, _seen) = recording(b"\r\n\r\n", EMPTY);
    let mut stream = tunnel(serve.address("proxy"), target, "ro-refused");
    stream.write_all(format!("GET no/uri HTTP/1.1\r\nHost: {target}\r\n\r\n").as_bytes()).unwrap();
    let answer = read_to_end(&mut stream);
    assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("the request target is not a URI"), "{answer}");
    let span = &bench.exchanges("ro-refused", 1)[0];
    assert!(span["status"]["description"].as_str().unwrap().contains("not a URI"), "{span:#}");
}

/// An endpoint with TLS that answers with `answer` and closes the connection without close_notify.
fn cutting(ca: &TestCa, answer: &'static [u8]) -> SocketAddr {
    let (certificate, key) = ca.leaf("localhost", 1);
    let chain = CertificateDer::pem_file_iter(certificate).unwrap().collect::<Result<_, _>>().unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()));
    let config = config.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
    let config = Arc::new(config.with_single_cert(chain, PrivateKeyDer::from_pem_file(key).unwrap()).unwrap());
    endpoint(move |mut socket| {
        let mut tls = ServerConnection::new(Arc::clone(&config)).unwrap();
        let mut stream = rustls::Stream::new(&mut tls, &mut socket);
        let mut request = [0; 4096];
        let _ = stream.read(&mut request);
        let _ = stream.write_all(answer);
    })
}

#[test]
fn tls_without_close_notify_ends_an_answer_without_a_length() {
    let bench = Bench::new();
    let ca = TestCa::new(bench.home());
    let trusted = ca.path().to_str().unwrap().to_owned();
    for (at, (answer, passes)) in [
        (&b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhello"[..], true),
        (b"HTTP/1.0 200 OK\r\n\r\nhello", true),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello", false),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", false),
    ]
    .into_iter()
    .enumerate()
    {
        let target = cutting(&ca, answer);
        let rollout = format!("ro-cut-{at}");
        let url = format!("https://localhost:{}/", target.port());
        let flags = ["--upstream-ca", &trusted, "--rollout", &rollout];
        let output = bench.run(&flags, &["curl", "-sS", "--http1.1", &url]);
        assert_eq!((output.status.success(), &output.stdout[..]), (passes, &b"hello"[..]), "{}", text(&output));
        let span = &bench.exchanges(&rollout, 1)[0]["attributes"];
        assert_eq!(span["tracewire.outcome"] == "complete", passes, "{span:#}");
        assert_eq!(span["tracewire.upstream.tls_cut"] == true, passes, "{span:#}");
    }
}

#[test]
fn the_length_of_what_is_not_sent_passes() {
    let bench = Bench::new();
    let serve = bench.serve(&[]);
    for (method, line, field) in [
        ("GET", "304 Not Modified", "content-length: 1234\r\n"),
        ("GET", "304 Not Modified", ""),
        ("GET", "204 No Content", "content-length: 0\r\n"),
        ("HEAD", "200 OK", "content-length: 1234\r\n"),
        ("HEAD", "200 OK", ""),
        ("HEAD", "304 Not Modified", "content-length: 9\r\n"),
    ] {
        let answer = format!("HTTP/1.1 {line}\r\netag: \"x\"\r\n{field}\r\n");
        let (target, _seen) = recording(b"\r\n\r\n", answer.clone().leak().as_bytes());
        for (mut stream, before) in ways(&serve, target, "ro-length") {
            // Twice: the connection goes on.
            for _ in 0..2 {
                let head = format!("{method} {before}/ HTTP/1.1\r\nHost: {target}\r\n\r\n");
                stream.write_all(head.as_bytes()).unwrap();
                let got = read_head(&mut stream);
                assert_eq!(got.to_lowercase(), answer.to_lowercase(), "{method}");
            }
        }
    }
}

#[test]
fn trailers_pass_announced_or_not() {
    let bench = Bench::new();
    let serve = bench.serve(&[]);
    for (announced, te) in
        [("", ""), ("Trailer: x-t\r\n", ""), ("", "TE: trailers\r\n"), ("Trailer: x-t\r\n", "TE: trailers\r\n")]
    {
        let end = "0\r\nx-t: 1\r\nx-u: 2\r\n\r\n";
        let answer = format!("HTTP/1.1 200 OK\r\n{announced}Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n{end}");
        let with_connection = end.replace("x-u", "Connection: close\r\nx-u");
        let sent = answer.replace(end, &with_connection);
        let (target, seen) = recording(end.as_bytes(), sent.leak().as_bytes());
        for (mut stream, before) in ways(&serve, target, "ro-trailers") {
            for _ in 0..2 {
                let head = format!("POST {before}/ HTTP/1.1\r\nHost: {target}\r\n{te}{announced}");
                let body = format!("Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n{end}");
                stream.write_all(format!("{head}{body}").as_bytes()).unwrap();
                let request = String::from_utf8(seen.recv().unwrap()).unwrap();
                assert!(request.ends_with(&format!("\r\n\r\n3\r\nabc\r\n{end}")), "{request}");
                read_head(&mut stream);
                let mut got = vec![0; "5\r\nhello\r\n".len() + end.len()];
                stream.read_exact(&mut got).unwrap();
                assert_eq!(String::from_utf8(got).unwrap(), format!("5\r\nhello\r\n{end}"), "{announced} {te}");
            }
        }
    }
}

#[test]
fn a_client_of_the_first_version_gets_no_trailers() {
    let bench = Bench::new();
    let serve = bench.serve(&[]);
    let answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n0\r\n\r\n\r\n0\r\nx-t: 1\r\n\r\n";
    let (target, _seen) = recording(b"\r\n\r\n", answer);
    for (mut stream, before) in ways(&serve, target, "ro-first") {
        stream.write_all(format!("GET {before}/ HTTP/1.0\r\nHost: {target}\r\n\r\n").as_bytes()).unwrap();
        let got = read_to_end(&mut stream);
        assert!(got.ends_with("\r\n\r\n0\r\n\r\n"), "{got:?}");
    }
}

//! Truncated, outdated or contradictory TLS from clients: rejected or relayed, with a span.

use crate::support::{Bench, Running, eventually, read_to_end, say, text, tunnel};
use serde_json::Value;
use std::io::Write;
use std::net::Shutdown;
use std::process::Command;

/// A ClientHello record (RFC 8446 §4.1.2) of `version`, with one cipher suite and no extension.
fn client_hello(version: [u8; 2]) -> Vec<u8> {
    let body = [&version[..], &[7; 32], &[0], &[0, 2, 0xc0, 0x2f], &[1, 0]].concat();
    let length = |bytes: &[u8]| u16::try_from(bytes.len()).unwrap().to_be_bytes();
    let handshake = [&[1, 0][..], &length(&body), &body].concat();
    [&[0x16, 3, 1][..], &length(&handshake), &handshake].concat()
}

fn connect_span(bench: &Bench, rollout: &str) -> Value {
    eventually(|| bench.spans(rollout).into_iter().find(|span| span["name"] == "CONNECT"))
}

#[test]
fn an_unacceptable_client_hello_ends_the_connection_with_a_span() {
    let bench = Bench::new();
    let serve = bench.serve(&[]);
    let (proxy, target) = (serve.address("proxy"), bench.mock.address("https"));
    let whole = client_hello([3, 3]);
    let cases: [(&str, &[u8]); 4] = [
        ("ro-cut", &whole[..20]),
        ("ro-tls10", &client_hello([3, 1])),
        ("ro-no-common", &whole),
        ("ro-garbage", &[0x16, 3, 1, 0, 4, 9, 9, 9, 9]),
    ];
    for (rollout, hello) in cases {
        let mut stream = tunnel(proxy, target, rollout);
        stream.write_all(hello).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        read_to_end(&mut stream);
        let span = connect_span(&bench, rollout);
        assert_eq!(span["attributes"]["error.type"], "client_tls_error", "{rollout}: {span:#}");
        assert!(span["status"]["description"].as_str().is_some_and(|why| !why.is_empty()), "{rollout}: {span:#}");
    }
    assert!(say(proxy, format!("GET {}/echo HTTP/1.1\r\nHost: x\r\n\r\n", bench.http()).as_bytes()).contains("200"));
}

#[test]
fn an_unknown_protocol_is_relayed_unopened_with_a_span() {
    let bench = Bench::new();
    let serve = bench.serve(&[]);
    let target = crate::support::endpoint(|mut stream| {
        let mut copy = stream.try_clone().unwrap();
        let _ = std::io::copy(&mut stream, &mut copy);
    });
    // An SSLv2 ClientHello (RFC 6101 appendix E).
    let hello = [0x80, 0x2e, 1, 0, 2, 0, 0x15, 0, 0, 0, 0x10];
    let mut stream = tunnel(serve.address("proxy"), target, "ro-sslv2");
    stream.write_all(&hello).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_to_end(&mut stream).as_bytes()[1..], String::from_utf8_lossy(&hello).as_bytes()[1..]);
    let span = connect_span(&bench, "ro-sslv2");
    assert_eq!(span["attributes"]["tracewire.connect.policy"], "tunnel", "{span:#}");
    assert_eq!(span["attributes"]["http.request.body.size"], hello.len());
}

fn curl(serve: &Running, rollout: &str, arguments: &[&str]) -> String {
    let mut curl = Command::new("curl");
    curl.args(["-sS", "--max-time", "30", "--proxytunnel"]);
    curl.args(["--proxy", &format!("http://{rollout}.at-1:@{}", serve.address("proxy"))]);
    text(&curl.arg("--cacert").arg(serve.path("ca")).args(arguments).output().unwrap())
}

#[test]
fn the_name_in_tls_has_precedence_over_the_address_in_the_connect() {
    let bench = Bench::new();
    let serve = bench.serve(&[]);
    let at = bench.mock.address("https");
    // CONNECT to an address, and a name in TLS: the address is dialled, and the endpoint sees the name.
    let connect_to = format!("localhost:443:127.0.0.1:{}", at.port());
    let answer = curl(&serve, "ro-sni", &["--connect-to", &connect_to, "https://localhost/echo"]);
    assert!(answer.contains("//localhost/echo"), "{answer}");
    let span = &bench.exchanges("ro-sni", 1)[0];
    assert_eq!(span["attributes"]["server.address"], "localhost", "{span:#}");
    assert_eq!(span["attributes"]["network.peer.port"], at.port());
}

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
    let cases: [(&str, &[u8]); 2] = [("ro-cut", &whole[..20]), ("ro-garbage", &[0x16, 3, 1, 0, 4, 9, 9, 9, 9])];
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

#[test]
fn a_client_whose_tls_is_older_is_relayed_with_the_reason() {
    let bench = Bench::new();
    let serve = bench.serve(&[]);
    for (rollout, version) in [("ro-tls10", [3, 1]), ("ro-no-common", [3, 3])] {
        let (target, seen) = (std::net::TcpListener::bind("127.0.0.1:0").unwrap(), client_hello(version));
        let mut stream = tunnel(serve.address("proxy"), target.local_addr().unwrap(), rollout);
        stream.write_all(&seen).unwrap();
        let (mut endpoint, _) = target.accept().unwrap();
        let mut got = vec![0; seen.len()];
        std::io::Read::read_exact(&mut endpoint, &mut got).unwrap();
        assert_eq!(got, seen);
        drop((stream, endpoint));
        let span = connect_span(&bench, rollout);
        assert_eq!(span["attributes"]["tracewire.connect.policy"], "tunnel", "{rollout}: {span:#}");
        let reason = span["attributes"]["tracewire.connect.reason"].as_str().unwrap();
        assert!(reason.contains("TLS with the client can't be opened"), "{reason}");
    }
}

#[test]
fn a_client_without_our_usual_key_gets_another() {
    let bench = Bench::new();
    let serve = bench.serve(&[]);
    let rsa = ["--tls-max", "1.2", "--ciphers", "ECDHE-RSA-AES256-GCM-SHA384"];
    let (p384, p521) = (["--curves", "P-384"], ["--curves", "P-521"]);
    let cases: [&[&str]; 6] = [
        &rsa,
        &p521,
        &[&p521[..], &rsa].concat(),
        &[&p521[..], &rsa[..2]].concat(),
        &p384,
        &[&p384[..], &rsa[..2]].concat(),
    ];
    for (number, options) in cases.into_iter().enumerate() {
        let (rollout, url) = (format!("ro-key-{number}"), format!("{}/echo", bench.https()));
        let answer = curl(&serve, &rollout, &[options, &[&url]].concat());
        assert!(answer.contains("/echo"), "{options:?}: {answer}");
        assert_eq!(bench.exchanges(&rollout, 1).len(), 1);
    }
}

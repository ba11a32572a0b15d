//! What clients speak inside a CONNECT: HTTP is recorded, everything else is relayed as if there were no proxy.

use crate::support::certificates::TestCa;
use crate::support::{Bench, endpoint, eventually, read_head, text, tracewire, tunnel};
use proptest::prelude::Strategy;
use proptest::test_runner::{Config, TestRunner};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, StreamOwned};
use serde_json::Value;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

fn connect_span(bench: &Bench, rollout: &str) -> Value {
    let is_done = |span: &Value| span["name"] == "CONNECT" && !span["end_time"].is_null();
    eventually(|| bench.spans(rollout).into_iter().find(is_done))
}

/// A TLS endpoint for `localhost` that runs `script` on each connection.
fn tls_endpoint(ca: &TestCa, script: fn(StreamOwned<ServerConnection, TcpStream>)) -> SocketAddr {
    let (certificate, key) = ca.leaf("localhost", 1);
    let chain = CertificateDer::pem_file_iter(certificate).unwrap().collect::<Result<_, _>>().unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()));
    let config = config.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
    let mut config = config.with_single_cert(chain, PrivateKeyDer::from_pem_file(key).unwrap()).unwrap();
    // An endpoint of this kind knows no protocol of HTTP.
    config.alpn_protocols = vec![b"chat".to_vec()];
    let config = Arc::new(config);
    endpoint(move |socket| script(StreamOwned::new(ServerConnection::new(Arc::clone(&config)).unwrap(), socket)))
}

/// A client that trusts one CA, and offers these protocols.
fn tls_client(ca: &Path, alpn: &[&str]) -> ClientConnection {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca).unwrap()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()));
    let config = config.with_safe_default_protocol_versions().unwrap().with_root_certificates(roots);
    let mut config = config.with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    ClientConnection::new(Arc::new(config), ServerName::try_from("localhost").unwrap()).unwrap()
}

#[test]
fn words_that_are_no_request_line_are_relayed() {
    let bench = Bench::new();
    let serve = bench.serve(&[]);
    let target = endpoint(|mut stream| {
        let mut seen = [0; 1000];
        let read = stream.read(&mut seen).unwrap_or(0);
        let _ = stream.write_all(&[b"reply to ", &seen[..read]].concat());
    });
    let inputs: [&[u8]; 9] = [
        b"get key\r\n",
        b"SET k v\r\n",
        b"use jobs\r\n",
        b"OPTIONS rtsp://h/s RTSP/1.0\r\nCSeq: 1\r\n\r\n",
        b"CONNECT {\"verbose\":false}\r\nPING\r\n",
        b"*1\r\n$4\r\nPING\r\n",
        b"GET /of-http-0.9\r\n",
        // Less than a line: the client waits.
        b"ruok",
        b"A",
    ];
    for (at, input) in inputs.into_iter().enumerate() {
        let rollout = format!("ro-words-{at}");
        let mut stream = tunnel(serve.address("proxy"), target, &rollout);
        stream.write_all(input).unwrap();
        let mut reply = Vec::new();
        stream.read_to_end(&mut reply).unwrap();
        assert_eq!(String::from_utf8_lossy(&reply), String::from_utf8_lossy(&[b"reply to ", input].concat()));
        drop(stream);
        let span = connect_span(&bench, &rollout);
        assert_eq!(span["attributes"]["tracewire.connect.reason"], "the protocol inside is not HTTP", "{span:#}");
    }
}

#[test]
fn plain_http_uses_the_connection_that_was_dialled() {
    static ACCEPTED: AtomicUsize = AtomicUsize::new(0);
    let bench = Bench::new();
    let serve = bench.serve(&[]);
    let target = endpoint(|mut stream| {
        ACCEPTED.fetch_add(1, Ordering::SeqCst);
        while !read_head(&mut stream).is_empty() {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        }
    });
    for at in 0..5 {
        let mut stream = tunnel(serve.address("proxy"), target, &format!("ro-plain-{at}"));
        for _ in 0..2 {
            write!(stream, "GET / HTTP/1.1\r\nHost: {target}\r\n\r\n").unwrap();
            assert!(read_head(&mut stream).starts_with("HTTP/1.1 200"));
            stream.read_exact(&mut [0; 2]).unwrap();
        }
    }
    assert_eq!(ACCEPTED.load(Ordering::SeqCst), 5);
}

#[test]
fn other_protocols_inside_tls_are_relayed_whoever_speaks_first() {
    let bench = Bench::new();
    let ca = TestCa::new(bench.home());
    let serve = bench.serve(&["--upstream-ca", ca.path().to_str().unwrap()]);
    let greeting = tls_endpoint(&ca, |mut stream| {
        let _ = stream.write_all(b"220 mail\r\n");
        let mut seen = [0; 5];
        let _ = stream.read_exact(&mut seen).and_then(|()| stream.write_all(&seen));
    });
    let listening = tls_endpoint(&ca, |mut stream| {
        let mut seen = [0; 5];
        let _ = stream.read_exact(&mut seen).and_then(|()| stream.write_all(&seen));
    });
    let names = "the protocol inside is not HTTP";
    let cases = [
        ("ro-greets", greeting, &b"220 mail\r\n"[..], &[][..], names),
        ("ro-listens", listening, b"", &[], names),
        // A client that offers other protocols only is not opened: it trusts the endpoint's own CA.
        ("ro-offers", listening, b"", &["chat"], "the client offers the protocol chat only"),
    ];
    for (rollout, target, greeted, alpn, reason) in cases {
        let trusted = if alpn.is_empty() { serve.path("ca") } else { ca.path() };
        let stream = tunnel(serve.address("proxy"), target, rollout);
        let mut stream = StreamOwned::new(tls_client(&trusted, alpn), stream);
        // Completes the handshake, which a read alone would do too.
        stream.flush().unwrap();
        let mut got = vec![0; greeted.len()];
        stream.read_exact(&mut got).unwrap();
        assert_eq!(got, greeted, "{rollout}");
        stream.write_all(b"\x10\x01ab\n").unwrap();
        let mut echoed = [0; 5];
        stream.read_exact(&mut echoed).unwrap();
        assert_eq!(&echoed, b"\x10\x01ab\n", "{rollout}");
        drop(stream);
        let span = connect_span(&bench, rollout);
        assert_eq!(span["attributes"]["tracewire.connect.reason"], reason, "{span:#}");
    }
}

/// Divides the TLS records of a ClientHello into records of `cut` bytes.
fn divided(hello: &[u8], cut: usize) -> Vec<u8> {
    let record = |part: &[u8]| [&[0x16, 3, 1][..], &u16::try_from(part.len()).unwrap().to_be_bytes(), part].concat();
    hello[5..].chunks(cut).flat_map(record).collect()
}

#[test]
fn host_settings_see_the_name_of_a_client_hello_in_several_records() {
    let bench = Bench::new();
    let ca = TestCa::new(bench.home());
    let settings = bench.home().join("proxy.toml");
    std::fs::write(&settings, "[proxy]\npassthrough = [\"localhost\"]\n").unwrap();
    let serve = bench.serve(&["--config", settings.to_str().unwrap()]);
    let target = tls_endpoint(&ca, |mut stream| drop(stream.write_all(b"hello")));
    let greeted_over_records_of = |cut| {
        let mut stream = tunnel(serve.address("proxy"), target, "ro-records");
        // It trusts the endpoint's CA only: an opened connection would fail.
        let mut client = tls_client(&ca.path(), &[]);
        let mut hello = Vec::new();
        client.write_tls(&mut hello).unwrap();
        stream.write_all(&divided(&hello, cut)).unwrap();
        let mut greeting = [0; 5];
        StreamOwned::new(client, stream).read_exact(&mut greeting).unwrap();
        assert_eq!(&greeting, b"hello");
    };
    let mut runner = TestRunner::new(Config { cases: 12, ..Config::default() });
    let cuts = (1usize..300).boxed();
    runner
        .run(&cuts, |cut| {
            greeted_over_records_of(cut);
            Ok(())
        })
        .unwrap();
}

#[test]
fn an_endpoint_with_tls_older_than_ours_is_relayed_with_the_reason() {
    let bench = Bench::new();
    let ca = TestCa::new(bench.home());
    let trusted = ca.path().to_str().unwrap().to_owned();
    let cases = [
        ("ro-cbc", "localhost", "ECDHE-ECDSA-AES256-SHA384", "none of our TLS versions and cipher suites"),
        ("ro-cn", "CN=localhost", "ECDHE-ECDSA-AES128-GCM-SHA256", "not in subjectAltName"),
    ];
    for (rollout, name, ciphers, reason) in cases {
        let (server, _) = ca.server("old_tls.py", name, 30, &[ciphers]);
        let url = format!("https://localhost:{}/", server.hello["port"]);
        let mut run = tracewire(bench.home());
        run.args(["run", "--rollout", rollout, "--", "curl", "-sS", &url]);
        let output = run.env("CURL_CA_BUNDLE", &trusted).output().unwrap();
        assert_eq!(output.stdout, b"old but fine", "{rollout}: {}", text(&output));
        let span = connect_span(&bench, rollout);
        let told = span["attributes"]["tracewire.connect.reason"].as_str().unwrap_or_default().to_owned();
        assert!(told.contains(reason), "{span:#}");
    }
}

#[test]
fn a_virtual_host_gets_the_host_that_its_client_names() {
    let bench = Bench::new();
    let settings = bench.home().join("proxy.toml");
    std::fs::write(&settings, "[proxy]\nblock = [\"blocked.test\"]\n").unwrap();
    let serve = bench.serve(&["--config", settings.to_str().unwrap()]);
    for (rollout, url) in [("ro-tls", bench.https()), ("ro-plain", bench.http())] {
        let curl = |host: &str| {
            let mut curl = std::process::Command::new("curl");
            curl.args(["-sS", "--proxy", &format!("http://{rollout}.at-1:@{}", serve.address("proxy")), "--cacert"]);
            curl.arg(serve.path("ca")).args(["-H", &format!("Host: {host}"), &format!("{url}/echo")]);
            text(&curl.output().unwrap())
        };
        let answer = curl("app.test");
        assert!(answer.contains("app.test"), "{answer}");
        let span = &bench.exchanges(rollout, 1)[0]["attributes"];
        assert_eq!(span["http.request.header.host"], serde_json::json!(["app.test"]), "{span:#}");
        assert_ne!(span["server.address"], "app.test", "{span:#}");
        let refused = curl("blocked.test");
        assert!(refused.contains("http_request_denied"), "{refused}");
    }
}

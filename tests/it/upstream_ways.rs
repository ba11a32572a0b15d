//! How endpoints are reached: by way of another proxy, with a client certificate, by certificates that don't hold.

use crate::support::certificates::TestCa;
use crate::support::{Bench, Running, say, text, tracewire};
use bytes::Bytes;
use http_body_util::Empty;
use hyper::Response;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::process::{Command, Output};
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::sync::Barrier;
use tokio_rustls::TlsAcceptor;

fn curl(door: &Running, arguments: &[&str]) -> Output {
    let mut curl = Command::new("curl");
    curl.args(["-sS", "--max-time", "30", "--proxy", &format!("http://ro-way.at-1:@{}", door.address("proxy"))]);
    curl.arg("--cacert").arg(door.path("ca")).args(arguments).output().unwrap()
}

#[test]
fn endpoints_are_reached_through_the_proxy_of_our_own_environment() {
    let (outer_bench, bench) = (Bench::new(), Bench::new());
    let to = |port: u16, door: &str| format!("api.tracewire.test:{port}:{}", outer_bench.mock.address(door));
    let mut outer = tracewire(outer_bench.home());
    outer.args(["serve", "--json", "--proxy", "127.0.0.1:0", "--server", "127.0.0.1:0", "--upstream-ca"]);
    outer.arg(outer_bench.mock.path("ca")).args(["--connect-to", &to(443, "https"), "--connect-to", &to(80, "http")]);
    outer.env("TRACEWIRE_TOKEN", "s3/cret");
    let outer = Running::start(outer);
    let through = |credentials: &str| {
        let mut inner = tracewire(bench.home());
        inner.args(["serve", "--json", "--proxy", "127.0.0.1:0", "--server", "127.0.0.1:0"]);
        inner.arg("--upstream-ca").arg(outer.path("ca"));
        let url = format!("http://{credentials}@{}", outer.address("proxy"));
        inner.env("HTTPS_PROXY", &url).env("http_proxy", &url).env("NO_PROXY", "spared.test");
        Running::start(inner)
    };
    let inner = through("ro-outer.at-1:s3%2Fcret");
    for url in ["https://api.tracewire.test/weather", "http://api.tracewire.test/weather"] {
        for version in ["--http1.1", "--http2"] {
            let output = curl(&inner, &[version, url]);
            assert!(text(&output).contains("celsius"), "{url}: {}", text(&output));
        }
    }
    assert_eq!(bench.exchanges("ro-way", 4).len(), 4);
    assert_eq!(outer_bench.exchanges("ro-outer", 4).len(), 4);
    // No credentials of one proxy reach the next, or the endpoint.
    let asked =
        say(outer_bench.mock.address("http"), b"GET /requests HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    assert!(asked.contains("/weather") && !asked.to_lowercase().contains("proxy-authorization"), "{asked}");

    // Loopback and NO_PROXY are reached directly.
    assert!(text(&curl(&inner, &[&format!("{}/weather", outer_bench.http())])).contains("celsius"));
    assert_eq!(bench.exchanges("ro-way", 5).len(), 5);
    assert!(text(&curl(&inner, &["http://spared.test/"])).contains("dns_error"));

    // A refusal of the outer proxy is told, with what to look at.
    drop(inner);
    let wrong = through("ro-outer.at-1:wrong");
    let refused = curl(&wrong, &["https://api.tracewire.test/weather"]);
    assert!(!refused.status.success() || text(&refused).contains("407"), "{}", text(&refused));
    let told = |span: &serde_json::Value| span["status"]["description"].as_str().is_some_and(|why| why.contains("407"));
    crate::support::eventually(|| bench.spans("ro-way").iter().any(told).then_some(()));
}

#[test]
fn an_endpoint_that_wants_a_client_certificate_gets_the_one_for_its_host() {
    let bench = Bench::new();
    let ca = TestCa::new(bench.home());
    let (_server, rule) = ca.server("mutual_tls.py", "api.tracewire.test", 30, &["test-ca.pem"]);
    let (certificate, key) = ca.leaf("agent.tracewire.test", 30);
    let settings = format!(
        "[tls]\nupstream_ca = [{:?}]\n[[tls.client_certificates]]\nhosts = [\"*.tracewire.test\"]\ncertificate = {certificate:?}\nkey = {key:?}\n",
        ca.path()
    );
    let file = bench.home().join("proxy.toml");
    std::fs::write(&file, settings).unwrap();
    let serve = bench.serve(&["--config", file.to_str().unwrap(), "--connect-to", &rule]);
    let output = curl(&serve, &["https://api.tracewire.test/"]);
    assert!(text(&output).contains("agent.tracewire.test"), "{}", text(&output));

    let without = bench.serve(&["--upstream-ca", ca.path().to_str().unwrap(), "--connect-to", &rule]);
    for arguments in [&["https://api.tracewire.test/"][..], &["--no-alpn", "https://api.tracewire.test/"]] {
        let output = curl(&without, arguments);
        assert!(text(&output).contains("client_certificates"), "{arguments:?}: {}", text(&output));
    }
}

#[test]
fn certificates_that_do_not_hold_are_refused_by_name() {
    let bench = Bench::new();
    let ca = TestCa::new(bench.home());
    for (name, days, cause) in [
        ("api.tracewire.test", -1, "expired 1 day ago"),
        ("other.test", 30, "is for other.test, not for api.tracewire.test"),
    ] {
        let (_server, rule) = ca.server("git_server.py", name, days, &["."]);
        let serve = bench.serve(&["--upstream-ca", ca.path().to_str().unwrap(), "--connect-to", &rule]);
        let output = curl(&serve, &["https://api.tracewire.test/"]);
        assert!(text(&output).contains("tls_certificate_error") && text(&output).contains(cause), "{}", text(&output));
        // The CA is trusted already.
        assert!(
            text(&output).contains("tls.insecure_hosts") && !text(&output).contains("--upstream-ca"),
            "{}",
            text(&output)
        );
    }
}

#[test]
fn a_certificate_that_is_trusted_itself_needs_no_ca() {
    let bench = Bench::new();
    let ca = TestCa::new(bench.home());
    for (name, days, expected) in [
        ("api.tracewire.test", 30, "old but fine"),
        ("api.tracewire.test", -1, "expired 1 day ago"),
        ("other.test", 30, "is for other.test, not for api"),
    ] {
        let pair = ca.self_signed(name, days);
        let trusted = pair.0.to_str().unwrap().to_owned();
        let (_server, rule) = ca.server_with("old_tls.py", pair, &["ECDHE-ECDSA-AES128-GCM-SHA256"]);
        let serve = bench.serve(&["--upstream-ca", &trusted, "--connect-to", &rule]);
        let output = curl(&serve, &["https://api.tracewire.test/"]);
        assert!(text(&output).contains(expected), "{name} {days}: {}", text(&output));
    }
}

#[test]
fn under_run_endpoints_of_the_users_own_ca_are_trusted_without_a_flag() {
    let bench = Bench::new();
    let url = format!("{}/weather", bench.https());
    let mut run = tracewire(bench.home());
    run.args(["run", "--rollout", "ro-corporate", "--", "curl", "-sS", &url]);
    let output = run.env("NODE_EXTRA_CA_CERTS", bench.mock.path("ca")).output().unwrap();
    assert!(text(&output).contains("celsius"), "{}", text(&output));
}

/// An HTTP/2 endpoint that takes 100 streams at once on a connection, and answers when `count` requests are there.
async fn answers_together(ca: &TestCa, count: usize) -> SocketAddr {
    let (certificate, key) = ca.leaf("api.tracewire.test", 30);
    let certificate = CertificateDer::from_pem_file(certificate).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()));
    let config = config.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
    let mut config = config.with_single_cert(vec![certificate], PrivateKeyDer::from_pem_file(key).unwrap()).unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let (acceptor, together) = (TlsAcceptor::from(Arc::new(config)), Arc::new(Barrier::new(count)));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, together) = (acceptor.clone(), Arc::clone(&together));
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let service = service_fn(|_| {
                    let together = Arc::clone(&together);
                    async move {
                        together.wait().await;
                        Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
                    }
                });
                let mut server = http2::Builder::new(TokioExecutor::new());
                let _ = server.max_concurrent_streams(100).serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn more_streams_than_an_endpoint_takes_go_over_more_connections() {
    let bench = Bench::new();
    let ca = TestCa::new(bench.home());
    // Did one of the calls wait for another's stream, none would ever be answered.
    let rule = format!("api.tracewire.test:443:{}", answers_together(&ca, 200).await);
    let serve = bench.serve(&["--upstream-ca", ca.path().to_str().unwrap(), "--connect-to", &rule]);
    let program = "
import asyncio, httpx, sys
async def main(proxy, ca, url):
    # httpcore closes connections over its limit of idle ones, also those that are just being made.
    limits = httpx.Limits(max_keepalive_connections=1000)
    async with httpx.AsyncClient(http2=True, proxy=proxy, verify=ca, timeout=300, limits=limits) as client:
        got = await asyncio.gather(*(client.get(url) for _ in range(100)))
        assert all(answer.status_code == 200 and answer.http_version == 'HTTP/2' for answer in got)
async def clients():
    await asyncio.gather(*(main(*sys.argv[1:4]) for _ in range(2)))
asyncio.run(clients())
";
    let proxy = format!("http://ro-many.at-1:@{}", serve.address("proxy"));
    let mut clients = Command::new(crate::support::python());
    clients.args(["-c", program, &proxy, serve.path("ca").to_str().unwrap(), "https://api.tracewire.test/"]);
    let output = tokio::task::spawn_blocking(move || clients.output().unwrap()).await.unwrap();
    assert!(output.status.success(), "{}", text(&output));
    assert_eq!(bench.exchanges("ro-many", 200).len(), 200);
}

#[test]
fn connections_of_nobody_in_particular_are_not_kept() {
    let bench = Bench::new();
    let serve = bench.serve(&[]);
    let door = serve.address("proxy");
    for _ in 0..50 {
        let head = format!("GET {}/weather HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", bench.http());
        assert!(say(door, head.as_bytes()).contains("200 OK"));
    }
    let open = || {
        let descriptors = std::fs::read_dir(format!("/proc/{}/fd", serve.pid())).unwrap().flatten();
        descriptors
            .filter(|entry| {
                std::fs::read_link(entry.path()).is_ok_and(|to| to.to_string_lossy().starts_with("socket:"))
            })
            .count()
    };
    // Two listeners, and what the runtime and signals need.
    crate::support::eventually(|| (open() < 10).then_some(()));
}

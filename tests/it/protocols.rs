//! Protocols other than HTTP/1.1 in a CONNECT: HTTP/2 everywhere, SOCKS5, TLS to the proxy, WebSocket both ways, gRPC.

use crate::support::certificates::TestCa;
use crate::support::http2::{frame, literal, preface};
use crate::support::{Bench, Running, connect, endpoint, eventually, python, read_head, root, say, text, tunnel};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http2::SendRequest;
use hyper::ext::Protocol;
use hyper::{Method, Request, StatusCode, Version};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;

fn curl(arguments: &[&str]) -> String {
    let output = Command::new("curl").args(["-sS", "--fail", "--max-time", "30"]).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn http2_by_prior_knowledge_inside_a_connect_is_opened() {
    let bench = Bench::new();
    let serve = bench.serve(&[]);
    let proxy = format!("http://ro-h2c.at-1:@{}", serve.address("proxy"));
    let url = format!("{}/echo", bench.http());
    let answer = curl(&["--http2-prior-knowledge", "--proxytunnel", "--proxy", &proxy, "--data", "x", &url]);
    assert!(answer.contains("HTTP/2.0"), "{answer}");
    let span = &bench.exchanges("ro-h2c", 1)[0];
    assert_eq!(span["attributes"]["network.protocol.version"], "2");
    assert_eq!(span["attributes"]["url.full"], url.as_str());
}

#[test]
fn the_proxy_speaks_socks5_and_tls() {
    let bench = Bench::new();
    let serve = bench.serve(&[]);
    let proxy = serve.address("proxy");
    let ca = serve.path("ca");
    let (ca, url) = (ca.to_str().unwrap(), format!("{}/echo", bench.https()));
    curl(&["--proxy", &format!("socks5h://ro-socks.at-1:@{proxy}"), "--cacert", ca, &url]);
    assert_eq!(bench.exchanges("ro-socks", 1)[0]["attributes"]["tracewire.identity.source"], "credentials");
    curl(&["--proxy", &format!("https://ro-tls.at-1:@{proxy}"), "--proxy-cacert", ca, "--cacert", ca, &url]);
    curl(&[
        "--proxy",
        &format!("https://ro-tls.at-1:@{proxy}"),
        "--proxy-cacert",
        ca,
        &format!("{}/echo", bench.http()),
    ]);
    assert_eq!(bench.exchanges("ro-tls", 2).len(), 2);
    let refused = Command::new("curl")
        .args(["-sS", "--proxy", &format!("socks5h://{proxy}"), "http://127.0.0.1:1/"])
        .output()
        .unwrap();
    assert!(!refused.status.success() && text(&refused).contains("SOCKS5"), "{}", text(&refused));
}

/// Begins SOCKS5 with user name and password, and returns the stream behind the authentication.
fn socks(proxy: SocketAddr, rollout: &str) -> TcpStream {
    let mut stream = connect(proxy);
    let credentials = [&[1, u8::try_from(rollout.len()).unwrap()], rollout.as_bytes(), &[0]].concat();
    stream.write_all(&[&[5, 1, 2], &credentials[..]].concat()).unwrap();
    let mut accepted = [0; 4];
    stream.read_exact(&mut accepted).unwrap();
    assert_eq!(accepted, [5, 2, 1, 0]);
    stream
}

#[test]
fn an_unsupported_socks_request_gets_the_reply_code_for_it() {
    let bench = Bench::new();
    let serve = bench.serve(&[]);
    let ipv4 = &[1, 127, 0, 0, 1, 0, 80][..];
    for (name, command, address, code, cause) in [
        ("bind", 2, ipv4, 7, "only the SOCKS command CONNECT"),
        ("udp-associate", 3, ipv4, 7, "only the SOCKS command CONNECT"),
        ("bind-unknown", 2, &[9, 1, 2, 3][..], 7, "only the SOCKS command CONNECT"),
        ("address-type", 1, &[2, 127, 0, 0, 1, 0, 80], 8, "neither IPv4, IPv6 nor a name"),
        ("not-utf8", 1, &[3, 2, 0xff, 0xfe, 0, 80], 1, "not UTF-8"),
    ] {
        let rollout = format!("ro-{name}");
        let mut stream = socks(serve.address("proxy"), &rollout);
        stream.write_all(&[&[5, command, 0], address].concat()).unwrap();
        let mut reply = Vec::new();
        stream.read_to_end(&mut reply).unwrap();
        assert_eq!(reply, [5, code, 0, 1, 0, 0, 0, 0, 0, 0], "{name}");
        let span = eventually(|| bench.spans(&rollout).into_iter().find(|span| span["name"] == "CONNECT"));
        assert!(span["status"]["description"].as_str().unwrap().contains(cause), "{span:#}");
    }
}

#[test]
fn a_socks_client_without_an_acceptable_method_is_refused() {
    let bench = Bench::new();
    let config = bench.home().join("token.toml");
    std::fs::write(&config, "[proxy]\ntoken = \"s3cret\"\n").unwrap();
    let (open, guarded) = (bench.serve(&[]), bench.serve(&["--config", config.to_str().unwrap()]));
    // GSSAPI is not supported, and without user name and password there is no token.
    for (serve, offer) in [(&open, &[5, 1, 1][..]), (&open, &[5, 0]), (&guarded, &[5, 2, 0, 1])] {
        let mut stream = connect(serve.address("proxy"));
        stream.write_all(offer).unwrap();
        let mut reply = Vec::new();
        stream.read_to_end(&mut reply).unwrap();
        assert_eq!(reply, [5, 0xff], "{offer:?}");
    }
    let mut stream = connect(guarded.address("proxy"));
    stream.write_all(b"\x05\x01\x02\x01\x04ro-1\x05wrong").unwrap();
    let mut reply = Vec::new();
    stream.read_to_end(&mut reply).unwrap();
    assert_eq!(reply, [5, 2, 1, 1], "a wrong token");
}

/// An HTTP/2 connection over any stream.
async fn http2(io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> SendRequest<Empty<Bytes>> {
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(io)).await.unwrap();
    tokio::spawn(connection);
    sender
}

fn request(method: Method, uri: &str) -> Request<Empty<Bytes>> {
    let credentials = STANDARD.encode("ro-h2.at-1:");
    let builder = Request::builder().method(method).uri(uri).version(Version::HTTP_2);
    builder.header("proxy-authorization", format!("Basic {credentials}")).body(Empty::new()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_proxy_speaks_http2_and_accepts_its_connect() {
    let bench = Bench::new();
    let serve = bench.serve(&[]);
    let stream = tokio::net::TcpStream::connect(serve.address("proxy")).await.unwrap();
    let mut proxy = http2(stream).await;
    let answer = proxy.send_request(request(Method::GET, &format!("{}/echo", bench.http()))).await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    assert!(!answer.into_body().collect().await.unwrap().to_bytes().is_empty());
    let target = bench.mock.address("http").to_string();
    let mut answer = proxy.send_request(request(Method::CONNECT, &target)).await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    let inside = TokioIo::new(hyper::upgrade::on(&mut answer).await.unwrap());
    let (mut inner, connection) =
        hyper::client::conn::http1::handshake::<_, Empty<Bytes>>(TokioIo::new(inside)).await.unwrap();
    tokio::spawn(connection);
    let request = Request::get("/weather").header("host", &target).body(Empty::new()).unwrap();
    assert_eq!(inner.send_request(request).await.unwrap().status(), StatusCode::OK);
    let refused = proxy.send_request(self::request(Method::CONNECT, "127.0.0.1:1")).await.unwrap();
    assert_eq!(refused.status(), StatusCode::BAD_GATEWAY);
    let paths: Vec<_> = bench.exchanges("ro-h2", 2).iter().map(|span| span["attributes"]["url.full"].clone()).collect();
    assert!(paths.contains(&json!(format!("http://{target}/weather"))), "{paths:?}");
}

type Socket<S> = WebSocketStream<S>;

/// Runs a Realtime session and returns everything sent and received, in order.
async fn realtime<S: AsyncRead + AsyncWrite + Unpin>(mut socket: Socket<S>) -> Vec<(&'static str, String)> {
    let mut log = Vec::new();
    let item = json!({ "type": "message", "role": "user", "content": [{ "type": "input_text", "text": "hello" }] });
    let asked = [json!({ "type": "conversation.item.create", "item": item }), json!({ "type": "response.create" })];
    let mut asked = asked.iter().map(Value::to_string);
    while let Some(Ok(message)) = socket.next().await {
        let Message::Text(text) = message else { continue };
        log.push(("receive", text.to_string()));
        let event: Value = serde_json::from_str(&text).unwrap();
        match event["type"].as_str().unwrap() {
            "session.created" | "conversation.item.created" => {
                let text = asked.next().unwrap();
                log.push(("transmit", text.clone()));
                socket.send(Message::text(text)).await.unwrap();
            }
            "response.done" => break,
            _ => {}
        }
    }
    socket.close(None).await.unwrap();
    while socket.next().await.is_some() {}
    log
}

/// The text messages on a span, in order.
fn recorded(span: &Value) -> Vec<(String, String)> {
    let word = |event: &Value, name: &str| event["attributes"][name].as_str().unwrap_or_default().to_owned();
    let events = span["events"].as_array().unwrap().iter();
    let texts = events.filter(|event| event["attributes"]["tracewire.websocket.opcode"] == "text");
    texts.map(|event| (word(event, "network.io.direction"), word(event, "tracewire.websocket.text"))).collect()
}

fn same(span: &Value, log: &[(&'static str, String)]) {
    let log: Vec<_> = log.iter().map(|(direction, text)| ((*direction).to_owned(), text.clone())).collect();
    assert_eq!(recorded(span), log);
    assert_eq!(span["attributes"]["tracewire.outcome"], "complete", "{span:#}");
    assert_eq!(span["name"], "WEBSOCKET");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_realtime_session_over_http1_is_recorded_message_by_message() {
    let bench = Bench::new();
    let serve = bench.serve(&["--include-bodies"]);
    let target = bench.mock.address("http");
    let stream = tunnel(serve.address("proxy"), target, "ro-realtime");
    stream.set_nonblocking(true).unwrap();
    let stream = tokio::net::TcpStream::from_std(stream).unwrap();
    let url = format!("ws://{target}/v1/realtime");
    let (socket, _) = tokio_tungstenite::client_async(url, stream).await.unwrap();
    let log = realtime(socket).await;
    assert!(log.len() > 10);
    same(&bench.exchanges("ro-realtime", 1)[0], &log);
}

/// An extended CONNECT inside a tunnel that speaks HTTP/2.
async fn over_http2(
    serve: &Running,
    target: SocketAddr,
    path: &str,
    rollout: &str,
) -> hyper::Response<hyper::body::Incoming> {
    let stream = tunnel(serve.address("proxy"), target, rollout);
    stream.set_nonblocking(true).unwrap();
    let mut sender = http2(tokio::net::TcpStream::from_std(stream).unwrap()).await;
    let mut request = Request::builder()
        .method(Method::CONNECT)
        .version(Version::HTTP_2)
        .uri(format!("http://{target}{path}"))
        .header("sec-websocket-version", "13")
        .body(Empty::<Bytes>::new())
        .unwrap();
    request.extensions_mut().insert(Protocol::from_static("websocket"));
    // The proxy's SETTINGS may still be on their way.
    sender.ready().await.unwrap();
    tokio::time::timeout(crate::support::TIMEOUT, sender.send_request(request)).await.unwrap().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_realtime_session_over_http2_is_recorded_message_by_message() {
    let bench = Bench::new();
    let serve = bench.serve(&["--include-bodies"]);
    let mut answer = over_http2(&serve, bench.mock.address("http"), "/v1/realtime", "ro-realtime2").await;
    assert_eq!((answer.status(), answer.headers().get("upgrade")), (StatusCode::OK, None));
    let io = TokioIo::new(hyper::upgrade::on(&mut answer).await.unwrap());
    let log = realtime(WebSocketStream::from_raw_socket(io, Role::Client, None).await).await;
    let span = &bench.exchanges("ro-realtime2", 1)[0];
    same(span, &log);
    assert_eq!(span["attributes"]["network.protocol.version"], "2");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_without_extended_connect_gets_an_upgrade() {
    let bench = Bench::new();
    let serve = bench.serve(&[]);
    // Its HTTP/2 has no extended CONNECT; its HTTP/1.1 accepts an upgrade and echoes what it gets.
    let target = endpoint(|mut stream| {
        let mut start = [0; 3];
        stream.read_exact(&mut start).unwrap();
        if start == *b"PRI" {
            stream.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).unwrap();
            let _ = std::io::copy(&mut stream, &mut std::io::sink());
            return;
        }
        let head = read_head(&mut stream);
        let key = head.lines().find_map(|line| {
            line.to_lowercase().starts_with("sec-websocket-key").then(|| line[18..].trim().to_owned())
        });
        let accept = tokio_tungstenite::tungstenite::handshake::derive_accept_key(key.unwrap().as_bytes());
        let answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
        );
        stream.write_all(answer.as_bytes()).unwrap();
        let mut copy = stream.try_clone().unwrap();
        let _ = std::io::copy(&mut stream, &mut copy);
    });
    let mut answer = over_http2(&serve, target, "/ws", "ro-translated").await;
    assert_eq!((answer.status(), answer.headers().get("sec-websocket-accept")), (StatusCode::OK, None));
    let mut io = TokioIo::new(hyper::upgrade::on(&mut answer).await.unwrap());
    tokio::io::AsyncWriteExt::write_all(&mut io, &[0x81, 0x82, 0, 0, 0, 0, b'h', b'i']).await.unwrap();
    let mut back = [0; 8];
    tokio::io::AsyncReadExt::read_exact(&mut io, &mut back).await.unwrap();
    assert_eq!(&back[6..], b"hi");
}

#[test]
fn after_a_refused_upgrade_http_goes_on_and_odd_frames_pass() {
    let bench = Bench::new();
    let serve = bench.serve(&[]);
    let target = bench.mock.address("http");
    let mut stream = tunnel(serve.address("proxy"), target, "ro-refused");
    let upgrade = format!("GET /echo HTTP/1.1\r\nHost: {target}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
    let next = format!("GET /weather HTTP/1.1\r\nHost: {target}\r\nConnection: close\r\n\r\n");
    stream.write_all(format!("{upgrade}{next}").as_bytes()).unwrap();
    let answers = crate::support::read_to_end(&mut stream);
    assert!(answers.contains("/echo") && answers.contains("celsius"), "{answers}");
    assert_eq!(bench.exchanges("ro-refused", 2).len(), 2);

    let odd = endpoint(|mut stream| {
        read_head(&mut stream);
        let _ =
            stream.write_all(b"HTTP/1.1 101 X\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n\xf1\x0anot frames");
    });
    let mut stream = tunnel(serve.address("proxy"), odd, "ro-odd");
    let upgrade = format!("GET / HTTP/1.1\r\nHost: {odd}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
    stream.write_all(upgrade.as_bytes()).unwrap();
    let answer = crate::support::read_to_end(&mut stream);
    assert!(answer.starts_with("HTTP/1.1 101") && answer.ends_with("not frames"), "{answer}");
    drop(stream);
    let span = &bench.exchanges("ro-odd", 1)[0];
    assert_eq!(span["attributes"]["tracewire.websocket.fault"], "a reserved bit is set", "{span:#}");
}

fn client(bench: &Bench, ca: &TestCa, rule: &str, rollout: &str, command: &[&str]) {
    let flags =
        ["--rollout", rollout, "--include-bodies", "--connect-to", rule, "--upstream-ca", ca.path().to_str().unwrap()]
            .map(str::to_owned);
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let output = bench.run(&flags, command);
    assert!(output.status.success(), "{}", text(&output));
}

#[test]
fn compressed_websocket_messages_are_read() {
    let bench = Bench::new();
    let ca = TestCa::new(bench.home());
    let (_server, rule) = ca.server("websocket_deflate.py", "api.tracewire.test", 30, &[]);
    let program = root().join("tests/clients/servers/websocket_deflate_client.py");
    let command = [&python(), program.to_str().unwrap(), "wss://api.tracewire.test/"];
    client(&bench, &ca, &rule, "ro-deflate", &command);
    let span = &bench.exchanges("ro-deflate", 1)[0];
    let texts = recorded(span);
    assert_eq!(texts.len(), 20, "ten texts, there and back: {span:#}");
    let (sent, back): (Vec<_>, Vec<_>) = texts.iter().partition(|(direction, _)| direction == "transmit");
    let words = |list: Vec<&(String, String)>| list.into_iter().map(|(_, text)| text.clone()).collect::<Vec<_>>();
    assert!(!texts[0].1.is_empty());
    assert_eq!(words(sent), words(back));
}

#[test]
fn a_grpc_stream_passes_both_ways_with_its_trailers() {
    let bench = Bench::new();
    let ca = TestCa::new(bench.home());
    let (_server, rule) = ca.server("grpc_echo.py", "api.tracewire.test", 30, &[]);
    let program = root().join("tests/clients/servers/grpc_client.py");
    client(&bench, &ca, &rule, "ro-grpc", &[&python(), program.to_str().unwrap(), "api.tracewire.test:443"]);
    let span = &bench.exchanges("ro-grpc", 1)[0];
    assert_eq!(span["attributes"]["network.protocol.version"], "2");
    assert_eq!(span["attributes"]["tracewire.outcome"], "complete");
    assert_eq!(span["attributes"]["http.request.body.size"], span["attributes"]["http.response.body.size"]);
}

#[test]
fn a_large_repository_is_cloned_whole() {
    let bench = Bench::new();
    let ca = TestCa::new(bench.home());
    let git = |folder: &str, arguments: &[&str]| {
        let mut git = Command::new("git");
        git.args(["-c", "user.name=t", "-c", "user.email=t@t", "-c", "commit.gpgsign=false"]).args(arguments);
        let output = git.current_dir(bench.home().join(folder)).output().unwrap();
        assert!(output.status.success(), "{}", text(&output));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    std::fs::create_dir(bench.home().join("origin")).unwrap();
    git("origin", &["init", "--quiet"]);
    // Random bytes do not compress: all of them go over the wire.
    let mut noise = vec![0; 50 << 20];
    fastrand::Rng::with_seed(7).fill(&mut noise);
    std::fs::write(bench.home().join("origin/noise"), noise).unwrap();
    git("origin", &["add", "noise"]);
    git("origin", &["commit", "--quiet", "-m", "noise"]);
    let (_server, rule) = ca.server("git_server.py", "api.tracewire.test", 30, &["origin"]);
    let copy = bench.home().join("copy");
    let command = ["git", "clone", "--quiet", "https://api.tracewire.test/", copy.to_str().unwrap()];
    client(&bench, &ca, &rule, "ro-git", &command);
    git("copy", &["fsck", "--strict"]);
    assert_eq!(git("copy", &["rev-parse", "HEAD^{tree}"]), git("origin", &["rev-parse", "HEAD^{tree}"]));
    let spans = bench.exchanges("ro-git", 2);
    assert!(spans.iter().any(|span| span["attributes"]["http.response.body.size"].as_u64() > Some(50 << 20)));
}

#[test]
fn a_large_upload_arrives_as_it_was_sent() {
    let bench = Bench::new();
    let file = bench.home().join("upload");
    let mut noise = vec![0; 200 << 20];
    fastrand::Rng::with_seed(8).fill(&mut noise);
    std::fs::write(&file, &noise).unwrap();
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &noise);
    let expected: String = hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    for (flag, rollout) in [("--http1.1", "ro-upload1"), ("--http2", "ro-upload2")] {
        let (data, url) = (format!("@{}", file.display()), format!("{}/upload", bench.https()));
        let output =
            bench.run(&["--rollout", rollout], &["curl", "-isS", "--fail", flag, "--data-binary", &data, &url]);
        assert!(String::from_utf8_lossy(&output.stdout).contains(&expected), "{}", text(&output));
        assert_eq!(bench.exchanges(rollout, 1)[0]["attributes"]["http.request.body.size"], 200 << 20);
    }
}

#[test]
fn malformed_http2_is_rejected_and_the_proxy_serves_on() {
    let bench = Bench::new();
    let serve = bench.serve(&[]);
    let (target, seen) = (bench.mock.address("http"), format!("{}/requests", bench.http()));
    let fields = |more: &[(&str, &str)]| {
        let all =
            [(":method", "POST"), (":scheme", "http"), (":path", "/malformed"), (":authority", &target.to_string())];
        all.iter().chain(more).flat_map(|(name, value)| literal(name, value)).collect::<Vec<u8>>()
    };
    let preface = preface();
    for more in [
        &[("connection", "close")][..],
        &[("transfer-encoding", "chunked")],
        &[("te", "gzip")],
        &[("upgrade", "websocket")],
    ] {
        let mut stream = tunnel(serve.address("proxy"), target, "ro-malformed");
        stream.write_all(&[preface.clone(), frame(1, 5, 1, &fields(more))].concat()).unwrap();
        assert!(refused(&mut stream), "{more:?}");
    }
    let mut stream = tunnel(serve.address("proxy"), target, "ro-malformed");
    let short = frame(0, 1, 1, b"abc");
    stream.write_all(&[preface.clone(), frame(1, 4, 1, &fields(&[("content-length", "5")])), short].concat()).unwrap();
    assert!(refused(&mut stream), "a body shorter than its content-length");
    let mut stream = tunnel(serve.address("proxy"), target, "ro-flood");
    let reset = |at: u32| [frame(1, 5, at, &fields(&[])), frame(3, 0, at, &[0, 0, 0, 8])].concat();
    // The proxy may close the connection before all of it is written.
    let _ = stream.write_all(&[preface.clone(), (0..2000).flat_map(|at| reset(2 * at + 1)).collect()].concat());
    assert!(refused(&mut stream), "a flood of resets");
    let mut stream = tunnel(serve.address("proxy"), target, "ro-flood");
    let flood: Vec<u8> = (0..20_000).flat_map(|_| frame(9, 0, 1, &literal("x", "y"))).collect();
    let _ = stream.write_all(&[preface, frame(1, 1, 1, &fields(&[])), flood].concat());
    assert!(refused(&mut stream), "a flood of continuations");
    let answer = say(serve.address("proxy"), format!("GET {seen} HTTP/1.1\r\nHost: {target}\r\n\r\n").as_bytes());
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

/// True when the stream is reset, or the connection closed, without a response.
fn refused(stream: &mut TcpStream) -> bool {
    loop {
        let mut head = [0; 9];
        if stream.read_exact(&mut head).is_err() {
            return true;
        }
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let mut payload = vec![0; length];
        if stream.read_exact(&mut payload).is_err() {
            return true;
        }
        match head[3] {
            // RST_STREAM with PROTOCOL_ERROR, or GOAWAY.
            3 => return payload == [0, 0, 0, 1],
            7 => return true,
            0 | 1 => return false,
            _ => {}
        }
    }
}

#[test]
fn an_upload_that_waits_for_100_is_answered_in_both_versions() {
    let bench = Bench::new();
    let url = format!("{}/v1/chat/completions", bench.https());
    let question = r#"{"model":"mock","messages":[{"role":"user","content":"hi"}]}"#;
    for version in ["--http1.1", "--http2"] {
        let fields = ["-H", "Expect: 100-continue", "-H", "content-type: application/json"];
        let mut command = vec!["curl", "-sS", "--fail", "--max-time", "30", version, "-d", question, &url];
        command.extend(fields);
        let output = bench.run(&[], &command);
        assert!(output.status.success(), "{version}: {}", text(&output));
        assert!(!text(&output).contains("panicked"), "{version}: {}", text(&output));
    }
}

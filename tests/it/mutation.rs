//! Recorded traffic with bytes changed, through the whole program: no panic, no hang, and the side that broke the message is
//! the one that is blamed.
//!
//! It runs for two seconds, or for `TRACEWIRE_FUZZ_SECONDS` seconds if that is set (`scripts/fuzz`). An input that hangs
//! is written to `target/fuzz/`.

use crate::support::client::{get, register_model};
use crate::support::http2::{fields, frame, literal};
use crate::support::mutate::mutated;
use crate::support::{Running, connect, endpoint, eventually, find, root, tracewire};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// One way of traffic through the program, and the side whose bytes are changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Way {
    Request,
    Response,
    TunnelledRequest,
    TunnelledResponse,
    Http2Request,
    Http2Response,
    WebSocketFromAgent,
    WebSocketFromEndpoint,
    GatewayRequest,
    BackendResponse,
    Otlp,
}

const WAYS: [Way; 11] = [
    Way::Request,
    Way::Response,
    Way::TunnelledRequest,
    Way::TunnelledResponse,
    Way::Http2Request,
    Way::Http2Response,
    Way::WebSocketFromAgent,
    Way::WebSocketFromEndpoint,
    Way::GatewayRequest,
    Way::BackendResponse,
    Way::Otlp,
];

/// What passes one way: what the client sends, and what the endpoint answers.
struct Exchange {
    client: Vec<u8>,
    endpoint: Vec<u8>,
}

/// An endpoint that answers each connection with the bytes it was told.
struct Scripted {
    address: SocketAddr,
    answer: Arc<Mutex<Vec<u8>>>,
}

impl Scripted {
    fn new() -> Self {
        let answer = Arc::new(Mutex::new(Vec::new()));
        let script = Arc::clone(&answer);
        let address = endpoint(move |mut stream| {
            stream.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
            let (mut seen, mut buffer) = (Vec::new(), [0; 4096]);
            while find(&seen, b"\r\n\r\n").is_none() {
                match stream.read(&mut buffer) {
                    Ok(read) if read > 0 => seen.extend_from_slice(&buffer[..read]),
                    _ => break,
                }
            }
            let answer = script.lock().unwrap().clone();
            let _ = stream.write_all(&answer);
            let _ = stream.shutdown(Shutdown::Write);
            while stream.read(&mut buffer).is_ok_and(|read| read > 0) {}
        });
        Self { address, answer }
    }
}

/// The golden exchanges of all formats: requests in origin-form, and responses.
fn golden() -> Vec<Exchange> {
    let folders =
        |path: &Path| -> Vec<_> { std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect() };
    let mut all: Vec<_> = folders(&root().join("tests/golden")).iter().flat_map(|api| folders(api)).collect();
    all.sort();
    let read = |folder: &Path, name| std::fs::read(folder.join(name)).unwrap();
    all.iter()
        .map(|folder| Exchange { client: read(folder, "request.http"), endpoint: read(folder, "response.http") })
        .collect()
}

/// A request with `prefix` before its target, `host` as its host, and an end of the connection after it.
fn addressed(request: &[u8], prefix: &str, host: SocketAddr) -> Vec<u8> {
    let end = find(request, b"\r\n\r\n").unwrap();
    let head = String::from_utf8_lossy(&request[..end]).into_owned();
    let (line, fields) = head.split_once("\r\n").unwrap();
    let (method, target) = line.split_once(' ').unwrap();
    let kept: Vec<&str> = fields
        .split("\r\n")
        .filter(|field| !is_named(field, &["host", "connection", "content-length", "transfer-encoding"]))
        .collect();
    let body = &request[end + 4..];
    let head = format!(
        "{method} {prefix}{target}\r\nHost: {host}\r\nConnection: close\r\nContent-Length: {}\r\n{}\r\n\r\n",
        body.len(),
        kept.join("\r\n")
    );
    [head.as_bytes(), body].concat()
}

fn is_named(field: &str, names: &[&str]) -> bool {
    field.split_once(':').is_some_and(|(name, _)| names.contains(&name.to_ascii_lowercase().as_str()))
}

/// A POST over HTTP/2, and its answer.
fn http2(host: SocketAddr) -> Exchange {
    let host = host.to_string();
    let head = fields(&[
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/v1/x"),
        (":authority", host.as_str()),
        ("te", "trailers"),
    ]);
    let client = [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
        frame(4, 0, 0, &[0, 4, 0, 1, 0, 0]),
        frame(1, 4, 1, &head),
        frame(0, 0, 1, b"{\"model\":\"m\"}"),
        frame(6, 0, 0, b"pingping"),
        frame(0, 1, 1, b"more"),
        frame(1, 5, 3, &head),
    ];
    let answer = |stream| {
        [
            frame(1, 4, stream, &[&[0x88][..], &literal("content-type", "text/event-stream")].concat()),
            frame(0, 0, stream, b"data: {}\n\n"),
            frame(8, 0, 0, &[0, 0, 1, 0]),
            frame(1, 5, stream, &literal("grpc-status", "0")),
        ]
        .concat()
    };
    let endpoint = [frame(4, 0, 0, &[]), frame(4, 1, 0, &[]), answer(1), answer(3)];
    Exchange { client: client.concat(), endpoint: endpoint.concat() }
}

/// A WebSocket with a text, a ping and a close in each direction.
fn websocket(host: SocketAddr) -> Exchange {
    let masked = |opcode: u8, payload: &[u8]| {
        let length = u8::try_from(payload.len()).unwrap();
        [&[0x80 | opcode, 0x80 | length, 0, 0, 0, 0], payload].concat()
    };
    let plain = |opcode: u8, payload: &[u8]| [&[0x80 | opcode, u8::try_from(payload.len()).unwrap()], payload].concat();
    let upgrade = format!(
        "GET http://{host}/ws HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    );
    let switched = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: ICX+Yqv66kxgM0FcWaLWlFLwTAI=\r\n\r\n";
    let client = [upgrade.into_bytes(), masked(1, b"hello"), masked(9, b"?"), masked(8, &[3, 0xe8])];
    let endpoint = [switched.as_bytes().to_vec(), plain(1, b"hello"), plain(10, b"?"), plain(8, &[3, 0xe8])];
    Exchange { client: client.concat(), endpoint: endpoint.concat() }
}

/// An export of OpenTelemetry's SDK for Python, as JSON and as protobuf.
fn otlp(server: SocketAddr, random: &mut fastrand::Rng) -> Vec<u8> {
    let json = br#"{"resourceSpans":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"a"}}]},"scopeSpans":[{"scope":{"name":"s"},"spans":[{"traceId":"5b8efff798038103d269b633813fc60c","spanId":"eee19b7ec3c1b174","name":"n","kind":3,"startTimeUnixNano":"1544712660000000000","endTimeUnixNano":1544712661000000000,"attributes":[{"key":"k","value":{"doubleValue":1.5}},{"key":"l","value":{"arrayValue":{"values":[{"boolValue":true}]}}}],"events":[{"timeUnixNano":"1","name":"e"}],"links":[],"status":{"code":2,"message":"m"}}]}]}]}"#;
    // ResourceSpans > ScopeSpans > Span with ids, a name and an attribute.
    let field = |number: u8, bytes: &[u8]| [&[number << 3 | 2, u8::try_from(bytes.len()).unwrap()], bytes].concat();
    let attribute = field(9, &[field(1, b"k"), field(2, &field(1, b"v"))].concat());
    let span = [field(1, &[7; 16]), field(2, &[7; 8]), field(5, b"name"), attribute].concat();
    let protobuf = field(1, &field(2, &field(2, &span)));
    let (body, kind) = if random.bool() { (json.to_vec(), "json") } else { (protobuf, "x-protobuf") };
    let body = mutated(&body, json, random);
    let head = format!(
        "POST /v1/traces HTTP/1.1\r\nHost: {server}\r\nConnection: close\r\nContent-Type: application/{kind}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), &body].concat()
}

struct Addresses {
    proxy: SocketAddr,
    server: SocketAddr,
}

/// Sends one changed exchange; returns what the client got.
fn send(
    way: Way,
    at: &Addresses,
    endpoints: [&Scripted; 2],
    golden: &[Exchange],
    random: &mut fastrand::Rng,
) -> (Vec<u8>, Vec<u8>) {
    let [origin, backend] = endpoints;
    let (one, other) = (random.choice(golden).unwrap(), random.choice(golden).unwrap());
    let exchange = match way {
        Way::Request | Way::Response => Exchange {
            client: addressed(&one.client, &format!("http://{}", origin.address), origin.address),
            endpoint: one.endpoint.clone(),
        },
        Way::TunnelledRequest | Way::TunnelledResponse => {
            Exchange { client: addressed(&one.client, "", origin.address), endpoint: one.endpoint.clone() }
        }
        Way::Http2Request | Way::Http2Response => http2(origin.address),
        Way::WebSocketFromAgent | Way::WebSocketFromEndpoint => websocket(origin.address),
        Way::GatewayRequest | Way::BackendResponse => {
            let prefix = format!("/rollout/ro-{}/attempt/0", random.u8(0..8));
            Exchange { client: addressed(&one.client, &prefix, at.server), endpoint: one.endpoint.clone() }
        }
        Way::Otlp => Exchange { client: otlp(at.server, random), endpoint: Vec::new() },
    };
    let is_endpoints = matches!(
        way,
        Way::Response | Way::TunnelledResponse | Way::Http2Response | Way::WebSocketFromEndpoint | Way::BackendResponse
    );
    let (mut client, mut answer) = (exchange.client, exchange.endpoint);
    if is_endpoints {
        answer = mutated(&answer, &other.endpoint, random);
    } else if way != Way::Otlp {
        client = mutated(&client, &other.client, random);
    }
    let target = if matches!(way, Way::GatewayRequest | Way::BackendResponse) { backend } else { origin };
    *target.answer.lock().unwrap() = answer;
    let mut stream = match way {
        Way::TunnelledRequest | Way::TunnelledResponse | Way::Http2Request | Way::Http2Response => {
            let mut stream = connect(at.proxy);
            write!(stream, "CONNECT {0} HTTP/1.1\r\nHost: {0}\r\n\r\n", origin.address).unwrap();
            assert!(crate::support::read_head(&mut stream).starts_with("HTTP/1.1 200"));
            stream
        }
        Way::GatewayRequest | Way::BackendResponse | Way::Otlp => connect(at.server),
        _ => connect(at.proxy),
    };
    (exchange_bytes(&mut stream, &client), client)
}

/// Sends the bytes, ends the request side, and reads to the end. It fails if nothing ends the connection.
fn exchange_bytes(stream: &mut TcpStream, sent: &[u8]) -> Vec<u8> {
    // The other side may have closed already.
    let _ = stream.write_all(sent);
    let _ = stream.shutdown(Shutdown::Write);
    let (mut got, mut buffer) = (Vec::new(), vec![0; 64 * 1024]);
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return got,
            Ok(read) => got.extend_from_slice(&buffer[..read]),
            Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {
                let folder = root().join("target/fuzz");
                std::fs::create_dir_all(&folder).unwrap();
                std::fs::write(folder.join("sent"), sent).unwrap();
                panic!(
                    "a connection hangs; what was sent is in {}; so far {:?}",
                    folder.display(),
                    String::from_utf8_lossy(&got)
                );
            }
            // A reset is an end, too.
            Err(_) => return got,
        }
    }
}

/// Who an error of the proxy blames, if the answer is one.
fn blamed(answer: &[u8]) -> Option<String> {
    let body = &answer[find(answer, b"\r\n\r\n")? + 4..];
    let error: serde_json::Value = serde_json::from_slice(body).ok()?;
    let text =
        error["error"]["message"].as_str()?.starts_with("tracewire: ").then(|| error["error"]["side"].as_str())??;
    Some(text.to_owned())
}

fn open_files(process: &Running) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", process.pid())).unwrap().count()
}

#[test]
fn changed_traffic_never_panics_hangs_or_blames_the_wrong_side() {
    let seconds = std::env::var("TRACEWIRE_FUZZ_SECONDS").ok().and_then(|text| text.parse().ok());
    let limit = Duration::from_secs(seconds.unwrap_or(2));
    let home = tempfile::tempdir().unwrap();
    let settings = home.path().join("proxy.toml");
    std::fs::write(
        &settings,
        "[upstream]\nconnect_timeout_ms = 2000\nheader_timeout_ms = 5000\nbody_idle_timeout_ms = 5000\n\
         [capture]\ninclude_headers = true\ninclude_bodies = true\n\
         [gateway]\ntry_timeout_ms = 3000\nretries = 0\n",
    )
    .unwrap();
    let log = home.path().join("log");
    let mut serve = tracewire(home.path());
    serve.args(["serve", "--json", "--proxy", "127.0.0.1:0", "--server", "127.0.0.1:0", "--config"]).arg(&settings);
    serve.env("TRACEWIRE_LOG", "error").stderr(std::fs::File::create(&log).unwrap());
    let serve = Running::start(serve);
    let at = Addresses { proxy: serve.address("proxy"), server: serve.address("server") };
    let backend = Scripted::new();
    *backend.answer.lock().unwrap() =
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 21\r\n\r\n{\"data\":[{\"id\":\"m\"}]}"
            .to_vec();
    register_model(&serve, backend.address, 0);
    let golden = golden();
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let began = Instant::now();
    let counts = Mutex::new(BTreeMap::<Way, u64>::new());
    let before = open_files(&serve);
    std::thread::scope(|scope| {
        for worker in 0..4 {
            let (at, golden, counts, backend) = (&at, &golden, &counts, &backend);
            scope.spawn(move || {
                let mut random = fastrand::Rng::with_seed(seed ^ worker);
                let origin = Scripted::new();
                while began.elapsed() < limit {
                    let way = *random.choice(&WAYS).unwrap();
                    let (answer, sent) = send(way, at, [&origin, backend], golden, &mut random);
                    if matches!(way, Way::Response | Way::TunnelledResponse | Way::WebSocketFromEndpoint)
                        && let Some(side) = blamed(&answer)
                    {
                        let shown = (String::from_utf8_lossy(&sent), String::from_utf8_lossy(&answer));
                        assert_eq!(side, "upstream", "{way:?}: {shown:?}");
                    }
                    *counts.lock().unwrap().entry(way).or_default() += 1;
                }
            });
        }
    });
    println!("{:?}", counts.lock().unwrap());
    assert_eq!(get(at.server, "/healthz").status, 200);
    // Nothing of it stays open.
    eventually(|| (open_files(&serve) < before + 20).then_some(()));
    let log = std::fs::read_to_string(&log).unwrap();
    assert!(!log.contains("panicked"), "{log}");
    let metrics = get(at.server, "/metrics").text();
    assert!(metrics.contains("tracewire_panics_total 0\n"), "{metrics}");
}

//! The proxy listener on raw sockets: rejected requests, the identity of rollouts, and what reaches the endpoint.

use crate::support::{
    Bench, Running, at_home, connect, endpoint, eventually, find, read_head, read_to_end, say, skipped, text, tracewire,
};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use std::io::{Read, Write};
use std::net::{IpAddr, Shutdown, UdpSocket};
use std::process::Command;

#[test]
fn bad_requests_get_an_explanation() {
    let bench = Bench::new();
    let serve = bench.serve(&[]);
    let proxy = serve.address("proxy");
    for (request, expected) in [
        (&b"\x00\x01\x02garbage\r\n\r\n"[..], "400"),
        (b"GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n", "400"),
        (b"CONNECT example.com HTTP/1.1\r\nHost: example.com\r\n\r\n", "400"),
        (b"CONNECT http://example.com:80/ HTTP/1.1\r\nHost: example.com:80\r\n\r\n", "400"),
        (b"GET ftp://example.com/ HTTP/1.1\r\nHost: example.com\r\n\r\n", "400"),
    ] {
        let answer = say(proxy, request);
        assert!(answer.starts_with(&format!("HTTP/1.1 {expected}")), "{request:?}: {answer}");
    }
    let mut long = b"GET http://example.com/".to_vec();
    long.resize(1 << 20, b'a');
    let answer = say(proxy, &long);
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
    assert!(say(proxy, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").contains("This is the Tracewire proxy."));
    assert!(say(proxy, b"GET /ca.pem HTTP/1.1\r\nHost: x\r\n\r\n").contains("BEGIN CERTIFICATE"));
}

/// Some of the names by which this machine reaches itself.
const LOOPBACK_NAMES: [&str; 5] = ["127.0.0.1", "localhost", "127.0.0.9", "0.0.0.0", "[::ffff:127.0.0.1]"];

#[test]
fn connections_to_itself_are_rejected() {
    let bench = Bench::new();
    let serve = bench.serve(&[]);
    let proxy = serve.address("proxy");
    for name in LOOPBACK_NAMES {
        let target = format!("{name}:{}", proxy.port());
        let answer = say(proxy, format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n").as_bytes());
        assert!(answer.starts_with("HTTP/1.1 403") && answer.contains("proxy_loop_detected"), "{name}: {answer}");
    }
}

#[test]
fn requests_to_its_own_api_are_relayed_and_not_recorded() {
    let bench = Bench::new();
    let serve = bench.serve(&["--otlp-grpc", "127.0.0.1:0"]);
    let (proxy, api) = (serve.address("proxy"), serve.address("server").port());
    for name in LOOPBACK_NAMES {
        let head = "Host: localhost\r\nConnection: close\r\nx-rollout-id: ro-relayed\r\n\r\n";
        let absolute = say(proxy, format!("GET http://{name}:{api}/healthz HTTP/1.1\r\n{head}").as_bytes());
        let mut tunnel = connect(proxy);
        tunnel.write_all(format!("CONNECT {name}:{api} HTTP/1.1\r\nHost: {name}:{api}\r\n\r\n").as_bytes()).unwrap();
        assert!(read_head(&mut tunnel).starts_with("HTTP/1.1 200"));
        tunnel.write_all(format!("GET /healthz HTTP/1.1\r\n{head}").as_bytes()).unwrap();
        let tunnelled = read_to_end(&mut tunnel);
        for answer in [absolute, tunnelled] {
            assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("\"status\":\"ok\""), "{name}: {answer}");
        }
    }
    let grpc = serve.address("otlp_grpc");
    assert!(
        say(proxy, format!("CONNECT {grpc} HTTP/1.1\r\nHost: {grpc}\r\n\r\n").as_bytes()).starts_with("HTTP/1.1 200")
    );
    assert_eq!(serve.stop(), Some(0));
    assert!(bench.spans("ro-relayed").is_empty());
    let listed = tracewire(bench.home()).args(["trace", "list"]).output().unwrap();
    assert!(!text(&listed).contains("ro-"), "{}", text(&listed));
}

/// An address of this machine other than loopback. No packet is sent to find it.
fn own_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    Some(socket.local_addr().ok()?.ip()).filter(|address| !address.is_loopback())
}

#[test]
fn requests_from_elsewhere_to_its_own_api_are_rejected() {
    let Some(address) = own_address() else {
        return skipped("requests from elsewhere to the API", "this machine has no address but loopback");
    };
    let bench = Bench::new();
    let config = bench.home().join("proxy.toml");
    std::fs::write(&config, "[proxy]\ntoken = \"s3cret\"\n[server]\ntokens = [{ token = \"t\" }]\n").unwrap();
    let mut serve = tracewire(bench.home());
    let listen = format!("{address}:0");
    serve.args(["serve", "--json", "--proxy", &listen, "--server", &listen, "--config", config.to_str().unwrap()]);
    let serve = Running::start(serve);
    let api = serve.address("server");
    // ro-a.at-a:s3cret
    let fields =
        format!("Host: {api}\r\nProxy-Authorization: Basic cm8tYS5hdC1hOnMzY3JldA==\r\nConnection: close\r\n\r\n");
    for request in [format!("GET http://{api}/healthz"), format!("CONNECT {api}")] {
        let answer = say(serve.address("proxy"), format!("{request} HTTP/1.1\r\n{fields}").as_bytes());
        assert!(answer.starts_with("HTTP/1.1 403") && answer.contains("proxy_loop_detected"), "{answer}");
    }
}

#[test]
fn a_block_list_and_a_token_are_enforced() {
    let bench = Bench::new();
    let config = bench.home().join("proxy.toml");
    std::fs::write(&config, "[proxy]\nblock = [\"*.blocked.test\"]\ntoken = \"s3cret\"\n").unwrap();
    let serve = bench.serve(&["--config", config.to_str().unwrap()]);
    let proxy = serve.address("proxy");
    let target = bench.http();
    let without = say(proxy, format!("GET {target}/echo HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes());
    assert!(without.starts_with("HTTP/1.1 407") && without.contains("proxy-authenticate: Basic"), "{without}");
    // ro-a.at-a:s3cret
    let auth = "Proxy-Authorization: Basic cm8tYS5hdC1hOnMzY3JldA==";
    let with = say(proxy, format!("GET {target}/echo HTTP/1.1\r\nHost: x\r\n{auth}\r\n\r\n").as_bytes());
    assert!(with.starts_with("HTTP/1.1 200") && !with.to_lowercase().contains("proxy-authorization"), "{with}");
    let blocked = say(proxy, format!("CONNECT a.blocked.test:443 HTTP/1.1\r\nHost: a\r\n{auth}\r\n\r\n").as_bytes());
    assert!(blocked.starts_with("HTTP/1.1 403") && blocked.contains("http_request_denied"), "{blocked}");
    assert_eq!(bench.exchanges("ro-a", 1)[0]["attempt_id"], "at-a");
}

/// As aiohttp does: its first request of a connection has the credentials.
#[test]
fn credentials_are_those_of_the_requests_that_follow_on_the_connection() {
    let bench = Bench::new();
    let config = bench.home().join("proxy.toml");
    std::fs::write(&config, "[proxy]\ntoken = \"s3cret\"\n").unwrap();
    let serve = bench.serve(&["--config", config.to_str().unwrap()]);
    let mut stream = connect(serve.address("proxy"));
    let mut status_with = |fields: &str| {
        write!(stream, "GET {}/echo HTTP/1.1\r\nHost: x\r\n{fields}\r\n", bench.http()).unwrap();
        let head = read_head(&mut stream);
        let length = head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
        stream.read_exact(&mut vec![0; length.unwrap()]).unwrap();
        head.split(' ').nth(1).map(str::to_owned).unwrap()
    };
    let auth = |text: &str| format!("Proxy-Authorization: Basic {}\r\n", STANDARD.encode(text));
    assert_eq!(status_with(""), "407", "none came before");
    assert_eq!(status_with(&auth("ro-a.at-1:s3cret")), "200");
    assert_eq!(status_with(""), "200");
    assert_eq!(status_with(&auth("ro-b.at-1:wrong")), "407");
    assert_eq!(status_with(""), "200", "what was refused counts for nothing");
    for passed_on in ["Via: 1.1 other", "Forwarded: for=10.0.0.1", "X-Forwarded-For: 10.0.0.1"] {
        assert_eq!(status_with(&format!("{passed_on}\r\n")), "407", "clients of another proxy share its connections");
    }
    assert_eq!(status_with(&auth("ro-c.at-1:s3cret")), "200");
    assert_eq!(status_with(""), "200");
    for (rollout, count) in [("ro-a", 3), ("ro-c", 2)] {
        let spans = bench.exchanges(rollout, count);
        assert!(spans.iter().all(|span| span["attributes"]["tracewire.identity.source"] == "credentials"), "{rollout}");
    }
}

#[test]
fn rollouts_are_identified_and_endpoints_see_no_routing() {
    let bench = Bench::new();
    let serve = bench.serve(&[]);
    let (proxy, url) = (serve.address("proxy"), format!("{}/echo", bench.https()));
    let ca = serve.path("ca");
    let curl = |proxy: String, headers: &[&str]| {
        let mut curl = Command::new("curl");
        curl.args(["-sS", "--fail", "--cacert"]).arg(&ca).args(["--proxy", &proxy, &url, &url, &url]);
        for header in headers {
            curl.args(["-H", header]);
        }
        curl.spawn().unwrap()
    };
    let mut by_headers = curl(format!("http://{proxy}"), &["x-rollout-id: ro-h", "x-attempt-id: at-h"]);
    let mut by_credentials = curl(format!("http://ro-c.at-c:x@{proxy}"), &[]);
    assert!(by_headers.wait().unwrap().success() && by_credentials.wait().unwrap().success());
    for (rollout, attempt) in [("ro-h", "at-h"), ("ro-c", "at-c")] {
        let spans = bench.exchanges(rollout, 3);
        assert!(spans.iter().all(|span| span["attempt_id"] == attempt));
        let ids: Vec<_> = spans.iter().map(|span| span["sequence_id"].as_u64().unwrap()).collect();
        assert!(ids.windows(2).all(|pair| pair[0] < pair[1]), "{ids:?}");
    }
    let seen = say(bench.mock.address("http"), b"GET /requests HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    assert!(seen.contains("/echo"), "{seen}");
    for routing in ["x-rollout-id", "x-attempt-id", "x-sequence-id", "proxy-authorization"] {
        assert!(!seen.to_lowercase().contains(routing), "{routing} went upstream");
    }
}

#[test]
fn sequence_ids_continue_after_a_restart() {
    let bench = Bench::new();
    let get = |serve: &Running| {
        let request =
            format!("GET {}/echo HTTP/1.1\r\nHost: x\r\nx-rollout-id: ro-1\r\nConnection: close\r\n\r\n", bench.http());
        assert!(say(serve.address("proxy"), request.as_bytes()).starts_with("HTTP/1.1 200"));
    };
    for _ in 0..2 {
        let serve = bench.serve(&[]);
        get(&serve);
        get(&serve);
        assert_eq!(serve.stop(), Some(0));
    }
    let ids: Vec<_> = bench.exchanges("ro-1", 4).iter().map(|span| span["sequence_id"].as_u64().unwrap()).collect();
    assert_eq!(ids, [1, 2, 3, 4]);
}

#[test]
fn what_is_neither_tls_nor_http_is_tunnelled_and_counted() {
    let bench = Bench::new();
    let serve = bench.serve(&[]);
    // One that waits for the client, and one that speaks first, as SMTP does.
    for greeting in [&b""[..], b"220 hello\r\n"] {
        let target = endpoint(move |mut stream| {
            let _ = stream.write_all(greeting);
            let mut seen = [0; 5];
            let _ = stream.read_exact(&mut seen);
            let _ = stream.write_all(&seen);
        });
        let rollout = format!("ro-opaque-{}", greeting.len());
        let mut stream = connect(serve.address("proxy"));
        write!(stream, "CONNECT {target} HTTP/1.1\r\nHost: {target}\r\nx-rollout-id: {rollout}\r\n\r\n").unwrap();
        assert!(read_head(&mut stream).starts_with("HTTP/1.1 200"));
        let mut greeted = vec![0; greeting.len()];
        stream.read_exact(&mut greeted).unwrap();
        assert_eq!(greeted, greeting);
        stream.write_all(b"\x00\x01\x02\x03\x04").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut echoed = Vec::new();
        stream.read_to_end(&mut echoed).unwrap();
        assert_eq!(echoed, b"\x00\x01\x02\x03\x04", "the half-close is kept");
        let span = eventually(|| bench.spans(&rollout).into_iter().next());
        assert_eq!(span["attributes"]["tracewire.connect.policy"], "tunnel");
        assert_eq!(span["attributes"]["http.request.body.size"], 5);
        assert_eq!(span["attributes"]["http.response.body.size"], 5 + greeting.len());
    }
}

#[test]
fn plain_http_inside_a_connect_is_recorded() {
    let bench = Bench::new();
    let serve = bench.serve(&[]);
    let target = bench.mock.address("http");
    let mut stream = connect(serve.address("proxy"));
    write!(stream, "CONNECT {target} HTTP/1.1\r\nHost: {target}\r\nx-rollout-id: ro-x\r\n\r\n").unwrap();
    assert!(read_head(&mut stream).starts_with("HTTP/1.1 200"));
    write!(stream, "POST /upload HTTP/1.1\r\nHost: {target}\r\nx-rollout-id: ro-plain\r\nContent-Length: 3\r\n\r\nabc")
        .unwrap();
    assert!(read_head(&mut stream).starts_with("HTTP/1.1 200"));
    assert_eq!(bench.exchanges("ro-plain", 1)[0]["attributes"]["http.request.body.size"], 3);
}

#[test]
fn an_upgrade_is_relayed_and_counted() {
    let bench = Bench::new();
    let serve = bench.serve(&[]);
    let target = endpoint(|mut stream| {
        let head = read_head(&mut stream).to_lowercase();
        assert!(head.contains("upgrade: echo"), "{head}");
        let _ = stream.write_all(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n");
        let mut copy = stream.try_clone().unwrap();
        let _ = std::io::copy(&mut stream, &mut copy);
    });
    let mut stream = connect(serve.address("proxy"));
    let request = format!(
        "GET http://{target}/ HTTP/1.1\r\nHost: x\r\nx-rollout-id: ro-up\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).unwrap();
    let head = read_head(&mut stream);
    assert!(head.starts_with("HTTP/1.1 101") && head.to_lowercase().contains("upgrade: echo"), "{head}");
    stream.write_all(b"ping!").unwrap();
    let mut echo = [0; 5];
    stream.read_exact(&mut echo).unwrap();
    assert_eq!(&echo, b"ping!");
    drop(stream);
    let span = bench.exchanges("ro-up", 1).remove(0);
    assert_eq!(span["attributes"]["http.response.status_code"], 101);
    assert_eq!(span["attributes"]["http.request.body.size"], 5);
    assert_eq!(span["attributes"]["http.response.body.size"], 5);
}

#[test]
fn a_client_that_leaves_mid_stream_is_recorded_as_an_abort_without_error() {
    let bench = Bench::new();
    let serve = bench.serve(&[]);
    let mut stream = connect(serve.address("proxy"));
    let target = format!("{}/sse?events=1000&interval_ms=20", bench.http());
    write!(stream, "GET {target} HTTP/1.1\r\nHost: x\r\nx-rollout-id: ro-left\r\n\r\n").unwrap();
    let mut seen = Vec::new();
    let mut buffer = [0; 512];
    while find(&seen, b"data:").is_none() {
        let read = stream.read(&mut buffer).unwrap();
        seen.extend_from_slice(&buffer[..read]);
    }
    drop(stream);
    let span = bench.exchanges("ro-left", 1).remove(0);
    assert_eq!(span["attributes"]["tracewire.outcome"], "aborted");
    assert_eq!(span["attributes"]["tracewire.aborted_by"], "downstream");
    assert_eq!(span["status"]["status_code"], "UNSET");
}

#[test]
fn the_api_reports_health_and_metrics_and_rejects_other_hosts() {
    let bench = Bench::new();
    let serve = bench.serve(&[]);
    let server = serve.address("server");
    let ask = |path: &str, host: &str| {
        say(server, format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").as_bytes())
    };
    assert!(ask("/healthz", "localhost").contains("\"status\":\"ok\""));
    assert!(ask("/metrics", "127.0.0.1").contains("tracewire_exchanges_total 0"));
    assert!(ask("/metrics", "evil.example").starts_with("HTTP/1.1 403"));
}

/// The agents hold as many connections as the process has descriptors.
#[test]
fn the_api_reports_health_when_descriptors_are_gone() {
    let bench = Bench::new();
    let program = tracewire(bench.home());
    let mut serve = at_home(Command::new("sh"), bench.home());
    serve.args(["-c", "ulimit -n 64 && exec \"$0\" \"$@\""]).arg(program.get_program());
    serve.args(["serve", "--json", "--proxy", "127.0.0.1:0", "--server", "127.0.0.1:0"]);
    let serve = Running::start(serve);
    let descriptors = || std::fs::read_dir(format!("/proc/{}/fd", serve.pid())).unwrap().count();
    let agents: Vec<_> = (0..100).map(|_| connect(serve.address("proxy"))).collect();
    eventually(|| (descriptors() >= 64).then_some(()));
    for _ in 0..20 {
        let reply =
            say(serve.address("server"), b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        assert!(reply.starts_with("HTTP/1.1 200"), "{reply}");
    }
    assert!(descriptors() >= 63);
    drop(agents);
}

#[test]
fn own_traffic_is_forwarded_but_not_recorded() {
    let bench = Bench::new();
    let serve = bench.serve(&[]);
    let get = |extra: &str| {
        let request = format!(
            "GET {}/echo HTTP/1.1\r\nHost: x\r\nx-rollout-id: ro-own\r\n{extra}Connection: close\r\n\r\n",
            bench.http()
        );
        assert!(say(serve.address("proxy"), request.as_bytes()).starts_with("HTTP/1.1 200"));
    };
    get("x-agentlightning-client: true\r\n");
    get("");
    assert_eq!(serve.stop(), Some(0));
    assert_eq!(bench.exchanges("ro-own", 1).len(), 1);
}

#[test]
fn secrets_never_reach_the_store() {
    let bench = Bench::new();
    let store = bench.store();
    let serve = bench.serve(&["--include-headers", "--include-bodies", "--store", store.to_str().unwrap()]);
    let target = format!("{}/upload?api_key=CANARYquery&plain=1", bench.http());
    let body = r#"{"password":"CANARYjson","kept":"visible"}"#;
    let request = format!(
        "POST {target} HTTP/1.1\r\nHost: x\r\nx-rollout-id: ro-canary\r\nAuthorization: Bearer CANARYbearer\r\n\
         Cookie: session=CANARYcookie\r\nX-Api-Key: CANARYkey\r\nProxy-Authorization: Basic CANARYproxy\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    assert!(say(serve.address("proxy"), request.as_bytes()).starts_with("HTTP/1.1 200"));
    let spans = bench.exchanges("ro-canary", 1);
    let files: Vec<u8> = ["traces.db", "traces.db-wal", "traces.db-shm"]
        .iter()
        .filter_map(|name| std::fs::read(bench.home().join(name)).ok())
        .flatten()
        .collect();
    assert!(find(&files, b"ro-canary").is_some(), "the store's files are where the test looks");
    let shown = Value::from(spans.clone()).to_string();
    for canary in ["CANARYquery", "CANARYbearer", "CANARYcookie", "CANARYkey", "CANARYproxy"] {
        assert!(find(&files, canary.as_bytes()).is_none(), "{canary} is in a file");
        assert!(!shown.contains(canary), "{canary} is in a span");
    }
    let sent = spans[0]["attributes"]["http.request.body.content"].as_str().unwrap();
    assert!(sent.contains("visible") && !sent.contains("CANARYjson"), "{sent}");
    assert!(find(&files, b"CANARYjson").is_none());
}

#[test]
fn startup_errors_name_cause_and_fix() {
    let bench = Bench::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let config = bench.home().join("bad.toml");
    std::fs::write(&config, "[upstream]\nconnect_timeout_secs = 3\n").unwrap();
    let blocked = bench.home().join("file");
    std::fs::write(&blocked, "").unwrap();
    let inside = blocked.join("traces.db");
    for (flags, words) in [
        (&["--proxy", &address][..], "--proxy"),
        (&["--config", config.to_str().unwrap()], "connect_timeout_ms"),
        (&["--proxy", "0.0.0.0:0"], "proxy.token"),
        (&["--connect-to", "nonsense"], "HOST:PORT:HOST:PORT"),
        (&["--proxy", "127.0.0.1:0", "--server", "127.0.0.1:0", "--store", inside.to_str().unwrap()], "--store"),
        (&["--upstream-ca", "/nowhere.pem"], "/nowhere.pem"),
    ] {
        let output = tracewire(bench.home()).arg("serve").args(flags).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && stderr.contains(words), "{flags:?}: {stderr}");
    }
}

/// Resident memory at its highest, in kB.
fn peak_kb(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
fn a_gigabyte_each_way_takes_no_memory() {
    const SIZE: usize = 1 << 30;
    let bench = Bench::new();
    let serve = bench.serve(&[]);
    let ca = serve.path("ca");
    let curl = |url: &str, arguments: &[&str]| {
        let mut curl = Command::new("curl");
        curl.args(["-sS", "--fail", "-o", "/dev/null", "--cacert"]).arg(&ca);
        curl.args(["-H", "x-rollout-id: ro-big", "--proxy", &format!("http://{}", serve.address("proxy")), url]);
        curl.args(arguments);
        curl
    };
    assert!(curl(&format!("{}/bytes?size=1", bench.https()), &[]).status().unwrap().success());
    let before = peak_kb(serve.pid());
    assert!(curl(&format!("{}/bytes?size={SIZE}", bench.https()), &[]).status().unwrap().success());
    let mut upload = curl(&format!("{}/upload", bench.https()), &["-X", "POST", "-T", "-"]);
    let mut upload = upload.stdin(std::process::Stdio::piped()).spawn().unwrap();
    let mut pipe = upload.stdin.take().unwrap();
    let block = vec![0; 1 << 20];
    for _ in 0..SIZE >> 20 {
        pipe.write_all(&block).unwrap();
    }
    drop(pipe);
    assert!(upload.wait().unwrap().success());
    let grown = peak_kb(serve.pid()) - before;
    assert!(grown < 24 * 1024, "grown by {grown} kB");
    let spans = bench.exchanges("ro-big", 3);
    assert_eq!(spans[1]["attributes"]["http.response.body.size"], SIZE);
    assert_eq!(spans[2]["attributes"]["http.request.body.size"], SIZE);
}

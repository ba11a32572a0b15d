//! Secrets planted in every place that agents and endpoints have for them: none is in anything that is written.

use crate::support::client::{ask, get, post, register_model};
use crate::support::{Bench, Running, connect, endpoint, eventually, find, is_exchange, read_head, tracewire};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Makes canaries that name their place.
#[derive(Default)]
struct Canaries(AtomicUsize);

impl Canaries {
    fn at(&self, place: &str) -> String {
        self.0.fetch_add(1, Ordering::Relaxed);
        format!("canary0{}0end", place.replace(|letter: char| !letter.is_alphanumeric(), "0"))
    }
}

/// A request with secrets everywhere, addressed to `target`.
fn request(canaries: &Canaries, target: &str, content_type: &str, body: &str) -> Vec<u8> {
    let mut head = format!(
        "POST {target}?api_key={}&sessionToken={}&a=1 HTTP/1.1\r\nHost: h\r\nContent-Type: {content_type}\r\n",
        canaries.at("query api_key"),
        canaries.at("query sessionToken")
    );
    for name in [
        "Authorization",
        "X-Api-Key",
        "X-Auth-Key",
        "DD-APPLICATION-KEY",
        "X-Authorization",
        "X-JWT",
        "X-Access-Key",
        "Cookie",
        "X-Vault-Token",
        "X-Amz-Security-Token",
    ] {
        head.push_str(&format!("{name}: {}\r\n", canaries.at(name)));
    }
    head.push_str(&format!("Referer: https://h/?token={}\r\n", canaries.at("referer")));
    head.push_str(&format!("Content-Length: {}\r\n\r\n{body}", body.len()));
    head.into_bytes()
}

/// A body with secrets under each of these names, plain and as JSON within strings of JSON.
fn json_body(canaries: &Canaries) -> String {
    let mut body = json!({ "kept": "this stays" });
    for name in [
        "password",
        "accessToken",
        "client_secret",
        "aws_secret_access_key",
        "api-key",
        "OPENAI_API_KEY",
        "token",
        "Cookie",
        "X-Auth-Key",
        "X-JWT",
    ] {
        body[name] = canaries.at(&format!("json {name}")).into();
        let inner = json!({ name: canaries.at(&format!("json in json {name}")) }).to_string();
        body[format!("in {name}")] = json!({ "arguments": inner, "list": [json!({ "deep": inner }).to_string()] });
    }
    body.to_string()
}

/// What agents quote in messages.
fn quoted(canaries: &Canaries) -> String {
    [
        format!("OPENAI_API_KEY={}", canaries.at("env")),
        format!("export DB_PASSWORD='{}'", canaries.at("quoted env")),
        format!("postgres://u:{}@h/db", canaries.at("user info")),
        format!("curl -u me:{} https://h", canaries.at("curl")),
        format!("Authorization: Basic {}", canaries.at("basic")),
        format!("sk-proj-{}", canaries.at("prefix")),
        format!("-----BEGIN PGP PRIVATE KEY BLOCK-----\n{}\n-----END PGP PRIVATE KEY BLOCK-----", canaries.at("pgp")),
        format!("Server=h;Password={};", canaries.at("connection string")),
        format!("SMTP_PASS={}", canaries.at("pass")),
        format!("OPENAI_API_KEY: {}", canaries.at("yaml")),
        format!("aws_secret_access_key = {}", canaries.at("ini")),
        format!("-H 'X-Api-Key: {}'", canaries.at("header in text")),
        format!("see https://h/x?a=1&token={} there", canaries.at("query in text")),
        format!("deploy --token {}", canaries.at("option")),
        format!("deploy --api-key={}", canaries.at("option with equals sign")),
        format!("os.environ['MY_API_KEY'] = '{}'", canaries.at("environ")),
        format!("os.environ[\"DB_PASSWORD\"]=\"{} two words\"", canaries.at("environ without spaces")),
        format!("os.environ.setdefault('MY_TOKEN', '{}')", canaries.at("setdefault")),
        format!("process.env.MY_TOKEN = \"{}\";", canaries.at("process env")),
        format!("os.Setenv(\"MY_SECRET\", \"{}\")", canaries.at("setenv")),
        format!("MY_TOKEN = '{}'", canaries.at("constant")),
    ]
    .join("\n")
}

fn chat(canaries: &Canaries) -> Value {
    let arguments = json!({ "password": canaries.at("tool arguments") }).to_string();
    json!({ "model": "m", "messages": [
        { "role": "user", "content": quoted(canaries) },
        { "role": "assistant", "content": null, "tool_calls": [{ "id": "c", "type": "function", "function": { "name": "f", "arguments": arguments } }] },
        { "role": "tool", "tool_call_id": "c", "content": json!({ "access_token": canaries.at("tool result") }).to_string() },
    ] })
}

/// A streamed response that divides the name of a secret.
fn stream(canaries: &Canaries) -> String {
    let secret = canaries.at("divided");
    let (first, second) = secret.split_at(9);
    let pieces = ["{\"pass".to_owned(), format!("word\":\"{first}"), format!("{second}\"}}")];
    let call = |piece: &String| json!({ "index": 0, "id": "c", "type": "function", "function": { "name": "f", "arguments": piece } });
    let text = format!("sk-proj-{}", canaries.at("divided text"));
    let (first, second) = text.split_at(12);
    let deltas = pieces.iter().map(|piece| json!({ "tool_calls": [call(piece)] }));
    let deltas = deltas.chain([json!({ "content": first }), json!({ "content": second })]);
    let events = deltas.map(|delta| {
        let choice = json!({ "index": 0, "delta": delta });
        let event = json!({ "id": "r", "object": "chat.completion.chunk", "model": "m", "choices": [choice] });
        format!("data: {event}\n\n")
    });
    events.chain(["data: [DONE]\n\n".to_owned()]).collect()
}

/// The messages of one side of a WebSocket: JSON, JSON in pieces between which a ping passes, text, and JSON as binary. `mask` is
/// the bit of the agent's frames.
fn messages(canaries: &Canaries, side: &str, mask: u8) -> Vec<u8> {
    let frame = |first: u8, payload: &[u8]| {
        let length = u16::try_from(payload.len()).unwrap().to_be_bytes();
        let key: &[u8] = if mask == 0 { &[] } else { &[0; 4] };
        [&[first, mask | 126][..], &length, key, payload].concat()
    };
    let ping: &[u8] = if mask == 0 { &[0x89, 0] } else { &[0x89, 0x80, 0, 0, 0, 0] };
    let at = |place: &str| canaries.at(&format!("websocket {side} {place}"));
    let inner = json!({ "password": at("arguments") }).to_string();
    let whole =
        json!({ "type": "session.update", "client_secret": at("json"), "arguments": inner, "kept": "this stays" });
    let divided = json!({ "type": "session.update", "session": { "api_key": at("divided") } }).to_string();
    let (first, rest) = divided.as_bytes().split_at(divided.find("api_key").unwrap() + 4);
    let (second, third) = rest.split_at(20);
    [
        frame(0x81, whole.to_string().as_bytes()),
        frame(0x01, first),
        ping.to_vec(),
        frame(0x00, second),
        frame(0x80, third),
        frame(0x81, format!("export MY_API_KEY={}", at("text")).as_bytes()),
        frame(0x82, json!({ "token": at("binary") }).to_string().as_bytes()),
    ]
    .concat()
}

/// Answers what the path of the request asks for.
fn answer(canaries: &Canaries, stream_socket: &mut TcpStream) {
    let (mut seen, mut buffer) = (Vec::new(), [0; 8192]);
    let length = |seen: &[u8], end: usize| {
        let head = String::from_utf8_lossy(&seen[..end]).to_lowercase();
        head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok()).unwrap_or(0)
    };
    while find(&seen, b"\r\n\r\n").is_none_or(|end| seen.len() < end + 4 + length(&seen, end)) {
        match stream_socket.read(&mut buffer) {
            Ok(read) if read > 0 => seen.extend_from_slice(&buffer[..read]),
            _ => return,
        }
    }
    let head = String::from_utf8_lossy(&seen).into_owned();
    if head.contains("/socket") {
        let head = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
        stream_socket.write_all(&[head.as_bytes(), &messages(canaries, "endpoint", 0)].concat()).unwrap();
        let _ = stream_socket.read_to_end(&mut seen);
        return;
    }
    let (kind, body) = match head.split(' ').nth(1).unwrap_or_default() {
        path if path.contains("/models") => ("application/json", r#"{"data":[{"id":"m"}]}"#.to_owned()),
        path if path.contains("stream") => ("text/event-stream", stream(canaries)),
        path if path.contains("error") => {
            let message = format!("Incorrect API key provided: sk-proj-{}", canaries.at("error text"));
            (
                "application/json",
                json!({ "error": { "message": message, "type": "invalid_request_error" } }).to_string(),
            )
        }
        _ => ("application/json", json_body(canaries)),
    };
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nSet-Cookie: s={}\r\nLocation: /?access_token={}\r\nLink: <https://h/?token={}>\r\nRefresh: 5; url=/?token={}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        canaries.at("set-cookie"),
        canaries.at("location"),
        canaries.at("link"),
        canaries.at("refresh"),
        body.len()
    );
    let _ = stream_socket.write_all(head.as_bytes()).and_then(|()| stream_socket.write_all(body.as_bytes()));
}

fn exchange(address: std::net::SocketAddr, bytes: &[u8]) {
    let mut socket = connect(address);
    socket.write_all(bytes).unwrap();
    socket.read_to_end(&mut Vec::new()).unwrap();
}

/// Every canary in these bytes.
fn found(bytes: &[u8], whole: &mut BTreeSet<String>) {
    let text = String::from_utf8_lossy(bytes);
    let mut rest = &text[..];
    while let Some(at) = rest.find("canary0") {
        let end = rest[at..].find("0end").map_or(rest.len(), |end| at + end);
        whole.insert(rest[at..end.min(at + 60)].to_owned());
        rest = &rest[at + 7..];
    }
}

fn files(folder: &Path, whole: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        match entry.path() {
            path if path.is_dir() => files(&path, whole),
            path => found(&std::fs::read(path).unwrap_or_default(), whole),
        }
    }
}

fn start(bench: &Bench) -> Running {
    let settings = bench.home().join("proxy.toml");
    std::fs::write(&settings, "[capture]\ninclude_headers = true\ninclude_bodies = true\n").unwrap();
    let mut serve = tracewire(bench.home());
    serve.args(["serve", "--json", "--proxy", "127.0.0.1:0", "--server", "127.0.0.1:0", "--config"]).arg(settings);
    serve.env("TRACEWIRE_LOG", "debug").stderr(std::fs::File::create(bench.home().join("log")).unwrap());
    Running::start(serve)
}

#[test]
fn no_secret_is_written() {
    let bench = Bench::new();
    let serve = start(&bench);
    let canaries: &'static Canaries = Box::leak(Box::default());
    let target = endpoint(move |mut socket| answer(canaries, &mut socket));
    let (proxy, server) = (serve.address("proxy"), serve.address("server"));
    let url = |path: &str| format!("http://u:{}@{target}{path}", canaries.at("user info of the target"));
    let form = format!("a=1&pwd={}&clientSecret={}", canaries.at("form pwd"), canaries.at("form clientSecret"));
    let multipart = format!(
        "--x\r\nContent-Disposition: form-data; name=\"password\"\r\n\r\n{}\r\n--x\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\nb\r\n--x--\r\n",
        canaries.at("multipart")
    );
    let bodies = [
        ("/json", "application/json", json_body(canaries)),
        ("/form", "application/x-www-form-urlencoded", form),
        ("/parts", "multipart/form-data; boundary=x", multipart),
        ("/v1/chat/completions", "application/json", chat(canaries).to_string()),
        ("/stream/v1/chat/completions", "application/json", chat(canaries).to_string()),
        ("/error/v1/chat/completions", "application/json", chat(canaries).to_string()),
    ];
    for (path, kind, body) in &bodies {
        let mut bytes = request(canaries, &url(path), kind, body);
        let rollout = b"x-rollout-id: ro-canary\r\nConnection: close\r\n";
        let at = find(&bytes, b"\r\n").unwrap() + 2;
        bytes.splice(at..at, rollout.iter().copied());
        exchange(proxy, &bytes);
    }
    let upgrade = format!(
        "GET {}?token={} HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nx-rollout-id: ro-socket\r\n\r\n",
        url("/socket"),
        canaries.at("websocket query")
    );
    let mut socket = connect(proxy);
    socket.write_all(upgrade.as_bytes()).unwrap();
    assert!(read_head(&mut socket).starts_with("HTTP/1.1 101"));
    let from_endpoint = messages(&Canaries::default(), "endpoint", 0);
    socket.read_exact(&mut vec![0; from_endpoint.len()]).unwrap();
    socket.write_all(&messages(canaries, "agent", 0x80)).unwrap();
    socket.shutdown(std::net::Shutdown::Write).unwrap();
    socket.read_to_end(&mut Vec::new()).unwrap();
    // The gateway, also on the routes that keep bodies by default.
    register_model(&serve, target, 0);
    post(server, "/api/rollouts", &json!([{ "rollout_id": "ro-kept", "input": {}, "is_train": true }]));
    for path in [
        "/rollout/ro-gateway/attempt/0/v1/chat/completions",
        "/proxy/rollout/ro-kept/attempt/0/mode/train/openai/v1/chat/completions",
    ] {
        let secret = canaries.at("gateway header");
        ask(server, "POST", path, &[("X-Auth-Key", secret.as_str())], &chat(canaries).to_string());
    }
    // Spans of other programs.
    let attribute = |name: &str| {
        json!({ "key": name, "value": { "stringValue": match name {
        "url.query" => format!("a=1&token={}", canaries.at(name)),
        "http.target" => format!("/?token={}", canaries.at(name)),
        name => canaries.at(name),
    } } })
    };
    let mut attributes: Vec<_> =
        ["url.query", "http.target", "db.connection_string", "app.clientSecret", "http.request.header.x-auth-key"]
            .map(attribute)
            .into();
    let arguments = [
        "deploy".to_owned(),
        "--token".to_owned(),
        canaries.at("argument"),
        format!("--password={}", canaries.at("argument with equals sign")),
        format!("MY_API_KEY={}", canaries.at("variable as argument")),
    ];
    let values: Vec<_> = arguments.iter().map(|argument| json!({ "stringValue": argument })).collect();
    attributes.push(json!({ "key": "process.command_args", "value": { "arrayValue": { "values": values } } }));
    let command = json!({ "stringValue": arguments.join(" ") });
    attributes.push(json!({ "key": "process.command_line", "value": command }));
    post(
        server,
        "/v1/traces",
        &json!({ "resourceSpans": [{ "resource": { "attributes": attributes }, "scopeSpans": [{ "spans": [{
        "traceId": "5b8efff798038103d269b633813fc60c", "spanId": "eee19b7ec3c1b174", "name": "n", "startTimeUnixNano": "1", "endTimeUnixNano": "2",
        "attributes": attributes,
        "events": [{ "timeUnixNano": "1", "name": "e", "attributes": attributes }],
        "links": [{ "traceId": "5b8efff798038103d269b633813fc60d", "spanId": "eee19b7ec3c1b175", "attributes": attributes }],
    }] }] }] }),
    );
    eventually(|| {
        (bench.spans("ro-canary").iter().filter(|span| is_exchange(span)).count() >= bodies.len()).then_some(())
    });
    eventually(|| {
        (bench.spans("ro-kept").iter().any(is_exchange) && bench.spans("ro-gateway").iter().any(is_exchange))
            .then_some(())
    });

    let mut written = BTreeSet::new();
    let mut shown = Vec::new();
    let socket = eventually(|| bench.spans("ro-socket").into_iter().find(is_exchange));
    assert_eq!(socket["attributes"]["tracewire.websocket.messages"], 10, "{socket:#}");
    for rollout in ["ro-canary", "ro-gateway", "ro-kept", "ro-socket"] {
        shown.extend(serde_json::to_vec(&bench.spans(rollout)).unwrap());
        found(&get(server, &format!("/v1/agl/spans?rollout_id={rollout}&limit=-1")).body, &mut written);
    }
    found(&shown, &mut written);
    assert!(find(&shown, b"this stays").is_some() && find(&shown, b"REDACTED").is_some(), "what was recorded is there");
    drop(serve);
    files(bench.home(), &mut written);
    assert!(canaries.0.load(Ordering::Relaxed) > 150, "canaries were planted");
    assert!(written.is_empty(), "{written:#?}");
}

/// What a client hands over for others is no recording: an agent with another input behaves otherwise.
#[test]
fn inputs_of_rollouts_are_what_was_enqueued() {
    let bench = Bench::new();
    let serve = bench.serve(&[]);
    let server = serve.address("server");
    let input = json!({ "task": "log in", "password": "hunter2-input", "text": "export MY_API_KEY=abcdefgh" });
    let request = json!({ "rollouts": [{ "input": input, "metadata": { "api_key": "hunter2-metadata" } }] });
    let id = post(server, "/v1/agl/queues/rollouts/enqueue", &request).json()[0]["rollout_id"].clone();
    let taken = post(server, "/v1/agl/queues/rollouts/dequeue", &json!({ "limit": 1 })).json();
    let rollout = get(server, &format!("/v1/agl/rollouts/{}", id.as_str().unwrap())).json();
    for shown in [&taken[0], &rollout] {
        assert_eq!((&shown["input"], &shown["metadata"]["api_key"]), (&input, &json!("hunter2-metadata")), "{shown:#}");
    }
}

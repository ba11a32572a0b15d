//! HTTP/2 frame by frame, on both sides: streams that are refused or reset, and fields of any allowed size.

use crate::support::http2::{
    DATA, END_STREAM, HEADERS, Peer, RST_STREAM, RequestBody, fields, frame, headers, http2_client, http2_endpoint,
    literal,
};
use crate::support::{Bench, Running, connect, endpoint, read_head, tunnel};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::client::conn::http2::SendRequest;
use std::io::Write;
use std::net::SocketAddr;
use std::sync::mpsc;

/// A client in a tunnel to `target`.
async fn client(serve: &Running, target: SocketAddr, rollout: &str) -> SendRequest<RequestBody> {
    http2_client(tunnel(serve.address("proxy"), target, rollout)).await
}

fn post(target: SocketAddr, body: impl Into<Bytes>) -> Request<RequestBody> {
    Request::post(format!("http://{target}/")).body(Full::new(body.into()).boxed_unsync()).unwrap()
}

/// Status and body of the answer to a request in a tunnel of its own; no body if it broke off.
async fn ask(serve: &Running, target: SocketAddr, rollout: &str, body: &'static [u8]) -> (u16, Option<Bytes>) {
    let response = client(serve, target, rollout).await.send_request(post(target, body)).await.unwrap();
    let status = response.status().as_u16();
    (status, response.into_body().collect().await.ok().map(http_body_util::Collected::to_bytes))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_refuses_every_time_is_asked_a_few_times_only() {
    let bench = Bench::new();
    let serve = bench.serve(&[]);
    let (asked, requests) = mpsc::channel();
    let target = http2_endpoint(move |mut peer, _| {
        while let Some((stream, _)) = peer.request() {
            asked.send(()).unwrap();
            peer.write(&frame(RST_STREAM, 0, stream, &[0, 0, 0, 7]));
        }
    });
    let (status, _) = ask(&serve, target, "ro-refused", b"x").await;
    assert_eq!((status, requests.try_iter().count()), (502, 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_response_that_is_reset_without_an_error_is_incomplete() {
    let bench = Bench::new();
    let serve = bench.serve(&[]);
    for (name, head, is_whole) in [
        ("open", &[(":status", "200")][..], false),
        ("length", &[(":status", "200"), ("content-length", "9")], false),
        ("whole", &[(":status", "200"), ("content-length", "4")], true),
    ] {
        let target = http2_endpoint(move |mut peer, _| {
            while let Some((stream, _)) = peer.request() {
                peer.write(&headers(0, stream, &fields(head)));
                peer.write(&frame(DATA, if is_whole { END_STREAM } else { 0 }, stream, b"part"));
                peer.write(&frame(RST_STREAM, 0, stream, &[0; 4]));
            }
        });
        let rollout = format!("ro-{name}");
        let (status, body) = ask(&serve, target, &rollout, b"x").await;
        assert_eq!((status, body.is_some()), (200, is_whole), "{name}");
        let span = &bench.exchanges(&rollout, 1)[0];
        let expected = if is_whole { ("complete", None) } else { ("failed", Some("http_response_incomplete")) };
        let attributes = &span["attributes"];
        assert_eq!(
            (attributes["tracewire.outcome"].as_str().unwrap(), attributes["error.type"].as_str()),
            expected,
            "{name}: {span:#}"
        );
    }
}

#[test]
fn an_upload_that_is_reset_without_an_error_does_not_look_complete() {
    let bench = Bench::new();
    let serve = bench.serve(&[]);
    let (seen, frames) = mpsc::channel();
    let target = http2_endpoint(move |mut peer, _| {
        while let Some(frame) = peer.next() {
            let ends = matches!(frame.kind, DATA | HEADERS) && frame.flags & END_STREAM != 0;
            seen.send((frame.kind, ends)).unwrap();
        }
    });
    let mut agent = Peer::connect(tunnel(serve.address("proxy"), target, "ro-upload"));
    let host = target.to_string();
    let head = [(":method", "POST"), (":scheme", "http"), (":path", "/"), (":authority", &*host)];
    agent.write(&headers(0, 1, &fields(&head)));
    agent.write(&frame(DATA, 0, 1, b"part"));
    assert!(frames.iter().any(|(kind, _)| kind == DATA));
    agent.write(&frame(RST_STREAM, 0, 1, &[0; 4]));
    assert!(frames.iter().find(|(kind, ends)| *ends || *kind == RST_STREAM).is_some_and(|(_, ends)| !ends));
    drop(agent);
    let span = &bench.exchanges("ro-upload", 1)[0];
    assert_ne!(span["attributes"]["error.type"], "http_protocol_error", "the endpoint is not to blame: {span:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn large_fields_pass_in_both_directions() {
    let bench = Bench::new();
    let serve = bench.serve(&[]);
    let large = "v".repeat(100_000);
    let block = [literal(":status", "200"), literal("x-large", &large)].concat();
    let target = http2_endpoint(move |mut peer, _| {
        while let Some((stream, _)) = peer.request() {
            peer.write(&headers(END_STREAM, stream, &block));
        }
    });
    let mut request = post(target, "x");
    request.headers_mut().insert("x-large", large.parse().unwrap());
    let response = client(&serve, target, "ro-large").await.send_request(request).await.unwrap();
    assert_eq!((response.status().as_u16(), response.headers()["x-large"].len()), (200, large.len()));
}

/// An HTTP/1 endpoint that answers with the line of each request.
fn request_lines() -> SocketAddr {
    endpoint(|mut stream| {
        loop {
            let head = read_head(&mut stream);
            let Some(line) = head.lines().next() else { return };
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{line}", line.len());
            let _ = stream.write_all(answer.as_bytes());
        }
    })
}

#[test]
fn targets_that_are_no_uris_arrive_as_they_came() {
    let bench = Bench::new();
    let serve = bench.serve(&[]);
    let target = request_lines();
    let host = target.to_string();
    let mut agent = Peer::connect(connect(serve.address("proxy")));
    let path = "/q?query=up{job=\"x\"}";
    let head = |path: &[u8]| {
        let others =
            fields(&[(":method", "GET"), (":scheme", "http"), (":authority", &host), ("x-rollout-id", "ro-raw")]);
        [path, &others].concat()
    };
    // As a literal that the client puts into its table, and out of that table.
    let literal_path = [&[0x44, u8::try_from(path.len()).unwrap()], path.as_bytes()].concat();
    for (stream, path_field) in [(1, &literal_path[..]), (3, &[0xbe])] {
        agent.write(&headers(END_STREAM, stream, &head(path_field)));
        let line = std::iter::from_fn(|| agent.next()).find(|frame| frame.kind == DATA || frame.kind == RST_STREAM);
        assert_eq!(String::from_utf8_lossy(&line.unwrap().payload), format!("GET {path} HTTP/1.1"));
    }
    let expected = [format!("http://{target}{path}"), format!("http://{target}{path}")];
    let spans = bench.exchanges("ro-raw", 2);
    let urls: Vec<_> = spans.iter().map(|span| span["attributes"]["url.full"].as_str().unwrap()).collect();
    assert_eq!(urls, expected);
}

#[test]
fn a_malformed_request_costs_neither_its_connection_nor_another_call() {
    let bench = Bench::new();
    let serve = bench.serve(&[]);
    let target = request_lines();
    let host = target.to_string();
    let user = format!("user:password@{host}");
    let of = |method, path, authority| {
        vec![(":method", method), (":scheme", "http"), (":path", path), (":authority", authority)]
    };
    let get = |field| [of("GET", "/", &host), vec![field]].concat();
    let connect = |protocol, field| [of("CONNECT", "/", &host), vec![(":protocol", protocol), field]].concat();
    for (number, (head, cause)) in [
        (of("GET", "/", &user), "user information in :authority"),
        (of("GET", "*", &host), "the target * is for OPTIONS only"),
        (of("GE T", "/", &host), "the method is not a token"),
        (get((":other", "x")), "an unknown pseudo-header field"),
        (get(("X-Upper", "x")), "a field name is not a token in lower case"),
        (get(("x", "a\r\nb: c")), "a field value has control characters"),
        (connect("websocket", ("content-length", "5")), "a CONNECT request must not have a body"),
        (connect("websocket\r\nx: y", ("x", "y")), "the :protocol is not a token"),
        (connect("h2c", ("x", "y")), "no upgrade to its :protocol"),
        (connect("websocket", ("x", "y")), "answered an upgrade with 200, not with 101"),
    ]
    .into_iter()
    .enumerate()
    {
        let rollout = format!("ro-malformed-{number}");
        let mut agent = Peer::connect(connect_to_proxy(&serve));
        let head = [head, vec![("x-rollout-id", &*rollout)]].concat();
        let ends = if head.iter().any(|(name, _)| *name == ":protocol") { 0 } else { END_STREAM };
        agent.write(&headers(ends, 1, &fields(&head)));
        let answer = std::iter::from_fn(|| agent.next()).find(|frame| frame.kind != HEADERS).unwrap();
        let text = String::from_utf8_lossy(&answer.payload);
        assert!(answer.kind == DATA && text.contains(cause), "{cause}: {answer:?} {text}");
        agent.write(&headers(END_STREAM, 3, &fields(&of("GET", "/next", &host))));
        let next = std::iter::from_fn(|| agent.next()).find(|frame| frame.kind == DATA && frame.stream == 3).unwrap();
        assert_eq!(String::from_utf8_lossy(&next.payload), "GET /next HTTP/1.1");
    }
}

#[test]
fn requests_inside_a_tunnel_must_not_name_another_port() {
    let bench = Bench::new();
    let serve = bench.serve(&[]);
    let target: SocketAddr = bench.http().trim_start_matches("http://").parse().unwrap();
    let other = format!("{}:1", target.ip());
    let here = target.to_string();
    let mut agent = Peer::connect(tunnel(serve.address("proxy"), target, "ro-port"));
    let asked = [
        (vec![(":authority", &*other)], "names 127.0.0.1:1 inside a tunnel"),
        (vec![(":authority", &*here), ("host", &*other)], "names 127.0.0.1:1 and"),
        (vec![(":authority", "app.test"), ("host", "app.test:1")], "names app.test:1 and app.test inside a tunnel"),
        (vec![(":authority", &*here)], "/echo/p"),
        (vec![(":authority", "127.0.0.1")], "/echo/p"),
        (vec![(":authority", "app.test:1")], "/echo/p"),
    ];
    for (stream, (names, expected)) in (1..).step_by(2).zip(asked) {
        let head = [vec![(":method", "GET"), (":scheme", "http"), (":path", "/echo/p")], names].concat();
        agent.write(&headers(END_STREAM, stream, &fields(&head)));
        let answer = std::iter::from_fn(|| agent.next()).find(|frame| frame.kind == DATA && frame.stream == stream);
        let text = String::from_utf8_lossy(&answer.unwrap().payload).into_owned();
        assert!(text.contains(expected) && !text.contains("http_protocol_error"), "{head:?}: {text}");
    }
}

#[test]
fn pseudo_fields_in_trailers_reset_their_stream() {
    let bench = Bench::new();
    let serve = bench.serve(&[]);
    let (seen, requests) = mpsc::channel();
    let target = endpoint(move |mut stream| {
        let mut bytes = vec![0; 4096];
        while let Ok(read @ 1..) = std::io::Read::read(&mut stream, &mut bytes) {
            let _ = seen.send(String::from_utf8_lossy(&bytes[..read]).into_owned());
        }
        let _ = seen.send("the end".to_owned());
    });
    let host = target.to_string();
    for block in [[(":path", "/other")], [(":status", "200")], [("X-Upper", "1")], [("x", "a\nb")]] {
        let mut agent = Peer::connect(connect_to_proxy(&serve));
        let head = [(":method", "POST"), (":scheme", "http"), (":path", "/"), (":authority", &*host)];
        agent.write(&[headers(0, 1, &fields(&head)), frame(DATA, 0, 1, b"abc")].concat());
        assert!(requests.iter().any(|bytes| bytes.contains("abc")));
        agent.write(&headers(END_STREAM, 1, &fields(&block)));
        let answer = agent.next().unwrap();
        assert_eq!((answer.kind, &*answer.payload), (RST_STREAM, &[0, 0, 0, 1][..]), "{block:?}");
        let rest: String = requests.iter().take_while(|bytes| bytes != "the end").collect();
        assert!(!rest.contains("0\r\n"), "it must not look complete: {rest}");
    }
}

fn connect_to_proxy(serve: &Running) -> std::net::TcpStream {
    connect(serve.address("proxy"))
}

#[test]
fn what_no_server_can_take_is_refused_with_its_cause() {
    let bench = Bench::new();
    let serve = bench.serve(&[]);
    let large = "v".repeat(160_000);
    for (number, status, (path, field), cause) in [
        (1, 400, ("/with space", ""), "the request target is not a URI"),
        (2, 431, ("/", &*large), "the header fields are over 144 KiB"),
        (3, 414, (&*format!("/{}", &large[..70_000]), ""), "the request target is over 65534 bytes"),
    ] {
        let rollout = format!("ro-refused-{number}");
        let mut agent = Peer::connect(tunnel(serve.address("proxy"), request_lines(), &rollout));
        let head = [(":method", "GET"), (":scheme", "http"), (":authority", "h"), (":path", path), ("x-large", field)];
        agent.write(&headers(END_STREAM, 1, &fields(&head)));
        let answer = std::iter::from_fn(|| agent.next()).find(|frame| frame.kind == DATA).unwrap();
        let text = String::from_utf8_lossy(&answer.payload);
        assert!(text.contains("http_request_error") && text.contains(cause), "{text}");
        let attributes = &bench.exchanges(&rollout, 1)[0]["attributes"];
        assert_eq!(attributes["error.type"], "http_request_error", "{attributes:#}");
        assert_eq!(attributes["http.response.status_code"].as_u64().unwrap_or(status), status, "{attributes:#}");
    }
}

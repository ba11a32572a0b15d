//! An endpoint that fails within a response: the agent gets every byte that came before the failure, on HTTP/1 and HTTP/2,
//! also the last frame of a durable response, which waits for the end of its stream.

use crate::support::{Bench, Running, connect, endpoint, find, read_head, read_to_end, tunnel};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2;
use hyper::{Request, Version};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustix::net::sockopt::set_socket_linger;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

const PATH: &str = "/v1/chat/completions";
const BODY: &str = r#"{"model":"m","stream":true,"messages":[]}"#;

/// Responses that break off, and the last bytes that the agent must get. A `+` ends a chunk, or a frame.
const RESPONSES: [(&str, &str, &str); 4] = [
    (
        "Content-Type: text/event-stream\r\nTransfer-Encoding: chunked",
        "data: {\"choices\":[]}\n\n+data: [DONE]\n\n+",
        "data: [DONE]\n\n",
    ),
    (
        "Content-Type: text/event-stream\r\nContent-Length: 1000",
        "data: {\"choices\":[]}\n\ndata: [DONE]\n\n",
        "data: [DONE]\n\n",
    ),
    ("Content-Type: application/json\r\nContent-Length: 1000", "{\"choices\":[", "{\"choices\":["),
    ("Content-Type: application/json\r\nTransfer-Encoding: chunked", "{\"choices\"+:[+", "{\"choices\":["),
];

/// An HTTP/1 endpoint that resets its connection within the response.
fn resetting(headers: &'static str, body: &'static str) -> SocketAddr {
    endpoint(move |mut stream| {
        read_head(&mut stream);
        let mut response = format!("HTTP/1.1 200 OK\r\n{headers}\r\n\r\n");
        if headers.ends_with("chunked") {
            for chunk in body.split_terminator('+') {
                response += &format!("{:x}\r\n{chunk}\r\n", chunk.len());
            }
        } else {
            response += body;
        }
        stream.write_all(response.as_bytes()).unwrap();
        reset(&stream);
    })
}

/// Closes with a RST instead of a FIN.
fn reset(stream: &TcpStream) {
    set_socket_linger(stream, Some(Duration::ZERO)).unwrap();
}

/// An HTTP/2 endpoint that resets the stream within the response, frame by frame.
fn resetting_http2(body: &'static str) -> SocketAddr {
    endpoint(move |mut stream| {
        let frame = |kind: u8, flags: u8, id: u8, payload: &[u8]| {
            let length = u8::try_from(payload.len()).unwrap();
            [&[0, 0, length, kind, flags, 0, 0, 0, id], payload].concat()
        };
        let mut preface = [0; 24];
        stream.read_exact(&mut preface).unwrap();
        stream.write_all(&frame(4, 0, 0, b"")).unwrap();
        // Until the head of the request is there.
        loop {
            let mut head = [0; 9];
            stream.read_exact(&mut head).unwrap();
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            stream.read_exact(&mut vec![0; length]).unwrap();
            match head[3] {
                1 => break,
                4 if head[4] == 0 => stream.write_all(&frame(4, 1, 0, b"")).unwrap(),
                _ => {}
            }
        }
        // HPACK: `:status: 200` is entry 8 of the static table, `content-type` entry 31.
        let content_type = b"text/event-stream";
        let fields = [&[0x88, 0x5f, u8::try_from(content_type.len()).unwrap()], &content_type[..]].concat();
        let mut response = frame(1, 4, 1, &fields);
        body.split_terminator('+').for_each(|data| response.extend(frame(0, 0, 1, data.as_bytes())));
        // RST_STREAM with INTERNAL_ERROR.
        response.extend(frame(3, 0, 1, &[0, 0, 0, 2]));
        stream.write_all(&response).unwrap();
        // Until the proxy has gone: a reset of the connection is another test's.
        let _ = stream.read_to_end(&mut Vec::new());
    })
}

/// What an agent on HTTP/1 gets.
fn over_http1(serve: &Running, target: SocketAddr) -> Vec<u8> {
    let mut stream = connect(serve.address("proxy"));
    let head = format!(
        "POST http://{target}{PATH} HTTP/1.1\r\nHost: {target}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        BODY.len()
    );
    stream.write_all(format!("{head}{BODY}").as_bytes()).unwrap();
    read_to_end(&mut stream).into_bytes()
}

/// What an agent on HTTP/2 gets, and whether its stream broke off.
fn over_http2(stream: TcpStream, target: SocketAddr) -> (Vec<u8>, bool) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        stream.set_nonblocking(true).unwrap();
        let io = TokioIo::new(tokio::net::TcpStream::from_std(stream).unwrap());
        let (mut sender, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
        tokio::spawn(connection);
        let request = Request::post(format!("http://{target}{PATH}")).version(Version::HTTP_2);
        let request = request.header("content-type", "application/json").header("content-length", BODY.len());
        let response = sender.send_request(request.body(Full::new(Bytes::from_static(BODY.as_bytes()))).unwrap());
        let mut body = response.await.unwrap().into_body();
        let mut bytes = Vec::new();
        while let Some(frame) = body.frame().await {
            match frame {
                Ok(frame) => bytes.extend(frame.into_data().unwrap_or_default()),
                Err(_) => return (bytes, true),
            }
        }
        (bytes, false)
    })
}

/// With every exchange durable; also with fields added to requests and removed from responses.
fn servers(bench: &Bench) -> Vec<Running> {
    let settings = ["", "[tokens]\ninject = \"always\"\n"];
    settings
        .iter()
        .enumerate()
        .map(|(number, more)| {
            let config = bench.home().join(format!("proxy{number}.toml"));
            std::fs::write(&config, format!("[capture]\ndurability = \"commit\"\n{more}")).unwrap();
            bench.serve(&["--config", config.to_str().unwrap(), "--store", "memory:"])
        })
        .collect()
}

#[test]
fn what_came_before_a_reset_reaches_agents_on_http1_and_http2() {
    let bench = Bench::new();
    for serve in servers(&bench) {
        for (headers, body, last) in RESPONSES {
            let target = resetting(headers, body);
            let got = over_http1(&serve, target);
            let chunked = String::from_utf8_lossy(&got).into_owned();
            let plain = ["1", "2", "B"].iter().fold(chunked, |text, size| text.replace(&format!("\r\n{size}\r\n"), ""));
            assert!(find(&got, last.as_bytes()).is_some() || plain.contains(last), "HTTP/1, {headers}: {plain}");
            assert!(!plain.ends_with("\r\n0\r\n\r\n"), "a cut response must not look complete: {plain}");
            let (got, is_cut) = over_http2(connect(serve.address("proxy")), target);
            assert!(find(&got, last.as_bytes()).is_some(), "HTTP/2, {headers}: {}", String::from_utf8_lossy(&got));
            assert!(is_cut, "a cut response must not look complete");
        }
    }
}

#[test]
fn what_came_before_a_reset_of_an_http2_stream_reaches_the_agent() {
    let bench = Bench::new();
    for serve in servers(&bench) {
        let target = resetting_http2("data: {\"choices\":[]}\n\n+data: [DONE]\n\n+");
        let (got, is_cut) = over_http2(tunnel(serve.address("proxy"), target, "ro-1"), target);
        assert!(find(&got, b"data: [DONE]\n\n").is_some(), "{}", String::from_utf8_lossy(&got));
        assert!(is_cut);
    }
}

//! A small HTTP/1.1 client: one request, its answer read to its end, or as it comes.

use super::gate::Gate;
use super::{Bench, Running, connect, eventually, read_head};
use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};

/// An answer, read whole.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    /// With names in lower case.
    pub head: String,
    pub body: Vec<u8>,
}

impl Reply {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON but {self:?}"))
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.into_iter().find(|(known, _)| *known == name).map(|(_, value)| value)
    }
}

/// Asks, and reads the answer to its end.
pub fn ask(address: SocketAddr, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Reply {
    begin(address, method, path, headers, body).read()
}

/// Posts JSON.
pub fn post(address: SocketAddr, path: &str, body: &Value) -> Reply {
    ask(address, "POST", path, &[], &body.to_string())
}

/// Gets.
pub fn get(address: SocketAddr, path: &str) -> Reply {
    ask(address, "GET", path, &[], "")
}

/// An answer that is on its way: its head has been read.
pub struct Coming {
    body: BufReader<BodyReader>,
    pub status: u16,
    head: String,
}

/// Reads a body, without its chunks.
struct BodyReader {
    stream: BufReader<TcpStream>,
    // Bytes left of the chunk; none where there are no chunks.
    chunk: Option<usize>,
    is_over: bool,
}

impl Read for BodyReader {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let Some(left) = self.chunk.filter(|_| !self.is_over) else {
            return if self.is_over { Ok(0) } else { self.stream.read(buffer) };
        };
        if left > 0 {
            let most = left.min(buffer.len());
            let read = self.stream.read(&mut buffer[..most])?;
            self.chunk = Some(left - read);
            self.is_over = read == 0;
            return Ok(read);
        }
        let mut line = String::new();
        while line.trim().is_empty() {
            line.clear();
            if self.stream.read_line(&mut line)? == 0 {
                self.is_over = true;
                return Ok(0);
            }
        }
        let length = usize::from_str_radix(line.trim(), 16).unwrap_or(0);
        (self.chunk, self.is_over) = (Some(length), length == 0);
        self.read(buffer)
    }
}

/// Posts a body of any bytes, and reads the answer to its end.
pub fn post_bytes(address: SocketAddr, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Reply {
    coming(send_bytes(address, "POST", path, headers, body)).read()
}

/// Asks, and reads the answer's head.
pub fn begin(address: SocketAddr, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Coming {
    coming(send(address, method, path, headers, body))
}

/// Reads the head of an answer.
fn coming(mut stream: TcpStream) -> Coming {
    let head = read_head(&mut stream).to_ascii_lowercase();
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok())
        .unwrap_or_else(|| panic!("no answer but {head:?}"));
    let chunk = head.contains("transfer-encoding: chunked").then_some(0);
    let body = BufReader::new(BodyReader { stream: BufReader::new(stream), chunk, is_over: false });
    Coming { body, status, head }
}

/// Asks, and reads nothing.
pub fn send(address: SocketAddr, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> TcpStream {
    send_bytes(address, method, path, headers, body.as_bytes())
}

fn send_bytes(address: SocketAddr, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> TcpStream {
    let mut stream = connect(address);
    let fields: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let length = body.len();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\
         {fields}Connection: close\r\n\r\n"
    );
    stream.write_all(&[head.as_bytes(), body].concat()).unwrap();
    stream
}

impl Coming {
    /// The next line of the body, without its end.
    pub fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        let read = self.body.read_line(&mut line).unwrap();
        (read > 0).then(|| line.trim_end().to_owned())
    }

    /// The next line that begins so.
    pub fn line_with(&mut self, start: &str) -> Option<String> {
        loop {
            let line = self.line()?;
            if line.starts_with(start) {
                return Some(line);
            }
        }
    }

    /// The rest, as far as it comes.
    pub fn read(mut self) -> Reply {
        let mut body = Vec::new();
        let _ = self.body.read_to_end(&mut body);
        Reply { status: self.status, head: self.head, body }
    }
}

impl Bench {
    /// `serve` with these settings, and the mock as its backend for the model `mock`.
    pub fn gateway(&self, settings: &str) -> Running {
        let serve = self.gateway_without_backends(settings);
        self.register(&serve, 0);
        serve
    }

    /// `serve` with these settings.
    pub fn gateway_without_backends(&self, settings: &str) -> Running {
        let file = self.home().join("gateway.toml");
        std::fs::write(&file, settings).unwrap();
        self.serve(&["--config", file.to_str().unwrap()])
    }

    /// `serve` with these settings, and as its backend the mock behind a closed gate.
    pub fn gated_gateway(&self, settings: &str) -> (Running, Gate) {
        let (serve, gate) = (self.gateway_without_backends(settings), Gate::before(self.mock.address("http")));
        register_model(&serve, gate.address, 0);
        (serve, gate)
    }

    /// Registers the mock with a version of its weights.
    pub fn register(&self, serve: &Running, version: i64) {
        register_model(serve, self.mock.address("http"), version);
    }
}

/// Registers the model server at `address` for the model `mock`, with a version of its weights.
pub fn register_model(serve: &Running, address: SocketAddr, version: i64) {
    let endpoint = format!("http://{address}/v1");
    let model = serde_json::json!([{ "model": "mock", "endpoint": endpoint, "version": version }]);
    assert_eq!(post(serve.address("server"), "/api/models", &model).status, 201);
}

/// Waits until a gateway's state is so.
pub fn until_state(server: SocketAddr, is_so: impl Fn(&Value) -> bool) {
    eventually(|| is_so(&get(server, "/proxy/state").json()).then_some(()));
}

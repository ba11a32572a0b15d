//! An OTLP collector with a script: it answers as a test says, and keeps what it accepted.

use super::{Running, connect, read_head, say};
use serde_json::Value;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// A request to the collector.
#[derive(Clone)]
pub struct ExportRequest {
    /// The request line and header fields.
    pub head: String,
    pub body: Vec<u8>,
}

impl ExportRequest {
    /// The ids of its spans, if its body is plain JSON.
    pub fn span_ids(&self) -> Vec<String> {
        let Ok(json) = serde_json::from_slice::<Value>(&self.body) else { return Vec::new() };
        let resources = json["resourceSpans"].as_array().unwrap().iter();
        let scopes = resources.flat_map(|resource| resource["scopeSpans"].as_array().unwrap());
        let spans = scopes.flat_map(|scope| scope["spans"].as_array().unwrap());
        spans.map(|span| span["spanId"].as_str().unwrap().to_owned()).collect()
    }
}

/// What the collector does with a request.
pub enum Answer {
    /// 200, and keeps the request.
    Accept,
    /// Keeps the request, and responds 200 with this JSON.
    AcceptWith(Value),
    /// A status with further header fields.
    Status(u16, &'static str),
    /// Bytes that are not HTTP.
    Garbage,
    /// Closes the connection.
    Close,
    /// Keeps the request, and never responds.
    Hang,
}

/// A collector that runs until the test ends.
pub struct Collector {
    pub address: SocketAddr,
    accepted: Arc<Mutex<Vec<ExportRequest>>>,
}

impl Collector {
    /// Starts a collector that asks `script` what to do with the request of this number, from 0.
    pub fn start(script: impl Fn(usize, &ExportRequest) -> Answer + Send + Sync + 'static) -> Self {
        Self::at(TcpListener::bind("127.0.0.1:0").unwrap(), script)
    }

    /// The same on a listener of the test.
    pub fn at(listener: TcpListener, script: impl Fn(usize, &ExportRequest) -> Answer + Send + Sync + 'static) -> Self {
        let address = listener.local_addr().unwrap();
        let accepted = Arc::new(Mutex::new(Vec::new()));
        let (kept, script, number) = (Arc::clone(&accepted), Arc::new(script), Arc::new(Mutex::new(0)));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (kept, script, number) = (Arc::clone(&kept), Arc::clone(&script), Arc::clone(&number));
                std::thread::spawn(move || serve(stream, &kept, &number, &*script));
            }
        });
        Self { address, accepted }
    }

    /// The requests that it accepted, or took without a response.
    pub fn accepted(&self) -> Vec<ExportRequest> {
        self.accepted.lock().unwrap().clone()
    }

    /// The ids of all spans that it accepted, in order, with repetitions.
    pub fn span_ids(&self) -> Vec<String> {
        self.accepted().iter().flat_map(ExportRequest::span_ids).collect()
    }
}

/// Answers the requests of a connection one by one.
fn serve(
    mut stream: TcpStream,
    accepted: &Mutex<Vec<ExportRequest>>,
    number: &Mutex<usize>,
    script: &(dyn Fn(usize, &ExportRequest) -> Answer + Send + Sync),
) {
    loop {
        let head = read_head(&mut stream);
        let lower = head.to_lowercase();
        let length = lower.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok());
        let Some(length) = length else { return };
        let mut body = vec![0; length];
        if stream.read_exact(&mut body).is_err() {
            return;
        }
        let request = ExportRequest { head, body };
        let index = {
            let mut number = number.lock().unwrap();
            *number += 1;
            *number - 1
        };
        let answer = script(index, &request);
        if matches!(answer, Answer::Accept | Answer::AcceptWith(_) | Answer::Hang) {
            accepted.lock().unwrap().push(request);
        }
        let response = |status: u16, fields: &str, body: &str| {
            let length = body.len();
            format!(
                "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\n{fields}content-length: {length}\r\n\r\n{body}"
            )
        };
        let text = match answer {
            Answer::Accept => response(200, "", "{}"),
            Answer::AcceptWith(body) => response(200, "", &body.to_string()),
            Answer::Status(status, fields) => response(status, fields, "no"),
            Answer::Garbage => "this is no HTTP\r\n\r\n".to_owned(),
            Answer::Close => return,
            Answer::Hang => {
                let _ = stream.read_to_end(&mut Vec::new());
                return;
            }
        };
        if stream.write_all(text.as_bytes()).is_err() {
            return;
        }
    }
}

/// Sends spans with these ids to a server, as an OTLP client does.
pub fn store_spans(server: SocketAddr, rollout: &str, ids: &[String]) {
    for part in ids.chunks(200) {
        let spans: Vec<Value> = part
            .iter()
            .map(|id| {
                serde_json::json!({ "traceId": "0af7651916cd43dd8448eb211c80319c", "spanId": id, "name": "s",
                    "startTimeUnixNano": "1700000000000000000", "endTimeUnixNano": "1700000001000000000" })
            })
            .collect();
        let named = [serde_json::json!({ "key": "agentlightning.rollout_id", "value": { "stringValue": rollout } })];
        let body = serde_json::json!({ "resourceSpans": [{ "resource": { "attributes": named },
            "scopeSpans": [{ "spans": spans }] }] });
        let body = body.to_string();
        let mut stream = connect(server);
        let head = format!(
            "POST /v1/traces HTTP/1.1\r\nHost: localhost\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
             connection: close\r\n\r\n",
            body.len()
        );
        stream.write_all(format!("{head}{body}").as_bytes()).unwrap();
        let answer = read_head(&mut stream);
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
}

/// Ids of spans.
pub fn span_ids(range: std::ops::Range<u64>) -> Vec<String> {
    range.map(|number| format!("{:016x}", number + 1)).collect()
}

/// The value of a metric of live exports; 0 if it has none.
pub fn metric(serve: &Running, name: &str) -> u64 {
    let request = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nconnection: close\r\n\r\n";
    let metrics = say(serve.address("server"), request);
    let line = metrics.lines().find_map(|line| line.strip_prefix(&format!("tracewire_export_{name} ")));
    line.map_or(0, |value| value.parse().unwrap())
}

/// What `/readyz` responds.
pub fn readiness(serve: &Running) -> Value {
    let request = b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nconnection: close\r\n\r\n";
    let response = say(serve.address("server"), request);
    assert!(response.starts_with("HTTP/1.1 200"), "{response}");
    serde_json::from_str(response.split_once("\r\n\r\n").unwrap().1).unwrap()
}

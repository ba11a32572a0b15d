//! One connection to an endpoint, directly, through a proxy, or to a gateway, and one exchange over it.

use crate::tls;
use crate::upstream::{CHAT, micros};
use anyhow::{Error, Result, bail};
use bytes::Bytes;
use futures_util::stream;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::{http1, http2};
use hyper::http::request::Builder;
use hyper::{Method, Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use std::convert::Infallible;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

type Body = BoxBody<Bytes, Infallible>;

/// Where the load goes.
#[derive(Clone)]
pub struct Way {
    /// The endpoint.
    pub target: SocketAddr,
    /// The proxy before it.
    pub proxy: Option<SocketAddr>,
    /// What rollouts are called, before a number.
    pub rollout: String,
    /// Rollouts that are under way at once.
    rollouts: u64,
    /// What stands before `/v1` in a gateway's paths, with `{}` for the rollout. `None`: TLS, and no such thing.
    base: Option<String>,
    h1: Arc<ClientConfig>,
    h2: Arc<ClientConfig>,
}

/// What came of an exchange.
#[derive(Default)]
pub struct Seen {
    /// Of the bodies, both ways.
    pub bytes: u64,
    /// Of every chunk of a stream, from its making to its arrival.
    pub delays_us: Vec<u64>,
}

/// An answer that had begun, and has not come to its end.
#[derive(Debug)]
pub struct Cut(String);

impl fmt::Display for Cut {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "cut: {}", self.0)
    }
}

impl std::error::Error for Cut {}

/// One connection.
pub struct Client {
    wire: Wire,
    /// Before the path of a call.
    base: String,
}

enum Wire {
    Http1(http1::SendRequest<Body>),
    Http2(http2::SendRequest<Body>),
}

/// What is asked for.
#[derive(Clone, Debug)]
pub enum Ask {
    /// 1.5 kB up, 9 kB down.
    Json,
    /// The same, after the endpoint has waited.
    Later { ms: u64 },
    /// 1.5 kB up, an answer with so many prompt ids down.
    Long { prompt_ids: u64 },
    /// A stream of events.
    Sse { chunks: u64, interval_ms: u64 },
    /// Bytes up.
    Upload(u64),
    /// Bytes down.
    Download(u64),
}

impl Way {
    /// To an endpoint over TLS.
    pub fn new(target: SocketAddr, proxy: Option<SocketAddr>, rollout: &str) -> Result<Self> {
        Ok(Self {
            target,
            proxy,
            rollout: rollout.to_owned(),
            rollouts: ROLLOUTS,
            base: None,
            h1: tls::client(&[b"http/1.1"], false)?,
            h2: tls::client(&[b"h2"], false)?,
        })
    }

    /// To a gateway without TLS, or to an endpoint that has none.
    pub fn plain(target: SocketAddr, base: &str, rollout: &str) -> Result<Self> {
        Ok(Self { base: Some(base.to_owned()), ..Self::new(target, None, rollout)? })
    }

    /// The same for this many connections: each has a rollout of its own, if there are enough of them.
    pub fn of_connections(self, count: usize) -> Self {
        Self { rollouts: ROLLOUTS.max(count as u64), ..self }
    }

    /// The rollouts that are under way at once.
    pub fn rollouts(&self) -> impl Iterator<Item = String> + '_ {
        (0..self.rollouts).map(|number| format!("{}-{number}", self.rollout))
    }

    /// A connection with its handshakes. Every connection is a rollout's, as agents' are.
    pub async fn connect(&self, http2: bool) -> Result<Client> {
        self.connect_as(http2, &self.next_rollout()).await
    }

    /// The rollout of the next connection.
    pub fn next_rollout(&self) -> String {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        format!("{}-{}", self.rollout, NUMBER.fetch_add(1, Ordering::Relaxed) % self.rollouts)
    }

    /// A connection of this rollout.
    pub async fn connect_as(&self, http2: bool, rollout: &str) -> Result<Client> {
        let mut stream = TcpStream::connect(self.proxy.unwrap_or(self.target)).await?;
        stream.set_nodelay(true)?;
        if let Some(base) = &self.base {
            let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
            tokio::spawn(connection);
            return Ok(Client { wire: Wire::Http1(sender), base: base.replace("{}", rollout) });
        }
        if self.proxy.is_some() {
            self.tunnel(&mut stream, rollout).await?;
        }
        let config = if http2 { &self.h2 } else { &self.h1 };
        let name = ServerName::from(self.target.ip());
        let stream = TokioIo::new(TlsConnector::from(Arc::clone(config)).connect(name, stream).await?);
        let wire = if http2 {
            let mut builder = http2::Builder::new(TokioExecutor::new());
            builder.initial_stream_window_size(4 << 20).initial_connection_window_size(8 << 20);
            let (sender, connection) = builder.handshake(stream).await?;
            tokio::spawn(connection);
            Wire::Http2(sender)
        } else {
            let (sender, connection) = http1::handshake(stream).await?;
            tokio::spawn(connection);
            Wire::Http1(sender)
        };
        Ok(Client { wire, base: String::new() })
    }

    async fn tunnel(&self, stream: &mut TcpStream, rollout: &str) -> Result<()> {
        use base64::Engine;
        let credentials = base64::engine::general_purpose::STANDARD.encode(format!("{rollout}.at-1:"));
        let target = self.target;
        let head = format!(
            "CONNECT {target} HTTP/1.1\r\nHost: {target}\r\nUser-Agent: bench\r\nProxy-Authorization: Basic {credentials}\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await?;
        let mut answer = [0; 1024];
        let mut length = 0;
        while !answer[..length].ends_with(b"\r\n\r\n") {
            let read = stream.read(&mut answer[length..]).await?;
            length += read;
            if read == 0 || length == answer.len() {
                bail!("no answer to CONNECT");
            }
        }
        if !answer.starts_with(b"HTTP/1.1 200") && !answer.starts_with(b"HTTP/1.0 200") {
            bail!("CONNECT was refused: {}", String::from_utf8_lossy(&answer[..length]));
        }
        Ok(())
    }
}

impl Client {
    /// Another sender over the same connection, if it is HTTP/2.
    pub fn share(&self) -> Option<Self> {
        match &self.wire {
            Wire::Http2(sender) => Some(Self { wire: Wire::Http2(sender.clone()), base: self.base.clone() }),
            Wire::Http1(_) => None,
        }
    }

    /// Asks, and reads the whole answer.
    pub async fn exchange(&mut self, target: SocketAddr, ask: &Ask) -> Result<Seen> {
        let (method, path, body) = self.request(ask);
        let sent = match ask {
            Ask::Upload(size) => *size,
            _ => 0,
        };
        let mut builder = Request::builder().method(method).header("content-type", "application/json");
        if matches!(ask, Ask::Sse { .. }) {
            // As the SDKs of OpenAI and Anthropic send it: a gateway that lets retries join has to keep the answer.
            builder = builder.header("x-stainless-retry-count", "0");
        }
        let response = self.send(target, builder, &path, body).await?;
        let expected = match ask {
            Ask::Sse { chunks, .. } => *chunks,
            _ => 0,
        };
        let mut seen = read(response, expected).await?;
        seen.bytes += sent;
        Ok(seen)
    }

    /// Calls the model as SDKs do, with a body of so many bytes. The answer is still to be read.
    pub async fn call(&mut self, target: SocketAddr, length: u64, body: Body) -> Result<Response<Incoming>> {
        let builder = Request::builder().method(Method::POST).header("content-type", "application/json");
        let builder = builder.header("content-length", length).header("x-stainless-retry-count", "0");
        let path = format!("{}{CHAT}", self.base);
        self.send(target, builder, &path, body).await
    }

    async fn send(
        &mut self,
        target: SocketAddr,
        builder: Builder,
        path: &str,
        body: Body,
    ) -> Result<Response<Incoming>> {
        Ok(match &mut self.wire {
            Wire::Http1(sender) => {
                sender.ready().await?;
                let request = builder.uri(path).header("host", target.to_string()).body(body)?;
                sender.send_request(request).await?
            }
            Wire::Http2(sender) => {
                let request = builder.uri(format!("https://{target}{path}")).body(body)?;
                sender.send_request(request).await?
            }
        })
    }

    fn request(&self, ask: &Ask) -> (Method, String, Body) {
        let chat = format!("{}{CHAT}", self.base);
        match ask {
            Ask::Json => (Method::POST, chat, Full::new(prompt(false, "")).boxed()),
            Ask::Later { ms } => (Method::POST, chat, Full::new(prompt(false, &format!("delay_ms={ms}"))).boxed()),
            Ask::Long { prompt_ids } => {
                (Method::POST, chat, Full::new(prompt(false, &format!("prompt_ids={prompt_ids}"))).boxed())
            }
            Ask::Sse { chunks, interval_ms } => {
                let wish = format!("chunks={chunks}&interval_ms={interval_ms}");
                (Method::POST, chat, Full::new(prompt(true, &wish)).boxed())
            }
            Ask::Upload(size) => (Method::POST, "/upload".to_owned(), upload(*size)),
            Ask::Download(size) => (Method::GET, format!("/bytes?size={size}"), Full::default().boxed()),
        }
    }
}

/// Reads an answer. One that should have been a stream has all of its chunks, or is an error.
async fn read(response: Response<Incoming>, chunks: u64) -> Result<Seen> {
    let status = response.status();
    let mut body = response.into_body();
    if !status.is_success() {
        let text = body.collect().await?.to_bytes();
        bail!("status {status}: {}", String::from_utf8_lossy(&text).chars().take(200).collect::<String>());
    }
    let (mut seen, mut rest) = (Seen::default(), Vec::new());
    while let Some(frame) = body.frame().await {
        let frame = match frame {
            Ok(frame) => frame,
            Err(error) => return Err(broken(&seen, chunks, &error.to_string())),
        };
        let Some(data) = frame.data_ref() else { continue };
        seen.bytes += data.len() as u64;
        if chunks > 0 {
            note_chunks(data, &mut rest, &mut seen.delays_us);
        }
    }
    if (seen.delays_us.len() as u64) < chunks {
        return Err(broken(&seen, chunks, &String::from_utf8_lossy(&rest)));
    }
    Ok(seen)
}

/// What an answer that did not come to its end is. A stream has begun with its first chunk.
fn broken(seen: &Seen, chunks: u64, why: &str) -> Error {
    let has_begun = if chunks > 0 { !seen.delays_us.is_empty() } else { seen.bytes > 0 };
    let why = format!("{} of {chunks} chunks, {} bytes: {why}", seen.delays_us.len(), seen.bytes);
    if has_begun { Error::new(Cut(why)) } else { Error::msg(why) }
}

/// Notes how old the events are that a piece completes; keeps what is not complete.
fn note_chunks(data: &[u8], rest: &mut Vec<u8>, delays_us: &mut Vec<u64>) {
    rest.extend_from_slice(data);
    let Some(end) = rest.windows(2).rposition(|two| two == b"\n\n").map(|at| at + 2) else { return };
    let now = micros();
    delays_us.extend(times(&rest[..end]).map(|made| now.saturating_sub(made)));
    rest.drain(..end);
}

/// When the events in a piece were made.
fn times(data: &[u8]) -> impl Iterator<Item = u64> {
    let text = std::str::from_utf8(data).unwrap_or_default();
    text.split("\"at\":").skip(1).filter_map(|rest| rest.split(',').next()?.trim().parse().ok())
}

/// A prompt of its own every time: what was stored before would cost less.
/// `wish` is for the endpoint: how it is to answer. A gateway passes the `user` of a call on.
fn prompt(stream: bool, wish: &str) -> Bytes {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let (number, words) = (NUMBER.fetch_add(1, Ordering::Relaxed), "a word of a prompt ".repeat(75));
    let content = format!("question {number}: {words}");
    Bytes::from(format!(
        "{{\"model\":\"bench\",\"user\":\"{wish}\",\"stream\":{stream},\"messages\":[{{\"role\":\"user\",\"content\":\"{content}\"}}]}}"
    ))
}

fn upload(size: u64) -> Body {
    let chunk = Bytes::from(vec![0; 64 * 1024]);
    let made = stream::unfold(size, move |left| {
        let chunk = chunk.clone();
        async move {
            let length = left.min(chunk.len() as u64);
            let frame = chunk.slice(..usize::try_from(length).ok()?);
            (length > 0).then(|| (Ok::<_, Infallible>(Frame::data(frame)), left - length))
        }
    });
    BodyExt::boxed(StreamBody::new(Box::pin(made)))
}

/// Rollouts that are under way at once.
const ROLLOUTS: u64 = 32;

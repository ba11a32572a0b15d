//! The load: connections to an endpoint, directly or through a proxy, and what is sent over them.

use crate::tls;
use crate::upstream::{CHAT, micros};
use anyhow::{Context, Result, bail};
use bytes::Bytes;
use futures_util::stream;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use hyper::client::conn::{http1, http2};
use hyper::{Method, Request};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
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
    h1: Arc<ClientConfig>,
    h2: Arc<ClientConfig>,
}

/// What was measured.
#[derive(Clone, Debug, Default)]
pub struct Load {
    /// Of every exchange.
    pub latencies_us: Vec<u64>,
    /// Of every chunk of a stream, from its making to its arrival.
    pub delays_us: Vec<u64>,
    /// Exchanges that failed.
    pub errors: u64,
    /// Body bytes, both ways.
    pub bytes: u64,
    /// How long it took.
    pub elapsed: Duration,
}

impl Load {
    fn merge(&mut self, other: Self) {
        self.latencies_us.extend(other.latencies_us);
        self.delays_us.extend(other.delays_us);
        self.errors += other.errors;
        self.bytes += other.bytes;
    }

    fn note(&mut self, result: Result<Seen>, began: Instant) {
        match result {
            Ok(seen) => {
                self.latencies_us.push(u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX));
                self.delays_us.extend(seen.delays_us);
                self.bytes += seen.bytes;
            }
            Err(_) => self.errors += 1,
        }
    }
}

#[derive(Default)]
struct Seen {
    bytes: u64,
    delays_us: Vec<u64>,
}

/// One connection.
pub enum Client {
    Http1(http1::SendRequest<Body>),
    Http2(http2::SendRequest<Body>),
}

/// What is asked for.
#[derive(Clone, Debug)]
pub enum Ask {
    /// 1.5 kB up, 9 kB down.
    Json,
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
    pub fn new(target: SocketAddr, proxy: Option<SocketAddr>, rollout: &str) -> Result<Self> {
        Ok(Self {
            target,
            proxy,
            rollout: rollout.to_owned(),
            h1: tls::client(&[b"http/1.1"], false)?,
            h2: tls::client(&[b"h2"], false)?,
        })
    }

    /// A connection with its handshakes.
    pub async fn connect(&self, http2: bool) -> Result<Client> {
        let mut stream = TcpStream::connect(self.proxy.unwrap_or(self.target)).await?;
        stream.set_nodelay(true)?;
        if self.proxy.is_some() {
            self.tunnel(&mut stream).await?;
        }
        let config = if http2 { &self.h2 } else { &self.h1 };
        let name = ServerName::from(self.target.ip());
        let stream = TokioIo::new(TlsConnector::from(Arc::clone(config)).connect(name, stream).await?);
        if http2 {
            let mut builder = http2::Builder::new(TokioExecutor::new());
            builder.initial_stream_window_size(4 << 20).initial_connection_window_size(8 << 20);
            let (sender, connection) = builder.handshake(stream).await?;
            tokio::spawn(connection);
            return Ok(Client::Http2(sender));
        }
        let (sender, connection) = http1::handshake(stream).await?;
        tokio::spawn(connection);
        Ok(Client::Http1(sender))
    }

    async fn tunnel(&self, stream: &mut TcpStream) -> Result<()> {
        use base64::Engine;
        // Every connection is a rollout's, as agents' are.
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed) % ROLLOUTS;
        let credentials = base64::engine::general_purpose::STANDARD.encode(format!("{}-{number}.at-1:", self.rollout));
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
    async fn exchange(&mut self, target: SocketAddr, ask: &Ask) -> Result<Seen> {
        let (method, path, body) = match ask {
            Ask::Json => (Method::POST, CHAT.to_owned(), Full::new(prompt(false)).boxed()),
            Ask::Long { prompt_ids } => {
                (Method::POST, format!("{CHAT}?prompt_ids={prompt_ids}"), Full::new(prompt(false)).boxed())
            }
            Ask::Sse { chunks, interval_ms } => {
                let path = format!("{CHAT}?chunks={chunks}&interval_ms={interval_ms}");
                (Method::POST, path, Full::new(prompt(true)).boxed())
            }
            Ask::Upload(size) => (Method::POST, "/upload".to_owned(), upload(*size)),
            Ask::Download(size) => (Method::GET, format!("/bytes?size={size}"), Full::default().boxed()),
        };
        let sent = match ask {
            Ask::Upload(size) => *size,
            _ => 0,
        };
        let builder = Request::builder().method(method).header("content-type", "application/json");
        let response = match self {
            Self::Http1(sender) => {
                sender.ready().await?;
                let request = builder.uri(path).header("host", target.to_string()).body(body)?;
                sender.send_request(request).await?
            }
            Self::Http2(sender) => {
                let request = builder.uri(format!("https://{target}{path}")).body(body)?;
                sender.send_request(request).await?
            }
        };
        if !response.status().is_success() {
            bail!("status {}", response.status());
        }
        let mut body = response.into_body();
        let mut seen = Seen { bytes: sent, ..Seen::default() };
        let streamed = matches!(ask, Ask::Sse { .. });
        while let Some(frame) = body.frame().await {
            let frame = frame?;
            let Some(data) = frame.data_ref() else { continue };
            seen.bytes += data.len() as u64;
            if streamed {
                let now = micros();
                seen.delays_us.extend(times(data).map(|made| now.saturating_sub(made)));
            }
        }
        Ok(seen)
    }
}

/// When the events in a piece were made.
fn times(data: &[u8]) -> impl Iterator<Item = u64> {
    let text = std::str::from_utf8(data).unwrap_or_default();
    text.split("\"at\":").skip(1).filter_map(|rest| rest.split(',').next()?.parse().ok())
}

/// A prompt of its own every time: what was stored before would cost less.
fn prompt(stream: bool) -> Bytes {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let (number, words) = (NUMBER.fetch_add(1, Ordering::Relaxed), "a word of a prompt ".repeat(75));
    let content = format!("question {number}: {words}");
    Bytes::from(format!(
        "{{\"model\":\"bench\",\"stream\":{stream},\"messages\":[{{\"role\":\"user\",\"content\":\"{content}\"}}]}}"
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

/// `workers` connections that ask again and again, each after its answer.
pub async fn closed_loop(way: &Way, ask: &Ask, workers: usize, lasting: Duration) -> Result<Load> {
    let mut clients = Vec::new();
    for _ in 0..workers {
        clients.push(way.connect(false).await.context("no connection")?);
    }
    let began = Instant::now();
    let mut tasks = JoinSet::new();
    for mut client in clients {
        let (way, ask) = (way.clone(), ask.clone());
        tasks.spawn(async move {
            let mut load = Load::default();
            while began.elapsed() < lasting {
                let started = Instant::now();
                let result = client.exchange(way.target, &ask).await;
                let failed = result.is_err();
                load.note(result, started);
                if failed {
                    match way.connect(false).await {
                        Ok(new) => client = new,
                        Err(_) => return load,
                    }
                }
            }
            load
        });
    }
    Ok(gather(tasks, began).await)
}

/// A new connection for every exchange.
pub async fn handshakes(way: &Way, workers: usize, lasting: Duration) -> Result<Load> {
    let began = Instant::now();
    let mut tasks = JoinSet::new();
    for _ in 0..workers {
        let way = way.clone();
        tasks.spawn(async move {
            let mut load = Load::default();
            while began.elapsed() < lasting {
                let started = Instant::now();
                let result = async { way.connect(false).await?.exchange(way.target, &Ask::Json).await };
                load.note(result.await, started);
            }
            load
        });
    }
    Ok(gather(tasks, began).await)
}

/// `rate` exchanges a second, whether the last has been answered or not.
pub async fn paced(way: &Way, rate: u32, lasting: Duration) -> Result<Load> {
    let idle = Arc::new(Mutex::new(Vec::new()));
    for _ in 0..16 {
        idle.lock().unwrap_or_else(PoisonError::into_inner).push(way.connect(false).await?);
    }
    let began = Instant::now();
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / rate);
    let mut tasks = JoinSet::new();
    while began.elapsed() < lasting {
        ticks.tick().await;
        let (way, idle) = (way.clone(), Arc::clone(&idle));
        tasks.spawn(async move {
            let mut load = Load::default();
            let taken = idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let client = match taken {
                Some(client) => Ok(client),
                None => way.connect(false).await,
            };
            let Ok(mut client) = client else {
                load.errors += 1;
                return load;
            };
            let started = Instant::now();
            load.note(client.exchange(way.target, &Ask::Json).await, started);
            if load.errors == 0 {
                idle.lock().unwrap_or_else(PoisonError::into_inner).push(client);
            }
            load
        });
    }
    Ok(gather(tasks, began).await)
}

/// As `paced`, with an answer of 128k prompt ids a second beside it, which is not measured.
pub async fn paced_beside_long_answers(way: &Way, rate: u32, lasting: Duration) -> Result<Load> {
    let mut client = way.connect(false).await?;
    let target = way.target;
    let beside: tokio::task::JoinHandle<Result<()>> = tokio::spawn(async move {
        let mut ticks = tokio::time::interval(Duration::from_secs(1));
        loop {
            ticks.tick().await;
            client.exchange(target, &Ask::Long { prompt_ids: 128 * 1024 }).await?;
        }
    });
    let load = paced(way, rate, lasting).await?;
    if beside.is_finished() {
        bail!("the long answers ended: {:?}", beside.await);
    }
    beside.abort();
    Ok(load)
}

/// `count` exchanges at once, each on a connection of its own; connections are made before the clock starts.
pub async fn at_once(way: &Way, ask: &Ask, count: usize) -> Result<Load> {
    let clients = connections(way, count).await?;
    let began = Instant::now();
    let mut tasks = JoinSet::new();
    for mut client in clients {
        let (way, ask) = (way.clone(), ask.clone());
        tasks.spawn(async move {
            let mut load = Load::default();
            let started = Instant::now();
            load.note(client.exchange(way.target, &ask).await, started);
            load
        });
    }
    Ok(gather(tasks, began).await)
}

/// Connections that have made one exchange each.
pub async fn used_connections(way: &Way, count: usize) -> Result<Vec<Client>> {
    let mut clients = connections(way, count).await?;
    for client in &mut clients {
        client.exchange(way.target, &Ask::Download(1)).await?;
    }
    Ok(clients)
}

async fn connections(way: &Way, count: usize) -> Result<Vec<Client>> {
    let mut clients = Vec::with_capacity(count);
    let mut tasks = JoinSet::new();
    for _ in 0..count {
        if tasks.len() == 64
            && let Some(done) = tasks.join_next().await
        {
            clients.push(done??);
        }
        let way = way.clone();
        tasks.spawn(async move { way.connect(false).await });
    }
    while let Some(done) = tasks.join_next().await {
        clients.push(done??);
    }
    Ok(clients)
}

/// One HTTP/2 connection with `streams` exchanges under way at any time.
pub async fn multiplexed(way: &Way, streams: usize, lasting: Duration) -> Result<Load> {
    let Client::Http2(sender) = way.connect(true).await? else { bail!("no HTTP/2") };
    let began = Instant::now();
    let mut tasks = JoinSet::new();
    for _ in 0..streams {
        let (target, mut client) = (way.target, Client::Http2(sender.clone()));
        tasks.spawn(async move {
            let mut load = Load::default();
            while began.elapsed() < lasting {
                let started = Instant::now();
                load.note(client.exchange(target, &Ask::Json).await, started);
            }
            load
        });
    }
    Ok(gather(tasks, began).await)
}

async fn gather(mut tasks: JoinSet<Load>, began: Instant) -> Load {
    let mut all = Load::default();
    while let Some(done) = tasks.join_next().await {
        match done {
            Ok(load) => all.merge(load),
            Err(_) => all.errors += 1,
        }
    }
    all.elapsed = began.elapsed();
    all
}

/// Rollouts that are under way at once.
const ROLLOUTS: u64 = 32;

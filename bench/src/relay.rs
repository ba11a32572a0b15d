//! The floor: a relay on the same libraries as Tracewire that opens TLS, forwards and records nothing.
//!
//! It does what no intercepting proxy can do without, and nothing else: CONNECT, one TLS handshake each way, a pooled
//! upstream connection, bodies passed frame by frame. Before a gateway's endpoint it does the same without CONNECT and TLS.

use crate::tls::{Ca, client};
use anyhow::Result;
use bytes::Bytes;
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode, Uri, Version};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use rustls::pki_types::ServerName;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

struct Relay {
    /// For HTTP/1.1 and HTTP/2. `None`: endpoints have no TLS.
    connectors: Option<[TlsConnector; 2]>,
    idle: Mutex<Vec<http1::SendRequest<Incoming>>>,
    shared: Mutex<Option<http2::SendRequest<Incoming>>>,
}

/// Serves for ever; prints its address first.
pub async fn serve(ca: &Ca) -> Result<()> {
    let protocols: [&[&[u8]]; 2] = [&[b"http/1.1"], &[b"h2"]];
    let [h1, h2] = protocols;
    let acceptors: [TlsAcceptor; 2] = [ca.server(h1)?.into(), ca.server(h2)?.into()];
    let relay = Arc::new(Relay::new(Some([client(h1, true)?.into(), client(h2, true)?.into()])));
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    crate::say_ready(listener.local_addr()?);
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let (relay, acceptors) = (Arc::clone(&relay), acceptors.clone());
        tokio::spawn(async move {
            let service = service_fn(move |request| connect(Arc::clone(&relay), acceptors.clone(), request));
            let serving = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            drop(serving.with_upgrades().await);
        });
    }
}

/// As `serve`, to one endpoint without TLS, and called as if it were that endpoint.
pub async fn serve_plain(target: SocketAddr) -> Result<()> {
    let relay = Arc::new(Relay::new(None));
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    crate::say_ready(listener.local_addr()?);
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let relay = Arc::clone(&relay);
        tokio::spawn(async move {
            let service = service_fn(move |request| forward(Arc::clone(&relay), request, target, false));
            drop(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await);
        });
    }
}

async fn connect(
    relay: Arc<Relay>,
    acceptors: [TlsAcceptor; 2],
    mut request: Request<Incoming>,
) -> Result<Response<Empty<Bytes>>, hyper::Error> {
    let mut answer = Response::new(Empty::new());
    let target = request.uri().authority().and_then(|authority| authority.as_str().parse().ok());
    let Some(target) = target.filter(|_| request.method() == Method::CONNECT) else {
        *answer.status_mut() = StatusCode::BAD_REQUEST;
        return Ok(answer);
    };
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let Ok(upgraded) = upgrade.await else { return };
        let _ = tunnel(relay, acceptors, TokioIo::new(upgraded), target).await;
    });
    Ok(answer)
}

async fn tunnel(
    relay: Arc<Relay>,
    acceptors: [TlsAcceptor; 2],
    io: TokioIo<hyper::upgrade::Upgraded>,
    target: SocketAddr,
) -> Result<()> {
    let hello = tokio_rustls::LazyConfigAcceptor::new(rustls::server::Acceptor::default(), io).await?;
    let http2 = hello.client_hello().alpn().is_some_and(|mut alpn| alpn.any(|name| name == b"h2"));
    let first = relay.open(target, http2).await?;
    let stream = hello.into_stream(Arc::clone(acceptors[usize::from(http2)].config())).await?;
    relay.put(first);
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http2().max_concurrent_streams(1000).initial_stream_window_size(2 << 20);
    let service = service_fn(move |request| forward(Arc::clone(&relay), request, target, http2));
    builder.serve_connection(TokioIo::new(stream), service).await.map_err(anyhow::Error::msg)
}

enum Way {
    Http1(http1::SendRequest<Incoming>),
    Http2(http2::SendRequest<Incoming>),
}

impl Relay {
    fn new(connectors: Option<[TlsConnector; 2]>) -> Self {
        Self { connectors, idle: Mutex::default(), shared: Mutex::default() }
    }

    async fn open(&self, target: SocketAddr, http2: bool) -> Result<Way> {
        let stream = TcpStream::connect(target).await?;
        stream.set_nodelay(true)?;
        let Some(connectors) = &self.connectors else {
            let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
            tokio::spawn(connection);
            return Ok(Way::Http1(sender));
        };
        let name = ServerName::from(target.ip());
        let stream = TokioIo::new(connectors[usize::from(http2)].connect(name, stream).await?);
        if http2 {
            let mut builder = http2::Builder::new(TokioExecutor::new());
            builder.initial_stream_window_size(2 << 20).initial_connection_window_size(8 << 20);
            let (sender, connection) = builder.handshake(stream).await?;
            tokio::spawn(connection);
            return Ok(Way::Http2(sender));
        }
        let (sender, connection) = http1::handshake(stream).await?;
        tokio::spawn(connection);
        Ok(Way::Http1(sender))
    }

    fn put(&self, way: Way) {
        match way {
            Way::Http1(sender) => self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(sender),
            Way::Http2(sender) => *self.shared.lock().unwrap_or_else(PoisonError::into_inner) = Some(sender),
        }
    }

    fn take(&self, http2: bool) -> Option<Way> {
        if http2 {
            return self.shared.lock().unwrap_or_else(PoisonError::into_inner).clone().map(Way::Http2);
        }
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(sender) = idle.pop() {
            if !sender.is_closed() {
                return Some(Way::Http1(sender));
            }
        }
        None
    }
}

async fn forward(
    relay: Arc<Relay>,
    mut request: Request<Incoming>,
    target: SocketAddr,
    http2: bool,
) -> Result<Response<Incoming>> {
    let way = match relay.take(http2) {
        Some(way) => way,
        None => relay.open(target, http2).await?,
    };
    match way {
        Way::Http1(mut sender) => {
            sender.ready().await?;
            *request.version_mut() = Version::HTTP_11;
            let answer = sender.send_request(request).await?;
            // Taken again once its answer has been read.
            tokio::spawn(async move {
                if sender.ready().await.is_ok() {
                    relay.put(Way::Http1(sender));
                }
            });
            Ok(answer)
        }
        Way::Http2(mut sender) => {
            let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
            *request.uri_mut() = format!("https://{target}{path}").parse::<Uri>()?;
            Ok(sender.send_request(request).await?)
        }
    }
}

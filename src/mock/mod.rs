//! A mock LLM endpoint: to try without a key, for tests, for load.
//!
//! Answers are made up from the request and always the same for the same request. It keeps no state but the list of
//! what it was asked. It must not be reachable from elsewhere by default.

mod amazon;
mod answer;
mod anthropic;
mod behaviour;
mod google;
mod openai;
mod responses;
mod tools;
mod websocket;

pub use behaviour::MockOptions;

use crate::net::drain::{Drain, DrainGuard};
use crate::net::listener::accept;
use crate::tls::{CertAuthority, LeafCache, TlsError};
use axum::Router;
use axum::routing::{any, get, post};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use rustls::server::Acceptor;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::LazyConfigAcceptor;

/// A running endpoint; it stops when dropped.
pub struct Mock {
    http: Option<SocketAddr>,
    https: Option<SocketAddr>,
    ca_pem: String,
    // Held: its end is the signal to stop.
    _drain: Drain,
}

/// Why it can't run.
#[derive(Debug, thiserror::Error)]
pub enum MockError {
    /// No certificate.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A listener is broken.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

impl Mock {
    /// Serves on the listeners given, HTTPS with certificates of a CA of its own, HTTP/2 and HTTP/1.1.
    pub async fn start(
        http: Option<TcpListener>,
        https: Option<TcpListener>,
        options: MockOptions,
    ) -> Result<Self, MockError> {
        let leaves = Arc::new(LeafCache::new(CertAuthority::ephemeral("Tracewire mock endpoint")?)?);
        let ca_pem = leaves.authority().ca_pem().to_owned();
        let (drain, router) = (Drain::new(), router(options));
        let address = |listener: &Option<TcpListener>| listener.as_ref().map(TcpListener::local_addr).transpose();
        let (http_address, https_address) = (address(&http)?, address(&https)?);
        if let Some(listener) = http {
            let router = router.clone();
            tokio::spawn(accept(listener, MAX_CONNECTIONS, drain.guard(), move |stream, _, guard| {
                plain(stream, router.clone(), guard)
            }));
        }
        if let Some(listener) = https {
            tokio::spawn(accept(listener, MAX_CONNECTIONS, drain.guard(), move |stream, _, guard| {
                tls(stream, Arc::clone(&leaves), router.clone(), guard)
            }));
        }
        Ok(Self { http: http_address, https: https_address, ca_pem, _drain: drain })
    }

    /// Where it serves HTTP.
    pub fn http_addr(&self) -> Option<SocketAddr> {
        self.http
    }

    /// Where it serves HTTPS.
    pub fn https_addr(&self) -> Option<SocketAddr> {
        self.https
    }

    /// The certificate of its CA, as PEM.
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }
}

fn router(options: MockOptions) -> Router {
    let state = tools::MockState::new(options);
    Router::new()
        .route("/v1/models", get(openai::models))
        .route("/v1/chat/completions", post(openai::chat))
        .route("/v1/completions", post(openai::completions))
        .route("/v1/responses", get(responses::socket).post(responses::responses))
        .route("/v1/messages", post(anthropic::messages))
        .route("/v1beta/models/{call}", post(google::generate))
        .route("/v1/models/{call}", post(google::generate))
        .route("/model/{model}/converse", post(amazon::converse))
        .route("/v1/realtime", any(websocket::realtime))
        .route("/weather", get(tools::weather))
        .route("/echo", any(tools::echo))
        .route("/echo/{*path}", any(tools::echo))
        .route("/sse", get(tools::sse))
        .route("/bytes", get(tools::bytes))
        .route("/upload", post(tools::upload))
        .route("/ws", any(websocket::echo))
        .route("/requests", get(tools::requests).delete(tools::forget))
        .layer(axum::extract::DefaultBodyLimit::disable())
        .layer(axum::middleware::from_fn_with_state(state.clone(), tools::note_request))
        .with_state(state)
}

async fn plain(stream: TcpStream, router: Router, _guard: DrainGuard) {
    serve(TokioIo::new(stream), router).await;
}

async fn tls(stream: TcpStream, leaves: Arc<LeafCache>, router: Router, _guard: DrainGuard) {
    let local = stream.local_addr().map(|address| address.ip().to_string()).unwrap_or_default();
    let Ok(hello) = LazyConfigAcceptor::new(Acceptor::default(), stream).await else { return };
    let name = hello.client_hello().server_name().map_or(local, str::to_owned);
    let offers_alpn = hello.client_hello().alpn().is_some();
    let alpn: &[&[u8]] = if offers_alpn { &[b"h2", b"http/1.1"] } else { &[] };
    let Ok(config) = leaves.server_config(&name, alpn) else { return };
    // A client that breaks off its handshake is its own business.
    if let Ok(stream) = hello.into_stream(config).await {
        serve(TokioIo::new(stream), router).await;
    }
}

async fn serve<T: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static>(io: T, router: Router) {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().preserve_header_case(true);
    builder.http2().enable_connect_protocol();
    drop(builder.serve_connection_with_upgrades(io, TowerToHyperService::new(router)).await);
}

const MAX_CONNECTIONS: usize = 10_000;

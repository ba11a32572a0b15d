//! The mock's listeners, TLS and routes.

use super::answered::AnsweredResponses;
use super::options::MockOptions;
use super::recorded_requests::record_request;
use super::script::Script;
use super::scripted::ScriptedState;
use super::state::MockState;
use super::{amazon, anthropic, google, openai, recorded_requests, responses, scripted, tools, websocket};
use crate::net::drain::{Drain, DrainGuard};
use crate::net::listener::{ConnectionLimits, accept};
use crate::tls::{CertAuthority, LeafCache, LeafKey, TlsError};
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

/// A running mock endpoint. It stops when dropped.
pub(crate) struct Mock {
    http: Option<SocketAddr>,
    https: Option<SocketAddr>,
    ca_pem: String,
    /// Dropping it stops the listeners and connections.
    _drain: Drain,
}

/// Why the endpoint cannot start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MockError {
    /// The CA cannot be created.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A listener has no address.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

impl Mock {
    /// Serves HTTP/1.1 and HTTP/2 on the given listeners; HTTPS with certificates of a CA created for this endpoint. Calls of
    /// models are answered by the script, if there is one.
    pub(crate) async fn start(
        http: Option<TcpListener>,
        https: Option<TcpListener>,
        options: MockOptions,
        script: Option<Script>,
    ) -> Result<Self, MockError> {
        let leaves = Arc::new(LeafCache::new(CertAuthority::ephemeral("Tracewire mock endpoint")?)?);
        let ca_pem = leaves.authority().ca_pem().to_owned();
        let drain = Drain::new();
        let router = match script {
            Some(script) => scripted_router(options, script),
            None => router(options),
        };
        let address = |listener: &Option<TcpListener>| listener.as_ref().map(TcpListener::local_addr).transpose();
        let (http_address, https_address) = (address(&http)?, address(&https)?);
        if let Some(listener) = http {
            let router = router.clone();
            tokio::spawn(accept(
                listener,
                ConnectionLimits::new(MAX_CONNECTIONS),
                drain.guard(),
                move |stream, _, guard| serve_http(stream, router.clone(), guard),
            ));
        }
        if let Some(listener) = https {
            tokio::spawn(accept(
                listener,
                ConnectionLimits::new(MAX_CONNECTIONS),
                drain.guard(),
                move |stream, _, guard| serve_https(stream, Arc::clone(&leaves), router.clone(), guard),
            ));
        }
        Ok(Self { http: http_address, https: https_address, ca_pem, _drain: drain })
    }

    /// The address of the HTTP listener; `None` if there is none.
    pub(crate) fn http_addr(&self) -> Option<SocketAddr> {
        self.http
    }

    /// The address of the HTTPS listener; `None` if there is none.
    pub(crate) fn https_addr(&self) -> Option<SocketAddr> {
        self.https
    }

    /// The CA certificate as PEM.
    pub(crate) fn ca_pem(&self) -> &str {
        &self.ca_pem
    }
}

fn router(options: MockOptions) -> Router {
    let state = MockState::new(options);
    Router::new()
        .route("/v1/models", get(openai::models))
        .route("/v1/chat/completions", post(openai::chat))
        .route("/v1/completions", post(openai::completions))
        .route("/v1/responses", get(responses::web_socket).post(responses::responses))
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
        .route("/requests", get(recorded_requests::list).delete(recorded_requests::clear))
        .layer(axum::extract::DefaultBodyLimit::disable())
        .layer(axum::middleware::from_fn_with_state(state.clone(), record_request))
        .with_state(state)
}

/// The routes of a mock that plays a script.
fn scripted_router(options: MockOptions, script: Script) -> Router {
    let mock = MockState::new(options);
    let state = ScriptedState { mock: mock.clone(), script: Arc::new(script), answered: AnsweredResponses::default() };
    Router::new()
        .route("/v1/models", get(openai::models))
        .route("/requests", get(recorded_requests::list).delete(recorded_requests::clear))
        .with_state(mock.clone())
        .fallback(any(scripted::respond).with_state(state))
        .layer(axum::extract::DefaultBodyLimit::disable())
        .layer(axum::middleware::from_fn_with_state(mock, record_request))
}

async fn serve_http(stream: TcpStream, router: Router, _guard: DrainGuard) {
    serve(TokioIo::new(stream), router).await;
}

async fn serve_https(stream: TcpStream, leaves: Arc<LeafCache>, router: Router, _guard: DrainGuard) {
    let local = stream.local_addr().map(|address| address.ip().to_string()).unwrap_or_default();
    let Ok(hello) = LazyConfigAcceptor::new(Acceptor::default(), stream).await else { return };
    let name = hello.client_hello().server_name().map_or(local, str::to_owned);
    let offers_alpn = hello.client_hello().alpn().is_some();
    let alpn: &[&[u8]] = if offers_alpn { &[b"h2", b"http/1.1"] } else { &[] };
    let key = LeafKey::for_client(&(&hello.client_hello()).into()).unwrap_or(LeafKey::P256);
    let Ok(config) = leaves.server_config(&name, alpn, key) else { return };
    // A failed handshake is an error of the client, not of the mock.
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

/// Per listener; further connections wait.
const MAX_CONNECTIONS: usize = 10_000;

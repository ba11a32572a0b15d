//! Sends one request to an endpoint over a pooled or new connection.
//!
//! A request that a reused connection never wrote is sent again on a new one; nothing that was written is ever sent
//! twice. It must not change a header: that is `forward`'s work.

use super::body::Body;
use super::dial::{Dialled, Dialler, authority};
use super::pool::{Connection, Isolation, Origin, Pool, Sender};
use super::{UpstreamSettings, within};
use crate::error::{ErrorKind, ProxyError};
use crate::tls::client::is_certificate_error;
use crate::tls::{Offer, UpstreamTls};
use crate::trace::exchange::TlsFacts;
use http::{Request, Response, Uri, Version, header};
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What is known of an upstream connection.
#[derive(Clone, Debug, Default)]
pub struct UpstreamFacts {
    /// The address dialled.
    pub peer: Option<SocketAddr>,
    /// Its TLS, if it has.
    pub tls: Option<TlsFacts>,
    /// How long DNS and TCP took.
    pub connect: Option<Duration>,
    /// How long the TLS handshake took.
    pub handshake: Option<Duration>,
    /// True when it served a request before.
    pub reused: bool,
}

/// A response, and the connection it came over.
pub struct Sent {
    /// The response, its body not read yet.
    pub response: Response<Incoming>,
    /// The connection.
    pub facts: UpstreamFacts,
}

/// All ways to endpoints.
#[derive(Clone)]
pub struct Upstream {
    inner: Arc<Inner>,
}

struct Inner {
    settings: UpstreamSettings,
    dialler: Dialler,
    tls: UpstreamTls,
    pool: Pool,
}

impl Upstream {
    /// By these settings. Must be called within a tokio runtime: it sweeps idle connections from time to time.
    pub fn new(settings: UpstreamSettings, tls: UpstreamTls) -> Result<Self, String> {
        let dialler = Dialler::new(&settings)?;
        let pool = Pool::new(settings.pool_idle_timeout);
        let inner = Arc::new(Inner { settings, dialler, tls, pool });
        let weak = Arc::downgrade(&inner);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(SWEEP_EVERY).await;
                let Some(inner) = weak.upgrade() else { return };
                inner.pool.sweep();
            }
        });
        Ok(Self { inner })
    }

    /// Dials TCP.
    pub fn dialler(&self) -> &Dialler {
        &self.inner.dialler
    }

    /// True when a request to `origin` would find a pooled connection.
    pub fn holds(&self, isolation: &Isolation, origin: &Origin) -> bool {
        self.inner.pool.holds(isolation, origin)
    }

    /// Silence allowed within a response body; zero for any.
    pub fn body_idle_timeout(&self) -> Duration {
        self.inner.settings.body_idle_timeout
    }

    /// Makes the connection `dialled` an HTTP connection to `origin` and pools it. True if it speaks HTTP/2.
    pub async fn adopt(
        &self,
        dialled: Dialled,
        isolation: &Isolation,
        origin: &Origin,
        offer: Offer,
    ) -> Result<bool, ProxyError> {
        let connection = self.handshake(dialled, origin, offer).await?;
        let http2 = matches!(connection.sender, Sender::Http2(_));
        self.inner.pool.put(isolation, origin, connection);
        Ok(http2)
    }

    /// True when the pool shares an HTTP/2 connection to `origin`.
    pub fn speaks_http2(&self, isolation: &Isolation, origin: &Origin) -> bool {
        self.inner.pool.speaks_http2(isolation, origin)
    }

    /// Sends `request`, whose target is absolute. With `Offer::Http1` it goes over HTTP/1.1.
    pub async fn send(
        &self,
        mut request: Request<Body>,
        isolation: &Isolation,
        origin: &Origin,
        offer: Offer,
    ) -> Result<Sent, ProxyError> {
        if let Some(connection) = self.inner.pool.take(isolation, origin, offer == Offer::Http2OrHttp1) {
            match self.send_over(connection, request, isolation, origin).await {
                Ok(sent) => return Ok(sent),
                // Never written, because the endpoint had given the idle connection up: a new one will do.
                Err((_, Some(unsent))) => {
                    self.inner.pool.forget_http2(isolation, origin);
                    request = unsent;
                }
                Err((error, None)) => return Err(error),
            }
        }
        let dialled = self.inner.dialler.dial(origin.dial_host.as_ref().unwrap_or(&origin.host), origin.port).await?;
        let connection = self.handshake(dialled, origin, offer).await?;
        self.send_over(connection, request, isolation, origin).await.map_err(|(error, _)| error)
    }

    async fn send_over(
        &self,
        connection: Connection,
        mut request: Request<Body>,
        isolation: &Isolation,
        origin: &Origin,
    ) -> Result<Sent, (ProxyError, Option<Request<Body>>)> {
        let Connection { mut sender, facts } = connection;
        let absolute = request.uri().clone();
        shape(&mut request, &sender, origin);
        let sending = async {
            match &mut sender {
                Sender::Http1(sender) => sender.try_send_request(request).await,
                Sender::Http2(sender) => sender.try_send_request(request).await,
            }
        };
        let limit = self.inner.settings.header_timeout;
        let shown = authority(&origin.host, origin.port);
        let response = match within(limit, sending).await {
            Some(Ok(response)) => response,
            Some(Err(failed)) => return Err(send_error(failed, &shown, absolute)),
            None => {
                let cause = format!("no response head within {} ms", limit.as_millis());
                return Err((ProxyError::new(ErrorKind::HttpResponseTimeout, shown, cause), None));
            }
        };
        let sent_facts = facts.clone();
        let was_reused = facts.reused;
        let connection = Connection { sender, facts: UpstreamFacts { reused: true, ..facts } };
        self.give_back(connection, was_reused, isolation, origin);
        Ok(Sent { response, facts: sent_facts })
    }

    /// An HTTP/1.1 connection goes back once its response is over; an HTTP/2 one is shared at once.
    fn give_back(&self, mut connection: Connection, was_reused: bool, isolation: &Isolation, origin: &Origin) {
        // Weak: a response nobody reads must not keep the pool alive after shutdown.
        let inner = Arc::downgrade(&self.inner);
        let (isolation, origin) = (Arc::clone(isolation), origin.clone());
        match &mut connection.sender {
            // A shared one is in the pool already, or was given up there meanwhile.
            Sender::Http2(_) if was_reused => {}
            Sender::Http2(_) => self.inner.pool.put(&isolation, &origin, connection),
            Sender::Http1(_) => {
                tokio::spawn(async move {
                    if let Sender::Http1(sender) = &mut connection.sender
                        && sender.ready().await.is_ok()
                        && let Some(inner) = inner.upgrade()
                    {
                        inner.pool.put(&isolation, &origin, connection);
                    }
                });
            }
        }
    }

    async fn handshake(&self, dialled: Dialled, origin: &Origin, offer: Offer) -> Result<Connection, ProxyError> {
        let shown = authority(&origin.host, origin.port);
        let mut facts =
            UpstreamFacts { peer: Some(dialled.peer), connect: Some(dialled.elapsed), ..Default::default() };
        if !origin.tls {
            let sender = http1_sender(TokioIo::new(dialled.stream), &shown).await?;
            return Ok(Connection { sender, facts });
        }
        let began = Instant::now();
        let limit = self.inner.settings.tls_timeout;
        let shaking = self.inner.tls.connect(dialled.stream, &origin.host, origin.port, offer);
        let (stream, tls) = match within(limit, shaking).await {
            Some(Ok(done)) => done,
            Some(Err(error)) => return Err(tls_error(&shown, &error)),
            None => {
                let cause = format!("no TLS handshake within {} ms", limit.as_millis());
                return Err(ProxyError::new(ErrorKind::ConnectionTimeout, shown, cause));
            }
        };
        facts.handshake = Some(began.elapsed());
        let http2 = tls.alpn.as_deref() == Some("h2");
        facts.tls = Some(tls);
        let io = TokioIo::new(stream);
        let sender = if http2 { http2_sender(io, &shown).await? } else { http1_sender(io, &shown).await? };
        Ok(Connection { sender, facts })
    }
}

async fn http1_sender<T: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static>(
    io: T,
    shown: &str,
) -> Result<Sender, ProxyError> {
    let (sender, connection) = http1::Builder::new()
        .preserve_header_case(true)
        .max_headers(MOST_HEADERS)
        .handshake(io)
        .await
        .map_err(|error| ProxyError::from_source(ErrorKind::HttpProtocolError, shown, &error))?;
    let connection = connection.with_upgrades();
    // Errors of the connection reach the request that suffers them.
    tokio::spawn(async move { drop(connection.await) });
    Ok(Sender::Http1(sender))
}

async fn http2_sender<T: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static>(
    io: T,
    shown: &str,
) -> Result<Sender, ProxyError> {
    let (sender, connection) = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_header_list_size(MOST_HEADER_BYTES)
        .keep_alive_interval(Some(PING_EVERY))
        .keep_alive_timeout(PING_TIMEOUT)
        .handshake(io)
        .await
        .map_err(|error| ProxyError::from_source(ErrorKind::HttpProtocolError, shown, &error))?;
    tokio::spawn(async move { drop(connection.await) });
    Ok(Sender::Http2(sender))
}

/// Target form and version, as the connection's protocol wants them: origin-form and `Host` in HTTP/1.1, the
/// pseudo-header fields in HTTP/2.
fn shape(request: &mut Request<Body>, sender: &Sender, origin: &Origin) {
    match sender {
        Sender::Http2(_) => {
            *request.version_mut() = Version::HTTP_2;
            request.headers_mut().remove(header::HOST);
        }
        Sender::Http1(_) => {
            *request.version_mut() = Version::HTTP_11;
            if !request.headers().contains_key(header::HOST)
                && let Some(host) = request.uri().authority().map(|authority| authority.as_str().to_owned())
                && let Ok(value) = host.parse()
            {
                request.headers_mut().insert(header::HOST, value);
            }
            let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
            // Copied as it stands: a signature may cover it.
            if let Ok(uri) = path.parse::<Uri>() {
                *request.uri_mut() = uri;
            }
        }
    }
    debug_assert!(!origin.host.starts_with('['));
}

fn send_error(
    mut failed: TrySendError<Request<Body>>,
    shown: &str,
    absolute: Uri,
) -> (ProxyError, Option<Request<Body>>) {
    let unsent = failed.take_message().map(|mut request| {
        *request.uri_mut() = absolute;
        request
    });
    let error = failed.into_error();
    let kind = if error.is_user() {
        // The request body failed: the agent went away while it was sending.
        ErrorKind::HttpRequestIncomplete
    } else if error.is_incomplete_message() || error.is_canceled() || is_reset(&error) {
        ErrorKind::ConnectionTerminated
    } else if error.is_timeout() {
        ErrorKind::HttpResponseTimeout
    } else {
        ErrorKind::HttpProtocolError
    };
    (ProxyError::from_source(kind, shown, &error), unsent)
}

/// True when the socket was reset or closed below HTTP.
pub fn is_reset(error: &hyper::Error) -> bool {
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        if let Some(io) = inner.downcast_ref::<std::io::Error>() {
            use std::io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
            return matches!(io.kind(), ConnectionReset | ConnectionAborted | BrokenPipe | UnexpectedEof);
        }
        source = inner.source();
    }
    false
}

fn tls_error(shown: &str, error: &std::io::Error) -> ProxyError {
    let kind = if is_certificate_error(error) {
        ErrorKind::TlsCertificateError
    } else if matches!(error.kind(), std::io::ErrorKind::ConnectionReset | std::io::ErrorKind::UnexpectedEof) {
        ErrorKind::ConnectionTerminated
    } else {
        ErrorKind::TlsProtocolError
    };
    ProxyError::from_source(kind, shown, error)
}

const SWEEP_EVERY: Duration = Duration::from_secs(15);
const PING_EVERY: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(20);
const MOST_HEADERS: usize = 512;
const MOST_HEADER_BYTES: u32 = 64 * 1024;
const WINDOW_BYTES: u32 = 2 * 1024 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 8 * 1024 * 1024;

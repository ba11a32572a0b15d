//! Sends one request to an endpoint over a pooled or new connection.
//!
//! A request that a reused connection never wrote is sent again on a new one; nothing that was written is ever sent
//! twice. It must not change a header: that is `forward`'s work.

use super::body::Body;
use super::dial::{Dialled, Dialler, Purpose, authority};
use super::extended;
use super::failure::{send_error, tls_error};
use super::handshake::{http1_sender, http2_sender};
use super::pool::{Connection, Http1Sender, Isolation, Lease, Origin, Pool, Sender};
use super::{UpstreamSettings, within};
use crate::error::{ErrorKind, ProxyError};
use crate::net::BoxedIo;
use crate::tls::{Offer, UpstreamTls};
use crate::trace::exchange::TlsFacts;
use http::{HeaderMap, HeaderValue, Method, Request, Response, Uri, Version, header};
use hyper::body::Incoming;
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
    /// To be held until the response's end.
    pub lease: Lease,
}

/// All ways to endpoints.
#[derive(Clone)]
pub struct Upstream {
    inner: Arc<Inner>,
}

struct Inner {
    settings: UpstreamSettings,
    dialler: Dialler,
    tls: Arc<UpstreamTls>,
    pool: Pool,
}

impl Upstream {
    /// By these settings; `variable` reads our environment. Must be called within a tokio runtime: it sweeps idle
    /// connections from time to time.
    pub fn new(
        settings: UpstreamSettings,
        tls: UpstreamTls,
        variable: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, String> {
        let tls = Arc::new(tls);
        let dialler = Dialler::new(&settings, Arc::clone(&tls), variable)?;
        let pool = Pool::new(settings.pool_idle_timeout, most_idle());
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

    /// Lets connections be kept for an agent's connection that has come.
    pub fn open(&self, isolation: &Isolation) {
        self.inner.pool.open(isolation);
    }

    /// Gives up the connections of one that will send nothing more.
    pub fn forget(&self, isolation: &Isolation) {
        self.inner.pool.forget(isolation);
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
        drop(self.inner.pool.put(isolation, origin, connection));
        Ok(http2)
    }

    /// True when the pool shares an HTTP/2 connection to `origin`.
    pub fn speaks_http2(&self, isolation: &Isolation, origin: &Origin) -> bool {
        self.inner.pool.speaks_http2(isolation, origin)
    }

    /// Sends `request`, whose target is absolute, over what `offer` allows. An extended CONNECT (RFC 8441) becomes an
    /// HTTP/1.1 upgrade for an endpoint that doesn't take it; its 101 comes back as it is.
    pub async fn send(
        &self,
        mut request: Request<Body>,
        isolation: &Isolation,
        origin: &Origin,
        mut offer: Offer,
    ) -> Result<Sent, ProxyError> {
        let mut key = None;
        if extended::is_extended(&request) && !self.takes_extended(isolation, origin, offer).await? {
            key = Some(extended::into_upgrade(&mut request)?);
            offer = Offer::Http1;
        }
        let sent = self.send_anyhow(request, isolation, origin, offer).await?;
        if let Some(key) = key {
            extended::check_accept(&sent.response, &key, &authority(&origin.host, origin.port))?;
        }
        Ok(sent)
    }

    async fn send_anyhow(
        &self,
        mut request: Request<Body>,
        isolation: &Isolation,
        origin: &Origin,
        offer: Offer,
    ) -> Result<Sent, ProxyError> {
        if let Some((connection, lease)) = self.inner.pool.take(isolation, origin, offer) {
            match self.send_over(connection, lease, request, isolation, origin).await {
                Ok(sent) => return Ok(sent),
                // Never written, because the endpoint had given the idle connection up: a new one will do.
                Err((_, Some(unsent))) => {
                    self.inner.pool.forget_http2(isolation, origin);
                    request = unsent;
                }
                Err((error, None)) => return Err(error),
            }
        }
        let connection = self.connect(origin, offer).await?;
        let (connection, lease) = self.share(connection, isolation, origin);
        self.send_over(connection, lease, request, isolation, origin).await.map_err(|(error, _)| error)
    }

    async fn connect(&self, origin: &Origin, offer: Offer) -> Result<Connection, ProxyError> {
        let purpose = if origin.tls || offer == Offer::Http2 { Purpose::Stream } else { Purpose::PlainHttp };
        let host = origin.dial_host.as_ref().unwrap_or(&origin.host);
        let dialled = self.inner.dialler.dial(host, origin.port, purpose).await?;
        self.handshake(dialled, origin, offer).await
    }

    /// An HTTP/2 connection is others' too from its beginning.
    fn share(&self, connection: Connection, isolation: &Isolation, origin: &Origin) -> (Connection, Lease) {
        let Sender::Http2(sender) = &connection.sender else { return (connection, Lease::default()) };
        let copy = Connection { sender: Sender::Http2(sender.clone()), facts: connection.facts.clone() };
        let lease = self.inner.pool.put(isolation, origin, connection);
        (copy, lease)
    }

    /// True when an HTTP/2 connection to `origin` is there and takes extended CONNECTs.
    async fn takes_extended(&self, isolation: &Isolation, origin: &Origin, offer: Offer) -> Result<bool, ProxyError> {
        let (connection, _lease) = match self.inner.pool.take(isolation, origin, offer) {
            Some(taken) => taken,
            None => self.share(self.connect(origin, offer).await?, isolation, origin),
        };
        Ok(match &connection.sender {
            Sender::Http2(sender) => extended::is_enabled(sender).await,
            Sender::Http1(_) => {
                drop(self.inner.pool.put(isolation, origin, connection));
                false
            }
        })
    }

    async fn send_over(
        &self,
        connection: Connection,
        lease: Lease,
        mut request: Request<Body>,
        isolation: &Isolation,
        origin: &Origin,
    ) -> Result<Sent, (ProxyError, Option<Request<Body>>)> {
        let Connection { mut sender, facts } = connection;
        let absolute = request.uri().clone();
        shape(&mut request, &sender);
        let reusable = !request.headers().contains_key(header::UPGRADE);
        let sending = async {
            match &mut sender {
                Sender::Http1(sender) => {
                    sender.guard.expect(request.method() == Method::HEAD);
                    sender.requests.try_send_request(request).await
                }
                Sender::Http2(sender) => sender.requests.try_send_request(request).await,
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
        // What comes after an upgrade that was refused can't be told from what belongs to it.
        if let (true, Sender::Http1(sender)) = (reusable, sender) {
            self.give_back(sender, UpstreamFacts { reused: true, ..facts }, isolation, origin);
        }
        Ok(Sent { response, facts: sent_facts, lease })
    }

    /// An HTTP/1.1 connection goes back once its response is over.
    fn give_back(&self, mut sender: Http1Sender, facts: UpstreamFacts, isolation: &Isolation, origin: &Origin) {
        // Weak: a response nobody reads must not keep the pool alive after shutdown.
        let inner = Arc::downgrade(&self.inner);
        let (isolation, origin) = (isolation.clone(), origin.clone());
        tokio::spawn(async move {
            if sender.requests.ready().await.is_ok()
                && let Some(inner) = inner.upgrade()
            {
                drop(inner.pool.put(&isolation, &origin, Connection { sender: Sender::Http1(sender), facts }));
            }
        });
    }

    async fn handshake(&self, dialled: Dialled, origin: &Origin, offer: Offer) -> Result<Connection, ProxyError> {
        let shown = authority(&origin.host, origin.port);
        let mut facts =
            UpstreamFacts { peer: Some(dialled.peer), connect: Some(dialled.elapsed), ..Default::default() };
        if !origin.tls {
            let sender = match offer {
                Offer::Http2 => http2_sender(dialled.stream, &shown).await?,
                _ => http1_sender(dialled.stream, dialled.forward_proxy, &shown).await?,
            };
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
        let stream: BoxedIo = Box::new(stream);
        let sender =
            if http2 { http2_sender(stream, &shown).await? } else { http1_sender(stream, None, &shown).await? };
        Ok(Connection { sender, facts })
    }
}

/// Target form and version, as the connection's protocol wants them: origin-form and `Host` in HTTP/1.1 (toward an
/// upstream proxy the whole target), the pseudo-header fields in HTTP/2.
fn shape(request: &mut Request<Body>, sender: &Sender) {
    let Sender::Http1(sender) = sender else {
        *request.version_mut() = Version::HTTP_2;
        request.headers_mut().remove(header::HOST);
        return;
    };
    if request.version() == Version::HTTP_2 {
        join_cookies(request.headers_mut());
    }
    *request.version_mut() = Version::HTTP_11;
    if !request.headers().contains_key(header::HOST)
        && let Some(host) = request.uri().authority().map(|authority| authority.as_str().to_owned())
        && let Ok(value) = host.parse()
    {
        request.headers_mut().insert(header::HOST, value);
    }
    if let Some(proxy) = &sender.forward_proxy {
        if let Some(authorization) = &proxy.authorization {
            request.headers_mut().insert(header::PROXY_AUTHORIZATION, authorization.clone());
        }
        return;
    }
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    // Copied as it stands: a signature may cover it.
    if let Ok(uri) = path.parse::<Uri>() {
        *request.uri_mut() = uri;
    }
}

/// HTTP/2 splits the cookies, HTTP/1.1 has one field of them (RFC 9113 §8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let pieces: Vec<&[u8]> = headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if pieces.len() > 1
        && let Ok(joined) = HeaderValue::from_bytes(&pieces.join(&b"; "[..]))
    {
        headers.insert(header::COOKIE, joined);
    }
}

/// Idle HTTP/1.1 connections kept in all: enough for a door's worth of agents, and a quarter of our descriptors at most.
fn most_idle() -> usize {
    let descriptors = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX);
    usize::try_from(descriptors / 4).unwrap_or(usize::MAX).clamp(8, MAX_IDLE)
}

const MAX_IDLE: usize = 4096;
const SWEEP_EVERY: Duration = Duration::from_secs(5);

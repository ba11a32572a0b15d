//! Sends one request to an endpoint over a pooled or new connection.
//!
//! A request that a reused connection never wrote is sent again on a new connection, and so is one that its endpoint says,
//! over HTTP/2, not to have processed. Nothing else is ever sent twice. It must not change header fields beyond what the connection's protocol demands: that is `forward`'s work.

use super::adapt::{adapt_to_protocol, restore_target};
use super::body::Body;
use super::connection::{Connection, EndpointStream, Http1Sender, Lease, Sender, UpstreamFacts};
use super::dial::{DialPurpose, Dialled, Dialler, UpstreamError};
use super::extended;
use super::failure::{Again, SendFailure, send_error, tls_error};
use super::handshake::{http1_sender, http2_sender};
use super::origin::{Origin, PoolKey, authority};
use super::pool::Pool;
use super::resend::Resendable;
use super::settings::UpstreamSettings;
use crate::error::{ErrorKind, ProxyError};
use crate::net::http_server::HttpVersion;
use crate::net::received_body::ReceivedBody;
use crate::net::task::spawn;
use crate::net::trailers::{TrailerBody, TrailerRoute, is_chunked};
use crate::net::within;
use crate::tls::{Offer, UpstreamTls};
use crate::util::block_list::BlockList;
use http::{Request, Response, header};
use http_body_util::BodyExt;
use hyper::body::Body as _;
use hyper::ext::ReasonPhrase;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A response and its connection.
pub(crate) struct Sent {
    /// The response; its body is not read yet.
    pub response: Response<ReceivedBody>,
    /// The connection that the response comes over.
    pub facts: UpstreamFacts,
    /// Must be held until the response has ended.
    pub lease: Lease,
}

/// Sends requests to endpoints. Clones share one connection pool.
#[derive(Clone)]
pub(crate) struct Upstream {
    inner: Arc<UpstreamState>,
}

struct UpstreamState {
    settings: UpstreamSettings,
    dialler: Dialler,
    /// For the gateway's calls to backends, which `proxy.block` does not concern.
    backend_dialler: Dialler,
    tls: Arc<UpstreamTls>,
    pool: Pool,
}

impl Upstream {
    /// Uses these settings, and rejects agents' connections to addresses on the list `block`; `variable` reads the
    /// environment. Must be called within a tokio runtime, on which a task
    /// removes idle connections until the last clone is dropped.
    pub(crate) fn new(
        settings: UpstreamSettings,
        tls: UpstreamTls,
        block: BlockList,
        variable: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, UpstreamError> {
        let tls = Arc::new(tls);
        let dialler = Dialler::new(&settings, Arc::clone(&tls), block, variable)?;
        let backend_dialler = dialler.without_block_list();
        Ok(Self::with_state(settings, dialler, backend_dialler, tls))
    }

    /// The same settings with other certificates, and connections of its own. Both know the same listeners of this process.
    pub(crate) fn with_tls(&self, tls: UpstreamTls) -> Self {
        let (inner, tls) = (&self.inner, Arc::new(tls));
        let diallers = [&inner.dialler, &inner.backend_dialler].map(|dialler| dialler.with_tls(Arc::clone(&tls)));
        let [dialler, backend_dialler] = diallers;
        Self::with_state(inner.settings.clone(), dialler, backend_dialler, tls)
    }

    fn with_state(
        settings: UpstreamSettings,
        dialler: Dialler,
        backend_dialler: Dialler,
        tls: Arc<UpstreamTls>,
    ) -> Self {
        let pool = Pool::new(settings.pool_idle_timeout, max_idle());
        let inner = Arc::new(UpstreamState { settings, dialler, backend_dialler, tls, pool });
        let weak = Arc::downgrade(&inner);
        drop(spawn(async move {
            loop {
                tokio::time::sleep(SWEEP_INTERVAL).await;
                let Some(inner) = weak.upgrade() else { return };
                inner.pool.sweep();
            }
        }));
        Self { inner }
    }

    /// The dialler, for streams that are not HTTP.
    pub(crate) fn dialler(&self) -> &Dialler {
        &self.inner.dialler
    }

    /// True when a request to `origin` would find a pooled connection.
    pub(crate) fn has_connection(&self, key: &PoolKey, origin: &Origin) -> bool {
        self.inner.pool.has_connection(key, origin)
    }

    /// Opens the pool of a client connection ([`PoolKey::PerConnection`]).
    pub(crate) fn open_pool(&self, key: &PoolKey) {
        self.inner.pool.open(key);
    }

    /// Closes the pool of a client connection that is closed.
    pub(crate) fn close_pool(&self, key: &PoolKey) {
        self.inner.pool.close(key);
    }

    /// The longest silence within a response body; zero means no limit.
    pub(crate) fn body_idle_timeout(&self) -> Duration {
        self.inner.settings.body_idle_timeout
    }

    /// Starts TLS on a dialled connection if `origin` has it.
    pub(crate) async fn secure(
        &self,
        dialled: Dialled,
        origin: &Origin,
        offer: Offer,
    ) -> Result<EndpointStream, ProxyError> {
        let mut facts =
            UpstreamFacts { peer: Some(dialled.peer), connect: Some(dialled.elapsed), ..Default::default() };
        if !origin.tls {
            let http2 = offer == Offer::Http2;
            return Ok(EndpointStream { io: dialled.stream, facts, http2, forward_proxy: dialled.forward_proxy });
        }
        let endpoint = authority(&origin.host, origin.port);
        let began = Instant::now();
        let limit = self.inner.settings.tls_timeout;
        let handshake = self.inner.tls.connect(dialled.stream, &origin.host, origin.port, offer);
        let (stream, tls) = match within(limit, handshake).await {
            Some(Ok(done)) => done,
            Some(Err(error)) => return Err(tls_error(&endpoint, &error)),
            None => {
                let cause = format!("no TLS handshake within {} ms (upstream.tls_timeout_ms)", limit.as_millis());
                return Err(ProxyError::new(ErrorKind::ConnectionTimeout, endpoint, cause));
            }
        };
        facts.handshake = Some(began.elapsed());
        let http2 = tls.alpn.as_deref() == Some("h2");
        facts.tls = Some(tls);
        Ok(EndpointStream { io: Box::new(stream), facts, http2, forward_proxy: None })
    }

    /// Starts HTTP on a stream, adds it to the pool, and returns its version.
    pub(crate) async fn adopt(
        &self,
        stream: EndpointStream,
        key: &PoolKey,
        origin: &Origin,
    ) -> Result<HttpVersion, ProxyError> {
        let mut connection = start_http(stream, origin).await?;
        let version = match &mut connection.sender {
            Sender::Http1(sender) => {
                // The pool keeps what is ready for a request, which a connection is once its task has run.
                drop(sender.requests.ready().await);
                HttpVersion::Http1
            }
            Sender::Http2(_) => HttpVersion::Http2,
        };
        drop(self.inner.pool.put(key, origin, connection));
        Ok(version)
    }

    /// True when the pool has a live HTTP/2 connection to `origin`.
    pub(crate) fn has_http2_connection(&self, key: &PoolKey, origin: &Origin) -> bool {
        self.inner.pool.has_http2_connection(key, origin)
    }

    /// Sends `request`, which has an absolute target, over a protocol that `offer` allows. For an endpoint without support
    /// an extended CONNECT (RFC 8441) becomes an HTTP/1.1 upgrade; its 101 response is returned unchanged.
    pub(crate) async fn send(
        &self,
        mut request: Request<Body>,
        key: &PoolKey,
        origin: &Origin,
        mut offer: Offer,
    ) -> Result<Sent, ProxyError> {
        let mut websocket_key = None;
        // In boxes: the future of a request is moved, and most requests need none of this.
        if extended::is_extended(&request) && !Box::pin(self.supports_extended_connect(key, origin, offer)).await? {
            websocket_key = Some(extended::into_upgrade(&mut request)?);
            offer = Offer::Http1;
        }
        let sent = self.send_pooled(with_trailers(request), key, origin, offer).await?;
        if let Some(websocket_key) = websocket_key {
            extended::check_accept(&sent.response, &websocket_key, &authority(&origin.host, origin.port))?;
        }
        Ok(sent)
    }

    async fn send_pooled(
        &self,
        mut request: Request<Body>,
        key: &PoolKey,
        origin: &Origin,
        offer: Offer,
    ) -> Result<Sent, ProxyError> {
        let mut pooled = self.inner.pool.take(key, origin, offer);
        let mut resends = 0;
        loop {
            let was_pooled = pooled.is_some();
            let (connection, lease) = match pooled.take() {
                Some(taken) => taken,
                None => self.share(Box::pin(self.connect(key, origin, offer)).await?, key, origin),
            };
            match self.send_over(connection, lease, request, key, origin).await {
                Ok(sent) => return Ok(sent),
                // The endpoint had closed the idle connection before the request was written, or did not process it.
                Err(SendFailure { again: Again::Unprocessed(unsent), .. }) if resends < MAX_RESENDS => request = unsent,
                Err(SendFailure { again: Again::Unwritten(unsent), .. }) if was_pooled => request = unsent,
                Err(SendFailure { error, .. }) => return Err(error),
            }
            self.inner.pool.remove_http2(key, origin);
            resends += 1;
        }
    }

    async fn connect(&self, key: &PoolKey, origin: &Origin, offer: Offer) -> Result<Connection, ProxyError> {
        let purpose = if origin.tls || offer == Offer::Http2 { DialPurpose::Stream } else { DialPurpose::PlainHttp };
        let host = origin.dial_host.as_ref().unwrap_or(&origin.host);
        let dialler = match key {
            PoolKey::Gateway => &self.inner.backend_dialler,
            PoolKey::Rollout(_) | PoolKey::PerConnection(_) => &self.inner.dialler,
        };
        let dialled = dialler.dial(host, origin.port, purpose).await?;
        start_http(self.secure(dialled, origin, offer).await?, origin).await
    }

    /// Adds a new HTTP/2 connection to the pool at once, so that other requests can share it.
    fn share(&self, connection: Connection, key: &PoolKey, origin: &Origin) -> (Connection, Lease) {
        let Sender::Http2(sender) = &connection.sender else { return (connection, Lease::default()) };
        let copy = Connection { sender: Sender::Http2(sender.clone()), facts: connection.facts.clone() };
        let lease = self.inner.pool.put(key, origin, connection);
        (copy, lease)
    }

    /// True when an HTTP/2 connection to `origin` exists, or can be made, and supports extended CONNECT.
    async fn supports_extended_connect(
        &self,
        key: &PoolKey,
        origin: &Origin,
        offer: Offer,
    ) -> Result<bool, ProxyError> {
        let (connection, _lease) = match self.inner.pool.take(key, origin, offer) {
            Some(taken) => taken,
            None => self.share(Box::pin(self.connect(key, origin, offer)).await?, key, origin),
        };
        Ok(match &connection.sender {
            Sender::Http2(sender) => extended::is_supported(sender).await,
            Sender::Http1(_) => {
                drop(self.inner.pool.put(key, origin, connection));
                false
            }
        })
    }

    async fn send_over(
        &self,
        connection: Connection,
        mut lease: Lease,
        mut request: Request<Body>,
        key: &PoolKey,
        origin: &Origin,
    ) -> Result<Sent, SendFailure> {
        let Connection { mut sender, facts } = connection;
        let absolute = request.uri().clone();
        adapt_to_protocol(&mut request, &sender);
        let reusable = !request.headers().contains_key(header::UPGRADE);
        if let Some(route) = request.extensions().get::<TrailerRoute>() {
            route.set(if let Sender::Http1(sender) = &sender { Some(sender.trailers.clone()) } else { None });
        }
        // Head and progress of a request over HTTP/2, which its endpoint may leave unprocessed.
        let mut begun = None;
        let sending = async {
            match &mut sender {
                Sender::Http1(sender) => {
                    sender.guard.expect_response_to(request.method());
                    restore_target(&request, &sender.targets);
                    sender.requests.try_send_request(request).await
                }
                Sender::Http2(sender) => {
                    let (parts, body) = request.into_parts();
                    let body = Resendable::new(body);
                    begun = Some((parts.clone(), body.progress()));
                    sender.requests.try_send_request(Request::from_parts(parts, body.boxed_unsync())).await
                }
            }
        };
        let limit = self.inner.settings.header_timeout;
        let endpoint = authority(&origin.host, origin.port);
        let mut response = match within(limit, sending).await {
            Some(Ok(response)) => response,
            Some(Err(failed)) => return Err(send_error(failed, begun, &endpoint, absolute)),
            None => {
                let cause = format!("no response head within {} ms (upstream.header_timeout_ms)", limit.as_millis());
                let error = ProxyError::new(ErrorKind::HttpResponseTimeout, endpoint, cause);
                return Err(SendFailure { error, again: Again::No });
            }
        };
        lease.request = begun.map(|(_, progress)| progress);
        if let Some(progress) = &lease.request {
            progress.forget();
        }
        if let Sender::Http1(sender) = &sender
            && let Some(reason) = sender.guard.take_reason().and_then(|reason| ReasonPhrase::try_from(reason).ok())
        {
            response.extensions_mut().insert(reason);
        }
        let mut sent_facts = facts.clone();
        if let Sender::Http1(sender) = &sender {
            sent_facts.cut = sender.guard.cut();
        }
        // After a refused upgrade, late bytes of the other protocol can't be told from the next response.
        if let (true, Sender::Http1(sender)) = (reusable, sender) {
            self.return_when_done(sender, UpstreamFacts { reused: true, ..facts }, key, origin);
        }
        let version = response.version();
        Ok(Sent { response: response.map(|body| ReceivedBody::new(body, version)), facts: sent_facts, lease })
    }

    /// Returns an HTTP/1.1 connection to the pool when its response has ended.
    fn return_when_done(&self, mut sender: Http1Sender, facts: UpstreamFacts, key: &PoolKey, origin: &Origin) {
        // Weak: a response that is never read must not keep the pool alive after shutdown.
        let inner = Arc::downgrade(&self.inner);
        let (key, origin) = (key.clone(), origin.clone());
        drop(spawn(async move {
            if sender.requests.ready().await.is_ok()
                && let Some(inner) = inner.upgrade()
            {
                drop(inner.pool.put(&key, &origin, Connection { sender: Sender::Http1(sender), facts }));
            }
        }));
    }
}

/// The request with a body that writes its trailers in the form of its connection: HTTP/1 or HTTP/2.
fn with_trailers(request: Request<Body>) -> Request<Body> {
    if request.body().is_end_stream() || !is_chunked(request.headers(), request.body()) {
        return request;
    }
    let route = TrailerRoute::default();
    let mut request = request.map(|body| TrailerBody::new(body, route.clone()).boxed_unsync());
    request.extensions_mut().insert(route);
    request
}

/// Starts HTTP on a stream.
async fn start_http(stream: EndpointStream, origin: &Origin) -> Result<Connection, ProxyError> {
    let EndpointStream { io, facts, http2, forward_proxy } = stream;
    let endpoint = authority(&origin.host, origin.port);
    let sender = match http2 {
        true => http2_sender(io, &endpoint).await?,
        false => http1_sender(io, forward_proxy, &endpoint).await?,
    };
    Ok(Connection { sender, facts })
}

/// The maximum number of idle HTTP/1.1 connections: at most a quarter of this process's descriptors.
fn max_idle() -> usize {
    let descriptors = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX);
    usize::try_from(descriptors / 4).unwrap_or(usize::MAX).clamp(8, MAX_IDLE)
}

/// How often a request is sent again after an endpoint has refused it unprocessed.
const MAX_RESENDS: u32 = 2;
const MAX_IDLE: usize = 4096;
const SWEEP_INTERVAL: Duration = Duration::from_secs(5);

//! Relays requests to this process's own API listeners that arrive at the proxy. They are not recorded.
//!
//! `NO_PROXY` can't exclude one port of a host: curl and Python's requests compare hosts only, and an entry for the whole
//! loopback host would hide an agent's model server. So a client with Tracewire's variables sends its API requests through
//! the proxy. They are relayed if the client is on this machine: the API listener sees every relayed request come from here,
//! so relaying those of other clients would let them past a network's isolation. The dialler rejects all others as a loop.
//! They are not exchanges of an agent: the gateway records the calls that it answers.

use super::state::Proxy;
use crate::error::{ErrorKind, ProxyError};
use crate::forward::{ConnectionContext, reply, rewrite};
use crate::net::BoxedIo;
use crate::net::received_body::ReceivedBody;
use crate::net::task::spawn;
use crate::upstream::{Body, authority, body};
use http::{Request, Response, Uri, Version};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use tokio::io::copy_bidirectional;
use tokio::net::TcpStream;

impl Proxy {
    /// Relays requests of clients on this machine to the API listeners at `api`. Without this, every request to them is
    /// rejected as a loop.
    #[must_use]
    pub(crate) fn relaying_to(self, api: impl IntoIterator<Item = SocketAddr>) -> Self {
        Self { api: api.into_iter().collect(), ..self }
    }

    /// Returns the address to dial if `host:port` leads to an API listener and `client` is on this machine.
    pub(super) async fn api_listener_for(&self, client: SocketAddr, host: &str, port: u16) -> Option<SocketAddr> {
        let api = self.api.iter().find(|api| api.port() == port)?;
        let leads_there = client.ip().to_canonical().is_loopback()
            && self.blocked(host, port).is_none()
            && self.inner.forwarder.upstream().dialler().leads_to(host, port, *api).await;
        leads_there.then(|| SocketAddr::new(local(api.ip()), port))
    }
}

/// Answers a CONNECT to the API listener, and relays its tunnel in a task of its own.
pub(super) async fn connect(
    connection: &ConnectionContext,
    api: SocketAddr,
    mut request: Request<Incoming>,
) -> Response<Body> {
    let stream = match dial(api).await {
        Ok(stream) => stream,
        Err(error) => return reply::error(&error),
    };
    let (connection, upgrade) = (connection.clone(), hyper::upgrade::on(&mut request));
    drop(spawn(async move {
        if let Ok(upgraded) = upgrade.await {
            tunnel(&connection, Box::new(TokioIo::new(upgraded)), stream).await;
        }
    }));
    Response::new(body::empty())
}

/// Relays bytes to the API listener and back until both sides have closed, or the drain ends.
pub(super) async fn tunnel(connection: &ConnectionContext, mut io: BoxedIo, mut api: TcpStream) {
    let relaying = async move {
        if let Err(error) = copy_bidirectional(&mut io, &mut api).await {
            tracing::debug!(%error, "a tunnel to the API listener broke off");
        }
    };
    connection.guard.clone().run(relaying).await;
}

/// Connects to the API listener.
pub(super) async fn dial(api: SocketAddr) -> Result<TcpStream, ProxyError> {
    let connected = TcpStream::connect(api).await.and_then(|stream| stream.set_nodelay(true).map(|()| stream));
    connected.map_err(|error| {
        ProxyError::from_source(ErrorKind::ConnectionRefused, authority(&api.ip().to_string(), api.port()), &error)
    })
}

/// Sends one request to the API listener at `api` and returns its response.
pub(super) async fn relay(api: SocketAddr, mut request: Request<Incoming>) -> Result<Response<Body>, ProxyError> {
    let failed = |error: hyper::Error| {
        ProxyError::from_source(ErrorKind::HttpProtocolError, authority(&api.ip().to_string(), api.port()), &error)
    };
    let (mut sender, connection) = http1::handshake(TokioIo::new(dial(api).await?)).await.map_err(failed)?;
    // The connection ends with the response.
    drop(spawn(connection));
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    *request.uri_mut() = path.parse().unwrap_or_else(|_| Uri::from_static("/"));
    let version = std::mem::replace(request.version_mut(), Version::HTTP_11);
    rewrite::request_to_api(request.headers_mut());
    let request = request.map(|body| ReceivedBody::new(body, version));
    let mut response = sender.send_request(request).await.map_err(failed)?;
    rewrite::response(response.headers_mut(), rewrite::UpgradeFields::Remove);
    *response.version_mut() = version;
    Ok(response.map(|body| body::boxed(ReceivedBody::new(body, Version::HTTP_11))))
}

/// The address under which this machine reaches a listener on `address`.
fn local(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(address) if address.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(address) if address.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        address => address,
    }
}

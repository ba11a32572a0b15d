//! A byte stream to an endpoint: address overrides, the upstream proxy, name resolution, and a race of all addresses.
//!
//! The addresses that were checked are the ones dialled; nothing is resolved twice. Connections to our own listeners are
//! rejected, and connections to addresses on the block list. Behind an upstream proxy, which resolves the names, only
//! names are compared.

use super::connect_to::ConnectTo;
use super::origin::authority;
use super::proxies::{Proxies, ProxyKind};
use super::proxy_url::ProxyUrl;
use super::race::{connect_first, interleave_families};
use super::settings::UpstreamSettings;
use crate::error::{ErrorKind, ProxyError};
use crate::net::socket::tune;
use crate::net::{BoxedIo, within};
use crate::tls::{Offer, UpstreamTls};
use crate::util::block_list::BlockList;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};
use tokio::net::TcpStream;

/// Connects to endpoints: resolves their names, and uses upstream proxies. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Dialler {
    connect_timeout: Duration,
    connect_to: Arc<[ConnectTo]>,
    proxies: Arc<Proxies>,
    tls: Arc<UpstreamTls>,
    own_listeners: Arc<RwLock<Vec<SocketAddr>>>,
    block: Arc<BlockList>,
}

/// A connection to an endpoint, before TLS with it.
pub(crate) struct Dialled {
    /// A socket, or a tunnel through an upstream proxy.
    pub stream: BoxedIo,
    /// The address dialled: the endpoint's, or the upstream proxy's.
    pub peer: SocketAddr,
    /// The duration of name resolution, TCP, and the upstream proxy's tunnel.
    pub elapsed: Duration,
    /// The upstream proxy at the other end of the stream, if it forwards requests. It needs them in absolute form.
    pub forward_proxy: Option<ProxyUrl>,
}

/// What a stream to an endpoint will carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DialPurpose {
    /// Any bytes, TLS or not. An upstream proxy is asked for a tunnel.
    Stream,
    /// Plain HTTP requests from this program. An upstream proxy gets the requests themselves.
    PlainHttp,
}

/// A setting that the dialler can't use.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UpstreamError {
    /// An entry of `upstream.connect_to`.
    #[error(transparent)]
    ConnectTo(#[from] super::connect_to::InvalidConnectTo),
    /// A proxy variable of the environment.
    #[error(transparent)]
    Proxy(#[from] super::proxies::InvalidProxyVariable),
}

impl Dialler {
    /// A dialler with these settings that rejects addresses on the list `block`; `variable` reads the environment.
    pub(crate) fn new(
        settings: &UpstreamSettings,
        tls: Arc<UpstreamTls>,
        block: BlockList,
        variable: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, UpstreamError> {
        let connect_to = settings.connect_to.iter().map(|text| text.parse()).collect::<Result<Vec<_>, _>>()?;
        let proxies = Proxies::new(&settings.proxy, &settings.no_proxy, variable)?;
        Ok(Self {
            connect_timeout: settings.connect_timeout,
            connect_to: connect_to.into(),
            proxies: Arc::new(proxies),
            tls,
            own_listeners: Arc::default(),
            block: Arc::new(block),
        })
    }

    /// A dialler without the block list, for endpoints that the operator names. It knows the same listeners as this one.
    pub(super) fn without_block_list(&self) -> Self {
        Self { block: Arc::default(), ..self.clone() }
    }

    /// A dialler that verifies with `tls`. It knows the same listeners as this one.
    pub(super) fn with_tls(&self, tls: Arc<UpstreamTls>) -> Self {
        Self { tls, ..self.clone() }
    }

    /// Rejects connections to `listener`, a listener of this process, from now on.
    pub(crate) fn add_own_listener(&self, listener: SocketAddr) {
        self.own_listeners.write().unwrap_or_else(PoisonError::into_inner).push(listener);
    }

    /// Connects to `host:port`; `host` has no brackets.
    pub(crate) async fn dial(&self, host: &str, port: u16, purpose: DialPurpose) -> Result<Dialled, ProxyError> {
        let began = Instant::now();
        let endpoint = authority(host, port);
        match within(self.connect_timeout, self.dial_route(host, port, purpose, &endpoint)).await {
            Some(dialled) => dialled.map(|dialled| Dialled { elapsed: began.elapsed(), ..dialled }),
            None => {
                let cause = format!(
                    "no connection within {} ms (upstream.connect_timeout_ms)",
                    self.connect_timeout.as_millis()
                );
                Err(ProxyError::new(ErrorKind::ConnectionTimeout, endpoint, cause))
            }
        }
    }

    async fn dial_route(
        &self,
        host: &str,
        port: u16,
        purpose: DialPurpose,
        endpoint: &str,
    ) -> Result<Dialled, ProxyError> {
        let (host, port) = self.overridden(host, port);
        let direct = |stream: TcpStream, peer| Dialled {
            stream: Box::new(stream),
            peer,
            elapsed: Duration::ZERO,
            forward_proxy: None,
        };
        let kind = match purpose {
            DialPurpose::Stream => ProxyKind::Https,
            DialPurpose::PlainHttp => ProxyKind::Http,
        };
        let Some(proxy) = self.proxies.route(kind, host, port) else {
            let addresses = resolve(host, port, endpoint).await?;
            if let Some(blocked) = addresses.iter().find(|address| self.block.has_address(**address)) {
                let cause = format!("the host resolves to {}, which is on the block list", blocked.ip());
                return Err(ProxyError::new(ErrorKind::HttpRequestDenied, endpoint, cause));
            }
            let (stream, peer) = self.connect(addresses, endpoint).await?;
            return Ok(direct(stream, peer));
        };
        let via = format!("{endpoint} through the upstream proxy {proxy}");
        let (stream, peer) = self.connect(resolve(&proxy.host, proxy.port, &via).await?, &via).await?;
        let mut dialled = direct(stream, peer);
        if proxy.tls {
            let handshake = self.tls.connect(dialled.stream, &proxy.host, proxy.port, Offer::Http1).await;
            let (stream, _) = handshake.map_err(|error| {
                let cause = format!("TLS with the upstream proxy {proxy}: {error}");
                ProxyError::new(ErrorKind::DestinationUnavailable, endpoint, cause)
            })?;
            dialled.stream = Box::new(stream);
        }
        match purpose {
            DialPurpose::Stream => dialled.stream = proxy.open_tunnel(dialled.stream, host, port).await?,
            DialPurpose::PlainHttp => dialled.forward_proxy = Some(proxy.clone()),
        }
        Ok(dialled)
    }

    /// Connects to the first of the addresses that answers. Errors are about `endpoint`.
    async fn connect(&self, addresses: Vec<SocketAddr>, endpoint: &str) -> Result<(TcpStream, SocketAddr), ProxyError> {
        if addresses.iter().any(|address| self.is_own_listener(*address)) {
            let cause = "the address belongs to a listener of this process";
            return Err(ProxyError::new(ErrorKind::ProxyLoopDetected, endpoint, cause));
        }
        let connected = connect_first(interleave_families(addresses), |address| async move {
            let stream = TcpStream::connect(address).await?;
            tune(&stream);
            Ok(stream)
        });
        connected.await.map_err(|error| dial_error(endpoint, &error))
    }

    fn is_own_listener(&self, target: SocketAddr) -> bool {
        let listeners = self.own_listeners.read().unwrap_or_else(PoisonError::into_inner);
        listeners.iter().any(|listener| reaches(*listener, target))
    }

    /// True when a connection to `host:port` would reach `listener`, which is on this machine, and is not blocked.
    pub(crate) async fn leads_to(&self, host: &str, port: u16, listener: SocketAddr) -> bool {
        let (host, port) = self.overridden(host, port);
        let found = within(self.connect_timeout, tokio::net::lookup_host((host, port))).await;
        let found: Vec<SocketAddr> = found.and_then(Result::ok).into_iter().flatten().collect();
        let is_blocked = || found.iter().any(|target| self.block.has_address(*target));
        found.iter().any(|target| reaches(listener, *target)) && !is_blocked()
    }

    /// The host and port to dial instead, by `upstream.connect_to`.
    fn overridden<'a>(&'a self, host: &'a str, port: u16) -> (&'a str, u16) {
        self.connect_to.iter().find_map(|rule| rule.apply(host, port)).unwrap_or((host, port))
    }
}

/// The addresses of a host: one or more. Errors are about `endpoint`.
async fn resolve(host: &str, port: u16, endpoint: &str) -> Result<Vec<SocketAddr>, ProxyError> {
    let addresses: Vec<SocketAddr> = match tokio::net::lookup_host((host, port)).await {
        Ok(found) => found.collect(),
        Err(error) => return Err(ProxyError::from_source(ErrorKind::DnsError, endpoint, &error)),
    };
    if addresses.is_empty() {
        return Err(ProxyError::new(ErrorKind::DnsError, endpoint, "the name has no address"));
    }
    Ok(addresses)
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// True when a connection to `target` reaches `listener`, which is on this machine. Every alias counts: another loopback
/// address, an IPv4-mapped address, `0.0.0.0`, or any address of this machine when the listener is bound to all of them.
fn reaches(listener: SocketAddr, target: SocketAddr) -> bool {
    let (listener, target) = (canonical(listener), canonical(target));
    listener.port() == target.port()
        && (listener.ip() == target.ip()
            || target.ip().is_unspecified()
            || (listener.ip().is_unspecified() && is_local(target.ip()))
            || (listener.ip().is_loopback() && target.ip().is_loopback()))
}

/// Only an address of this machine can be bound.
fn is_local(address: IpAddr) -> bool {
    address.is_loopback() || UdpSocket::bind((address, 0)).is_ok()
}

/// True when this process, or the machine, has no descriptor left.
fn is_exhausted(error: &io::Error) -> bool {
    use rustix::io::Errno;
    error.raw_os_error().is_some_and(|code| code == Errno::MFILE.raw_os_error() || code == Errno::NFILE.raw_os_error())
}

fn dial_error(endpoint: &str, error: &io::Error) -> ProxyError {
    let kind = match error.kind() {
        io::ErrorKind::TimedOut => ErrorKind::ConnectionTimeout,
        io::ErrorKind::ConnectionReset => ErrorKind::ConnectionTerminated,
        _ if is_exhausted(error) => ErrorKind::DescriptorsExhausted,
        _ => ErrorKind::ConnectionRefused,
    };
    ProxyError::from_source(kind, endpoint, error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_listeners_are_recognized_under_every_alias() {
        crate::tls::install_provider();
        let tls = Arc::new(UpstreamTls::new(&crate::tls::TlsSettings::default()).unwrap());
        let dialler = Dialler::new(&UpstreamSettings::default(), tls, BlockList::default(), &|_| None).unwrap();
        dialler.add_own_listener("127.0.0.1:8080".parse().unwrap());
        dialler.add_own_listener("0.0.0.0:9090".parse().unwrap());
        for own in ["127.0.0.1:8080", "[::ffff:127.0.0.1]:8080", "0.0.0.0:8080", "127.0.0.2:8080", "[::1]:9090"] {
            assert!(dialler.is_own_listener(own.parse().unwrap()), "{own}");
        }
        for other in ["127.0.0.1:8081", "192.0.2.1:8080", "192.0.2.1:9090"] {
            assert!(!dialler.is_own_listener(other.parse().unwrap()), "{other}");
        }
    }
}

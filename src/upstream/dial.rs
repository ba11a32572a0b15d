//! A byte stream to an endpoint: address overrides, an upstream proxy, DNS, refusal of our own doors, every address
//! tried, nodelay.
//!
//! What was checked is what is dialled: nothing resolves a second time.

use super::via::{Proxies, ProxyUrl};
use super::{UpstreamSettings, within};
use crate::error::{ErrorKind, ProxyError};
use crate::net::BoxedIo;
use crate::tls::{Offer, UpstreamTls};
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::str::FromStr;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};
use tokio::net::TcpStream;

/// Dials endpoints.
#[derive(Clone)]
pub struct Dialler {
    connect_timeout: Duration,
    connect_to: Arc<[ConnectTo]>,
    proxies: Arc<Proxies>,
    tls: Arc<UpstreamTls>,
    own_doors: Arc<RwLock<Vec<SocketAddr>>>,
}

/// A connection to an endpoint, before TLS with it.
pub struct Dialled {
    /// The stream: a socket, or a tunnel through an upstream proxy.
    pub stream: BoxedIo,
    /// The address dialled: the endpoint's, or the upstream proxy's.
    pub peer: SocketAddr,
    /// How long DNS, TCP and the way through a proxy took.
    pub elapsed: Duration,
    /// The upstream proxy that the stream leads to, when requests on it must name their target whole.
    pub forward_proxy: Option<ProxyUrl>,
}

/// What the stream to an endpoint is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Any bytes, TLS or not: an upstream proxy is asked for a tunnel.
    Stream,
    /// Plain HTTP requests of ours: an upstream proxy is sent them itself.
    PlainHttp,
}

/// Dial another host and port instead, as curl's `--connect-to`. Empty parts match, or keep, anything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectTo {
    from_host: String,
    from_port: Option<u16>,
    to_host: String,
    to_port: Option<u16>,
}

impl Dialler {
    /// A dialler by these settings; `variable` reads our environment.
    pub fn new(
        settings: &UpstreamSettings,
        tls: Arc<UpstreamTls>,
        variable: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, String> {
        let connect_to = settings.connect_to.iter().map(|text| text.parse()).collect::<Result<Vec<_>, _>>()?;
        let proxies = Proxies::new(&settings.proxy, &settings.no_proxy, variable)?;
        Ok(Self {
            connect_timeout: settings.connect_timeout,
            connect_to: connect_to.into(),
            proxies: Arc::new(proxies),
            tls,
            own_doors: Arc::default(),
        })
    }

    /// Names a door of this process, so that nothing is ever sent to it.
    pub fn refuse(&self, door: SocketAddr) {
        self.own_doors.write().unwrap_or_else(PoisonError::into_inner).push(door);
    }

    /// Connects to `host:port`; `host` has no brackets.
    pub async fn dial(&self, host: &str, port: u16, purpose: Purpose) -> Result<Dialled, ProxyError> {
        let began = Instant::now();
        let shown = authority(host, port);
        match within(self.connect_timeout, self.reach(host, port, purpose, &shown)).await {
            Some(dialled) => dialled.map(|dialled| Dialled { elapsed: began.elapsed(), ..dialled }),
            None => {
                let cause = format!("no connection within {} ms", self.connect_timeout.as_millis());
                Err(ProxyError::new(ErrorKind::ConnectionTimeout, shown, cause))
            }
        }
    }

    async fn reach(&self, host: &str, port: u16, purpose: Purpose, shown: &str) -> Result<Dialled, ProxyError> {
        let (host, port) = self.overridden(host, port);
        let direct = |stream: TcpStream, peer| Dialled {
            stream: Box::new(stream),
            peer,
            elapsed: Duration::ZERO,
            forward_proxy: None,
        };
        let Some(proxy) = self.proxies.route(purpose == Purpose::Stream, host, port) else {
            let (stream, peer) = self.connect(host, port, shown).await?;
            return Ok(direct(stream, peer));
        };
        let (stream, peer) = self.connect(&proxy.host, proxy.port, &format!("{shown} by way of {proxy}")).await?;
        let mut dialled = direct(stream, peer);
        if proxy.tls {
            let shaken = self.tls.connect(dialled.stream, &proxy.host, proxy.port, Offer::Http1).await;
            let (stream, _) = shaken.map_err(|error| {
                let cause = format!("TLS with the upstream proxy {proxy}: {error}");
                ProxyError::new(ErrorKind::DestinationUnavailable, shown, cause)
            })?;
            dialled.stream = Box::new(stream);
        }
        match purpose {
            Purpose::Stream => dialled.stream = proxy.tunnel(dialled.stream, host, port).await?,
            Purpose::PlainHttp => dialled.forward_proxy = Some(proxy.clone()),
        }
        Ok(dialled)
    }

    async fn connect(&self, host: &str, port: u16, shown: &str) -> Result<(TcpStream, SocketAddr), ProxyError> {
        let addresses: Vec<SocketAddr> = match tokio::net::lookup_host((host, port)).await {
            Ok(found) => found.collect(),
            Err(error) => return Err(ProxyError::from_source(ErrorKind::DnsError, shown, &error)),
        };
        let mut last = ProxyError::new(ErrorKind::DnsError, shown, "the name has no address");
        for address in addresses {
            if self.is_own_door(address) {
                return Err(ProxyError::new(ErrorKind::ProxyLoopDetected, shown, "that is a door of this proxy"));
            }
            match TcpStream::connect(address).await {
                Ok(stream) => {
                    let _ = stream.set_nodelay(true);
                    return Ok((stream, address));
                }
                Err(error) => last = dial_error(shown, &error),
            }
        }
        Err(last)
    }

    fn overridden<'a>(&'a self, host: &'a str, port: u16) -> (&'a str, u16) {
        let rule = self.connect_to.iter().find(|rule| rule.matches(host, port));
        rule.map_or((host, port), |rule| {
            let to_host = if rule.to_host.is_empty() { host } else { &rule.to_host };
            (to_host, rule.to_port.unwrap_or(port))
        })
    }

    /// Every alias counts: another loopback name, a v4-mapped address, `0.0.0.0`, any address of this machine when the
    /// door listens on all of them.
    fn is_own_door(&self, target: SocketAddr) -> bool {
        let doors = self.own_doors.read().unwrap_or_else(PoisonError::into_inner);
        doors.iter().any(|door| reaches(*door, target))
    }

    /// True when connections to `host:port` would be connections to `listener`, which is on this machine.
    pub async fn leads_to(&self, host: &str, port: u16, listener: SocketAddr) -> bool {
        let (host, port) = self.overridden(host, port);
        let found = within(self.connect_timeout, tokio::net::lookup_host((host, port))).await;
        found.is_some_and(|found| found.is_ok_and(|mut found| found.any(|target| reaches(listener, target))))
    }
}

impl ConnectTo {
    fn matches(&self, host: &str, port: u16) -> bool {
        (self.from_host.is_empty() || self.from_host.eq_ignore_ascii_case(host))
            && self.from_port.is_none_or(|from| from == port)
    }
}

impl FromStr for ConnectTo {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("connect-to {text:?} is not HOST:PORT:HOST:PORT (IPv6 in brackets, empty parts allowed)");
        let mut rest = text;
        let mut parts = Vec::with_capacity(4);
        while parts.len() < 3 {
            let end = match rest.strip_prefix('[') {
                Some(inner) => inner.find(']').ok_or_else(wrong)? + 2,
                None => rest.find(':').ok_or_else(wrong)?,
            };
            parts.push(rest.get(..end).ok_or_else(wrong)?.trim_matches(['[', ']']));
            rest = rest.get(end..).and_then(|rest| rest.strip_prefix(':')).ok_or_else(wrong)?;
        }
        parts.push(rest);
        let port = |text: &str| if text.is_empty() { Ok(None) } else { text.parse().map(Some).map_err(|_| wrong()) };
        Ok(Self {
            from_host: parts[0].to_owned(),
            from_port: port(parts[1])?,
            to_host: parts[2].to_owned(),
            to_port: port(parts[3])?,
        })
    }
}

/// `host:port`, with brackets around an IPv6 address.
pub fn authority(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// With an IPv4 address that is mapped into IPv6 as IPv4.
pub fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// True when a connection to `target` is one to `listener`, which is on this machine.
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

fn dial_error(shown: &str, error: &io::Error) -> ProxyError {
    let kind = match error.kind() {
        io::ErrorKind::TimedOut => ErrorKind::ConnectionTimeout,
        io::ErrorKind::ConnectionReset => ErrorKind::ConnectionTerminated,
        _ if is_exhausted(error) => ErrorKind::DescriptorsExhausted,
        _ => ErrorKind::ConnectionRefused,
    };
    ProxyError::from_source(kind, shown, error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connect_to_reads_curls_form() {
        let rule: ConnectTo = "api.openai.com:443:127.0.0.1:8443".parse().unwrap();
        assert!(rule.matches("API.openai.com", 443) && !rule.matches("api.openai.com", 80));
        assert_eq!((rule.to_host.as_str(), rule.to_port), ("127.0.0.1", Some(8443)));
        let rule: ConnectTo = "::[::1]:8443".parse().unwrap();
        assert!(rule.matches("anything", 1));
        assert_eq!((rule.to_host.as_str(), rule.to_port), ("::1", Some(8443)));
        for wrong in ["", "a", "a:1", "a:1:b", "a:x:b:2", "[::1:1:b:2"] {
            assert!(wrong.parse::<ConnectTo>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn own_doors_are_known_by_every_name() {
        crate::tls::install_provider();
        let tls = Arc::new(UpstreamTls::new(&crate::tls::TlsSettings::default()).unwrap());
        let dialler = Dialler::new(&UpstreamSettings::default(), tls, &|_| None).unwrap();
        dialler.refuse("127.0.0.1:8080".parse().unwrap());
        dialler.refuse("0.0.0.0:9090".parse().unwrap());
        for own in ["127.0.0.1:8080", "[::ffff:127.0.0.1]:8080", "0.0.0.0:8080", "127.0.0.2:8080", "[::1]:9090"] {
            assert!(dialler.is_own_door(own.parse().unwrap()), "{own}");
        }
        for other in ["127.0.0.1:8081", "192.0.2.1:8080", "192.0.2.1:9090"] {
            assert!(!dialler.is_own_door(other.parse().unwrap()), "{other}");
        }
    }
}

//! Where a request goes: its absolute target, and whether it may name that host at all.

use super::connection_context::ConnectionContext;
use crate::error::{ErrorKind, ProxyError};
use crate::upstream::{Origin, authority};
use http::uri::Authority;
use http::{HeaderMap, Method, Request, Uri, header};
use hyper::body::Incoming;
use hyper::ext::Protocol;

/// Why a request inside a tunnel must not be sent. None for requests outside a tunnel.
///
/// `Host` may name another host than the tunnel leads to, as it may without a proxy: a client that tests a virtual host
/// connects to its address. The connection is the tunnel's all the same. The tunnel's host with another port is no virtual host:
/// that client asked for a connection to one service and talks to another (RFC 9110 §7.4).
pub(super) fn misdirected(
    connection: &ConnectionContext,
    origin: &Origin,
    request: &Request<Incoming>,
) -> Option<ProxyError> {
    let tunnel = connection.tunnel.as_ref()?;
    if let Some(error) = &tunnel.unreachable {
        return Some(error.clone());
    }
    if request.method() == Method::CONNECT && request.extensions().get::<Protocol>().is_none() {
        let shown = authority(&tunnel.origin.host, tunnel.origin.port);
        return Some(ProxyError::new(ErrorKind::HttpRequestError, shown, "a CONNECT inside a tunnel"));
    }
    // The next server may read another of the places that name a host than we do: they must agree.
    let hosts = request.headers().get_all(header::HOST);
    let fields = hosts.iter().map(|host| host.to_str().ok()?.parse::<Authority>().ok());
    let named: Vec<Option<Authority>> = fields.chain(request.uri().authority().cloned().map(Some)).collect();
    let leads = &tunnel.origin;
    // Many clients leave out a port that is not the default.
    let place = |named: &Authority| (bare(named.host()), named.port_u16().unwrap_or(leads.port));
    let places: Vec<_> = named.iter().map(|named| named.as_ref().map(place)).collect();
    let is_inside = origin == leads || (origin.dial_host.as_ref() == Some(&leads.host) && origin.port == leads.port);
    let agree = places.iter().all(|one| one.is_some() && Some(one) == places.first());
    let is_other_port = places
        .iter()
        .flatten()
        .any(|(host, port)| *port != leads.port && (*host == leads.host || Some(host) == leads.dial_host.as_ref()));
    (!is_inside || !agree || is_other_port).then(|| {
        let named: Vec<_> = named.iter().flatten().map(Authority::as_str).collect();
        let tunnel = authority(&leads.host, leads.port);
        let cause = format!("the request names {} inside a tunnel to {tunnel}", named.join(" and "));
        ProxyError::new(ErrorKind::HttpRequestError, authority(&origin.host, origin.port), cause)
    })
}

/// A host as [`Origin`] has it.
fn bare(host: &str) -> String {
    host.trim_matches(['[', ']']).to_ascii_lowercase()
}

/// The absolute target. The authority is the one that the agent wrote, since a signature may cover it.
pub(super) fn absolute(origin: &Origin, uri: &Uri, headers: &HeaderMap) -> Result<Uri, ProxyError> {
    let written = uri.authority().map(|authority| authority.as_str().to_owned());
    let host = || headers.get(header::HOST).and_then(|host| host.to_str().ok()).map(str::to_owned);
    let shown = authority(&origin.host, origin.port);
    let built = Uri::builder()
        .scheme(if origin.tls { "https" } else { "http" })
        .authority(written.or_else(host).unwrap_or_else(|| shown.clone()))
        .path_and_query(uri.path_and_query().map_or("/", |path| path.as_str()))
        .build();
    built.map_err(|error| ProxyError::from_source(ErrorKind::HttpRequestError, shown, &error))
}

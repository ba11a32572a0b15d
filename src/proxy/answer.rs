//! Routes each request of a client: a CONNECT to its tunnel, others to their endpoint or to the help page.

use super::state::Proxy;
use super::{api_relay, help};
use crate::error::{FramingFault, ProxyError};
use crate::forward::{ConnectionContext, Tunnel, reply};
use crate::net::interim::InterimSender;
use crate::trace::exchange::{ExchangeKind, RequestHead};
use crate::upstream::{Body, Origin, Scheme};
use http::header::HOST;
use http::uri::Authority;
use http::{HeaderMap, Method, Request, Response, Version};
use hyper::body::Incoming;
use hyper::ext::Protocol;
use std::net::IpAddr;

impl Proxy {
    /// Answers one request, directly at the listener or inside a tunnel.
    pub(super) async fn answer(
        &self,
        connection: &ConnectionContext,
        mut request: Request<Incoming>,
        interim: Option<&InterimSender>,
    ) -> Response<Body> {
        if let Some(tunnel) = &connection.tunnel {
            return self.answer_inside(connection, tunnel, request, interim).await;
        }
        let mut connection = connection.clone();
        let refusal = self.inner.access.check(request.headers(), &mut connection).err();
        if request.method() == Method::CONNECT && request.extensions().get::<Protocol>().is_none() {
            return self.connect(&connection, request, refusal).await;
        }
        let Some(origin) = origin_of(&mut request) else {
            return help::answer(&request, self.inner.leaves.authority().ca_pem());
        };
        if refusal.is_none()
            && !origin.tls
            && let Some(api) = self.api_listener_for(connection.client, &origin.host, origin.port).await
        {
            return api_relay::relay(api, request).await.unwrap_or_else(|error| reply::error(&error));
        }
        let refusal = refusal.or_else(|| self.blocked_request(&origin, &request));
        self.inner.forwarder.handle(&connection, origin, request, refusal, interim).await
    }

    async fn answer_inside(
        &self,
        connection: &ConnectionContext,
        tunnel: &Tunnel,
        request: Request<Incoming>,
        interim: Option<&InterimSender>,
    ) -> Response<Body> {
        let origin = origin_inside(tunnel, &request);
        let refusal = self.blocked_request(&origin, &request);
        self.inner.forwarder.handle(connection, origin, request, refusal, interim).await
    }

    /// Returns the error for a request that goes to a blocked host, or names one.
    fn blocked_request(&self, origin: &Origin, request: &Request<Incoming>) -> Option<ProxyError> {
        let named = [request.uri().authority().cloned(), host_field(request)];
        let named = named.iter().flatten().map(|named| named.host().trim_matches(['[', ']']));
        [origin.host.as_str()].into_iter().chain(named).find_map(|host| self.blocked(host, origin.port))
    }

    /// Rejects a request that the framing guard withheld, and records the rejection.
    pub(super) async fn reject_malformed(
        &self,
        connection: &ConnectionContext,
        version: Version,
        fault: FramingFault,
    ) -> Response<Body> {
        let origin = connection.tunnel.as_ref().map(|tunnel| &tunnel.origin);
        let head = RequestHead {
            method: Method::from_bytes(b"_OTHER").unwrap_or(Method::OPTIONS),
            scheme: "",
            host: origin.map_or_else(String::new, |origin| origin.host.clone()),
            port: origin.map_or(0, |origin| origin.port),
            target: String::new(),
            version,
            headers: HeaderMap::new(),
        };
        self.inner.forwarder.refuse(connection, ExchangeKind::Http, head, &fault.of_request()).await
    }
}

/// The endpoint of an absolute-form request; `None` for any other form. `ws` and `wss` count as `http` and `https`.
fn origin_of(request: &mut Request<Incoming>) -> Option<Origin> {
    let uri = request.uri();
    let scheme = match uri.scheme_str()? {
        "ws" => Scheme::Http,
        "wss" => Scheme::Https,
        scheme => Scheme::parse(scheme)?,
    };
    let origin = Origin::new(scheme, uri.host()?, uri.port_u16());
    // RFC 9112 §3.2.2 has a proxy replace a Host that differs from the target. Here it stays: the endpoint of a client that
    // names a virtual host gets what it would get without the proxy. The target alone says where the request goes.
    let host = uri.authority().and_then(|written| written.as_str().rsplit('@').next()?.parse().ok());
    if let Some(host) = host
        && !request.headers().contains_key(HOST)
    {
        request.headers_mut().insert(HOST, host);
    }
    Some(origin)
}

fn host_field(request: &Request<Incoming>) -> Option<Authority> {
    request.headers().get(HOST)?.to_str().ok()?.parse().ok()
}

/// The endpoint of a request inside a tunnel. `forward` compares it with the tunnel's.
fn origin_inside(tunnel: &Tunnel, request: &Request<Incoming>) -> Origin {
    let (uri, tunnel_origin) = (request.uri(), &tunnel.origin);
    let named = uri.authority().cloned().or_else(|| host_field(request));
    // A client that resolves names itself opens a tunnel to an address; without TLS only the request has the name.
    if let Some(named) = named
        && tunnel.tls.is_none()
        && tunnel_origin.host.parse::<IpAddr>().is_ok()
        && named.port_u16().unwrap_or(tunnel_origin.port) == tunnel_origin.port
    {
        let origin = Origin::new(Scheme::Http, named.host(), Some(tunnel_origin.port));
        let dial_host = (origin.host != tunnel_origin.host).then(|| tunnel_origin.host.clone());
        return Origin { dial_host, ..origin };
    }
    // In HTTP/2 every target is absolute, and only the tunnel's origin knows which host to dial.
    match (request.version(), uri.scheme_str(), uri.host()) {
        (Version::HTTP_11 | Version::HTTP_10, Some(scheme), Some(host)) => {
            let scheme = if scheme == "https" { Scheme::Https } else { Scheme::Http };
            Origin::new(scheme, host, uri.port_u16())
        }
        _ => tunnel_origin.clone(),
    }
}

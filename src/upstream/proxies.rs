//! Which upstream proxy, if any, leads to an endpoint.
//!
//! The setting has precedence over the variables of our own environment (`HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY`,
//! `NO_PROXY`). hyper-util's proxy matcher is not used: it ignores the ports and `*.` prefixes of NO_PROXY entries, and a
//! malformed proxy URL makes it connect directly instead of failing.

use super::proxy_url::{InvalidProxyUrl, ProxyUrl};
use crate::util::glob::host_matches;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// `upstream.proxy`: the proxy between Tracewire and endpoints.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum UpstreamProxy {
    /// The proxy that the variables of our own environment name, if any. The default.
    #[default]
    Environment,
    /// Endpoints are reached directly, even if our environment names a proxy.
    None,
    /// All connections use this proxy, except for those to hosts of `upstream.no_proxy`.
    Url(ProxyUrl),
}

/// The kind of proxy that a connection needs, as the variables distinguish them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ProxyKind {
    /// Requests without TLS, which the proxy reads and forwards (`HTTP_PROXY`).
    Http,
    /// Tunnels, which the proxy opens by CONNECT (`HTTPS_PROXY`).
    Https,
}

/// The proxies in force.
#[derive(Clone, Debug, Default)]
pub(super) struct Proxies {
    http: Option<ProxyUrl>,
    https: Option<ProxyUrl>,
    loopback: LoopbackRule,
    no_proxy: Vec<NoProxyRule>,
}

/// Whether the proxy is used for destinations on this machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum LoopbackRule {
    #[default]
    Proxied,
    Direct,
}

/// A variable that does not hold a usable proxy URL.
#[derive(Debug, thiserror::Error)]
#[error("{variable}: {error}")]
pub(crate) struct InvalidProxyVariable {
    variable: &'static str,
    error: InvalidProxyUrl,
}

impl Proxies {
    /// Reads the setting and, if it says so, the environment by means of `variable`. `no_proxy` are hosts to reach directly
    /// in addition to those of NO_PROXY.
    pub(super) fn new(
        setting: &UpstreamProxy,
        no_proxy: &[String],
        variable: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, InvalidProxyVariable> {
        let mut proxies = Self::default();
        proxies.no_proxy.extend(no_proxy.iter().map(|entry| NoProxyRule::new(entry)));
        match setting {
            UpstreamProxy::None => {}
            UpstreamProxy::Url(url) => (proxies.http, proxies.https) = (Some(url.clone()), Some(url.clone())),
            UpstreamProxy::Environment => {
                let first_of = |names: &[&'static str]| {
                    let set =
                        names.iter().find_map(|name| Some((*name, variable(name).filter(|url| !url.is_empty())?)));
                    set.map(|(name, url)| url.parse().map_err(|error| InvalidProxyVariable { variable: name, error }))
                        .transpose()
                };
                // Lower case first: a CGI server sets HTTP_PROXY from a request's header.
                proxies.http = first_of(&["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"])?;
                proxies.https = first_of(&["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"])?;
                // Go has the same rule: a proxy of the environment is the way out of this machine.
                proxies.loopback = LoopbackRule::Direct;
                let listed = variable("no_proxy").or_else(|| variable("NO_PROXY")).unwrap_or_default();
                let entries = listed.split(|letter: char| letter == ',' || letter.is_whitespace());
                proxies.no_proxy.extend(entries.filter(|entry| !entry.is_empty()).map(NoProxyRule::new));
            }
        }
        Ok(proxies)
    }

    /// Returns the proxy on the way to an endpoint; `None` for a direct connection.
    pub(super) fn route(&self, kind: ProxyKind, host: &str, port: u16) -> Option<&ProxyUrl> {
        let proxy = match kind {
            ProxyKind::Http => self.http.as_ref(),
            ProxyKind::Https => self.https.as_ref(),
        }?;
        let address = host.parse::<IpAddr>().ok().map(|address| address.to_canonical());
        let loopback = host.eq_ignore_ascii_case("localhost") || address.is_some_and(|address| address.is_loopback());
        let direct = (loopback && self.loopback == LoopbackRule::Direct)
            || self.no_proxy.iter().any(|rule| rule.covers(host, address, port));
        (!direct).then_some(proxy)
    }
}

/// One entry of NO_PROXY.
#[derive(Clone, Debug, PartialEq, Eq)]
enum NoProxyRule {
    /// An address, or a range of addresses in CIDR notation.
    Network(IpNet),
    /// A name, which also covers its subdomains, or a pattern with `*`; either with or without a port.
    Host { pattern: String, subdomains: String },
}

impl NoProxyRule {
    fn new(entry: &str) -> Self {
        let address = entry.trim_matches(['[', ']']).parse::<IpAddr>().map(IpNet::from);
        match address.or_else(|_| entry.parse()) {
            Ok(network) => Self::Network(network),
            Err(_) => {
                let name = entry.trim_start_matches("*.").trim_start_matches('.');
                Self::Host { pattern: entry.to_owned(), subdomains: format!("*.{name}") }
            }
        }
    }

    /// True when `host:port` is reached directly. `address` is `host` if that is an address.
    fn covers(&self, host: &str, address: Option<IpAddr>, port: u16) -> bool {
        match self {
            Self::Network(network) => address.is_some_and(|address| network.contains(&address)),
            Self::Host { pattern, subdomains } => {
                host_matches(pattern, host, port) || (address.is_none() && host_matches(subdomains, host, port))
            }
        }
    }
}

impl TryFrom<String> for UpstreamProxy {
    type Error = InvalidProxyUrl;

    fn try_from(text: String) -> Result<Self, InvalidProxyUrl> {
        match text.as_str() {
            "env" => Ok(Self::Environment),
            "none" => Ok(Self::None),
            // A misspelled word is no host.
            word if !word.contains([':', '.']) => Err(InvalidProxyUrl::Word),
            url => url.parse().map(Self::Url),
        }
    }
}

impl From<UpstreamProxy> for String {
    fn from(proxy: UpstreamProxy) -> Self {
        match proxy {
            UpstreamProxy::Environment => "env".to_owned(),
            UpstreamProxy::None => "none".to_owned(),
            UpstreamProxy::Url(url) => url.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;

    fn from(pairs: &[(&str, &str)]) -> Proxies {
        let variable = |name: &str| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        Proxies::new(&UpstreamProxy::Environment, &[], &variable).unwrap()
    }

    #[test]
    fn the_environment_is_read_as_other_programs_read_it() {
        let proxies = from(&[
            ("HTTPS_PROXY", "http://user:p%40ss@proxy.corp:3128"),
            ("NO_PROXY", "internal.corp,.dev.corp, 10.0.0.0/8 fd00::/8\t192.0.2.7,exact.example:8443,*.star.example"),
        ]);
        let route = |host, port| proxies.route(ProxyKind::Https, host, port).map(ToString::to_string);
        assert_eq!(route("api.openai.com", 443).as_deref(), Some("http://proxy.corp:3128"));
        assert!(proxies.route(ProxyKind::Http, "api.openai.com", 80).is_none(), "HTTP_PROXY is not set");
        for direct in [
            "internal.corp",
            "a.internal.corp",
            "x.dev.corp",
            "10.1.2.3",
            "::ffff:10.1.2.3",
            "fd00:0::1",
            "192.0.2.7",
            "a.star.example",
            "localhost",
            "127.0.0.1",
            "::1",
        ] {
            assert_eq!(route(direct, 443), None, "{direct}");
        }
        assert_eq!((route("exact.example", 8443), route("exact.example", 443).is_some()), (None, true));
        for proxied in ["notinternal.corp.example", "11.0.0.1", "fe80::1", "192.0.2.70"] {
            assert!(route(proxied, 443).is_some(), "{proxied}");
        }
        let authorization = proxies.https.as_ref().unwrap().authorization.as_ref().unwrap();
        assert_eq!(authorization, &format!("Basic {}", STANDARD.encode("user:p@ss")));
        assert!(!format!("{proxies:?}").contains("ss@"), "no password in a log");
        assert!(from(&[("HTTPS_PROXY", "http://p:1"), ("NO_PROXY", "*")]).route(ProxyKind::Https, "a", 1).is_none());
    }

    #[test]
    fn a_setting_has_precedence_over_the_environment() {
        let variable = |_: &str| Some("http://env:1".to_owned());
        let none = Proxies::new(&UpstreamProxy::None, &[], &variable).unwrap();
        assert!(none.route(ProxyKind::Https, "a", 443).is_none());
        let setting = UpstreamProxy::try_from("https://[::1]:3129".to_owned()).unwrap();
        let set = Proxies::new(&setting, &["*.spared.example".to_owned()], &variable).unwrap();
        assert_eq!(set.route(ProxyKind::Http, "127.0.0.1", 80).unwrap().to_string(), "https://[::1]:3129");
        assert!(set.route(ProxyKind::Https, "a.spared.example", 443).is_none());
        for wrong in ["socks5://a:1", "http://", "http://a b"] {
            assert!(UpstreamProxy::try_from(wrong.to_owned()).is_err(), "{wrong}");
        }
    }
}

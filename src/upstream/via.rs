//! The proxy between us and an endpoint, if there is one: whether, which, and how to be let through.
//!
//! Settings come first, then the variables of our own environment (`HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY`,
//! `NO_PROXY`). It must not dial: [`super::dial`] does.

use super::dial::authority;
use crate::error::{ErrorKind, ProxyError};
use crate::net::BoxedIo;
use crate::net::prefixed::Prefixed;
use crate::util::glob::host_matches;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::BytesMut;
use http::HeaderValue;
use percent_encoding::percent_decode_str;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// `upstream.proxy`: which proxy stands before endpoints.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum UpstreamProxy {
    /// Whichever our environment names.
    #[default]
    Environment,
    /// None, whatever our environment says.
    None,
    /// This one.
    Url(ProxyUrl),
}

/// An HTTP proxy, over TLS or not, with its credentials.
#[derive(Clone, PartialEq, Eq)]
pub struct ProxyUrl {
    /// True when the connection to the proxy itself is TLS.
    pub tls: bool,
    /// Its host, without brackets.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// `Proxy-Authorization`.
    pub authorization: Option<HeaderValue>,
}

/// The proxies in force.
#[derive(Clone, Debug, Default)]
pub struct Proxies {
    http: Option<ProxyUrl>,
    https: Option<ProxyUrl>,
    spare_loopback: bool,
    unproxied: Vec<String>,
}

impl Proxies {
    /// By the setting and, if it says so, by `variable`, which reads our environment. `unproxied` are hosts to reach
    /// directly besides those of NO_PROXY.
    pub fn new(
        setting: &UpstreamProxy,
        unproxied: &[String],
        variable: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, String> {
        let mut proxies = Self { unproxied: unproxied.to_vec(), ..Self::default() };
        match setting {
            UpstreamProxy::None => {}
            UpstreamProxy::Url(url) => (proxies.http, proxies.https) = (Some(url.clone()), Some(url.clone())),
            UpstreamProxy::Environment => {
                let named = |names: &[&str]| {
                    let set =
                        names.iter().find_map(|name| Some((*name, variable(name).filter(|url| !url.is_empty())?)));
                    set.map(|(name, url)| url.parse().map_err(|cause| format!("{name}: {cause}"))).transpose()
                };
                // Lower case first: a CGI server sets HTTP_PROXY from a request's header.
                proxies.http = named(&["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"])?;
                proxies.https = named(&["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"])?;
                proxies.spare_loopback = true;
                let listed = variable("no_proxy").or_else(|| variable("NO_PROXY")).unwrap_or_default();
                proxies
                    .unproxied
                    .extend(listed.split(',').map(str::trim).filter(|host| !host.is_empty()).map(str::to_owned));
            }
        }
        Ok(proxies)
    }

    /// The proxy on the way to an endpoint.
    pub fn route(&self, tls: bool, host: &str, port: u16) -> Option<&ProxyUrl> {
        let proxy = if tls { self.https.as_ref() } else { self.http.as_ref() }?;
        let address = host.parse::<IpAddr>().ok();
        let loopback = host.eq_ignore_ascii_case("localhost") || address.is_some_and(|address| address.is_loopback());
        // What an environment means by a proxy is the way out of this machine, as Go has it.
        let direct =
            (self.spare_loopback && loopback) || self.unproxied.iter().any(|entry| covers(entry, host, address, port));
        (!direct).then_some(proxy)
    }
}

/// An entry of NO_PROXY: `*`, a name that covers its subdomains, an address, a range, each with a port or without.
fn covers(entry: &str, host: &str, address: Option<IpAddr>, port: u16) -> bool {
    if let (Some((network, bits)), Some(address)) = (entry.split_once('/'), address) {
        return in_network(network, bits, address);
    }
    let suffix = entry.trim_start_matches("*.").trim_start_matches('.');
    host_matches(entry, host, port) || (address.is_none() && host_matches(&format!("*.{suffix}"), host, port))
}

fn in_network(network: &str, bits: &str, address: IpAddr) -> bool {
    let (Ok(network), Ok(bits)) = (network.parse::<IpAddr>(), bits.parse::<u32>()) else { return false };
    let same =
        |left: u128, right: u128, width: u32| bits <= width && (bits == 0 || (left ^ right) >> (width - bits) == 0);
    match (network, address) {
        (IpAddr::V4(network), IpAddr::V4(address)) => same(network.to_bits().into(), address.to_bits().into(), 32),
        (IpAddr::V6(network), IpAddr::V6(address)) => same(network.to_bits(), address.to_bits(), 128),
        _ => false,
    }
}

impl ProxyUrl {
    /// Asks the proxy for a way to `host:port`; `stream` leads to the proxy.
    pub async fn tunnel(&self, mut stream: BoxedIo, host: &str, port: u16) -> Result<BoxedIo, ProxyError> {
        let target = authority(host, port);
        let failed = |cause: String| {
            ProxyError::new(
                ErrorKind::DestinationUnavailable,
                target.clone(),
                format!("the upstream proxy {self}: {cause}"),
            )
        };
        let mut request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n").into_bytes();
        if let Some(authorization) = &self.authorization {
            request.extend_from_slice(b"Proxy-Authorization: ");
            request.extend_from_slice(authorization.as_bytes());
            request.extend_from_slice(b"\r\n");
        }
        request.extend_from_slice(b"\r\n");
        let write = async {
            stream.write_all(&request).await?;
            stream.flush().await
        };
        write.await.map_err(|error| failed(error.to_string()))?;
        let mut answer = BytesMut::with_capacity(1024);
        let end = loop {
            if let Some(end) = answer.windows(4).position(|window| window == b"\r\n\r\n") {
                break end + 4;
            }
            let read = stream.read_buf(&mut answer).await.map_err(|error| failed(error.to_string()))?;
            if read == 0 || answer.len() > LONGEST_ANSWER_BYTES {
                return Err(failed("it did not answer in HTTP".to_owned()));
            }
        };
        let head = answer.split_to(end);
        let head = String::from_utf8_lossy(&head);
        let line = head.lines().next().unwrap_or_default();
        if line.split(' ').nth(1).is_some_and(|status| status.len() == 3 && status.starts_with('2')) {
            return Ok(Box::new(Prefixed::new(answer.freeze(), stream)));
        }
        Err(failed(format!("it answered {line:?}")))
    }
}

impl FromStr for ProxyUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // What is wrong is said without the text: it may hold a password.
        let (scheme, rest) = text.split_once("://").unwrap_or(("http", text));
        let tls = match scheme.to_ascii_lowercase().as_str() {
            "http" => false,
            "https" => true,
            other => {
                return Err(format!(
                    "a proxy URL starts with http:// or https://, not {other}:// (upstream.proxy = \"none\" ignores it)"
                ));
            }
        };
        let rest = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let (user, place) = rest.rsplit_once('@').map_or((None, rest), |(user, place)| (Some(user), place));
        let place: http::uri::Authority =
            place.parse().map_err(|_| "a proxy URL is http://[USER:PASSWORD@]HOST:PORT".to_owned())?;
        let authorization = user.map(|user| {
            let (user, password) = user.split_once(':').unwrap_or((user, ""));
            let decoded = |text| percent_decode_str(text).decode_utf8_lossy().into_owned();
            let encoded = STANDARD.encode(format!("{}:{}", decoded(user), decoded(password)));
            let mut value = HeaderValue::try_from(format!("Basic {encoded}")).ok();
            value.iter_mut().for_each(|value| value.set_sensitive(true));
            value
        });
        Ok(Self {
            tls,
            host: place.host().trim_matches(['[', ']']).to_owned(),
            port: place.port_u16().unwrap_or(if tls { 443 } else { 80 }),
            authorization: authorization.flatten(),
        })
    }
}

/// Without the credentials.
impl fmt::Display for ProxyUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", if self.tls { "https" } else { "http" }, authority(&self.host, self.port))
    }
}

impl fmt::Debug for ProxyUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl TryFrom<String> for UpstreamProxy {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.as_str() {
            "env" => Ok(Self::Environment),
            "none" => Ok(Self::None),
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

const LONGEST_ANSWER_BYTES: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn from(pairs: &[(&str, &str)]) -> Proxies {
        let variable = |name: &str| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        Proxies::new(&UpstreamProxy::Environment, &[], &variable).unwrap()
    }

    #[test]
    fn the_environment_is_read_as_other_programs_read_it() {
        let proxies = from(&[
            ("HTTPS_PROXY", "http://user:p%40ss@proxy.corp:3128"),
            ("NO_PROXY", "internal.corp,.dev.corp, 10.0.0.0/8,exact.example:8443"),
        ]);
        let route = |host, port| proxies.route(true, host, port).map(ToString::to_string);
        assert_eq!(route("api.openai.com", 443).as_deref(), Some("http://proxy.corp:3128"));
        assert!(proxies.route(false, "api.openai.com", 80).is_none(), "HTTP_PROXY is not set");
        for direct in ["internal.corp", "a.internal.corp", "x.dev.corp", "10.1.2.3", "localhost", "127.0.0.1", "::1"] {
            assert_eq!(route(direct, 443), None, "{direct}");
        }
        assert_eq!((route("exact.example", 8443), route("exact.example", 443).is_some()), (None, true));
        assert!(route("notinternal.corp.example", 443).is_some() && route("11.0.0.1", 443).is_some());
        let authorization = proxies.https.as_ref().unwrap().authorization.as_ref().unwrap();
        assert_eq!(authorization, &format!("Basic {}", STANDARD.encode("user:p@ss")));
        assert!(!format!("{proxies:?}").contains("ss@"), "no password in a log");
    }

    #[test]
    fn a_setting_beats_the_environment() {
        let variable = |_: &str| Some("http://env:1".to_owned());
        let none = Proxies::new(&UpstreamProxy::None, &[], &variable).unwrap();
        assert!(none.route(true, "a", 443).is_none());
        let setting = UpstreamProxy::try_from("https://[::1]:3129".to_owned()).unwrap();
        let set = Proxies::new(&setting, &["*.spared.example".to_owned()], &variable).unwrap();
        assert_eq!(set.route(false, "127.0.0.1", 80).unwrap().to_string(), "https://[::1]:3129");
        assert!(set.route(true, "a.spared.example", 443).is_none());
        for wrong in ["socks5://a:1", "http://", "http://a b"] {
            assert!(UpstreamProxy::try_from(wrong.to_owned()).is_err(), "{wrong}");
        }
    }
}

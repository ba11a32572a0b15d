//! The URL of an upstream proxy, and tunnels through it.

use super::origin::authority;
use crate::error::{ErrorKind, ProxyError};
use crate::net::BoxedIo;
use crate::net::prefixed::Prefixed;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::BytesMut;
use http::HeaderValue;
use percent_encoding::percent_decode_str;
use std::fmt;
use std::str::FromStr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// An HTTP proxy with its credentials. It is displayed without them.
#[derive(Clone, PartialEq, Eq)]
pub struct ProxyUrl {
    /// True when the connection to the proxy itself is TLS.
    pub tls: bool,
    /// The host; an IPv6 address without brackets.
    pub host: String,
    /// The TCP port.
    pub port: u16,
    /// The value of `Proxy-Authorization`, if the URL has credentials.
    pub authorization: Option<HeaderValue>,
}

/// Why a text is not the URL of a usable proxy. The text itself may contain a password and is not part of the message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidProxyUrl {
    /// Another scheme than http or https.
    #[error("a proxy URL starts with http:// or https://, not {0}:// (upstream.proxy = \"none\" ignores it)")]
    Scheme(String),
    /// Neither a URL nor a word of the setting.
    #[error("use \"env\", \"none\" or http://[USER:PASSWORD@]HOST:PORT")]
    Word,
    /// No host, or one that can't be parsed.
    #[error("a proxy URL is http://[USER:PASSWORD@]HOST:PORT")]
    Host,
}

impl ProxyUrl {
    /// Asks the proxy for a tunnel to `host:port`. `stream` is connected to the proxy.
    pub(super) async fn open_tunnel(&self, mut stream: BoxedIo, host: &str, port: u16) -> Result<BoxedIo, ProxyError> {
        let target = authority(host, port);
        let failed = |cause: String| {
            let cause = format!("the upstream proxy {self}: {cause}");
            ProxyError::new(ErrorKind::DestinationUnavailable, target.clone(), cause)
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
        let mut response = BytesMut::with_capacity(1024);
        let end = loop {
            if let Some(end) = memchr::memmem::find(&response, b"\r\n\r\n") {
                break end + 4;
            }
            let read = stream.read_buf(&mut response).await.map_err(|error| failed(error.to_string()))?;
            if read == 0 || response.len() > MAX_RESPONSE_HEAD_BYTES {
                return Err(failed("it did not respond in HTTP".to_owned()));
            }
        };
        let head = response.split_to(end);
        let head = String::from_utf8_lossy(&head);
        let status_line = head.lines().next().unwrap_or_default();
        if status_line.split(' ').nth(1).is_some_and(|status| status.len() == 3 && status.starts_with('2')) {
            return Ok(Box::new(Prefixed::new(response.freeze(), stream)));
        }
        Err(failed(format!("it responded {status_line:?}")))
    }
}

impl FromStr for ProxyUrl {
    type Err = InvalidProxyUrl;

    fn from_str(text: &str) -> Result<Self, InvalidProxyUrl> {
        let (scheme, rest) = text.split_once("://").unwrap_or(("http", text));
        let tls = match scheme.to_ascii_lowercase().as_str() {
            "http" => false,
            "https" => true,
            other => return Err(InvalidProxyUrl::Scheme(other.to_owned())),
        };
        let rest = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let (user, place) = rest.rsplit_once('@').map_or((None, rest), |(user, place)| (Some(user), place));
        let place: http::uri::Authority = place.parse().map_err(|_| InvalidProxyUrl::Host)?;
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

const MAX_RESPONSE_HEAD_BYTES: usize = 64 * 1024;

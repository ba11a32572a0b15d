//! SOCKS5 at the proxy door (RFC 1928, RFC 1929): its CONNECT is handled as HTTP's.
//!
//! User and password are the proxy credentials. Only CONNECT is served; the answer says so otherwise.

use super::{Proxy, api_relay, auth};
use crate::error::{ErrorKind, ProxyError};
use crate::forward::connection::ConnectionContext;
use crate::net::BoxedIo;
use crate::net::drain::DrainGuard;
use crate::trace::exchange::{ExchangeKind, RequestHead};
use crate::upstream::within;
use http::{HeaderMap, Method, Version};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Instant;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Where a client wants to go.
struct Target {
    host: String,
    port: u16,
}

/// Why a handshake ends early.
enum Refusal {
    /// The client went away or doesn't speak SOCKS5.
    Broken(io::Error),
    /// It was told no.
    Told(Reply, ProxyError),
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        Self::Broken(error)
    }
}

/// The reply codes of RFC 1928 §6 that we use.
#[derive(Clone, Copy)]
enum Reply {
    Succeeded = 0,
    Failure = 1,
    NotAllowed = 2,
    HostUnreachable = 4,
    ConnectionRefused = 5,
    CommandNotSupported = 7,
}

impl Proxy {
    /// Serves one SOCKS5 connection: handshake, then the tunnel.
    pub(super) async fn serve_socks(&self, mut io: BoxedIo, mut conversation: ConnectionContext, guard: DrainGuard) {
        let started = Instant::now();
        let asked = within(self.inner.settings.header_timeout, self.handshake(&mut io, &mut conversation)).await;
        let (target, refusal) = match asked {
            Some(Ok(target)) => (target, None),
            Some(Err(Refusal::Told(reply, error))) => (Target { host: String::new(), port: 0 }, Some((reply, error))),
            Some(Err(Refusal::Broken(error))) => {
                return tracing::debug!(peer = %conversation.client, %error, "a SOCKS client went away");
            }
            None => return,
        };
        let head = RequestHead {
            method: Method::CONNECT,
            scheme: "",
            host: target.host.clone(),
            port: target.port,
            target: String::new(),
            version: Version::HTTP_11,
            headers: HeaderMap::new(),
        };
        if let Some((reply, error)) = refusal {
            let kind = ExchangeKind::Connect(crate::trace::exchange::ConnectPolicy::Reject);
            drop(self.inner.forwarder.refuse(&conversation, kind, head, &error).await);
            let _ = say(&mut io, reply).await;
            return;
        }
        if let Some(api) = self.api_behind(conversation.client, &target.host, target.port).await {
            match api_relay::dial(api).await {
                Ok(api) if say(&mut io, Reply::Succeeded).await.is_ok() => {
                    api_relay::tunnel(&conversation, io, api).await;
                }
                Ok(_) => {}
                Err(error) => drop(say(&mut io, reply_for(&error)).await),
            }
            return;
        }
        match self.establish(&conversation, head, Ok((target.host, target.port)), None, started).await {
            Ok(established) => {
                if say(&mut io, Reply::Succeeded).await.is_ok() {
                    guard.run(self.clone().tunnel(io, conversation, established)).await;
                }
            }
            Err(error) => drop(say(&mut io, reply_for(&error)).await),
        }
    }

    async fn handshake(&self, io: &mut BoxedIo, conversation: &mut ConnectionContext) -> Result<Target, Refusal> {
        let [_version, count] = read(io).await?;
        let mut methods = vec![0; usize::from(count)];
        io.read_exact(&mut methods).await?;
        let token = &self.inner.settings.token;
        if methods.contains(&USER_AND_PASSWORD) {
            io.write_all(&[VERSION, USER_AND_PASSWORD]).await?;
            let [_version] = read(io).await?;
            let (user, password) = (text(io).await?, text(io).await?);
            let admitted = auth::admit(token, &user, &password, &mut conversation.credentials);
            io.write_all(&[1, u8::from(admitted.is_err())]).await?;
            admitted.map_err(|error| Refusal::Told(Reply::NotAllowed, error))?;
        } else if token.is_empty() && methods.contains(&NO_AUTHENTICATION) {
            io.write_all(&[VERSION, NO_AUTHENTICATION]).await?;
        } else {
            io.write_all(&[VERSION, NO_METHOD]).await?;
            let cause = "the SOCKS client offers no user and password";
            let error = ProxyError::new(ErrorKind::ProxyAuthenticationRequired, "", cause);
            return Err(Refusal::Told(Reply::NotAllowed, error));
        }
        let [_version, command, _reserved, kind] = read(io).await?;
        let host = match kind {
            1 => Ipv4Addr::from(read::<4>(io).await?).to_string(),
            3 => text(io).await?,
            4 => Ipv6Addr::from(read::<16>(io).await?).to_string(),
            _ => return Err(io::Error::from(io::ErrorKind::InvalidData).into()),
        };
        let port = u16::from_be_bytes(read(io).await?);
        if command != CONNECT {
            let error = ProxyError::new(ErrorKind::HttpRequestError, host, "only SOCKS CONNECT is served");
            return Err(Refusal::Told(Reply::CommandNotSupported, error));
        }
        Ok(Target { host: host.to_ascii_lowercase(), port })
    }
}

async fn read<const N: usize>(io: &mut BoxedIo) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    io.read_exact(&mut bytes).await?;
    Ok(bytes)
}

/// A text behind its one-byte length.
async fn text(io: &mut BoxedIo) -> io::Result<String> {
    let [length] = read(io).await?;
    let mut bytes = vec![0; usize::from(length)];
    io.read_exact(&mut bytes).await?;
    String::from_utf8(bytes).map_err(|_| io::ErrorKind::InvalidData.into())
}

/// A reply; the bound address is of no use to a client of CONNECT.
async fn say(io: &mut BoxedIo, reply: Reply) -> io::Result<()> {
    io.write_all(&[VERSION, reply as u8, 0, 1, 0, 0, 0, 0, 0, 0]).await?;
    io.flush().await
}

fn reply_for(error: &ProxyError) -> Reply {
    match error.kind {
        ErrorKind::ConnectionRefused => Reply::ConnectionRefused,
        ErrorKind::DnsError | ErrorKind::DnsTimeout | ErrorKind::ConnectionTimeout => Reply::HostUnreachable,
        ErrorKind::HttpRequestDenied | ErrorKind::ProxyLoopDetected => Reply::NotAllowed,
        _ => Reply::Failure,
    }
}

const VERSION: u8 = 5;
const CONNECT: u8 = 1;
const NO_AUTHENTICATION: u8 = 0;
const USER_AND_PASSWORD: u8 = 2;
const NO_METHOD: u8 = 0xff;

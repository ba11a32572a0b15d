//! SOCKS5 at the proxy listener (RFC 1928, RFC 1929). Its CONNECT is handled as that of HTTP.
//!
//! User name and password are the proxy credentials. Only the CONNECT command is served; everything else gets the reply
//! code that the RFC has for it.

use super::api_relay;
use super::state::Proxy;
use crate::error::{ErrorKind, ProxyError};
use crate::forward::ConnectionContext;
use crate::net::drain::DrainGuard;
use crate::net::{BoxedIo, within};
use crate::trace::exchange::{ConnectPolicy, ExchangeKind, RequestHead};
use http::{HeaderMap, Method, Version};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// The destination of a SOCKS request.
#[derive(Default)]
struct Target {
    host: String,
    port: u16,
}

/// Why a handshake ends without a target.
enum HandshakeError {
    /// The client closed the connection, or it does not speak SOCKS5.
    Broken(io::Error),
    /// The last message of the handshake was the refusal; the error is its reason.
    Refused(ProxyError),
    /// The request must be answered with this code.
    Unsupported(Reply, ProxyError),
}

impl From<io::Error> for HandshakeError {
    fn from(error: io::Error) -> Self {
        Self::Broken(error)
    }
}

/// The reply codes of RFC 1928 §6 that are used.
#[derive(Clone, Copy)]
enum Reply {
    Succeeded = 0,
    Failure = 1,
    NotAllowed = 2,
    HostUnreachable = 4,
    ConnectionRefused = 5,
    CommandNotSupported = 7,
    AddressTypeNotSupported = 8,
}

impl Proxy {
    /// Serves one SOCKS5 connection: handshake, then the tunnel.
    pub(super) async fn serve_socks(&self, mut io: BoxedIo, mut connection: ConnectionContext, guard: DrainGuard) {
        let started = Instant::now();
        let handshake = within(self.inner.settings.header_timeout, self.handshake(&mut io, &mut connection)).await;
        let (reply, error) = match handshake {
            Some(Ok(target)) => {
                if let Some(api) = self.api_listener_for(connection.client, &target.host, target.port).await {
                    match api_relay::dial(api).await {
                        Ok(api) if send_reply(&mut io, Reply::Succeeded).await.is_ok() => {
                            api_relay::tunnel(&connection, io, api).await;
                        }
                        Ok(_) => {}
                        Err(error) => drop(send_reply(&mut io, reply_for(&error)).await),
                    }
                    return;
                }
                let head = connect_head(&target);
                let target = Ok((target.host, target.port));
                match self.establish(&connection, head, target, None, started).await {
                    Ok(established) => {
                        if send_reply(&mut io, Reply::Succeeded).await.is_ok() {
                            guard.run(self.clone().tunnel(io, connection, established)).await;
                        }
                    }
                    Err(error) => drop(send_reply(&mut io, reply_for(&error)).await),
                }
                return;
            }
            Some(Err(HandshakeError::Refused(error))) => (None, error),
            Some(Err(HandshakeError::Unsupported(reply, error))) => (Some(reply), error),
            Some(Err(HandshakeError::Broken(error))) => {
                return tracing::debug!(peer = %connection.client, %error, "a SOCKS client broke off its handshake");
            }
            None => return,
        };
        let kind = ExchangeKind::Connect(ConnectPolicy::Reject);
        drop(self.inner.forwarder.refuse(&connection, kind, connect_head(&Target::default()), &error).await);
        if let Some(reply) = reply {
            let _ = send_reply(&mut io, reply).await;
        }
        let _ = tokio::time::timeout(LINGER, close(io)).await;
    }

    async fn handshake(&self, io: &mut BoxedIo, connection: &mut ConnectionContext) -> Result<Target, HandshakeError> {
        let [_version, count] = read(io).await?;
        let mut methods = vec![0; usize::from(count)];
        io.read_exact(&mut methods).await?;
        let access = &self.inner.access;
        if methods.contains(&USER_AND_PASSWORD) {
            io.write_all(&[VERSION, USER_AND_PASSWORD]).await?;
            let [_version] = read(io).await?;
            let (user, password) = (text(io).await?, text(io).await?);
            let [user, password] = [&user, &password].map(|text| String::from_utf8_lossy(text));
            let admitted = access.admit(&user, &password, connection);
            io.write_all(&[1, u8::from(admitted.is_err())]).await?;
            admitted.map_err(HandshakeError::Refused)?;
        } else if access.is_open() && methods.contains(&NO_AUTHENTICATION) {
            io.write_all(&[VERSION, NO_AUTHENTICATION]).await?;
        } else {
            io.write_all(&[VERSION, NO_ACCEPTABLE_METHOD]).await?;
            let cause = "the SOCKS client does not offer user name and password";
            return Err(HandshakeError::Refused(ProxyError::new(ErrorKind::ProxyAuthenticationRequired, "", cause)));
        }
        let [_version, command, _reserved, address_type] = read(io).await?;
        if command != CONNECT {
            return Err(unsupported(Reply::CommandNotSupported, "only the SOCKS command CONNECT is supported"));
        }
        let host = match address_type {
            IPV4 => Ipv4Addr::from(read::<4>(io).await?).to_string(),
            DOMAIN_NAME => String::from_utf8(text(io).await?)
                .map_err(|_| unsupported(Reply::Failure, "the SOCKS request's host name is not UTF-8"))?,
            IPV6 => Ipv6Addr::from(read::<16>(io).await?).to_string(),
            _ => {
                let cause = "the SOCKS request's address is neither IPv4, IPv6 nor a name";
                return Err(unsupported(Reply::AddressTypeNotSupported, cause));
            }
        };
        Ok(Target { host: host.to_ascii_lowercase(), port: u16::from_be_bytes(read(io).await?) })
    }
}

fn unsupported(reply: Reply, cause: &str) -> HandshakeError {
    HandshakeError::Unsupported(reply, ProxyError::new(ErrorKind::HttpRequestError, "", cause))
}

fn connect_head(target: &Target) -> RequestHead {
    RequestHead {
        method: Method::CONNECT,
        scheme: "",
        host: target.host.clone(),
        port: target.port,
        target: String::new(),
        version: Version::HTTP_11,
        headers: HeaderMap::new(),
    }
}

async fn read<const N: usize>(io: &mut BoxedIo) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    io.read_exact(&mut bytes).await?;
    Ok(bytes)
}

/// A text with a one-byte length in front.
async fn text(io: &mut BoxedIo) -> io::Result<Vec<u8>> {
    let [length] = read(io).await?;
    let mut bytes = vec![0; usize::from(length)];
    io.read_exact(&mut bytes).await?;
    Ok(bytes)
}

/// Sends a reply. Its bound address is zero: clients of CONNECT don't use it.
async fn send_reply(io: &mut BoxedIo, reply: Reply) -> io::Result<()> {
    io.write_all(&[VERSION, reply as u8, 0, IPV4, 0, 0, 0, 0, 0, 0]).await?;
    io.flush().await
}

/// Closes a refused connection after reading the rest of the request. Without that the system would reset the connection,
/// and the client could lose the reply.
async fn close(mut io: BoxedIo) -> io::Result<()> {
    io.shutdown().await?;
    let mut rest = io.take(MAX_REQUEST_BYTES);
    tokio::io::copy(&mut rest, &mut tokio::io::sink()).await.map(drop)
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
const IPV4: u8 = 1;
const DOMAIN_NAME: u8 = 3;
const IPV6: u8 = 4;
const NO_AUTHENTICATION: u8 = 0;
const USER_AND_PASSWORD: u8 = 2;
const NO_ACCEPTABLE_METHOD: u8 = 0xff;
/// The longest request of RFC 1928: four bytes, a name of 255 bytes with its length, and a port.
const MAX_REQUEST_BYTES: u64 = 262;
const LINGER: Duration = Duration::from_secs(1);

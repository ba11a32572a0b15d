//! Protocol upgrades (WebSocket): the endpoint's answer is relayed; after its consent bytes flow in both directions. They
//! are counted, and the messages in them are recorded.

use super::rewrite::{self, UpgradeFields};
use crate::capture::Recording;
use crate::error::{ErrorKind, ProxyError, Side};
use crate::net::drain::DrainGuard;
use crate::net::received_body::ReceivedBody;
use crate::net::task::spawn;
use crate::trace::exchange::{Direction, ExchangeKind, MessageOpcode, Outcome};
use crate::upstream::{Body, Lease, body};
use crate::wire::websocket::{DeflateAgreement, FrameParser};
use http::{HeaderMap, Request, Response, StatusCode, Version, header};
use hyper::body::{Body as _, Incoming};
use hyper::ext::Protocol;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// The agent's side of an upgrade, if the request asks for one: by `Upgrade`, or by an extended CONNECT (RFC 8441).
/// An `Upgrade` on a request with a body is ignored: one hop could take what follows for the body and the next for the
/// new protocol (CVE-2026-58055).
pub(super) fn requested(request: &mut Request<Incoming>) -> Option<OnUpgrade> {
    let is_requested = match request.version() {
        Version::HTTP_2 => request.extensions().get::<Protocol>().is_some(),
        Version::HTTP_11 => request.body().is_end_stream() && rewrite::upgrade_of(request.headers()).is_some(),
        _ => false,
    };
    is_requested.then(|| hyper::upgrade::on(request))
}

/// True when a response accepts the upgrade that was requested over `version`.
pub(super) fn is_accepted<B>(response: &Response<B>, version: Version) -> bool {
    // An extended CONNECT over HTTP/2 is accepted with a 2xx; for HTTP/1.1 we make an upgrade of it, accepted with 101.
    response.status() == StatusCode::SWITCHING_PROTOCOLS
        || (version == Version::HTTP_2 && response.status().is_success())
}

/// Passes the endpoint's consent on, and relays bytes once both sides have switched. The relay holds the guards. If the
/// drain ends it, it is recorded as aborted by us.
pub(super) fn relay(
    mut response: Response<ReceivedBody>,
    agent: Option<OnUpgrade>,
    version: Version,
    recording: &Recording,
    (guard, lease): (DrainGuard, Lease),
) -> Result<Response<Body>, ProxyError> {
    let Some(agent) = agent else {
        return Err(ProxyError::new(
            ErrorKind::HttpProtocolError,
            "",
            "the endpoint switched protocols without a request to do so",
        ));
    };
    recording.kind(ExchangeKind::Upgrade);
    recording.outcome(Outcome::Aborted { by: Side::Internal });
    let observers = WebSocketObservers::of(response.headers(), version, recording);
    let (endpoint, recording) = (hyper::upgrade::on(&mut response), recording.clone());
    drop(spawn(guard.run(async move {
        let _lease = lease;
        match tokio::try_join!(agent, endpoint) {
            Ok((agent, endpoint)) => pump(TokioIo::new(agent), TokioIo::new(endpoint), &recording, observers).await,
            Err(error) => {
                recording.fail(&ProxyError::from_source(ErrorKind::ConnectionTerminated, "", &error));
            }
        }
    })));
    let headers = response.headers_mut();
    let is_http1 = version == Version::HTTP_11;
    rewrite::response(headers, if is_http1 { UpgradeFields::Keep } else { UpgradeFields::Remove });
    *response.version_mut() = version;
    if version == Version::HTTP_2 {
        // RFC 8441 §5: HTTP/2 has neither the status nor the `Sec-WebSocket-Accept` of HTTP/1.1.
        response.headers_mut().remove(header::SEC_WEBSOCKET_ACCEPT);
        *response.status_mut() = StatusCode::OK;
    }
    Ok(response.map(|_| body::empty()))
}

/// Records the messages of one direction of a WebSocket.
struct WebSocketObserver {
    parser: FrameParser,
    recording: Recording,
    // True once a close frame passed in either direction; shared by both.
    closed: Arc<AtomicBool>,
}

/// The observers of both directions, the agent's first. None if the protocol is not WebSocket, or nothing is recorded.
pub(super) struct WebSocketObservers(Option<[WebSocketObserver; 2]>);

impl WebSocketObservers {
    fn of(response: &HeaderMap, version: Version, recording: &Recording) -> Self {
        let field = |name| response.get(name).and_then(|value: &http::HeaderValue| value.to_str().ok());
        let websocket = version == Version::HTTP_2
            || field(header::UPGRADE).is_some_and(|protocol| protocol.eq_ignore_ascii_case("websocket"));
        if !websocket || !recording.is_on() {
            return Self(None);
        }
        let agreement = DeflateAgreement::parse(field(header::SEC_WEBSOCKET_EXTENSIONS).unwrap_or_default());
        let closed = Arc::new(AtomicBool::new(false));
        Self(Some([Direction::Request, Direction::Response].map(|direction| WebSocketObserver {
            parser: FrameParser::new(direction, agreement, recording.max_message_bytes()),
            recording: recording.clone(),
            closed: Arc::clone(&closed),
        })))
    }
}

impl WebSocketObserver {
    fn observe(&mut self, bytes: &[u8]) {
        let Self { parser, recording, closed } = self;
        let before = parser.fault();
        parser.push(bytes, &mut |message| {
            closed.fetch_or(message.opcode == MessageOpcode::Close, Ordering::Relaxed);
            recording.message(message);
        });
        if before.is_none()
            && let Some(fault) = parser.fault()
        {
            recording.message_fault(fault);
        }
    }
}

impl Drop for WebSocketObserver {
    fn drop(&mut self) {
        if let Some(message) = self.parser.finish() {
            self.recording.message(message);
        }
    }
}

/// Copies in both directions until both sides have ended, half-closes included, without reading the bytes.
pub(crate) async fn relay_bytes<A, E>(agent: A, endpoint: E, recording: &Recording)
where
    A: AsyncRead + AsyncWrite + Unpin,
    E: AsyncRead + AsyncWrite + Unpin,
{
    pump(agent, endpoint, recording, WebSocketObservers(None)).await;
}

/// Copies in both directions until both sides have ended, half-closes included. Records how many bytes passed, and which
/// side broke off, if one did.
async fn pump<A, E>(agent: A, endpoint: E, recording: &Recording, observers: WebSocketObservers)
where
    A: AsyncRead + AsyncWrite + Unpin,
    E: AsyncRead + AsyncWrite + Unpin,
{
    let (up, down) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    // This task may be dropped at any await: what passed until then is still recorded.
    let counts = CountsOnDrop { recording: recording.clone(), up: Arc::clone(&up), down: Arc::clone(&down) };
    let (agent_read, agent_write) = tokio::io::split(agent);
    let (endpoint_read, endpoint_write) = tokio::io::split(endpoint);
    let closed = observers.0.as_ref().map(|[agent, _]| Arc::clone(&agent.closed));
    let (agent_observer, endpoint_observer) =
        observers.0.map_or((None, None), |[agent, endpoint]| (Some(agent), Some(endpoint)));
    let first_end = OnceLock::new();
    let ended = tokio::try_join!(
        copy((agent_read, Side::Downstream), (endpoint_write, Side::Upstream), &up, agent_observer, &first_end),
        copy((endpoint_read, Side::Upstream), (agent_write, Side::Downstream), &down, endpoint_observer, &first_end),
    );
    recording.outcome(match (ended, closed) {
        // A WebSocket ends with a close frame, however its connection is torn down. Without one it broke off.
        (_, Some(closed)) if closed.load(Ordering::Relaxed) => Outcome::Complete,
        (Ok(_), Some(_)) => Outcome::Aborted { by: first_end.get().copied().unwrap_or(Side::Downstream) },
        (Ok(_), None) => Outcome::Complete,
        (Err(by), _) => Outcome::Aborted { by },
    });
    drop(counts);
}

/// Records the numbers of bytes when it is dropped.
struct CountsOnDrop {
    recording: Recording,
    up: Arc<AtomicU64>,
    down: Arc<AtomicU64>,
}

impl Drop for CountsOnDrop {
    fn drop(&mut self) {
        self.recording.relayed_bytes(Direction::Request, self.up.load(Ordering::Relaxed));
        self.recording.relayed_bytes(Direction::Response, self.down.load(Ordering::Relaxed));
    }
}

/// Copies one direction. The error is the side that broke off.
async fn copy(
    (mut from, from_side): (impl AsyncRead + Unpin, Side),
    (mut to, to_side): (impl AsyncWrite + Unpin, Side),
    passed: &AtomicU64,
    mut observer: Option<WebSocketObserver>,
    first_end: &OnceLock<Side>,
) -> Result<(), Side> {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let read = match from.read(&mut buffer).await {
            Ok(read) => read,
            // TLS without close_notify, as many servers end connections.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => 0,
            Err(_) => return Err(from_side),
        };
        if read == 0 {
            let _ = first_end.set(from_side);
            // A half-close: the other direction goes on.
            return to.shutdown().await.map_err(|_| to_side);
        }
        to.write_all(&buffer[..read]).await.map_err(|_| to_side)?;
        to.flush().await.map_err(|_| to_side)?;
        passed.fetch_add(read as u64, Ordering::Relaxed);
        if let Some(observer) = &mut observer {
            observer.observe(&buffer[..read]);
        }
    }
}

const BUFFER_BYTES: usize = 16 * 1024;

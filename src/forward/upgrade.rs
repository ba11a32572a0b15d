//! Protocol upgrades (WebSocket): the endpoint's consent is relayed, and only then do bytes flow, both ways, as they
//! come, counted; the messages in them are recorded.

use super::rewrite;
use crate::capture::{Direction, Recording};
use crate::error::{ErrorKind, ProxyError, Side};
use crate::net::drain::DrainGuard;
use crate::trace::exchange::{ExchangeKind, Message, Outcome};
use crate::upstream::{Body, Lease, body};
use crate::wire::websocket::deflate::Agreed;
use crate::wire::websocket::frames::{self, Frames, Opcode};
use http::{HeaderMap, Request, Response, StatusCode, Version, header};
use hyper::body::{Body as _, Incoming};
use hyper::ext::Protocol;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// The agent's side of an upgrade, if the request asks for one: by `Upgrade`, or by an extended CONNECT (RFC 8441).
/// With a body it is refused: what follows could be taken for the body by one hop and for the new protocol by the next
/// (CVE-2026-58055).
pub(super) fn wanted(request: &mut Request<Incoming>) -> Result<Option<OnUpgrade>, ProxyError> {
    let wants = match request.version() {
        Version::HTTP_2 => request.extensions().get::<Protocol>().is_some(),
        Version::HTTP_11 => rewrite::upgrade_of(request.headers()).is_some(),
        _ => false,
    };
    if !wants {
        return Ok(None);
    }
    if request.version() == Version::HTTP_11 && !request.body().is_end_stream() {
        let cause = "an upgrade request must not have a body";
        return Err(ProxyError::new(ErrorKind::HttpRequestMalformed, "", cause));
    }
    Ok(Some(hyper::upgrade::on(request)))
}

/// True when a response agrees to the upgrade that was asked for over `version`.
pub(super) fn agrees<B>(response: &Response<B>, version: Version) -> bool {
    // Over HTTP/2 an endpoint that takes extended CONNECTs answers 200; where we made an upgrade of it, 101.
    response.status() == StatusCode::SWITCHING_PROTOCOLS
        || (version == Version::HTTP_2 && response.status().is_success())
}

/// Passes the endpoint's consent on and lets bytes flow once both sides have switched. The relay holds `guard`, and is
/// recorded as ended by us if the drain's deadline ends it.
pub(super) fn relay(
    mut response: Response<Incoming>,
    agent: Option<OnUpgrade>,
    version: Version,
    recording: &Recording,
    (guard, lease): (DrainGuard, Lease),
) -> Result<Response<Body>, ProxyError> {
    let Some(agent) = agent else {
        return Err(ProxyError::new(ErrorKind::HttpProtocolError, "", "the endpoint switched protocols unasked"));
    };
    recording.kind(ExchangeKind::Upgrade);
    recording.outcome(Outcome::Aborted { by: Side::Internal });
    let watch = Watch::of(response.headers(), version, recording);
    let (endpoint, recording) = (hyper::upgrade::on(&mut response), recording.clone());
    tokio::spawn(guard.run(async move {
        let _lease = lease;
        match tokio::try_join!(agent, endpoint) {
            Ok((agent, endpoint)) => pump(TokioIo::new(agent), TokioIo::new(endpoint), &recording, watch).await,
            Err(error) => {
                recording.fail(&ProxyError::from_source(ErrorKind::ConnectionTerminated, "", &error));
            }
        }
    }));
    let headers = response.headers_mut();
    rewrite::response(headers, version == Version::HTTP_11);
    *response.version_mut() = version;
    if version == Version::HTTP_2 {
        // RFC 8441 §5: neither the status nor the proof of HTTP/1.1 exists there.
        response.headers_mut().remove(header::SEC_WEBSOCKET_ACCEPT);
        *response.status_mut() = StatusCode::OK;
    }
    Ok(response.map(|_| body::empty()))
}

/// An eye on one direction of a WebSocket.
struct Eye {
    frames: Frames,
    by_agent: bool,
    recording: Recording,
    // True once a close frame went either way; shared by both directions.
    closed: Arc<AtomicBool>,
}

/// An eye on each direction, agent's first; none where the protocol is not WebSocket.
pub(super) struct Watch(Option<[Eye; 2]>);

impl Watch {
    fn of(response: &HeaderMap, version: Version, recording: &Recording) -> Self {
        let field = |name| response.get(name).and_then(|value: &http::HeaderValue| value.to_str().ok());
        let websocket = version == Version::HTTP_2
            || field(header::UPGRADE).is_some_and(|protocol| protocol.eq_ignore_ascii_case("websocket"));
        if !websocket || !recording.is_on() {
            return Self(None);
        }
        let deflate = Agreed::parse(field(header::SEC_WEBSOCKET_EXTENSIONS).unwrap_or_default()).deflate;
        let closed = Arc::new(AtomicBool::new(false));
        Self(Some([true, false].map(|by_agent| Eye {
            frames: Frames::new(by_agent, deflate, recording.message_bytes()),
            by_agent,
            recording: recording.clone(),
            closed: Arc::clone(&closed),
        })))
    }
}

impl Eye {
    fn look(&mut self, bytes: &[u8]) {
        let Self { frames, by_agent, recording, closed } = self;
        if frames.fault().is_some() {
            return;
        }
        frames.push(bytes, &mut |message| {
            closed.fetch_or(message.opcode == Opcode::Close, Ordering::Relaxed);
            recording.message(seen(message, *by_agent));
        });
        if let Some(fault) = frames.fault() {
            recording.message_fault(fault);
        }
    }
}

impl Drop for Eye {
    fn drop(&mut self) {
        if let Some(message) = self.frames.finish() {
            self.recording.message(seen(message, self.by_agent));
        }
    }
}

fn seen(message: frames::Message, by_agent: bool) -> Message {
    Message {
        by_agent,
        at: Duration::ZERO,
        opcode: message.opcode.as_str(),
        size_bytes: message.size_bytes,
        payload: message.payload,
        compressed: message.compressed,
        complete: message.complete,
    }
}

/// Copies both ways until both sides have ended, keeping half-closes, unwatched.
pub async fn relay_bytes<A, E>(agent: A, endpoint: E, recording: &Recording)
where
    A: AsyncRead + AsyncWrite + Unpin,
    E: AsyncRead + AsyncWrite + Unpin,
{
    pump(agent, endpoint, recording, Watch(None)).await;
}

/// Copies both ways until both sides have ended, keeping half-closes, and records how many bytes passed and who broke
/// off, if somebody did.
async fn pump<A, E>(agent: A, endpoint: E, recording: &Recording, watch: Watch)
where
    A: AsyncRead + AsyncWrite + Unpin,
    E: AsyncRead + AsyncWrite + Unpin,
{
    let (up, down) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    // The agent may vanish with this task: what passed until then is still recorded.
    let counts = CountsOnDrop { recording: recording.clone(), up: Arc::clone(&up), down: Arc::clone(&down) };
    let (agent_read, agent_write) = tokio::io::split(agent);
    let (endpoint_read, endpoint_write) = tokio::io::split(endpoint);
    let closed = watch.0.as_ref().map(|[eye, _]| Arc::clone(&eye.closed));
    let (agent_eye, endpoint_eye) = watch.0.map_or((None, None), |[agent, endpoint]| (Some(agent), Some(endpoint)));
    let first_end = OnceLock::new();
    let ended = tokio::try_join!(
        copy((agent_read, Side::Downstream), (endpoint_write, Side::Upstream), &up, agent_eye, &first_end),
        copy((endpoint_read, Side::Upstream), (agent_write, Side::Downstream), &down, endpoint_eye, &first_end),
    );
    recording.outcome(match (ended, closed) {
        // A close frame is a WebSocket's end, however its connection is torn down; without one it broke off.
        (_, Some(closed)) if closed.load(Ordering::Relaxed) => Outcome::Complete,
        (Ok(_), Some(_)) => Outcome::Aborted { by: first_end.get().copied().unwrap_or(Side::Downstream) },
        (Ok(_), None) => Outcome::Complete,
        (Err(by), _) => Outcome::Aborted { by },
    });
    drop(counts);
}

struct CountsOnDrop {
    recording: Recording,
    up: Arc<AtomicU64>,
    down: Arc<AtomicU64>,
}

impl Drop for CountsOnDrop {
    fn drop(&mut self) {
        self.recording.passed(Direction::Request, self.up.load(Ordering::Relaxed));
        self.recording.passed(Direction::Response, self.down.load(Ordering::Relaxed));
    }
}

/// One direction. The error is the side that broke off.
async fn copy(
    (mut from, from_side): (impl AsyncRead + Unpin, Side),
    (mut to, to_side): (impl AsyncWrite + Unpin, Side),
    passed: &AtomicU64,
    mut eye: Option<Eye>,
    first_end: &OnceLock<Side>,
) -> Result<(), Side> {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let read = match from.read(&mut buffer).await {
            Ok(read) => read,
            // TLS without its goodbye, as many servers close.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => 0,
            Err(_) => return Err(from_side),
        };
        if read == 0 {
            let _ = first_end.set(from_side);
            // Half-close: the other direction goes on.
            return to.shutdown().await.map_err(|_| to_side);
        }
        to.write_all(&buffer[..read]).await.map_err(|_| to_side)?;
        to.flush().await.map_err(|_| to_side)?;
        passed.fetch_add(read as u64, Ordering::Relaxed);
        if let Some(eye) = &mut eye {
            eye.look(&buffer[..read]);
        }
    }
}

const BUFFER_BYTES: usize = 16 * 1024;

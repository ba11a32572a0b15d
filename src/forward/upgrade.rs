//! Protocol upgrades (WebSocket): the endpoint's 101 is relayed, and only then do bytes flow, both ways, counted.

use super::rewrite;
use crate::capture::{Direction, Recording};
use crate::error::{ErrorKind, ProxyError, Side};
use crate::net::drain::DrainGuard;
use crate::trace::exchange::{ExchangeKind, Outcome};
use crate::upstream::{Body, body};
use http::{Request, Response, Version};
use hyper::body::{Body as _, Incoming};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// The agent's side of an upgrade, if the request asks for one. With a body it is refused: what follows could be taken
/// for the body by one hop and for the new protocol by the next (CVE-2026-58055).
pub(super) fn wanted(request: &mut Request<Incoming>) -> Result<Option<OnUpgrade>, ProxyError> {
    if request.version() != Version::HTTP_11 || rewrite::upgrade_of(request.headers()).is_none() {
        return Ok(None);
    }
    if !request.body().is_end_stream() {
        let cause = "an upgrade request must not have a body";
        return Err(ProxyError::new(ErrorKind::HttpRequestError, "", cause));
    }
    Ok(Some(hyper::upgrade::on(request)))
}

/// Passes the endpoint's 101 on and lets bytes flow once both sides have switched. The relay holds `guard`, and is
/// recorded as ended by us if the drain's deadline ends it.
pub(super) fn relay(
    mut response: Response<Incoming>,
    agent: Option<OnUpgrade>,
    recording: &Recording,
    guard: DrainGuard,
) -> Result<Response<Body>, ProxyError> {
    let Some(agent) = agent else {
        return Err(ProxyError::new(ErrorKind::HttpProtocolError, "", "the endpoint switched protocols unasked"));
    };
    recording.kind(ExchangeKind::Upgrade);
    recording.outcome(Outcome::Aborted { by: Side::Internal });
    let (endpoint, recording) = (hyper::upgrade::on(&mut response), recording.clone());
    tokio::spawn(guard.run(async move {
        match tokio::try_join!(agent, endpoint) {
            Ok((agent, endpoint)) => pump(TokioIo::new(agent), TokioIo::new(endpoint), &recording).await,
            Err(error) => {
                recording.fail(&ProxyError::from_source(ErrorKind::ConnectionTerminated, "", &error));
            }
        }
    }));
    rewrite::response(response.headers_mut(), true);
    *response.version_mut() = Version::HTTP_11;
    Ok(response.map(|_| body::empty()))
}

/// Copies both ways until both sides have ended, keeping half-closes, and records how many bytes passed and who broke
/// off, if somebody did.
pub async fn pump<A, E>(agent: A, endpoint: E, recording: &Recording)
where
    A: AsyncRead + AsyncWrite + Unpin,
    E: AsyncRead + AsyncWrite + Unpin,
{
    let (up, down) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    // The agent may vanish with this task: what passed until then is still recorded.
    let counts = CountsOnDrop { recording: recording.clone(), up: Arc::clone(&up), down: Arc::clone(&down) };
    let (agent_read, agent_write) = tokio::io::split(agent);
    let (endpoint_read, endpoint_write) = tokio::io::split(endpoint);
    let ended = tokio::try_join!(
        copy(agent_read, Side::Downstream, endpoint_write, Side::Upstream, &up),
        copy(endpoint_read, Side::Upstream, agent_write, Side::Downstream, &down),
    );
    recording.outcome(match ended {
        Ok(_) => Outcome::Complete,
        Err(by) => Outcome::Aborted { by },
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
    mut from: impl AsyncRead + Unpin,
    from_side: Side,
    mut to: impl AsyncWrite + Unpin,
    to_side: Side,
    passed: &AtomicU64,
) -> Result<(), Side> {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let read = from.read(&mut buffer).await.map_err(|_| from_side)?;
        if read == 0 {
            // Half-close: the other direction goes on.
            return to.shutdown().await.map_err(|_| to_side);
        }
        to.write_all(&buffer[..read]).await.map_err(|_| to_side)?;
        to.flush().await.map_err(|_| to_side)?;
        passed.fetch_add(read as u64, Ordering::Relaxed);
    }
}

const BUFFER_BYTES: usize = 16 * 1024;

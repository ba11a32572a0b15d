//! The accept loop of every listener: a connection limit, no Nagle delay, back-off on errors, spare descriptors, and a stop at
//! the drain.
//!
//! At `max_connections` new connections wait in the system's backlog until one is closed. It must not read from or write
//! to a connection.

use super::drain::DrainGuard;
use super::socket::tune;
use super::task::spawn;
use backon::{BackoffBuilder, ExponentialBuilder};
use rustix::io::Errno;
use std::fs::File;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

/// What limits the connections of a listener.
pub(crate) struct ConnectionLimits {
    max_connections: usize,
    spare: SpareDescriptors,
}

impl ConnectionLimits {
    /// At most this number of connections at once, at least 1.
    pub(crate) fn new(max_connections: usize) -> Self {
        Self { max_connections: max_connections.clamp(1, Semaphore::MAX_PERMITS), spare: SpareDescriptors::default() }
    }

    /// Keeps `count` descriptors for connections that come when the process has no others left.
    pub(crate) fn with_spare_descriptors(self, count: usize) -> Self {
        let spare = SpareDescriptors { count, held: Arc::default() };
        spare.refill();
        Self { spare, ..self }
    }
}

/// Descriptors that are given up when the process has no others, so that a listener goes on to accept. Clones are the same.
#[derive(Clone, Default)]
struct SpareDescriptors {
    count: usize,
    held: Arc<Mutex<Vec<File>>>,
}

impl SpareDescriptors {
    /// Gives up a descriptor. False if none is left.
    fn release(&self) -> bool {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).pop().is_some()
    }

    /// Takes back what was given up, as far as there are descriptors.
    fn refill(&self) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        while held.len() < self.count {
            let Ok(file) = File::open("/dev/null") else { return };
            held.push(file);
        }
    }
}

/// Accepts connections until the drain starts. Each runs in a task of its own, and counts against the limits until the last
/// clone of its guard is dropped.
pub(crate) async fn accept<F, T>(listener: TcpListener, limits: ConnectionLimits, drain: DrainGuard, serve: F)
where
    F: Fn(TcpStream, SocketAddr, DrainGuard) -> T,
    T: Future<Output = ()> + Send + 'static,
{
    let ConnectionLimits { max_connections, spare } = limits;
    let permits = Arc::new(Semaphore::new(max_connections));
    let mut pauses = ACCEPT_BACKOFF.build();
    loop {
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = drain.started() => return,
        };
        match accepted {
            Ok((stream, peer)) => {
                pauses = ACCEPT_BACKOFF.build();
                tune(&stream);
                // Tunnels of the connection clone the guard, so they count as part of it.
                let guard = drain.for_connection().holding(permit);
                let (serving, spare) = (serve(stream, peer, guard.clone()), spare.clone());
                drop(spawn(guard.run(async move {
                    serving.await;
                    // At once: other listeners wait for the descriptor.
                    spare.refill();
                })));
            }
            Err(error) if is_connection_error(&error) => {}
            Err(error) if is_exhaustion(&error) && spare.release() => {}
            Err(error) => {
                // Usually the process has no descriptors left; an immediate retry would only consume CPU.
                let pause = pauses.next().unwrap_or(MAX_PAUSE);
                tracing::warn!(%error, pause_ms = pause.as_millis(), "accept failed");
                tokio::time::sleep(pause).await;
            }
        }
    }
}

/// Raises this process's limit of open descriptors, which includes sockets, to the maximum that the system allows (the
/// default is often 1024). Child processes inherit the limit.
pub(crate) fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    // If this is forbidden, the old limit stays.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
}

/// True for errors of a single connection: the next one can be accepted at once.
fn is_connection_error(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionRefused | ConnectionAborted | ConnectionReset)
}

/// True if the process, or the system, has no descriptors left.
fn is_exhaustion(error: &std::io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE))
}

const MAX_PAUSE: Duration = Duration::from_secs(1);
const ACCEPT_BACKOFF: ExponentialBuilder =
    ExponentialBuilder::new().with_min_delay(Duration::from_millis(5)).with_max_delay(MAX_PAUSE).without_max_times();

#[cfg(test)]
mod tests {
    use super::super::drain::Drain;
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn connections_beyond_the_limit_wait() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (open, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (drain, counted) = (Drain::new(), (Arc::clone(&open), Arc::clone(&most)));
        let limits = ConnectionLimits::new(2);
        tokio::spawn(accept(listener, limits, drain.guard(), move |mut stream, _, guard| {
            let (open, most) = counted.clone();
            async move {
                let _guard = guard;
                most.fetch_max(open.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
                stream.write_all(b"!").await.unwrap();
                let _ = stream.read(&mut [0]).await;
                open.fetch_sub(1, Ordering::Relaxed);
            }
        }));
        let mut clients = Vec::new();
        for _ in 0..6 {
            clients.push(TcpStream::connect(address).await.unwrap());
        }
        for mut client in clients {
            client.read_exact(&mut [0]).await.unwrap();
        }
        assert_eq!(most.load(Ordering::Relaxed), 2);
    }
}

//! The accept loop: nodelay, a permit per connection, back-off on errors, stop when told.
//!
//! It must not look into a connection.

use super::drain::DrainGuard;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

/// Accepts until the drain starts. Each connection runs in a task of its own, which holds a permit and a guard.
pub async fn accept<F, T>(listener: TcpListener, connections: Arc<Semaphore>, mut drain: DrainGuard, serve: F)
where
    F: Fn(TcpStream, SocketAddr, DrainGuard) -> T,
    T: Future<Output = ()> + Send + 'static,
{
    let mut pause = FIRST_PAUSE;
    loop {
        let Ok(permit) = Arc::clone(&connections).acquire_owned().await else { return };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = drain.started() => return,
        };
        match accepted {
            Ok((stream, peer)) => {
                pause = FIRST_PAUSE;
                // Nagle's algorithm with delayed acknowledgements costs a flat 40 ms.
                let _ = stream.set_nodelay(true);
                // The tunnels of a connection count with it.
                let guard = drain.clone().holding(permit);
                tokio::spawn(drain.clone().run(serve(stream, peer, guard)));
            }
            Err(error) if is_connection_error(&error) => {}
            Err(error) => {
                // Out of descriptors, mostly: looping at once would only burn the processor.
                tracing::warn!(%error, pause_ms = pause.as_millis(), "accept failed");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }
}

/// Lets this process open as many sockets as the system allows it (its soft limit is often 1024). What is started later
/// inherits that.
pub fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    // It stays as it is where that is not allowed.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
}

/// Errors of the one connection, after which the next can be accepted at once.
fn is_connection_error(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionRefused | ConnectionAborted | ConnectionReset)
}

const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

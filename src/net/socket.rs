//! The options of every TCP connection, of clients and to endpoints.

use std::time::Duration;
use tokio::net::TcpStream;

/// Sends small writes at once, and has the system find peers that are gone: it probes a connection that is silent, which
/// programs at the other end never see. Where an option is missing the connection works without it.
pub(crate) fn tune(stream: &TcpStream) {
    use rustix::net::sockopt::{set_socket_keepalive, set_tcp_keepcnt, set_tcp_keepidle, set_tcp_keepintvl};
    // Nagle's algorithm together with delayed acknowledgements costs 40 ms.
    let _ = stream.set_nodelay(true);
    let _ = set_tcp_keepidle(stream, KEEPALIVE_IDLE);
    let _ = set_tcp_keepintvl(stream, KEEPALIVE_INTERVAL);
    let _ = set_tcp_keepcnt(stream, KEEPALIVE_PROBES);
    let _ = set_socket_keepalive(stream, true);
}

const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_PROBES: u32 = 3;

//! The sockets of this machine and the programs that hold them, from Linux's /proc.
//!
//! A look-up takes milliseconds, so it must not run while a request waits. Without /proc nothing is found.

use std::cell::OnceCell;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

/// Returns the name of the program that holds the TCP socket bound to `address`; `None` if no program of this machine does.
pub(crate) fn program_of(address: SocketAddr) -> Option<String> {
    let is_bound = |socket: &Socket| socket.protocol == Transport::Tcp && is_same(socket.local, address);
    let inode = sockets().into_iter().find(is_bound)?.inode;
    let wanted = format!("socket:[{inode}]");
    let processes = fs::read_dir("/proc").ok()?.flatten();
    let holder = processes.map(|entry| entry.path()).find(|process| holds(process, &wanted))?;
    Some(fs::read_to_string(holder.join("comm")).ok()?.trim().to_owned())
}

/// A transport protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Transport {
    /// TCP.
    Tcp,
    /// UDP, which carries HTTP/3.
    Udp,
}

/// One TCP or UDP socket of this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Socket {
    /// TCP or UDP.
    pub protocol: Transport,
    /// The address that the socket is bound to.
    pub local: SocketAddr,
    /// The address that it is connected to; its port is 0 if it is not connected.
    pub remote: SocketAddr,
    /// The number that identifies the socket in /proc; 0 when no process holds it any more.
    pub inode: u64,
}

/// Returns all TCP and UDP sockets, IPv4 and IPv6.
fn sockets() -> Vec<Socket> {
    let tables = [("tcp", Transport::Tcp), ("tcp6", Transport::Tcp), ("udp", Transport::Udp), ("udp6", Transport::Udp)];
    let read = |(name, protocol)| {
        let table = fs::read_to_string(format!("/proc/net/{name}")).unwrap_or_default();
        table.lines().skip(1).filter_map(|line| socket(line, protocol)).collect::<Vec<_>>()
    };
    tables.into_iter().flat_map(read).collect()
}

/// A socket of any kind, as a process holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HeldSocket {
    /// The process id.
    pub pid: i32,
    /// The process's file descriptor for it.
    pub descriptor: i32,
    /// The number that identifies the socket in /proc.
    pub inode: u64,
}

/// Returns the sockets that a process holds.
pub(crate) fn held_by(pid: i32) -> Vec<HeldSocket> {
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let held = |descriptor: fs::DirEntry| {
        let link = fs::read_link(descriptor.path()).ok()?;
        let inode = link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()?;
        Some(HeldSocket { pid, descriptor: descriptor.file_name().to_str()?.parse().ok()?, inode })
    };
    descriptors.filter_map(held).collect()
}

/// The state of a held socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SocketState {
    /// Connected to another socket.
    Connected(Socket),
    /// Accepting connections on this port.
    Listening(u16),
    /// TCP or UDP, not connected yet.
    Unconnected,
    /// Neither TCP nor UDP, or closed.
    Other,
}

impl HeldSocket {
    /// Returns the socket's state: from the socket itself, which takes microseconds, or where the system forbids that,
    /// from `tables`, which are read on first use and take milliseconds.
    pub(crate) fn state(&self, tables: &OnceCell<Vec<Socket>>) -> SocketState {
        if let Some(state) = self.direct_state() {
            return state;
        }
        match tables.get_or_init(sockets).iter().find(|socket| socket.inode == self.inode) {
            Some(socket) if socket.remote.port() > 0 => SocketState::Connected(*socket),
            Some(socket) if socket.protocol == Transport::Tcp => SocketState::Listening(socket.local.port()),
            _ => SocketState::Unconnected,
        }
    }

    /// `None` where the system forbids access to another process's socket.
    #[cfg(target_os = "linux")]
    fn direct_state(&self) -> Option<SocketState> {
        use rustix::net::sockopt::{socket_acceptconn, socket_type};
        use rustix::net::{SocketAddrAny, SocketType, getpeername, getsockname};
        use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
        let process = pidfd_open(Pid::from_raw(self.pid)?, PidfdFlags::empty()).ok()?;
        let socket = match pidfd_getfd(process, self.descriptor, PidfdGetfdFlags::empty()) {
            Ok(socket) => socket,
            Err(rustix::io::Errno::BADF | rustix::io::Errno::SRCH) => return Some(SocketState::Other),
            Err(_) => return None,
        };
        let canonical = |address: SocketAddrAny| {
            let address = SocketAddr::try_from(address).ok()?;
            Some(SocketAddr::new(address.ip().to_canonical(), address.port()))
        };
        let Some(local) = getsockname(&socket).ok().and_then(canonical) else { return Some(SocketState::Other) };
        let protocol = if socket_type(&socket) == Ok(SocketType::STREAM) { Transport::Tcp } else { Transport::Udp };
        if socket_acceptconn(&socket) == Ok(true) {
            return Some(SocketState::Listening(local.port()));
        }
        let remote = getpeername(&socket).ok().flatten().and_then(canonical);
        let connected = |remote| SocketState::Connected(Socket { protocol, local, remote, inode: self.inode });
        Some(remote.map_or(SocketState::Unconnected, connected))
    }

    #[cfg(not(target_os = "linux"))]
    #[expect(clippy::unused_self, reason = "as on Linux")]
    fn direct_state(&self) -> Option<SocketState> {
        None
    }
}

fn holds(process: &Path, wanted: &str) -> bool {
    let is_process = process.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.parse::<u32>().is_ok());
    is_process
        && fs::read_dir(process.join("fd"))
            .into_iter()
            .flatten()
            .flatten()
            .any(|descriptor| fs::read_link(descriptor.path()).is_ok_and(|link| link.as_os_str() == wanted))
}

/// Parses a line of a table: number, local and remote address, state, …, with the inode as the tenth word.
fn socket(line: &str, protocol: Transport) -> Option<Socket> {
    let mut words = line.split_whitespace().skip(1);
    let (local, remote) = (address(words.next()?)?, address(words.next()?)?);
    Some(Socket { protocol, local, remote, inode: words.nth(6)?.parse().ok()? })
}

/// Parses `0100007F:1F90`: the address as 32-bit words in the machine's byte order, and the port.
fn address(text: &str) -> Option<SocketAddr> {
    let (host, port) = text.split_once(':')?;
    let words: Option<Vec<[u8; 4]>> = (0..host.len() / 8)
        .map(|word| u32::from_str_radix(&host[word * 8..word * 8 + 8], 16).ok().map(u32::to_ne_bytes))
        .collect();
    let words = words?;
    let host: IpAddr = match words.as_slice() {
        [word] => (*word).into(),
        [a, b, c, d] => <[u8; 16]>::try_from([*a, *b, *c, *d].concat()).ok()?.into(),
        _ => return None,
    };
    Some(SocketAddr::new(host.to_canonical(), u16::from_str_radix(port, 16).ok()?))
}

fn is_same(left: SocketAddr, right: SocketAddr) -> bool {
    left.port() == right.port() && left.ip().to_canonical() == right.ip().to_canonical()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_a_table_is_parsed() {
        let line = "   1: 0100007F:1F90 0200007F:01BB 01 00000000:00000000 00:00000000 00000000  1000 0 4242 1 0 20 4";
        let read = socket(line, Transport::Tcp).unwrap();
        assert_eq!(read.local, "127.0.0.1:8080".parse().unwrap());
        assert_eq!((read.remote, read.inode), ("127.0.0.2:443".parse().unwrap(), 4242));
        let mapped = "0000000000000000FFFF00000100007F:0050";
        assert_eq!(address(mapped), Some("127.0.0.1:80".parse().unwrap()));
        assert_eq!(address("xyz"), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_finds_its_own_sockets() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let ours = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let own_name = fs::read_to_string("/proc/self/comm").unwrap();
        assert_eq!(program_of(ours.local_addr().unwrap()).as_deref(), Some(own_name.trim()));
        let held = held_by(i32::try_from(std::process::id()).unwrap());
        let inode = |address: SocketAddr| sockets().into_iter().find(|socket| socket.local == address).unwrap().inode;
        let state = |address: SocketAddr, held: &HeldSocket| {
            let tables = OnceCell::new();
            tables.set(sockets()).unwrap();
            assert_eq!(held.state(&tables), held.direct_state().unwrap());
            assert_eq!(inode(address), held.inode);
            held.state(&tables)
        };
        let (from, to) = (ours.local_addr().unwrap(), listener.local_addr().unwrap());
        let find = |address| held.iter().find(|held| held.inode == inode(address)).unwrap();
        let connected = Socket { protocol: Transport::Tcp, local: from, remote: to, inode: inode(from) };
        assert_eq!(state(from, find(from)), SocketState::Connected(connected));
        assert_eq!(state(to, find(to)), SocketState::Listening(to.port()));
    }
}

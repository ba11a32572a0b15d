//! Which program of this machine is at the other end of a connection, as far as Linux tells.
//!
//! It reads /proc and takes milliseconds: not for the path of a request.

use std::cell::OnceCell;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

/// The name of the program that holds the socket bound to `address`, if it is one of this machine's.
pub fn program_of(address: SocketAddr) -> Option<String> {
    let ours = |socket: &Socket| socket.protocol == Protocol::Tcp && same(socket.local, address);
    let inode = sockets().into_iter().find(ours)?.inode;
    let wanted = format!("socket:[{inode}]");
    let processes = fs::read_dir("/proc").ok()?.flatten();
    let holder = processes.map(|entry| entry.path()).find(|process| holds(process, &wanted))?;
    Some(fs::read_to_string(holder.join("comm")).ok()?.trim().to_owned())
}

/// A transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP, which carries HTTP/3.
    Udp,
}

/// One TCP or UDP socket of this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Socket {
    /// Its transport.
    pub protocol: Protocol,
    /// Its own address.
    pub local: SocketAddr,
    /// Where it leads to.
    pub remote: SocketAddr,
    /// The number by which processes hold it; 0 when none does any more.
    pub inode: u64,
}

/// All of them, IPv4 and IPv6; none where there is no /proc.
pub fn sockets() -> Vec<Socket> {
    let tables = [("tcp", Protocol::Tcp), ("tcp6", Protocol::Tcp), ("udp", Protocol::Udp), ("udp6", Protocol::Udp)];
    let read = |(name, protocol)| {
        let table = fs::read_to_string(format!("/proc/net/{name}")).unwrap_or_default();
        table.lines().skip(1).filter_map(|line| socket(line, protocol)).collect::<Vec<_>>()
    };
    tables.into_iter().flat_map(read).collect()
}

/// A socket, of whatever kind, as a process holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// The process.
    pub pid: i32,
    /// Its descriptor there.
    pub descriptor: i32,
    /// Its number.
    pub inode: u64,
}

/// The sockets that a process holds.
pub fn held_by(pid: i32) -> Vec<Held> {
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let held = |descriptor: fs::DirEntry| {
        let link = fs::read_link(descriptor.path()).ok()?;
        let inode = link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()?;
        Some(Held { pid, descriptor: descriptor.file_name().to_str()?.parse().ok()?, inode })
    };
    descriptors.filter_map(held).collect()
}

/// What a held socket is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// It leads somewhere.
    Connected(Socket),
    /// It takes connections at this port.
    Listening(u16),
    /// Nothing yet.
    Unconnected,
    /// Neither TCP nor UDP, or gone.
    Other,
}

impl Held {
    /// Looks at it: directly, which takes microseconds, or where that is not allowed in `tables`, which takes
    /// milliseconds to read.
    pub fn look(&self, tables: &OnceCell<Vec<Socket>>) -> Look {
        if let Some(look) = self.look_directly() {
            return look;
        }
        match tables.get_or_init(sockets).iter().find(|socket| socket.inode == self.inode) {
            Some(socket) if socket.remote.port() > 0 => Look::Connected(*socket),
            Some(socket) if socket.protocol == Protocol::Tcp => Look::Listening(socket.local.port()),
            _ => Look::Unconnected,
        }
    }

    /// None where the system forbids it.
    #[cfg(target_os = "linux")]
    fn look_directly(&self) -> Option<Look> {
        use rustix::net::sockopt::{socket_acceptconn, socket_type};
        use rustix::net::{SocketAddrAny, SocketType, getpeername, getsockname};
        use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
        let process = pidfd_open(Pid::from_raw(self.pid)?, PidfdFlags::empty()).ok()?;
        // The copy is held for as long as it takes to ask.
        let socket = match pidfd_getfd(process, self.descriptor, PidfdGetfdFlags::empty()) {
            Ok(socket) => socket,
            Err(rustix::io::Errno::BADF | rustix::io::Errno::SRCH) => return Some(Look::Other),
            Err(_) => return None,
        };
        let place = |address: SocketAddrAny| {
            let address = SocketAddr::try_from(address).ok()?;
            Some(SocketAddr::new(address.ip().to_canonical(), address.port()))
        };
        let Some(local) = getsockname(&socket).ok().and_then(place) else { return Some(Look::Other) };
        let protocol = if socket_type(&socket) == Ok(SocketType::STREAM) { Protocol::Tcp } else { Protocol::Udp };
        if socket_acceptconn(&socket) == Ok(true) {
            return Some(Look::Listening(local.port()));
        }
        let remote = getpeername(&socket).ok().flatten().and_then(place);
        let connected = |remote| Look::Connected(Socket { protocol, local, remote, inode: self.inode });
        Some(remote.map_or(Look::Unconnected, connected))
    }

    #[cfg(not(target_os = "linux"))]
    #[expect(clippy::unused_self, reason = "as on Linux")]
    fn look_directly(&self) -> Option<Look> {
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

/// A line of the table: number, local and remote address, state, …, inode as the tenth word.
fn socket(line: &str, protocol: Protocol) -> Option<Socket> {
    let mut words = line.split_whitespace().skip(1);
    let (local, remote) = (address(words.next()?)?, address(words.next()?)?);
    Some(Socket { protocol, local, remote, inode: words.nth(6)?.parse().ok()? })
}

/// `0100007F:1F90`: the address in the machine's byte order, four bytes at a time.
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

fn same(left: SocketAddr, right: SocketAddr) -> bool {
    left.port() == right.port() && left.ip().to_canonical() == right.ip().to_canonical()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read() {
        let line = "   1: 0100007F:1F90 0200007F:01BB 01 00000000:00000000 00:00000000 00000000  1000 0 4242 1 0 20 4";
        let read = socket(line, Protocol::Tcp).unwrap();
        assert_eq!(read.local, "127.0.0.1:8080".parse().unwrap());
        assert_eq!((read.remote, read.inode), ("127.0.0.2:443".parse().unwrap(), 4242));
        let mapped = "0000000000000000FFFF00000100007F:0050";
        assert_eq!(address(mapped), Some("127.0.0.1:80".parse().unwrap()));
        assert_eq!(address("xyz"), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_program_finds_itself() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let ours = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let own_name = fs::read_to_string("/proc/self/comm").unwrap();
        assert_eq!(program_of(ours.local_addr().unwrap()).as_deref(), Some(own_name.trim()));
        let held = held_by(i32::try_from(std::process::id()).unwrap());
        let inode = |address: SocketAddr| sockets().into_iter().find(|socket| socket.local == address).unwrap().inode;
        let looked = |address: SocketAddr, held: &Held| {
            let tables = OnceCell::new();
            tables.set(sockets()).unwrap();
            assert_eq!(held.look(&tables), held.look_directly().unwrap());
            assert_eq!(inode(address), held.inode);
            held.look(&tables)
        };
        let (from, to) = (ours.local_addr().unwrap(), listener.local_addr().unwrap());
        let find = |address| held.iter().find(|held| held.inode == inode(address)).unwrap();
        let connected = Socket { protocol: Protocol::Tcp, local: from, remote: to, inode: inode(from) };
        assert_eq!(looked(from, find(from)), Look::Connected(connected));
        assert_eq!(looked(to, find(to)), Look::Listening(to.port()));
    }
}

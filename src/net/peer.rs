//! Which program of this machine is at the other end of a connection, as far as Linux tells.
//!
//! It reads /proc and takes milliseconds: not for the path of a request.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

/// The name of the program that holds the socket bound to `address`, if it is one of this machine's.
pub fn program_of(address: SocketAddr) -> Option<String> {
    let inode = sockets().into_iter().find(|socket| same(socket.local, address))?.inode;
    let wanted = format!("socket:[{inode}]");
    let processes = fs::read_dir("/proc").ok()?.flatten();
    let holder = processes.map(|entry| entry.path()).find(|process| holds(process, &wanted))?;
    Some(fs::read_to_string(holder.join("comm")).ok()?.trim().to_owned())
}

/// One TCP socket of this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Socket {
    /// Its own address.
    pub local: SocketAddr,
    /// Where it leads to.
    pub remote: SocketAddr,
    /// The number by which processes hold it; 0 when none does any more.
    pub inode: u64,
}

/// All TCP sockets, IPv4 and IPv6; none where there is no /proc.
pub fn sockets() -> Vec<Socket> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(|path| fs::read_to_string(path).unwrap_or_default());
    tables.iter().flat_map(|table| table.lines().skip(1).filter_map(socket)).collect()
}

/// The numbers of the sockets that a process holds.
pub fn inodes_of(pid: i32) -> Vec<u64> {
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let links = descriptors.filter_map(|descriptor| fs::read_link(descriptor.path()).ok());
    links.filter_map(|link| link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()).collect()
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
fn socket(line: &str) -> Option<Socket> {
    let mut words = line.split_whitespace().skip(1);
    let (local, remote) = (address(words.next()?)?, address(words.next()?)?);
    Some(Socket { local, remote, inode: words.nth(6)?.parse().ok()? })
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
        let read = socket(line).unwrap();
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
        let held = inodes_of(i32::try_from(std::process::id()).unwrap());
        let socket = sockets().into_iter().find(|socket| socket.local == ours.local_addr().unwrap()).unwrap();
        assert!(held.contains(&socket.inode));
    }
}

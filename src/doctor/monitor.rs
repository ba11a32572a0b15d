//! Monitors the connections of a running command by reading /proc again and again.
//!
//! Connections that are shorter than a few scans can be missed, and without /proc nothing is observed. It must not disturb
//! the command. Memory grows with the number of different processes, addresses and sockets of the command.

use crate::net::peer::{HeldSocket, Socket, SocketState, Transport, held_by};
use crate::run::processes::descendants;
use rustix::process::Pid;
use serde::Serialize;
use std::cell::OnceCell;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::{self, File};
use std::io::Read;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Connections of one process to one address other than the proxy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct ObservedConnections {
    /// The file name of the program.
    pub program: String,
    /// The process id.
    pub pid: i32,
    /// The remote address.
    pub remote: SocketAddr,
    /// UDP stands for HTTP/3; other uses of UDP are not reported.
    pub protocol: Transport,
    /// The number of connections observed.
    pub connections: u64,
    /// True when the process was started without the `HTTPS_PROXY` of `tracewire run`, or with another one.
    pub environment_lost: bool,
    /// True when the program's file has Go's build information.
    pub built_by_go: bool,
}

/// Everything that was observed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Observations {
    /// Connections that bypass the proxy.
    pub bypasses: Vec<ObservedConnections>,
    /// The programs with connections to the proxy, by the local port of the connection.
    pub clients: HashMap<u16, String>,
}

/// How often the sockets of a command are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ScanRate {
    /// Some thousand times a second: connections of a millisecond are seen.
    Diagnosis,
    /// So rarely that any command can run with it: connections of a tenth of a second are seen.
    Background,
}

impl ScanRate {
    /// Time between two reads of the sockets.
    fn scan_interval(self) -> Duration {
        match self {
            Self::Diagnosis => Duration::from_micros(300),
            Self::Background => Duration::from_millis(25),
        }
    }

    /// Time between two lists of the processes.
    fn list_interval(self) -> Duration {
        match self {
            Self::Diagnosis => Duration::from_millis(5),
            Self::Background => Duration::from_millis(100),
        }
    }
}

/// Monitors one command on a thread of its own, until it is finished or dropped.
pub(crate) struct ConnectionMonitor {
    thread: Option<JoinHandle<Observations>>,
    stop: Arc<AtomicBool>,
}

impl ConnectionMonitor {
    /// Monitors a process and its descendants. Connections to `proxy` don't count as bypasses.
    pub(crate) fn start(root: Pid, proxy: SocketAddr, rate: ScanRate) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::Builder::new().name("monitor".to_owned()).spawn(move || {
            let mut scanner = ProcessScanner::new(root, proxy, rate);
            while !stopped.load(Ordering::Relaxed) {
                scanner.scan();
                std::thread::park_timeout(rate.scan_interval());
            }
            scanner.finish()
        });
        Self { thread: thread.ok(), stop }
    }

    /// Stops and returns the observations.
    pub(crate) fn finish(mut self) -> Observations {
        self.stop.store(true, Ordering::Relaxed);
        let Some(thread) = self.thread.take() else { return Observations::default() };
        thread.thread().unpark();
        thread.join().unwrap_or_default()
    }
}

impl Drop for ConnectionMonitor {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

struct ProcessScanner {
    proxy: SocketAddr,
    root: Pid,
    rate: ScanRate,
    processes: HashMap<i32, Process>,
    listed: Option<Instant>,
    // Sockets that were handled and won't change.
    settled: HashSet<u64>,
    // Ports of the command's own servers: connections to them stay within the command.
    listening: HashSet<u16>,
    clients: HashMap<u16, String>,
    bypasses: BTreeMap<(i32, SocketAddr, Transport), ObservedConnections>,
    // Executables by program, opened early because a file may be deleted while the command runs.
    files: HashMap<String, File>,
}

/// What is known about a process. It is read early: a short-lived process may be gone when its socket is found.
#[derive(Debug, Default)]
struct Process {
    executable: PathBuf,
    environment_lost: bool,
}

impl Process {
    fn program(&self) -> String {
        self.executable.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }
}

impl ProcessScanner {
    fn new(root: Pid, proxy: SocketAddr, rate: ScanRate) -> Self {
        Self {
            proxy,
            root,
            rate,
            processes: HashMap::new(),
            listed: None,
            settled: HashSet::new(),
            listening: HashSet::new(),
            clients: HashMap::new(),
            bypasses: BTreeMap::new(),
            files: HashMap::new(),
        }
    }

    /// Lists the processes.
    fn list(&mut self) {
        for pid in descendants(self.root).into_iter().chain([self.root]).map(|pid| pid.as_raw_nonzero().get()) {
            self.identify(pid);
        }
        self.listed = Some(Instant::now());
    }

    /// Reads what a process runs. One that now runs another program counts as a new process.
    fn identify(&mut self, pid: i32) {
        let Ok(executable) = fs::read_link(format!("/proc/{pid}/exe")) else { return };
        let process = self.processes.entry(pid).or_default();
        if process.executable == executable {
            return;
        }
        *process = Process { executable, environment_lost: environment_lost(pid, self.proxy) };
        let program = process.program();
        if let (false, Ok(file)) = (self.files.contains_key(&program), File::open(format!("/proc/{pid}/exe"))) {
            self.files.insert(program, file);
        }
    }

    /// Reads the sockets of all processes once.
    fn scan(&mut self) {
        if self.listed.is_none_or(|listed| listed.elapsed() >= self.rate.list_interval()) {
            self.list();
        }
        let tables = OnceCell::new();
        let held: Vec<HeldSocket> = self.processes.keys().flat_map(|pid| held_by(*pid)).collect();
        for held in held {
            if self.settled.contains(&held.inode) {
                continue;
            }
            match held.state(&tables) {
                SocketState::Unconnected => continue,
                SocketState::Listening(port) => drop(self.listening.insert(port)),
                SocketState::Connected(socket) => self.connected(held.pid, &socket),
                SocketState::Other => {}
            }
            self.settled.insert(held.inode);
        }
    }

    fn connected(&mut self, pid: i32, socket: &Socket) {
        // It may have run another program when the processes were listed.
        self.identify(pid);
        let inbound = socket.protocol == Transport::Tcp && self.listening.contains(&socket.local.port());
        // Other UDP is DNS, NTP and the like, which no proxy carries.
        let other_udp = socket.protocol == Transport::Udp && socket.remote.port() != HTTPS_PORT;
        if socket.remote == self.proxy {
            let program = self.processes.get(&pid).map(Process::program).unwrap_or_default();
            self.clients.insert(socket.local.port(), program);
        } else if !inbound && !other_udp && socket.remote.port() != DNS_PORT {
            self.add_bypass(pid, socket);
        }
    }

    fn add_bypass(&mut self, pid: i32, socket: &Socket) {
        let Some(process) = self.processes.get(&pid) else { return };
        let key = (pid, socket.remote, socket.protocol);
        let bypass = self.bypasses.entry(key).or_insert_with(|| ObservedConnections {
            program: process.program(),
            pid,
            remote: socket.remote,
            protocol: socket.protocol,
            connections: 0,
            environment_lost: process.environment_lost,
            built_by_go: false,
        });
        bypass.connections += 1;
    }

    fn finish(self) -> Observations {
        let built_by_go: HashMap<_, _> =
            self.files.into_iter().map(|(program, file)| (program, is_built_by_go(file))).collect();
        let is_own_server = |bypass: &ObservedConnections| {
            bypass.remote.ip().is_loopback() && self.listening.contains(&bypass.remote.port())
        };
        let bypasses = self.bypasses.into_values().filter(|bypass| !is_own_server(bypass));
        let bypasses = bypasses.map(|bypass| ObservedConnections {
            built_by_go: built_by_go.get(&bypass.program).copied().unwrap_or(false),
            ..bypass
        });
        Observations { bypasses: bypasses.collect(), clients: self.clients }
    }
}

/// True when a process was started without `HTTPS_PROXY`, or with another one than ours. False if its environment can't
/// be read.
fn environment_lost(pid: i32, proxy: SocketAddr) -> bool {
    let Ok(environment) = fs::read(format!("/proc/{pid}/environ")) else { return false };
    let mut variables = environment.split(|byte| *byte == 0).filter_map(|variable| std::str::from_utf8(variable).ok());
    let ours = variables.find_map(|variable| variable.strip_prefix("HTTPS_PROXY="));
    !ours.is_some_and(|url| url.trim_end_matches('/').ends_with(&proxy.to_string()))
}

/// True when a program's file has Go's build information in its first 32 MiB.
fn is_built_by_go(file: File) -> bool {
    let mut bytes = Vec::new();
    let read = file.take(MAX_FILE_BYTES).read_to_end(&mut bytes);
    read.is_ok() && bytes.windows(GO_BUILD_INFO.len()).any(|window| window == GO_BUILD_INFO)
}

const HTTPS_PORT: u16 = 443;
const DNS_PORT: u16 = 53;
const MAX_FILE_BYTES: u64 = 32 * 1024 * 1024;
/// The magic number by which `go version` recognizes Go binaries (debug/buildinfo).
const GO_BUILD_INFO: &[u8] = b"\xff Go buildinf:";

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn connections_that_bypass_the_proxy_are_observed() {
        let [proxy, elsewhere] = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let (proxy, elsewhere) = (proxy.local_addr().unwrap(), (elsewhere.local_addr().unwrap(), elsewhere));
        let ours = Pid::from_raw(i32::try_from(std::process::id()).unwrap()).unwrap();
        let open = TcpStream::connect(elsewhere.0).unwrap();
        let (_accepted, _) = elsewhere.1.accept().unwrap();
        let mut scanner = ProcessScanner::new(ours, proxy, ScanRate::Diagnosis);
        scanner.scan();
        scanner.scan();
        let seen: Vec<_> = scanner.bypasses.values().filter(|bypass| bypass.remote == elsewhere.0).collect();
        assert_eq!(seen.len(), 1);
        assert_eq!((seen[0].connections, seen[0].environment_lost), (1, true));
        let mut scanner = ProcessScanner::new(ours, elsewhere.0, ScanRate::Diagnosis);
        scanner.scan();
        assert!(!scanner.bypasses.values().any(|bypass| bypass.remote == elsewhere.0));
        assert!(scanner.clients.contains_key(&open.local_addr().unwrap().port()));
    }
}

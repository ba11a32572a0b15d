//! What a running command connects to, besides our door: looked up in /proc, some thousand times a second.
//!
//! A connection that lives for less than a look is missed, and there is nothing to see where there is no /proc. It must
//! not disturb the command.

use crate::net::peer::{Held, Look, Protocol, Socket, held_by};
use crate::run::child::descendants;
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

/// Connections of one process to one place that is not our door.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Sighting {
    /// The program.
    pub program: String,
    /// Its process.
    pub pid: i32,
    /// Where it connected to.
    pub remote: SocketAddr,
    /// TCP, or UDP as HTTP/3 has it.
    pub protocol: Protocol,
    /// How many connections were seen.
    pub connections: u64,
    /// True when the variables that `tracewire run` had set were gone from its environment, or others.
    pub environment_lost: bool,
    /// True when the program was built by Go, which shows in its file.
    pub built_by_go: bool,
}

/// All that was seen.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Connections that did not lead to our door.
    pub sightings: Vec<Sighting>,
    /// The programs behind those that did, by their own port.
    pub clients: HashMap<u16, String>,
}

/// A command under watch.
pub struct Watch {
    thread: Option<JoinHandle<Seen>>,
    over: Arc<AtomicBool>,
}

impl Watch {
    /// Watches a process and all it starts. Connections to `door` are as they should be.
    pub fn start(root: Pid, door: SocketAddr) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&over);
        let thread = std::thread::Builder::new().name("watch".to_owned()).spawn(move || {
            let mut watcher = Watcher::new(root, door);
            while !until.load(Ordering::Relaxed) {
                watcher.look();
                std::thread::sleep(LOOK_EVERY);
            }
            watcher.finish()
        });
        Self { thread: thread.ok(), over }
    }

    /// Ends it: what was seen.
    pub fn finish(mut self) -> Seen {
        self.over.store(true, Ordering::Relaxed);
        self.thread.take().and_then(|thread| thread.join().ok()).unwrap_or_default()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

struct Watcher {
    door: SocketAddr,
    root: Pid,
    processes: HashMap<i32, Process>,
    listed: Option<Instant>,
    // Sockets that need no second look.
    settled: HashSet<u64>,
    // Ports of the command's own servers: what leads there stays within it.
    listening: HashSet<u16>,
    seen: Seen,
    sightings: BTreeMap<(i32, SocketAddr, bool), Sighting>,
    // By program, open while it may go away.
    files: HashMap<String, File>,
}

/// What is known of a process. It is asked for early: a short-lived one may be gone when its socket is found.
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

impl Watcher {
    fn new(root: Pid, door: SocketAddr) -> Self {
        Self {
            door,
            root,
            processes: HashMap::new(),
            listed: None,
            settled: HashSet::new(),
            listening: HashSet::new(),
            seen: Seen::default(),
            sightings: BTreeMap::new(),
            files: HashMap::new(),
        }
    }

    /// Looks which processes there are, and what has become of them: one that runs another program is another process.
    fn list(&mut self) {
        for pid in descendants(self.root).into_iter().chain([self.root]).map(|pid| pid.as_raw_nonzero().get()) {
            let Ok(executable) = fs::read_link(format!("/proc/{pid}/exe")) else { continue };
            let process = self.processes.entry(pid).or_default();
            if process.executable == executable {
                continue;
            }
            *process = Process { executable, environment_lost: environment_lost(pid, self.door) };
            let program = process.program();
            if let (false, Ok(file)) = (self.files.contains_key(&program), File::open(format!("/proc/{pid}/exe"))) {
                self.files.insert(program, file);
            }
        }
        self.listed = Some(Instant::now());
    }

    fn look(&mut self) {
        if self.listed.is_none_or(|listed| listed.elapsed() >= LIST_EVERY) {
            self.list();
        }
        let tables = OnceCell::new();
        let held: Vec<Held> = self.processes.keys().flat_map(|pid| held_by(*pid)).collect();
        for held in held {
            if self.settled.contains(&held.inode) {
                continue;
            }
            match held.look(&tables) {
                Look::Unconnected => continue,
                Look::Listening(port) => drop(self.listening.insert(port)),
                Look::Connected(socket) => self.connected(held.pid, &socket),
                Look::Other => {}
            }
            self.settled.insert(held.inode);
        }
    }

    fn connected(&mut self, pid: i32, socket: &Socket) {
        let inbound = socket.protocol == Protocol::Tcp && self.listening.contains(&socket.local.port());
        // Asking for names, the time and the like is not what is looked for.
        let other_udp = socket.protocol == Protocol::Udp && socket.remote.port() != HTTPS_PORT;
        if socket.remote == self.door {
            let program = self.processes.get(&pid).map(Process::program).unwrap_or_default();
            self.seen.clients.insert(socket.local.port(), program);
        } else if !inbound && !other_udp && socket.remote.port() != DNS_PORT {
            self.note(pid, socket);
        }
    }

    fn note(&mut self, pid: i32, socket: &Socket) {
        let Some(process) = self.processes.get(&pid) else { return };
        let key = (pid, socket.remote, socket.protocol == Protocol::Udp);
        let sighting = self.sightings.entry(key).or_insert_with(|| Sighting {
            program: process.program(),
            pid,
            remote: socket.remote,
            protocol: socket.protocol,
            connections: 0,
            environment_lost: process.environment_lost,
            built_by_go: false,
        });
        sighting.connections += 1;
    }

    fn finish(self) -> Seen {
        let by_go: HashMap<_, _> = self.files.into_iter().map(|(program, file)| (program, built_by_go(file))).collect();
        let told = |sighting: Sighting| Sighting {
            built_by_go: by_go.get(&sighting.program).copied().unwrap_or(false),
            ..sighting
        };
        let own = |sighting: &Sighting| {
            sighting.remote.ip().is_loopback() && self.listening.contains(&sighting.remote.port())
        };
        let sightings = self.sightings.into_values().filter(|sighting| !own(sighting));
        Seen { sightings: sightings.map(told).collect(), ..self.seen }
    }
}

/// True when a process was started without HTTPS_PROXY, or with one that doesn't lead to us. Unreadable is not lost.
fn environment_lost(pid: i32, door: SocketAddr) -> bool {
    let Ok(environment) = fs::read(format!("/proc/{pid}/environ")) else { return false };
    let mut variables = environment.split(|byte| *byte == 0).filter_map(|variable| std::str::from_utf8(variable).ok());
    let ours = variables.find_map(|variable| variable.strip_prefix("HTTPS_PROXY="));
    !ours.is_some_and(|url| url.trim_end_matches('/').ends_with(&door.to_string()))
}

/// True when a program's file carries Go's build information.
fn built_by_go(file: File) -> bool {
    let mut bytes = Vec::new();
    let read = file.take(MAX_FILE_BYTES).read_to_end(&mut bytes);
    read.is_ok() && bytes.windows(GO_MARK.len()).any(|window| window == GO_MARK)
}

const LOOK_EVERY: Duration = Duration::from_micros(300);
const LIST_EVERY: Duration = Duration::from_millis(5);
const HTTPS_PORT: u16 = 443;
const DNS_PORT: u16 = 53;
const MAX_FILE_BYTES: u64 = 32 * 1024 * 1024;
/// How `go version` knows its binaries (debug/buildinfo).
const GO_MARK: &[u8] = b"\xff Go buildinf:";

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn connections_past_the_door_are_seen_and_others_are_not() {
        let [door, elsewhere] = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let (door, elsewhere) = (door.local_addr().unwrap(), (elsewhere.local_addr().unwrap(), elsewhere));
        let ours = Pid::from_raw(i32::try_from(std::process::id()).unwrap()).unwrap();
        let open = TcpStream::connect(elsewhere.0).unwrap();
        let (_accepted, _) = elsewhere.1.accept().unwrap();
        let mut watcher = Watcher::new(ours, door);
        watcher.look();
        watcher.look();
        let seen: Vec<_> = watcher.sightings.values().filter(|seen| seen.remote == elsewhere.0).collect();
        assert_eq!(seen.len(), 1);
        assert_eq!((seen[0].connections, seen[0].environment_lost), (1, true));
        let mut watcher = Watcher::new(ours, elsewhere.0);
        watcher.look();
        assert!(!watcher.sightings.values().any(|seen| seen.remote == elsewhere.0));
        assert!(watcher.seen.clients.contains_key(&open.local_addr().unwrap().port()));
    }
}

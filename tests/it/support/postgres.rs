//! A PostgreSQL server for the tests: the one that `TRACEWIRE_TEST_POSTGRES` names, else one of their own, on a socket in
//! a temporary folder. Each test has a database of its own.

use super::eventually;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

/// The URL of a new, empty database.
pub fn database() -> String {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let name = format!("tracewire_{}_{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
    let server = server();
    run(server, &format!("CREATE DATABASE {name}"));
    let (base, options) =
        server.split_once('?').map_or((server, String::new()), |(base, rest)| (base, format!("?{rest}")));
    let (host, _) = base.rsplit_once('/').unwrap();
    format!("{host}/{name}{options}")
}

/// What a database allows new sessions.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Access {
    Nothing,
    Reads,
    Everything,
}

/// Changes what a database allows, and ends its sessions, as a restart of the server does.
pub fn set_access(url: &str, access: Access) {
    let name = database_name(url);
    let (connections, read_only) = (access != Access::Nothing, access == Access::Reads);
    run(server(), &format!("ALTER DATABASE {name} ALLOW_CONNECTIONS {connections}"));
    run(server(), &format!("ALTER DATABASE {name} SET default_transaction_read_only = {read_only}"));
    run(server(), &format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"));
}

/// Runs SQL in a database.
pub fn execute(url: &str, sql: &str) {
    run(url, sql);
}

/// A session of a test's own.
pub async fn connect(url: &str) -> tokio_postgres::Client {
    let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

fn database_name(url: &str) -> &str {
    url.split('?').next().unwrap().rsplit('/').next().unwrap()
}

/// The URL of the server's own database.
fn server() -> &'static str {
    static SERVER: OnceLock<String> = OnceLock::new();
    SERVER.get_or_init(|| std::env::var("TRACEWIRE_TEST_POSTGRES").unwrap_or_else(|_| start()))
}

fn run(url: &str, sql: &str) {
    let output =
        Command::new("psql").args(["--no-psqlrc", "-q", "-v", "ON_ERROR_STOP=1", url, "-c", sql]).output().unwrap();
    assert!(output.status.success(), "{sql}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Starts a server that ends with this process.
fn start() -> String {
    let server = Server::start();
    let url = server.url();
    std::mem::forget(server);
    url
}

/// A server of a test's own, which it may kill.
pub struct Server {
    folder: PathBuf,
    process: Option<u32>,
}

impl Server {
    /// Makes its files and starts it.
    pub fn start() -> Self {
        let folder = tempfile::tempdir().unwrap().keep();
        if is_root() {
            assert!(Command::new("chown").arg("postgres").arg(&folder).status().unwrap().success());
        }
        let mut init = command(&programs().join("initdb"));
        let made = init
            .arg("-D")
            .arg(folder.join("data"))
            .args(["-A", "trust", "-U", "postgres", "--no-sync"])
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let mut server = Self { folder, process: None };
        server.go_on();
        server
    }

    /// Starts it on the files it has.
    pub fn go_on(&mut self) {
        let answers = |url: &str| Command::new("psql").args([url, "-c", "SELECT 1"]).output().unwrap().status.success();
        let url = self.url();
        // After a crash its old children hold on to their memory for a moment, and a new one refuses to start.
        self.process = Some(eventually(|| {
            let (process, ended) = self.launch();
            loop {
                if answers(&url) {
                    return Some(process);
                }
                if ended.recv_timeout(Duration::from_millis(50)) != Err(RecvTimeoutError::Timeout) {
                    return None;
                }
            }
        }));
    }

    /// One try: the process, and word of its end.
    fn launch(&self) -> (u32, Receiver<()>) {
        let mut server = command(&programs().join("postgres"));
        server.arg("-D").arg(self.folder.join("data")).arg("-k").arg(&self.folder);
        server.args(["-c", "listen_addresses=", "-c", "fsync=off", "-c", "max_connections=400"]);
        server.stdout(Stdio::null()).stderr(Stdio::null());
        let ((started, process), (end, ended)) = (channel(), channel());
        // It ends with the thread that started it: one that lives as long as we do.
        std::thread::spawn(move || {
            let mut child = server.spawn().unwrap();
            started.send(child.id()).unwrap();
            child.wait().unwrap();
            let _ = end.send(());
        });
        (process.recv().unwrap(), ended)
    }

    /// Kills it, as a crash does.
    pub fn kill(&mut self) {
        let process = self.process.take().unwrap().to_string();
        assert!(Command::new("kill").args(["-9", &process]).status().unwrap().success());
    }

    /// The URL of its own database.
    pub fn url(&self) -> String {
        format!("postgres://postgres@/postgres?host={}", self.folder.display())
    }
}

fn is_root() -> bool {
    Command::new("id").arg("-u").output().unwrap().stdout.starts_with(b"0\n")
}

/// A program of the server's: it refuses to run as root.
fn command(program: &Path) -> Command {
    if !is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups", "--pdeathsig=KILL", "--"]).arg(program);
    command
}

/// Where Debian has them, or the PATH.
fn programs() -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let newest = versions.map(|entry| entry.path().join("bin")).filter(|bin| bin.join("initdb").exists()).max();
    newest.unwrap_or_else(|| {
        let found =
            std::env::split_paths(&std::env::var_os("PATH").unwrap()).find(|folder| folder.join("initdb").exists());
        found.expect("no PostgreSQL server: run scripts/install-clients, or set TRACEWIRE_TEST_POSTGRES")
    })
}

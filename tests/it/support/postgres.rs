//! A PostgreSQL server for the tests: the one that `TRACEWIRE_TEST_POSTGRES` names, else one of their own, on a socket in
//! a temporary folder. Each test has a database of its own.

use super::eventually;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

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

/// Ends every connection to a database, as a restart of the server does, and refuses or takes new ones.
pub fn let_in(url: &str, open: bool) {
    let name = url.split('?').next().unwrap().rsplit('/').next().unwrap();
    run(server(), &format!("ALTER DATABASE {name} ALLOW_CONNECTIONS {open}"));
    if !open {
        run(server(), &format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"));
    }
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
    let programs = programs();
    let folder = tempfile::tempdir().unwrap().keep();
    std::fs::create_dir_all(&folder).unwrap();
    let data = folder.join("data");
    // It refuses to run as root.
    let is_root = Command::new("id").arg("-u").output().unwrap().stdout.starts_with(b"0\n");
    let command = |program: &Path| {
        if !is_root {
            return Command::new(program);
        }
        let mut command = Command::new("setpriv");
        command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups", "--pdeathsig=KILL", "--"]).arg(program);
        command
    };
    if is_root {
        assert!(Command::new("chown").arg("postgres").arg(&folder).status().unwrap().success());
    }
    let made = command(&programs.join("initdb"))
        .arg("-D")
        .arg(&data)
        .args(["-A", "trust", "-U", "postgres", "--no-sync"])
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let mut server = command(&programs.join("postgres"));
    server.arg("-D").arg(&data).arg("-k").arg(&folder).args([
        "-c",
        "listen_addresses=",
        "-c",
        "fsync=off",
        "-c",
        "max_connections=400",
    ]);
    server.stdout(Stdio::null()).stderr(Stdio::null());
    // It ends with the thread that started it: one that lives as long as we do.
    std::thread::spawn(move || server.spawn().unwrap().wait());
    let url = format!("postgres://postgres@/postgres?host={}", folder.display());
    eventually(|| Command::new("psql").args([&url, "-c", "SELECT 1"]).output().unwrap().status.success().then_some(()));
    url
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

//! The harness: a mock endpoint, the built binary, raw sockets, and what is in a store.

pub mod certificates;
pub mod client;
pub mod collector;
pub mod gate;
pub mod http2;
pub mod model_server;
pub mod mutate;
pub mod postgres;
pub mod store;
pub mod tracers;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Nothing here takes longer; a test that does has hung.
pub const TIMEOUT: Duration = Duration::from_secs(60);

/// The built binary, with a data folder of its own and none of the caller's proxy variables.
pub fn tracewire(home: &Path) -> Command {
    at_home(Command::new(TRACEWIRE), home)
}

/// The built binary.
pub const TRACEWIRE: &str = env!("CARGO_BIN_EXE_tracewire");

/// A command that runs the binary, with a data folder of its own and none of the caller's proxy variables.
pub fn at_home(mut command: Command, home: &Path) -> Command {
    command.env("TRACEWIRE_HOME", home);
    for name in
        ["http_proxy", "https_proxy", "all_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"]
    {
        command.env_remove(name);
    }
    for name in ["TRACEWIRE_TOKEN", "TRACEWIRE_LOG", "SSLKEYLOGFILE"] {
        command.env_remove(name);
    }
    command
}

/// A process that is ended with the test.
pub struct Running {
    child: Child,
    /// The JSON line it printed at its start.
    pub hello: Value,
}

impl Running {
    /// Starts a command that prints one JSON line when it is ready.
    pub fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().expect("the binary starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let hello = serde_json::from_str(&line).unwrap_or_else(|_| panic!("no JSON line but {line:?}"));
        Self { child, hello }
    }

    /// An address from the line.
    pub fn address(&self, key: &str) -> SocketAddr {
        let text = self.hello[key].as_str().unwrap();
        text.trim_start_matches("https://").trim_start_matches("http://").parse().unwrap()
    }

    /// The URL of an address from the line.
    pub fn url(&self, key: &str) -> String {
        format!("http://{}", self.address(key))
    }

    /// A path from the line.
    pub fn path(&self, key: &str) -> PathBuf {
        self.hello[key].as_str().unwrap().into()
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends SIGTERM and waits; the exit code.
    pub fn stop(mut self) -> Option<i32> {
        signal(self.pid(), rustix::process::Signal::TERM);
        self.child.wait().unwrap().code()
    }

    /// Sends SIGKILL and waits.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn signal(pid: u32, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process(pid, signal).unwrap();
}

/// A mock endpoint and a folder for one test.
pub struct Bench {
    pub folder: TempDir,
    pub mock: Running,
}

impl Bench {
    pub fn new() -> Self {
        Self::with_mock(&[])
    }

    /// With flags of the mock's.
    pub fn with_mock(flags: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut command = tracewire(folder.path());
        command.args(["mock", "--json", "--http", "127.0.0.1:0", "--https", "127.0.0.1:0"]);
        command.arg("--ca-out").arg(folder.path().join("mock-ca.pem")).args(flags);
        Self { mock: Running::start(command), folder }
    }

    pub fn home(&self) -> &Path {
        self.folder.path()
    }

    pub fn store(&self) -> PathBuf {
        self.folder.path().join("traces.db")
    }

    pub fn https(&self) -> String {
        format!("https://{}", self.mock.address("https"))
    }

    pub fn http(&self) -> String {
        format!("http://{}", self.mock.address("http"))
    }

    /// `tracewire run` with the mock's CA among the trusted ones.
    pub fn run(&self, flags: &[&str], command: &[&str]) -> Output {
        let mut run = tracewire(self.home());
        run.arg("run").args(flags).arg("--upstream-ca").arg(self.mock.path("ca")).arg("--").args(command);
        run.current_dir(root()).env("NODE_PATH", node_modules());
        run.stdin(Stdio::null()).output().unwrap()
    }

    /// `tracewire serve` on free ports.
    pub fn serve(&self, flags: &[&str]) -> Running {
        let mut serve = tracewire(self.home());
        serve.args(["serve", "--json", "--proxy", "127.0.0.1:0", "--server", "127.0.0.1:0"]);
        serve.arg("--upstream-ca").arg(self.mock.path("ca")).args(flags);
        Running::start(serve)
    }

    /// A rollout's spans, through the command line.
    pub fn spans(&self, rollout: &str) -> Vec<Value> {
        let output = tracewire(self.home()).args(["trace", "show", rollout, "--format", "json"]).output().unwrap();
        if !output.status.success() {
            return Vec::new();
        }
        let mut spans: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
        // As long as the rollout is not stored, its id may be the beginning of another's.
        spans.retain(|span| span["rollout_id"] == rollout);
        spans
    }

    /// A rollout's HTTP exchanges (no CONNECT, no root), once there are `count`.
    pub fn exchanges(&self, rollout: &str, count: usize) -> Vec<Value> {
        eventually(|| {
            let spans: Vec<_> = self.spans(rollout).into_iter().filter(is_exchange).collect();
            (spans.len() >= count).then_some(spans)
        })
    }
}

pub fn is_exchange(span: &Value) -> bool {
    span["kind"] == "CLIENT" && span["name"] != "CONNECT"
}

/// Asks until there is an answer; the condition is another process's, so there is nothing to await.
pub fn eventually<T>(mut ask: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(began.elapsed() < TIMEOUT, "it did not happen in time");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A connection on which nothing waits for ever.
pub fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(TIMEOUT)).unwrap();
    stream.set_write_timeout(Some(TIMEOUT)).unwrap();
    stream
}

/// Says `text` to `address` and reads until the other side closes.
pub fn say(address: SocketAddr, text: &[u8]) -> String {
    let mut stream = connect(address);
    let _ = stream.write_all(text);
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    // One head is enough: a kept-alive connection is not closed.
    loop {
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => break,
            Ok(read) => answer.extend_from_slice(&buffer[..read]),
        }
        if let Some(end) = find(&answer, b"\r\n\r\n").filter(|_| find(text, b"Connection: close").is_none()) {
            let head = String::from_utf8_lossy(&answer[..end]).to_lowercase();
            let length =
                head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok());
            if answer.len() >= end + 4 + length.unwrap_or(0) {
                break;
            }
        }
    }
    String::from_utf8_lossy(&answer).into_owned()
}

/// Reads until the other side closes.
pub fn read_to_end(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

/// A CONNECT to `target` through the door, in the name of `rollout`.
pub fn tunnel(door: SocketAddr, target: SocketAddr, rollout: &str) -> TcpStream {
    let mut stream = connect(door);
    let credentials = STANDARD.encode(format!("{rollout}.at-1:"));
    let request =
        format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\nProxy-Authorization: Basic {credentials}\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let answer = read_head(&mut stream);
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    stream
}

pub fn find(text: &[u8], wanted: &[u8]) -> Option<usize> {
    text.windows(wanted.len()).position(|window| window == wanted)
}

/// An endpoint that answers every connection with `script`, run on a thread per connection.
pub fn endpoint(script: impl Fn(TcpStream) + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let script = std::sync::Arc::new(script);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let script = script.clone();
            std::thread::spawn(move || script(stream));
        }
    });
    address
}

/// Reads a request head off a socket.
pub fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    let mut byte = [0];
    while find(&head, b"\r\n\r\n").is_none() && stream.read(&mut byte).is_ok_and(|read| read > 0) {
        head.push(byte[0]);
    }
    String::from_utf8_lossy(&head).into_owned()
}

/// The project's folder.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The folder that scripts/install-clients filled: with the pinned versions, or with those that scripts/report-latest
/// names.
pub fn clients() -> PathBuf {
    std::env::var_os("TRACEWIRE_TEST_CLIENTS").map_or_else(|| root().join("target/test-clients"), PathBuf::from)
}

/// The Python with the packages of tests/clients/requirements.txt.
pub fn python() -> String {
    installed("python/bin/python")
}

/// A program in the folder of the clients.
pub fn installed(program: &str) -> String {
    let program = clients().join(program);
    assert!(program.exists(), "{} is missing: run scripts/install-clients", program.display());
    program.display().to_string()
}

/// Reports a part of the tests that can't run on this machine, also when the test passes: its captured output isn't shown.
pub fn skipped(what: &str, why: &str) {
    let _ = writeln!(std::io::stderr(), "skipped {what}: {why}");
}

/// Chromium, if it is installed.
pub fn chromium() -> Option<&'static str> {
    let places = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];
    places.into_iter().find(|path| Path::new(path).exists())
}

/// A command of the Python that controls Chromium. `None` where they are not installed, which is reported.
pub fn browser(what: &str) -> Option<Command> {
    let python = clients().join("browser/bin/python");
    let (Some(chromium), true) = (chromium(), python.exists()) else {
        let why = "Chromium or Playwright is not here; scripts/install-clients installs them";
        assert!(std::env::var_os("TRACEWIRE_ALL_CLIENTS").is_none(), "{why}");
        skipped(what, why);
        return None;
    };
    let mut command = Command::new(python);
    command.env("CHROMIUM", chromium);
    Some(command)
}

/// The Node packages of tests/clients/node/package.json, for NODE_PATH.
pub fn node_modules() -> PathBuf {
    clients().join("node_modules")
}

pub fn text(output: &Output) -> String {
    format!("{}\n--- stderr\n{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

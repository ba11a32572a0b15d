//! The processes that are measured: started, asked how much they have used, ended.

use anyhow::{Context, Result};
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A process that serves.
pub struct Served {
    child: Child,
    /// Where.
    pub address: SocketAddr,
    /// Where its server door is, if it says so.
    pub server: Option<SocketAddr>,
}

/// How much a process has used by now.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// User and system time, in microseconds; the system counts them in steps of 10 ms.
    pub cpu_us: u64,
    /// Memory now.
    pub resident_kb: u64,
    /// Memory at its most since the last [`Served::forget_peak`].
    pub peak_kb: u64,
}

impl Served {
    /// Starts a command that prints `ready ADDRESS`, or a JSON line with `proxy`.
    pub fn start(command: &mut Command) -> Result<Self> {
        let mut child = spawn(command.stdout(Stdio::piped()))?;
        let mut lines = BufReader::new(child.stdout.take().context("no output")?).lines();
        loop {
            let line = lines.next().context("it ended before it was ready")??;
            if let Some((address, server)) = addresses(&line) {
                // What it prints later is read away.
                std::thread::spawn(move || lines.for_each(drop));
                return Ok(Self { child, address, server });
            }
        }
    }

    /// Starts a command that says nothing, and waits until it listens at `address`.
    pub fn start_at(command: &mut Command, address: SocketAddr) -> Result<Self> {
        let mut served = Self { child: spawn(command.stdout(Stdio::null()))?, address, server: None };
        for _ in 0..600 {
            if std::net::TcpStream::connect(address).is_ok() {
                return Ok(served);
            }
            if let Some(status) = served.child.try_wait()? {
                anyhow::bail!("it has ended: {status}");
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        anyhow::bail!("it does not listen at {address}")
    }

    /// Its use of the machine.
    pub fn usage(&self) -> Result<Usage> {
        let pid = self.child.id();
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).context("it has ended")?;
        let words: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks = |at: usize| words.get(at).and_then(|word| word.parse::<u64>().ok()).unwrap_or(0);
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let kb = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
        };
        Ok(Usage { cpu_us: (ticks(11) + ticks(12)) * TICK_US, resident_kb: kb("VmRSS:"), peak_kb: kb("VmHWM:") })
    }

    /// Its use, once it has nothing left to do.
    pub async fn settled(&self) -> Result<Usage> {
        let mut before = self.usage()?;
        for _ in 0..300 {
            tokio::time::sleep(Duration::from_millis(300)).await;
            let now = self.usage()?;
            if now.cpu_us - before.cpu_us <= 10_000 {
                return Ok(now);
            }
            before = now;
        }
        Ok(before)
    }

    /// Asks it to end, and waits until it has.
    pub async fn stop(&mut self) -> Result<()> {
        Command::new("kill").arg(self.child.id().to_string()).status()?;
        for _ in 0..1200 {
            if self.child.try_wait()?.is_some() {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        anyhow::bail!("it does not end")
    }

    /// Lets the peak start from now (proc(5), clear_refs).
    pub fn forget_peak(&self) {
        let _ = fs::write(format!("/proc/{}/clear_refs", self.child.id()), "5");
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The cores of the proxy that is measured, and of everything else.
pub struct Cores {
    proxy: String,
}

impl Cores {
    /// Gives `count` cores to the proxy, and moves this process and those that it starts to the others.
    pub fn divide(count: usize) -> Result<Self> {
        let all = std::thread::available_parallelism()?.get();
        if count == 0 || count >= all {
            anyhow::bail!("there are {all} cores: a proxy can have 1 to {} of them", all.saturating_sub(1));
        }
        let others = format!("{count}-{}", all - 1);
        let own = std::process::id().to_string();
        let moved = Command::new("taskset").args(["--all-tasks", "--cpu-list", "--pid", &others, &own]).output();
        let moved = moved.context("taskset, of util-linux, can't be started")?;
        if !moved.status.success() {
            anyhow::bail!("taskset: {}", String::from_utf8_lossy(&moved.stderr).trim());
        }
        Ok(Self { proxy: format!("0-{}", count - 1) })
    }

    /// The command, on the cores of the proxy if the cores are divided.
    pub fn pinned(cores: Option<&Self>, command: Command) -> Command {
        let Some(cores) = cores else { return command };
        let mut pinned = Command::new("taskset");
        pinned.args(["--cpu-list", &cores.proxy]).arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => pinned.env(name, value),
                None => pinned.env_remove(name),
            };
        }
        pinned
    }
}

/// User and system time of all processes with a name and of their children that have ended, in microseconds.
pub fn cpu_us_of(name: &str) -> u64 {
    let ticks = |stat: String| {
        let (_, rest) = stat.split_once('(')?;
        let (its_name, rest) = rest.rsplit_once(')')?;
        let words: Vec<&str> = rest.split_whitespace().collect();
        let times = words.get(11..15)?.iter().filter_map(|word| word.parse::<u64>().ok());
        (its_name == name).then(|| times.sum::<u64>())
    };
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    processes.filter_map(|one| ticks(fs::read_to_string(one.path().join("stat")).ok()?)).sum::<u64>() * TICK_US
}

/// Without a proxy of this process's own surroundings.
fn spawn(command: &mut Command) -> Result<Child> {
    for name in ["http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"] {
        command.env_remove(name);
    }
    command.stderr(Stdio::null()).spawn().context("it can't be started")
}

/// An address at which nobody listens.
pub fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

/// Where it serves, and where its server door is.
fn addresses(line: &str) -> Option<(SocketAddr, Option<SocketAddr>)> {
    if let Some(address) = line.strip_prefix("ready ") {
        return Some((address.trim().parse().ok()?, None));
    }
    let hello: serde_json::Value = serde_json::from_str(line).ok()?;
    let address =
        |name: &str| -> Option<SocketAddr> { hello[name].as_str()?.trim_start_matches("http://").parse().ok() };
    Some((address("proxy")?, address("server")))
}

/// sysconf(_SC_CLK_TCK) is 100 on every Linux in use.
const TICK_US: u64 = 10_000;

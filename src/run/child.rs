//! The command's process: started with its environment, signalled, timed, its exit code told.
//!
//! Without a terminal it gets a process group of its own, so that all it
//! started can be ended; on a terminal it must stay in ours, or it could not read from it.

use super::environment::Environment;
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use std::ffi::OsString;
use std::fs::File;
use std::io::{ErrorKind, IsTerminal};
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

/// What to run.
#[derive(Debug)]
pub struct ChildSpec {
    /// The program and its arguments.
    pub command: Vec<OsString>,
    /// What to change in its environment.
    pub environment: Environment,
    /// When to end it.
    pub timeout: Option<Duration>,
    /// Its standard streams.
    pub streams: Streams,
}

/// Where a command reads and writes.
#[derive(Clone, Debug, Default)]
pub enum Streams {
    /// Where we do, untouched.
    #[default]
    Inherited,
    /// As inherited, but what it prints goes to our stderr.
    ToStderr,
    /// It reads nothing, and all it prints goes to a file.
    Captured(Arc<File>),
    /// Its starter writes what it reads and reads what it prints; its errors go where ours do.
    Piped,
}

impl Streams {
    fn direct(&self, command: &mut Command) -> std::io::Result<()> {
        match self {
            Self::Inherited => {}
            Self::ToStderr => {
                command.stdout(std::io::stderr());
            }
            Self::Captured(file) => {
                command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file.try_clone()?);
            }
            Self::Piped => {
                command.stdin(Stdio::piped()).stdout(Stdio::piped());
            }
        }
        Ok(())
    }
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChildEnd {
    /// Its exit code; 128 + n after death by signal n, 124 after a timeout.
    pub exit_code: i32,
    /// True when its time ran out.
    pub timed_out: bool,
}

/// Why it could not be started.
#[derive(Debug, thiserror::Error)]
pub enum ChildError {
    /// No such program.
    #[error("{0}: command not found; check its spelling and PATH")]
    NotFound(String),
    /// Not a program.
    #[error("{0}: permission denied; make it executable (chmod +x), or name its interpreter")]
    NotExecutable(String),
    /// Anything else.
    #[error("{0} can't be started: {1}")]
    Spawn(String, std::io::Error),
}

impl ChildError {
    /// What a shell would return.
    pub fn exit_code(&self) -> i32 {
        match self {
            Self::NotFound(_) => 127,
            Self::NotExecutable(_) | Self::Spawn(..) => 126,
        }
    }
}

/// Runs a command to its end. `started` is told its process.
pub async fn run(spec: ChildSpec, started: impl FnOnce(Pid)) -> Result<ChildEnd, ChildError> {
    let on_terminal = std::io::stdin().is_terminal() && !matches!(spec.streams, Streams::Captured(_));
    let mut signals = forwarded(on_terminal);
    let mut child = spawn(&spec, on_terminal)?;
    let Some(pid) = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)) else {
        return Ok(ended(child.wait().await));
    };
    started(pid);
    let target = Target { pid, group: !on_terminal };
    let timeout = async {
        match spec.timeout {
            Some(limit) => tokio::time::sleep(limit).await,
            None => std::future::pending().await,
        }
    };
    tokio::pin!(timeout);
    loop {
        tokio::select! {
            status = child.wait() => return Ok(ended(status)),
            Some(signal) = signals.recv() => target.signal(signal),
            () = &mut timeout => {
                target.end(&mut child).await;
                return Ok(ChildEnd { exit_code: TIMED_OUT, timed_out: true });
            }
        }
    }
}

/// A command in a process group of its own, whose end its starter waits for.
#[derive(Debug)]
pub struct Started {
    /// Its process.
    pub child: Child,
    target: Option<Target>,
}

/// Starts a command. Its time and the signals to us are its starter's business.
pub fn start(spec: &ChildSpec) -> Result<Started, ChildError> {
    let child = spawn(spec, false)?;
    let pid = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
    Ok(Started { child, target: pid.map(|pid| Target { pid, group: true }) })
}

impl Started {
    /// Asks it and all it started to end, then makes them.
    pub async fn end(&mut self) {
        if let Some(target) = &self.target {
            target.end(&mut self.child).await;
        }
    }
}

fn spawn(spec: &ChildSpec, on_terminal: bool) -> Result<Child, ChildError> {
    let program = spec.command.first().cloned().unwrap_or_default();
    let mut command = Command::new(&program);
    command.args(spec.command.iter().skip(1)).kill_on_drop(true);
    command.envs(spec.environment.set.iter().map(|(name, value)| (name, value)));
    for name in &spec.environment.unset {
        command.env_remove(name);
    }
    if !on_terminal {
        command.process_group(0);
    }
    let shown = program.to_string_lossy().into_owned();
    let spawned = spec.streams.direct(&mut command).and_then(|()| command.spawn());
    spawned.map_err(|error| match error.kind() {
        ErrorKind::NotFound => ChildError::NotFound(shown),
        ErrorKind::PermissionDenied => ChildError::NotExecutable(shown),
        _ => ChildError::Spawn(shown, error),
    })
}

/// Whom signals go to.
#[derive(Debug)]
struct Target {
    pid: Pid,
    group: bool,
}

impl Target {
    /// The process may be gone already: then there is nobody to tell.
    fn signal(&self, signal: Signal) {
        let _ = if self.group { kill_process_group(self.pid, signal) } else { kill_process(self.pid, signal) };
    }

    /// Asks all of it to end, then makes it.
    async fn end(&self, child: &mut Child) {
        let descendants = if self.group { Vec::new() } else { descendants(self.pid) };
        let all = |signal| {
            self.signal(signal);
            for pid in &descendants {
                let _ = kill_process(*pid, signal);
            }
        };
        all(Signal::TERM);
        let _ = tokio::time::timeout(TERM_GRACE, child.wait()).await;
        // The child may be gone while what it started ignores the request.
        all(Signal::KILL);
        let _ = child.wait().await;
    }
}

/// Everything below a process, by the parent ids in /proc; empty where there is no /proc.
pub fn descendants(root: Pid) -> Vec<Pid> {
    let mut parents = Vec::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        let Ok(stat) = std::fs::read_to_string(entry.path().join("stat")) else { continue };
        // The command's name is in parentheses and may hold anything.
        let parent = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(1)?.parse::<i32>().ok());
        parents.extend(parent.map(|parent| (pid, parent)));
    }
    let mut found = vec![root.as_raw_nonzero().get()];
    let mut at = 0;
    while at < found.len() {
        let above = found[at];
        found.extend(parents.iter().filter(|(_, parent)| *parent == above).map(|(pid, _)| *pid));
        at += 1;
    }
    found.into_iter().skip(1).filter_map(Pid::from_raw).collect()
}

/// The signals that are passed on. On a terminal, interrupt and quit reach the command by themselves; we take them too,
/// only in order not to die of them.
fn forwarded(on_terminal: bool) -> mpsc::Receiver<Signal> {
    let (sender, receiver) = mpsc::channel(16);
    for (kind, number, by_terminal) in [
        (SignalKind::terminate(), Signal::TERM, false),
        (SignalKind::hangup(), Signal::HUP, false),
        (SignalKind::interrupt(), Signal::INT, true),
        (SignalKind::quit(), Signal::QUIT, true),
        (SignalKind::user_defined1(), Signal::USR1, false),
        (SignalKind::user_defined2(), Signal::USR2, false),
    ] {
        let Ok(mut stream) = signal(kind) else { continue };
        let sender = sender.clone();
        tokio::spawn(async move {
            while stream.recv().await.is_some() {
                let gone = !(on_terminal && by_terminal) && sender.send(number).await.is_err();
                if gone {
                    return;
                }
            }
        });
    }
    receiver
}

fn ended(status: std::io::Result<ExitStatus>) -> ChildEnd {
    let exit_code = match status {
        Ok(status) => status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1),
        Err(_) => 1,
    };
    ChildEnd { exit_code, timed_out: false }
}

/// As `timeout(1)` has it.
const TIMED_OUT: i32 = 124;
const TERM_GRACE: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(command: Vec<OsString>, timeout: Option<Duration>) -> ChildSpec {
        ChildSpec { command, environment: Environment::default(), timeout, streams: Streams::default() }
    }

    async fn run_shell(script: &str, timeout: Option<Duration>) -> Result<ChildEnd, ChildError> {
        let command = vec!["sh".into(), "-c".into(), script.into()];
        run(spec(command, timeout), |_| {}).await
    }

    #[tokio::test]
    async fn exit_codes_are_the_commands() {
        assert_eq!(run_shell("exit 7", None).await.unwrap().exit_code, 7);
        assert_eq!(run_shell("kill -9 $$", None).await.unwrap().exit_code, 137);
        let missing = spec(vec!["no-such-program-here".into()], None);
        assert_eq!(run(missing, |_| {}).await.unwrap_err().exit_code(), 127);
    }

    #[tokio::test]
    async fn a_timeout_ends_the_whole_group() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pid");
        let script = format!("sleep 300 & echo $! > {}; wait", file.display());
        let end = run_shell(&script, Some(Duration::from_millis(500))).await.unwrap();
        assert_eq!(end, ChildEnd { exit_code: 124, timed_out: true });
        let pid: i32 = std::fs::read_to_string(&file).unwrap().trim().parse().unwrap();
        // A killed process takes a moment to be gone.
        let state = || std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let began = std::time::Instant::now();
        while !state().is_empty() && !state().contains(") Z ") {
            assert!(began.elapsed() < Duration::from_secs(30), "the grandchild lives: {}", state());
            tokio::task::yield_now().await;
        }
    }
}

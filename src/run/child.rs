//! The process of a command: starts it, forwards signals, enforces its timeout, and returns its exit code.
//!
//! Without a terminal the command gets its own process group, so that all its descendants can be stopped. On a terminal it
//! stays in our group, because other groups can't read from the terminal; its descendants are found in /proc.

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

/// A command to run.
#[derive(Debug)]
pub(crate) struct ChildSpec {
    /// The program and its arguments.
    pub command: Vec<OsString>,
    /// The changes to its environment.
    pub environment: Environment,
    /// The time after which it is stopped; `None` means no limit.
    pub timeout: Option<Duration>,
    /// Its standard streams.
    pub streams: Streams,
}

/// The standard streams of a command.
#[derive(Clone, Debug, Default)]
pub(crate) enum Streams {
    /// Ours.
    #[default]
    Inherited,
    /// Ours, with stdout redirected to our stderr.
    ToStderr,
    /// No input; stdout and stderr go to this file.
    Captured(Arc<File>),
    /// Pipes to and from the caller for stdin and stdout; stderr is ours.
    Piped,
}

impl Streams {
    fn apply_to(&self, command: &mut Command) -> std::io::Result<()> {
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

/// The end of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ChildEnd {
    /// The exit code: 128 + n if signal n killed it, 124 after a timeout.
    pub exit_code: i32,
    /// True if it was stopped because of its timeout.
    pub timed_out: bool,
}

/// Why a command could not be started.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ChildError {
    /// The program was not found.
    #[error("{0}: command not found; check its spelling and PATH")]
    NotFound(String),
    /// The file is not executable.
    #[error("{0}: permission denied; make it executable (chmod +x), or name its interpreter")]
    NotExecutable(String),
    /// Any other error of the system.
    #[error("{0} could not be started: {1}")]
    Spawn(String, std::io::Error),
}

impl ChildError {
    /// The exit code that a shell returns for this error.
    pub(crate) fn exit_code(&self) -> i32 {
        match self {
            Self::NotFound(_) => 127,
            Self::NotExecutable(_) | Self::Spawn(..) => 126,
        }
    }
}

/// Runs a command to its end. `started` is called with its process id.
pub(crate) async fn run(spec: ChildSpec, started: impl FnOnce(Pid)) -> Result<ChildEnd, ChildError> {
    let on_terminal = std::io::stdin().is_terminal() && !matches!(spec.streams, Streams::Captured(_));
    let scope = if on_terminal { SignalScope::Process } else { SignalScope::Group };
    let mut signals = forwarded_signals(scope);
    let mut child = spawn(&spec, scope)?;
    let Some(pid) = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)) else {
        return Ok(ended(child.wait().await));
    };
    started(pid);
    let target = Target { pid, scope };
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

/// A running command in its own process group.
#[derive(Debug)]
pub(crate) struct RunningChild {
    /// The process, for the caller to wait for.
    pub child: Child,
    target: Option<Target>,
}

/// Starts a command. The timeout and signals are the caller's responsibility.
pub(crate) fn start(spec: &ChildSpec) -> Result<RunningChild, ChildError> {
    let child = spawn(spec, SignalScope::Group)?;
    let pid = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
    Ok(RunningChild { child, target: pid.map(|pid| Target { pid, scope: SignalScope::Group }) })
}

impl RunningChild {
    /// Stops the command and its process group: SIGTERM, then SIGKILL to those that are left once the command has ended, at
    /// the latest after 2 seconds.
    pub(crate) async fn end(&mut self) {
        if let Some(target) = &self.target {
            target.end(&mut self.child).await;
        }
    }
}

fn spawn(spec: &ChildSpec, scope: SignalScope) -> Result<Child, ChildError> {
    let program = spec.command.first().cloned().unwrap_or_default();
    let mut command = Command::new(&program);
    command.args(spec.command.iter().skip(1)).kill_on_drop(true);
    command.envs(spec.environment.set.iter().map(|(name, value)| (name, value)));
    for name in &spec.environment.unset {
        command.env_remove(name);
    }
    if scope == SignalScope::Group {
        command.process_group(0);
    }
    let shown = program.to_string_lossy().into_owned();
    let spawned = spec.streams.apply_to(&mut command).and_then(|()| command.spawn());
    spawned.map_err(|error| match error.kind() {
        ErrorKind::NotFound => ChildError::NotFound(shown),
        ErrorKind::PermissionDenied => ChildError::NotExecutable(shown),
        _ => ChildError::Spawn(shown, error),
    })
}

/// The receiver of signals.
#[derive(Debug)]
struct Target {
    pid: Pid,
    scope: SignalScope,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SignalScope {
    /// The command's own process group.
    Group,
    /// The command alone, which shares our group.
    Process,
}

impl Target {
    /// Sends a signal. Errors are ignored: the process may have ended already.
    fn signal(&self, signal: Signal) {
        let _ = match self.scope {
            SignalScope::Group => kill_process_group(self.pid, signal),
            SignalScope::Process => kill_process(self.pid, signal),
        };
    }

    /// Stops the command and its descendants: SIGTERM, then SIGKILL to those that are left once the command has ended, at the
    /// latest after 2 seconds.
    async fn end(&self, child: &mut Child) {
        let descendants = match self.scope {
            SignalScope::Group => Vec::new(),
            SignalScope::Process => descendants(self.pid),
        };
        let all = |signal| {
            self.signal(signal);
            for pid in &descendants {
                let _ = kill_process(*pid, signal);
            }
        };
        all(Signal::TERM);
        let _ = tokio::time::timeout(TERM_GRACE, child.wait()).await;
        // The command may have ended while a descendant ignores SIGTERM.
        all(Signal::KILL);
        let _ = child.wait().await;
    }
}

/// Returns the descendants of a process, by the parent ids in /proc. Empty without /proc.
pub(crate) fn descendants(root: Pid) -> Vec<Pid> {
    let mut parents = Vec::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        let Ok(stat) = std::fs::read_to_string(entry.path().join("stat")) else { continue };
        // The program's name is in parentheses and may contain anything.
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

/// Receives the signals to forward. A terminal sends interrupt and quit to the command as well; then they are received but
/// not forwarded, so that they don't end this process.
fn forwarded_signals(scope: SignalScope) -> mpsc::Receiver<Signal> {
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
                let command_has_it = by_terminal && scope == SignalScope::Process;
                if !command_has_it && sender.send(number).await.is_err() {
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

/// The exit code of `timeout(1)`.
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
    async fn exit_codes_are_those_of_the_command() {
        assert_eq!(run_shell("exit 7", None).await.unwrap().exit_code, 7);
        assert_eq!(run_shell("kill -9 $$", None).await.unwrap().exit_code, 137);
        let missing = spec(vec!["no-such-program-here".into()], None);
        assert_eq!(run(missing, |_| {}).await.unwrap_err().exit_code(), 127);
    }

    #[tokio::test]
    async fn a_timeout_stops_the_whole_group() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pid");
        let script = format!("sleep 300 & echo $! > {}; wait", file.display());
        let end = run_shell(&script, Some(Duration::from_millis(500))).await.unwrap();
        assert_eq!(end, ChildEnd { exit_code: 124, timed_out: true });
        let pid: i32 = std::fs::read_to_string(&file).unwrap().trim().parse().unwrap();
        // A killed process ends a moment later.
        let state = || std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let began = std::time::Instant::now();
        while !state().is_empty() && !state().contains(") Z ") {
            assert!(began.elapsed() < Duration::from_secs(30), "the grandchild is still running: {}", state());
            tokio::task::yield_now().await;
        }
    }
}

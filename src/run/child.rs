//! The process of a command: starts it, forwards signals, enforces its timeout, and returns its exit code.
//!
//! Without a terminal the command gets its own process group, so that all its descendants can be stopped. With a terminal it
//! stays in our group, because other groups can't read from the terminal. Processes outside the group are found in /proc.

use super::environment::Environment;
use super::processes::started_by;
use super::program::{ChildError, Program};
use super::runtime::FILES_VARIABLE;
use super::signals::{self, KeyboardSignals};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use std::ffi::OsString;
use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;
use tokio::process::{Child, Command};

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
    /// Those of this program.
    #[default]
    Inherited,
    /// Those of this program, but stdout goes to its stderr.
    ToStderr,
    /// No input; stdout and stderr go to this file.
    Captured(Arc<File>),
    /// Pipes to and from the caller for stdin and stdout; stderr is that of this program.
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

impl ChildSpec {
    /// True if the command may talk to its user on the terminal, also while its stdin is a pipe.
    fn uses_terminal(&self) -> bool {
        !matches!(self.streams, Streams::Captured(_)) && File::open("/dev/tty").is_ok()
    }
}

/// Runs a command to its end. `started` is called with its process id.
pub(crate) async fn run(spec: ChildSpec, started: impl FnOnce(Pid)) -> Result<ChildEnd, ChildError> {
    let scope = if spec.uses_terminal() { SignalScope::Process } else { SignalScope::Group };
    let mut signals = signals::forwarded(match scope {
        SignalScope::Process => KeyboardSignals::Shared,
        SignalScope::Group => KeyboardSignals::Forwarded,
    });
    let mut child = spawn(&spec, scope)?;
    let Some(pid) = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)) else {
        return Ok(ended(child.wait().await));
    };
    started(pid);
    let target = Target::new(pid, scope, &spec);
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
    Ok(RunningChild { child, target: pid.map(|pid| Target::new(pid, SignalScope::Group, spec)) })
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
    let name = spec.command.first().cloned().unwrap_or_default();
    let program = Program::new(&name);
    let arguments = spec.command.iter().skip(1);
    let spawned = prepared(spec, scope, Command::new(&name), arguments.clone()).and_then(|mut command| command.spawn());
    spawned
        .or_else(|error| match program.script_after(&error) {
            // As a shell, `env` and `timeout` do it.
            Some(script) => {
                let mut shell = Command::new("/bin/sh");
                shell.arg(script);
                prepared(spec, scope, shell, arguments)?.spawn()
            }
            None => Err(error),
        })
        .map_err(|error| program.error(error))
}

fn prepared<'a>(
    spec: &ChildSpec,
    scope: SignalScope,
    mut command: Command,
    arguments: impl Iterator<Item = &'a OsString>,
) -> std::io::Result<Command> {
    command.args(arguments).kill_on_drop(true);
    command.envs(spec.environment.set.iter().map(|(name, value)| (name, value)));
    for name in &spec.environment.unset {
        command.env_remove(name);
    }
    if scope == SignalScope::Group {
        command.process_group(0);
    }
    spec.streams.apply_to(&mut command)?;
    Ok(command)
}

/// The receiver of signals.
#[derive(Debug)]
struct Target {
    pid: Pid,
    scope: SignalScope,
    /// The folder that marks the command's environment; empty without one.
    files: OsString,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SignalScope {
    /// The command's own process group.
    Group,
    /// The command alone, which shares our group.
    Process,
}

impl Target {
    fn new(pid: Pid, scope: SignalScope, spec: &ChildSpec) -> Self {
        Self { pid, scope, files: spec.environment.value(FILES_VARIABLE).into() }
    }

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
        // Some may have left the process group.
        let descendants = started_by(self.pid, &self.files);
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

fn ended(status: std::io::Result<ExitStatus>) -> ChildEnd {
    ChildEnd { exit_code: exit_code(status), timed_out: false }
}

/// The exit code of a command that has ended, as a shell shows it.
pub(crate) fn exit_code(status: std::io::Result<ExitStatus>) -> i32 {
    match status {
        Ok(status) => status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1),
        Err(_) => 1,
    }
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

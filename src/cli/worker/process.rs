//! Runs one command for one task: writes its input, relays its output, and returns how it ended.
//!
//! It knows no servers. The caller decides when a command is stopped, and why.

use crate::run::ChildError;
use crate::run::child::{self, ChildSpec};
use crate::trace::rollout::AttemptStatus;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::pin::pin;
use std::process::ExitStatus;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::process::{ChildStdin, ChildStdout};

/// How a task's command ended.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum TaskOutcome {
    /// It exited with this code.
    Exited(i32),
    /// This signal killed it.
    Signaled(i32),
    /// It was stopped after this time limit.
    TimedOut(Duration),
    /// It was stopped because the worker is shutting down.
    Stopped,
    /// It was stopped because the server ended the rollout; the reason.
    EndedByServer(String),
    /// It was never started.
    NotStarted {
        problem: String,
        /// What a shell would return; `None` if the problem is not the command itself.
        exit_code: Option<i32>,
    },
}

impl TaskOutcome {
    fn from_status(status: io::Result<ExitStatus>) -> Self {
        let status = status.ok();
        match (status.and_then(|status| status.code()), status.and_then(|status| status.signal())) {
            (Some(code), _) => Self::Exited(code),
            (None, Some(signal)) => Self::Signaled(signal),
            (None, None) => Self::Exited(1),
        }
    }

    fn not_started(error: &ChildError) -> Self {
        Self::NotStarted { problem: error.to_string(), exit_code: Some(error.exit_code()) }
    }

    pub(super) fn is_success(&self) -> bool {
        *self == Self::Exited(0)
    }

    /// The status to report to the server; `None` if the server ended the rollout. Its status then stays.
    pub(super) fn attempt_status(&self) -> Option<AttemptStatus> {
        match self {
            Self::Exited(0) => Some(AttemptStatus::Succeeded),
            Self::TimedOut(_) => Some(AttemptStatus::Timeout),
            Self::EndedByServer(_) => None,
            Self::Exited(_) | Self::Signaled(_) | Self::Stopped | Self::NotStarted { .. } => {
                Some(AttemptStatus::Failed)
            }
        }
    }

    /// The attempt's status for people and JSON output: `gone` if the server ended the rollout.
    pub(super) fn status_word(&self) -> &'static str {
        self.attempt_status().map_or("gone", AttemptStatus::as_str)
    }

    /// The same codes as `run`: 128 + n after death by signal n, 124 after a timeout. `None` if the command was stopped
    /// or its environment could not be prepared.
    pub(super) fn exit_code(&self) -> Option<i32> {
        match self {
            Self::Exited(code) => Some(*code),
            Self::Signaled(signal) => Some(128 + signal),
            Self::TimedOut(_) => Some(124),
            Self::NotStarted { exit_code, .. } => *exit_code,
            Self::Stopped | Self::EndedByServer(_) => None,
        }
    }

    /// Why the task did not succeed.
    pub(super) fn problem(&self) -> Option<String> {
        match self {
            Self::Exited(0) => None,
            Self::Exited(code) => Some(format!("exit code {code}")),
            Self::Signaled(signal) => Some(format!("killed by signal {signal}")),
            Self::TimedOut(limit) => Some(format!("timed out after {} s", limit.as_secs_f64())),
            Self::Stopped => Some("the worker was stopped".to_owned()),
            Self::EndedByServer(reason) => Some(reason.clone()),
            Self::NotStarted { problem, .. } => Some(problem.clone()),
        }
    }
}

/// Runs a command until it ends, or until `stop` completes with the outcome. The command's stdout goes to `output`; its
/// last [`MAX_OUTPUT_TAIL_BYTES`] are returned.
pub(super) async fn run(
    spec: &ChildSpec,
    input: &[u8],
    output: impl AsyncWrite + Unpin,
    stop: impl Future<Output = TaskOutcome>,
) -> (TaskOutcome, Vec<u8>) {
    let mut output_tail = Vec::new();
    let mut started = match child::start(spec) {
        Ok(started) => started,
        Err(error) => return (TaskOutcome::not_started(&error), output_tail),
    };
    let (stdin, stdout) = (started.child.stdin.take(), started.child.stdout.take());
    let outcome = {
        let mut transfer = pin!(async {
            tokio::join!(write_input(stdin, input), relay_output(stdout, &mut output_tail, output));
        });
        let mut end = pin!(async {
            tokio::select! {
                status = started.child.wait() => TaskOutcome::from_status(status),
                outcome = stop => {
                    started.end().await;
                    outcome
                }
            }
        });
        tokio::select! {
            outcome = &mut end => {
                // Processes that the command left behind may keep its stdout open.
                let _ = tokio::time::timeout(OUTPUT_DRAIN_TIMEOUT, &mut transfer).await;
                outcome
            }
            () = &mut transfer => end.await,
        }
    };
    keep_tail(&mut output_tail);
    (outcome, output_tail)
}

/// A command that does not read its input causes an error here, which is not a failure of the command.
async fn write_input(stdin: Option<ChildStdin>, input: &[u8]) {
    if let Some(mut stdin) = stdin {
        let _ = stdin.write_all(input).await;
    }
}

/// Relays stdout as it comes. A closed `output` (as after `| head`) is no error.
async fn relay_output(stdout: Option<ChildStdout>, output_tail: &mut Vec<u8>, mut output: impl AsyncWrite + Unpin) {
    let Some(mut stdout) = stdout else { return };
    let mut chunk = vec![0; CHUNK_BYTES];
    while let Ok(length @ 1..) = stdout.read(&mut chunk).await {
        let chunk = &chunk[..length];
        keep_tail(output_tail);
        output_tail.extend_from_slice(chunk);
        let _ = output.write_all(chunk).await;
        let _ = output.flush().await;
    }
}

fn keep_tail(output: &mut Vec<u8>) {
    output.drain(..output.len().saturating_sub(MAX_OUTPUT_TAIL_BYTES));
}

/// How much of the end of a command's stdout is searched for a reward.
const MAX_OUTPUT_TAIL_BYTES: usize = 64 * 1024;
const CHUNK_BYTES: usize = 64 * 1024;
/// How long stdout is read after the command itself has ended.
const OUTPUT_DRAIN_TIMEOUT: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::child::Streams;
    use crate::run::environment::Environment;
    use std::future::pending;
    use tokio::io::sink;

    fn shell(script: &str) -> ChildSpec {
        let command = vec!["sh".into(), "-c".into(), script.into()];
        ChildSpec { command, environment: Environment::default(), timeout: None, streams: Streams::Piped }
    }

    async fn run_shell(script: &str, input: &[u8]) -> (TaskOutcome, String) {
        let (outcome, output) = run(&shell(script), input, sink(), pending()).await;
        (outcome, String::from_utf8(output).unwrap())
    }

    #[tokio::test]
    async fn input_output_and_outcome_are_the_commands() {
        assert_eq!(run_shell("cat; exit 3", b"{}\n").await, (TaskOutcome::Exited(3), "{}\n".to_owned()));
        assert_eq!(run_shell("kill -9 $$", b"").await.0, TaskOutcome::Signaled(9));
        let missing = ChildSpec { command: vec!["no-such-program-here".into()], ..shell("") };
        let (outcome, _) = run(&missing, b"", sink(), pending()).await;
        assert_eq!((outcome.exit_code(), outcome.status_word()), (Some(127), "failed"));
    }

    #[tokio::test]
    async fn neither_an_unread_input_nor_a_long_output_blocks_the_command() {
        let input = vec![b' '; 1 << 20];
        assert_eq!(run_shell("exec 0<&-; echo 1", &input).await, (TaskOutcome::Exited(0), "1\n".to_owned()));
        let (outcome, output) = run_shell("head -c 300000 /dev/zero | tr '\\0' x; echo; echo 7", b"").await;
        assert!(
            outcome.is_success() && output.len() == MAX_OUTPUT_TAIL_BYTES && output.ends_with("x\n7\n"),
            "{}",
            output.len()
        );
    }

    #[tokio::test]
    async fn a_stopped_command_ends_with_its_process_group() {
        let began = std::time::Instant::now();
        let stop = async {
            tokio::time::sleep(Duration::from_millis(200)).await;
            TaskOutcome::TimedOut(Duration::from_millis(200))
        };
        let (outcome, _) = run(&shell("sleep 300 & sleep 300"), b"", sink(), stop).await;
        assert_eq!((outcome.status_word(), outcome.problem().as_deref()), ("timeout", Some("timed out after 0.2 s")));
        assert!(began.elapsed() < Duration::from_secs(30));
    }
}

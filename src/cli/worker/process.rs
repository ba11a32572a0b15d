//! One command for one task: fed its input, its output passed on and its end kept, until it ends or is ended.
//!
//! It must not know servers: who cuts it short, and why, is its caller's business.

use crate::run::child::{self, ChildError, ChildSpec};
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::pin::pin;
use std::process::ExitStatus;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::process::{ChildStdin, ChildStdout};

/// How a task's command ended.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum End {
    /// With this exit code.
    Exited(i32),
    /// By this signal.
    Killed(i32),
    /// After this time, which was all it had.
    TimedOut(Duration),
    /// By us, who were told to stop.
    Stopped,
    /// By us, since the server gave it up: the reason.
    Gone(String),
    /// It never began: the problem, and what a shell would return.
    NotStarted(String, Option<i32>),
}

impl End {
    fn of(status: io::Result<ExitStatus>) -> Self {
        let status = status.ok();
        match (status.and_then(|status| status.code()), status.and_then(|status| status.signal())) {
            (Some(code), _) => Self::Exited(code),
            (None, Some(signal)) => Self::Killed(signal),
            (None, None) => Self::Exited(1),
        }
    }

    fn not_started(error: &ChildError) -> Self {
        Self::NotStarted(error.to_string(), Some(error.exit_code()))
    }

    pub(super) fn is_success(&self) -> bool {
        *self == Self::Exited(0)
    }

    /// The attempt's state, but for what the server itself gave up.
    pub(super) fn status(&self) -> &'static str {
        match self {
            Self::Exited(0) => "succeeded",
            Self::TimedOut(_) => "timeout",
            Self::Gone(_) => "gone",
            _ => "failed",
        }
    }

    /// As `run` has it: 128 + n after death by signal n, 124 after a timeout.
    pub(super) fn exit_code(&self) -> Option<i32> {
        match self {
            Self::Exited(code) => Some(*code),
            Self::Killed(signal) => Some(128 + signal),
            Self::TimedOut(_) => Some(124),
            Self::NotStarted(_, code) => *code,
            Self::Stopped | Self::Gone(_) => None,
        }
    }

    /// Why it is no success.
    pub(super) fn problem(&self) -> Option<String> {
        match self {
            Self::Exited(0) => None,
            Self::Exited(code) => Some(format!("exit code {code}")),
            Self::Killed(signal) => Some(format!("killed by signal {signal}")),
            Self::TimedOut(limit) => Some(format!("timed out after {} s", limit.as_secs_f64())),
            Self::Stopped => Some("worker was stopped".to_owned()),
            Self::Gone(reason) => Some(reason.clone()),
            Self::NotStarted(problem, _) => Some(problem.clone()),
        }
    }
}

/// Runs a command to its end, or until `cut_short` says how it ends. What it prints goes to `ours`; the end of that is
/// given, too.
pub(super) async fn run(
    spec: &ChildSpec,
    input: &[u8],
    ours: impl AsyncWrite + Unpin,
    cut_short: impl Future<Output = End>,
) -> (End, Vec<u8>) {
    let mut printed = Vec::new();
    let mut started = match child::start(spec) {
        Ok(started) => started,
        Err(error) => return (End::not_started(&error), printed),
    };
    let (stdin, stdout) = (started.child.stdin.take(), started.child.stdout.take());
    let end = {
        let mut talking = pin!(async {
            tokio::join!(feed(stdin, input), pass_on(stdout, &mut printed, ours));
        });
        let mut ending = pin!(async {
            tokio::select! {
                status = started.child.wait() => End::of(status),
                end = cut_short => {
                    started.end().await;
                    end
                }
            }
        });
        tokio::select! {
            end = &mut ending => {
                // What it started may hold its output open.
                let _ = tokio::time::timeout(LAST_WORDS, &mut talking).await;
                end
            }
            () = &mut talking => ending.await,
        }
    };
    let superfluous = printed.len().saturating_sub(KEPT_BYTES);
    printed.drain(..superfluous);
    (end, printed)
}

/// A command that reads nothing is none that fails.
async fn feed(stdin: Option<ChildStdin>, input: &[u8]) {
    if let Some(mut stdin) = stdin {
        let _ = stdin.write_all(input).await;
    }
}

/// Passes on what it prints, as it comes. A reader of ours that has left, as `head` does, is no error.
async fn pass_on(stdout: Option<ChildStdout>, printed: &mut Vec<u8>, mut ours: impl AsyncWrite + Unpin) {
    let Some(mut stdout) = stdout else { return };
    let mut chunk = vec![0; CHUNK_BYTES];
    while let Ok(read @ 1..) = stdout.read(&mut chunk).await {
        let chunk = &chunk[..read];
        if printed.len() > KEPT_BYTES {
            printed.drain(..printed.len() - KEPT_BYTES);
        }
        printed.extend_from_slice(chunk);
        let _ = ours.write_all(chunk).await;
        let _ = ours.flush().await;
    }
}

/// How much of its output is looked at.
const KEPT_BYTES: usize = 64 * 1024;
const CHUNK_BYTES: usize = 64 * 1024;
/// How long its output is waited for when it has ended itself.
const LAST_WORDS: Duration = Duration::from_secs(2);

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

    async fn ran(script: &str, input: &[u8]) -> (End, String) {
        let (end, printed) = run(&shell(script), input, sink(), pending()).await;
        (end, String::from_utf8(printed).unwrap())
    }

    #[tokio::test]
    async fn it_is_fed_and_heard_and_its_end_is_told() {
        assert_eq!(ran("cat; exit 3", b"{}\n").await, (End::Exited(3), "{}\n".to_owned()));
        assert_eq!(ran("kill -9 $$", b"").await.0, End::Killed(9));
        let missing = ChildSpec { command: vec!["no-such-program-here".into()], ..shell("") };
        let (end, _) = run(&missing, b"", sink(), pending()).await;
        assert_eq!((end.exit_code(), end.status()), (Some(127), "failed"));
    }

    #[tokio::test]
    async fn neither_an_unread_input_nor_a_long_output_holds_it_up() {
        let input = vec![b' '; 1 << 20];
        assert_eq!(ran("exec 0<&-; echo 1", &input).await, (End::Exited(0), "1\n".to_owned()));
        let (end, printed) = ran("head -c 300000 /dev/zero | tr '\\0' x; echo; echo 7", b"").await;
        assert!(end.is_success() && printed.len() == KEPT_BYTES && printed.ends_with("x\n7\n"), "{}", printed.len());
    }

    #[tokio::test]
    async fn cut_short_it_ends_with_all_it_started() {
        let began = std::time::Instant::now();
        let cut = async {
            tokio::time::sleep(Duration::from_millis(200)).await;
            End::TimedOut(Duration::from_millis(200))
        };
        let (end, _) = run(&shell("sleep 300 & sleep 300"), b"", sink(), cut).await;
        assert_eq!((end.status(), end.problem().as_deref()), ("timeout", Some("timed out after 0.2 s")));
        assert!(began.elapsed() < Duration::from_secs(30));
    }
}

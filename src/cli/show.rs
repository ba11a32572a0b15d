//! Prints to stdout and stderr. Errors of stderr are ignored: there is no other place to report them.

use anyhow::{Context, Result};
use std::io::{self, ErrorKind, Write};

/// What a subcommand writes to stdout.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum OutputFormat {
    Text,
    Json,
}

impl From<bool> for OutputFormat {
    /// From the flag `--json`.
    fn from(json: bool) -> Self {
        if json { Self::Json } else { Self::Text }
    }
}

/// Writes to stdout. A closed pipe (as after `| head`) is no error.
pub(super) fn out(output: impl AsRef<[u8]>) -> Result<()> {
    out_part(output).map(drop)
}

/// Writes a part of the output to stdout. False if the pipe is closed, so that the rest need not be made.
pub(super) fn out_part(output: impl AsRef<[u8]>) -> Result<bool> {
    let mut stdout = io::stdout().lock();
    let written = stdout.write_all(output.as_ref()).and_then(|()| stdout.flush());
    let is_open = written.is_ok();
    unless_closed(written).context("cannot write to stdout")?;
    Ok(is_open)
}

/// The result of writing to stdout, where a closed pipe is no error.
pub(super) fn unless_closed(written: io::Result<()>) -> io::Result<()> {
    match written {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}

/// Writes a line to stderr.
pub(super) fn note(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Replaces the last line of the terminal on stderr; an empty text removes it.
pub(super) fn replace_line(text: &str) {
    let mut stderr = io::stderr().lock();
    let _ = write!(stderr, "\r\x1b[2K{text}");
    let _ = stderr.flush();
}

/// A number with its noun: `1 exchange`, `2 exchanges`, `2 processes`.
pub(super) fn count(number: u64, noun: &str) -> String {
    let plural = match number {
        1 => "",
        _ if noun.ends_with('s') => "es",
        _ => "s",
    };
    format!("{number} {noun}{plural}")
}

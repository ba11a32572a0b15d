//! Prints to stdout and stderr. Errors of printing are ignored.

use crate::export::timeline::{TimelineOptions, render};
use crate::trace::Span;
use std::io::{IsTerminal, Write};

/// The timeline of `spans`, at most 80 columns wide. Colour only if `terminal` is one and NO_COLOR is not set.
pub(super) fn timeline(title: &str, spans: &[Span], terminal: &impl IsTerminal) -> String {
    let color = terminal.is_terminal() && std::env::var_os("NO_COLOR").is_none();
    render(title, spans, &TimelineOptions { width: 80, color })
}

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
pub(super) fn out(text: &str) {
    let mut stdout = std::io::stdout().lock();
    let _ = stdout.write_all(text.as_bytes());
    let _ = stdout.flush();
}

/// Writes a line to stderr.
pub(super) fn note(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// Replaces the last line of the terminal on stderr; an empty text removes it.
pub(super) fn replace_line(text: &str) {
    let mut stderr = std::io::stderr().lock();
    let _ = write!(stderr, "\r\x1b[2K{text}");
    let _ = stderr.flush();
}

/// A number with its noun: `1 exchange`, `2 exchanges`.
pub(super) fn count(number: u64, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

//! How a trace is shown on a terminal.

use crate::export::timeline::{TimelineOptions, render};
use crate::trace::Span;
use std::io::{IsTerminal, Write};

/// The timeline of `spans`, as wide as 80 columns allow; colour only on a terminal that wants it.
pub(super) fn timeline(title: &str, spans: &[Span], terminal: &impl IsTerminal) -> String {
    let color = terminal.is_terminal() && std::env::var_os("NO_COLOR").is_none();
    render(title, spans, &TimelineOptions { width: 80, color })
}

/// Writes to stdout. A reader that has left, as `head` does, is no error.
pub(super) fn out(text: &str) {
    let mut stdout = std::io::stdout().lock();
    let _ = stdout.write_all(text.as_bytes());
    let _ = stdout.flush();
}

/// Writes a line to stderr.
pub(super) fn note(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// Writes a line to a terminal's stderr in place of the last one; an empty one takes it away.
pub(super) fn replace_line(text: &str) {
    let mut stderr = std::io::stderr().lock();
    let _ = write!(stderr, "\r\x1b[2K{text}");
    let _ = stderr.flush();
}

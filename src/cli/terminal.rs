//! What the terminal can show: its size, its colours, and a pager for what is longer than its screen.

use super::show;
use anstream::{AutoStream, ColorChoice, stream::RawStream};
use anyhow::{Context, Result};
use std::io::{self, Write};
use std::process::{Command, Stdio};
use terminal_size::{Height, Width, terminal_size_of};

/// The screen that an output is shown on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Screen {
    /// Columns; 80 where nothing tells.
    pub(super) width: usize,
    /// Lines. `None` if the output is no terminal.
    pub(super) height: Option<usize>,
    /// Whether to use colours: `--color`, NO_COLOR, CLICOLOR, CLICOLOR_FORCE and TERM decide.
    pub(super) color: bool,
}

impl Screen {
    pub(super) fn of_stdout() -> Self {
        let stdout = io::stdout();
        Self::of(&stdout, terminal_size_of(&stdout))
    }

    pub(super) fn of_stderr() -> Self {
        let stderr = io::stderr();
        Self::of(&stderr, terminal_size_of(&stderr))
    }

    fn of(output: &impl RawStream, size: Option<(Width, Height)>) -> Self {
        let columns = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
        let width = columns.or(size.map(|(Width(columns), _)| usize::from(columns)));
        Self {
            // Longer lines are hard to follow with the eyes.
            width: width.filter(|columns| *columns > 0).unwrap_or(DEFAULT_WIDTH).clamp(MIN_WIDTH, MAX_WIDTH),
            height: size.map(|(_, Height(lines))| usize::from(lines)),
            color: AutoStream::choice(output) != ColorChoice::Never,
        }
    }
}

/// Whether long output goes through a pager.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Paging {
    /// If it is longer than the screen.
    Auto,
    Never,
}

/// Writes text to stdout; through a pager if it is longer than the terminal's screen.
pub(super) fn page(text: &str, paging: Paging) -> Result<()> {
    let height = Screen::of_stdout().height.filter(|_| paging == Paging::Auto);
    let is_long = height.is_some_and(|lines| text.lines().count() >= lines);
    match pager().filter(|_| is_long) {
        Some(pager) => through(&pager, text),
        None => show::out(text),
    }
}

/// The pager that the user wants, as a command line of the shell. `None`: no pager.
fn pager() -> Option<String> {
    let wanted = ["TRACEWIRE_PAGER", "PAGER"].iter().find_map(|name| std::env::var(name).ok());
    let wanted = wanted.unwrap_or_else(|| "less".to_owned());
    let wanted = wanted.trim();
    (!wanted.is_empty() && wanted != "cat").then(|| wanted.to_owned())
}

fn through(pager: &str, text: &str) -> Result<()> {
    let mut command = Command::new("sh");
    command.args(["-c", pager]).stdin(Stdio::piped());
    if std::env::var_os("LESS").is_none() {
        // Colours pass; a short text ends at once; it stays on the screen.
        command.env("LESS", "FRX");
    }
    let mut child =
        command.spawn().with_context(|| format!("cannot start the pager {pager}; set PAGER, or use --no-pager"))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A pager that was left early closes its input.
        show::unless_closed(stdin.write_all(text.as_bytes())).context("cannot write to the pager")?;
    }
    let status = child.wait().context("cannot wait for the pager")?;
    // The shell found no such program.
    if status.code() == Some(127) { show::out(text) } else { Ok(()) }
}

const DEFAULT_WIDTH: usize = 80;
const MIN_WIDTH: usize = 40;
const MAX_WIDTH: usize = 160;

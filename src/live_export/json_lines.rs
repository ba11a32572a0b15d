//! Each stored span as a line of JSON, to stdout or a file.
//!
//! It reads the store as exports do, but keeps no cursor there: it begins with what is stored from now on. A reader that is slow
//! delays only these lines.

use super::delivery::Phase;
use crate::store::{SharedStore, StoreError};
use crate::trace::Span;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// Where the lines go: `jsonl` or `jsonl:FILE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum JsonLinesPlace {
    Stdout,
    /// Lines are added at the end.
    File(PathBuf),
}

impl FromStr for JsonLinesPlace {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "jsonl" => Ok(Self::Stdout),
            Some(("jsonl", path)) if !path.is_empty() => Ok(Self::File(path.into())),
            _ => Err("use jsonl, or jsonl:FILE".to_owned()),
        }
    }
}

/// Why lines can't be written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JsonLinesError {
    /// The file can't be opened.
    #[error("cannot write {path} (--emit): {cause}")]
    File {
        /// As given by the user.
        path: PathBuf,
        /// The error of the operating system.
        cause: io::Error,
    },
    /// The store can't be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The open output.
enum Output {
    Stdout(io::Stdout),
    File(File),
}

/// Writes lines until the program ends.
pub(super) struct JsonLines {
    store: SharedStore,
    output: Output,
    /// The number of the last span that was written.
    position: u64,
    phase: watch::Receiver<Phase>,
}

impl JsonLines {
    /// Opens the output. Spans that are stored from now on are written.
    pub(super) async fn open(
        place: &JsonLinesPlace,
        store: SharedStore,
        phase: watch::Receiver<Phase>,
    ) -> Result<Self, JsonLinesError> {
        let output = match place {
            JsonLinesPlace::Stdout => Output::Stdout(io::stdout()),
            JsonLinesPlace::File(path) => {
                let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path);
                Output::File(file.map_err(|cause| JsonLinesError::File { path: path.clone(), cause })?)
            }
        };
        let position = store.spans_by_number(0, 0).await?.newest;
        Ok(Self { store, output, position, phase })
    }

    pub(super) async fn run(mut self) {
        loop {
            let is_ending = *self.phase.borrow() != Phase::Running;
            let is_done = match self.store.spans_by_number(self.position, MAX_SPANS).await {
                Ok(page) if page.through > self.position => {
                    let (through, output) = (page.through, self.output);
                    let writing = tokio::task::spawn_blocking(move || write_lines(output, &page.spans)).await;
                    match writing {
                        Ok(Ok(output)) => self.output = output,
                        Ok(Err(error)) => {
                            return tracing::error!(%error, "spans are no longer written as lines (--emit)");
                        }
                        Err(error) => {
                            return tracing::error!(%error, "spans are no longer written as lines (--emit)");
                        }
                    }
                    self.position = through;
                    continue;
                }
                Ok(_) => true,
                Err(error) => {
                    tracing::warn!(%error, "spans can't be read for --emit; trying again later");
                    false
                }
            };
            if is_ending {
                if !is_done {
                    tracing::error!("the last spans are not written as lines (--emit)");
                }
                return;
            }
            tokio::select! {
                () = tokio::time::sleep(INTERVAL) => {}
                _ = self.phase.wait_for(|phase| *phase != Phase::Running) => {}
            }
        }
    }
}

fn write_lines(mut output: Output, spans: &[Arc<Span>]) -> io::Result<Output> {
    let mut lines = Vec::new();
    for span in spans {
        serde_json::to_writer(&mut lines, &**span)?;
        lines.push(b'\n');
    }
    let writer: &mut dyn Write = match &mut output {
        Output::Stdout(stdout) => stdout,
        Output::File(file) => file,
    };
    writer.write_all(&lines)?;
    writer.flush()?;
    Ok(output)
}

/// Spans that are read at once.
const MAX_SPANS: usize = 512;
/// How often the store is read.
const INTERVAL: Duration = Duration::from_millis(200);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_stdout_or_a_file() {
        assert_eq!("jsonl".parse(), Ok(JsonLinesPlace::Stdout));
        assert_eq!("jsonl:a:b.jsonl".parse(), Ok(JsonLinesPlace::File("a:b.jsonl".into())));
        for wrong in ["json", "jsonl:", "csv:x", ""] {
            assert!(wrong.parse::<JsonLinesPlace>().is_err(), "{wrong}");
        }
    }
}

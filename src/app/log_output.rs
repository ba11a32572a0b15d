//! Where the log goes: stderr, without secrets.
//!
//! Log lines name ids, URLs and errors of other programs. Any of them may contain a key or a password by mistake.

use crate::wire::redact::Redactor;
use std::io::{self, Write};

/// stderr. Each write is a whole message of the log.
pub(crate) struct LogOutput;

impl Write for LogOutput {
    fn write(&mut self, message: &[u8]) -> io::Result<usize> {
        io::stderr().write_all(redacted(&String::from_utf8_lossy(message)).as_bytes())?;
        Ok(message.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

/// Each text between two colours is redacted by itself: the `m` at the end of a colour's code would be a letter before the text.
fn redacted(message: &str) -> String {
    let redactor = Redactor::of_messages();
    let mut pieces = message.split(COLOUR);
    let mut shown = redactor.text(pieces.next().unwrap_or_default()).into_owned();
    for piece in pieces {
        let (code, text) = piece.split_at(piece.find('m').map_or(0, |end| end + 1));
        shown.push_str(COLOUR);
        shown.push_str(code);
        shown.push_str(&redactor.text(text));
    }
    shown
}

/// The beginning of the code of a colour, which ends with `m`.
const COLOUR: &str = "\u{1b}[";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_do_not_hide_a_key() {
        let key = format!("sk-proj-{}", "aB3dE5gH7jK9mN1pQ3sT5vW7".repeat(3));
        let line = format!(
            "\u{1b}[3mrollout_id\u{1b}[0m\u{1b}[2m=\u{1b}[0m{key} \u{1b}[3murl\u{1b}[0m\u{1b}[2m=\u{1b}[0mhttp://u:hunter2@h/"
        );
        let redacted = redacted(&line);
        assert!(!redacted.contains(&key) && !redacted.contains("hunter2"), "{redacted}");
    }
}

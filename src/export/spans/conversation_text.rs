//! The conversations of a rollout as text for terminals, as a person reads them: each message once, tool calls with their
//! arguments and results.

use super::span_facts::call_facts;
use super::transcript::{Message, Part, Transcript, TranscriptCall};
use crate::export::text::{escape_for_document, escape_for_terminal, shortened};
use crate::trace::Span;
use crate::trace::failure::failure;
use serde_json::Value as JsonValue;
use std::fmt::Write as _;

/// How conversations are written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ConversationOptions {
    /// Columns of a heading. Texts keep their lines.
    pub(crate) width: usize,
    /// Whether headings are coloured with ANSI sequences.
    pub(crate) color: bool,
    /// How much of long texts is written.
    pub(crate) length: TextLength,
}

/// How much of a long text is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TextLength {
    /// All of it.
    Whole,
    /// Its first lines, and how many more there are.
    Beginning,
}

/// Writes the conversations in these spans. Text from the network is escaped.
pub(crate) fn conversations(spans: &[Span], options: &ConversationOptions) -> String {
    let transcript = Transcript::of(spans);
    let conversations = transcript.conversations();
    let mut out = Writer { text: String::new(), options };
    for (number, calls) in conversations.iter().enumerate() {
        if conversations.len() > 1 {
            out.heading(BOLD, &format!("conversation {}", number + 1), '═');
        }
        for at in calls {
            out.call(&transcript.calls[*at]);
        }
    }
    if conversations.is_empty() {
        out.text.push_str("no LLM calls were recorded\n");
    }
    out.text
}

/// Writes messages with headings.
pub(super) struct Writer<'o> {
    pub(super) text: String,
    pub(super) options: &'o ConversationOptions,
}

impl Writer<'_> {
    fn call(&mut self, call: &TranscriptCall<'_>) {
        for message in &call.input {
            let role = if message.role.is_empty() { "unknown" } else { &message.role };
            let color = if role == "user" { CYAN } else { DIM };
            self.heading(color, role, '─');
            self.parts(message);
        }
        self.heading(GREEN, &format!("assistant · {}", call_facts(call.span, None)), '─');
        for message in &call.output {
            self.parts(message);
        }
        if let Some(failure) = failure(call.span) {
            self.line("", &format!("✗ {}", escape_for_terminal(&failure)));
        } else if call.output.is_empty() {
            self.line("", "(no answer was recorded)");
        }
    }

    /// A title within a rule.
    pub(super) fn heading(&mut self, color: &str, title: &str, rule: char) {
        let title = escape_for_terminal(title);
        let title = shortened(&title, self.options.width.saturating_sub(6));
        let rest = self.options.width.saturating_sub(title.chars().count() + 4);
        let (on, off) = if self.options.color { (color, RESET) } else { ("", "") };
        // Writing to a String can't fail.
        let _ = writeln!(self.text, "{on}{rule}{rule} {title} {}{off}", String::from(rule).repeat(rest));
    }

    /// What a message says.
    pub(super) fn parts(&mut self, message: &Message) {
        for part in message.parts() {
            match part {
                Part::Text(text) => self.lines("", text),
                Part::Reasoning(text) => self.lines("│ ", text),
                Part::ToolCall { name, arguments, .. } => {
                    let arguments = readable(arguments);
                    if arguments.contains('\n') {
                        self.line("", &format!("→ {}", escape_for_terminal(name)));
                        self.lines("    ", &arguments);
                    } else {
                        self.lines("", &format!("→ {name} {arguments}"));
                    }
                }
                Part::ToolResult { response, .. } => self.lines("← ", &readable(response)),
                Part::Other(part) => {
                    let kind = part["modality"].as_str().or(part["type"].as_str()).unwrap_or("unknown");
                    self.line("", &format!("[{}]", escape_for_terminal(kind)));
                }
            }
        }
    }

    /// A text of the network, each line behind the same sign.
    fn lines(&mut self, sign: &str, text: &str) {
        let text = escape_for_document(text.trim_end());
        let count = text.lines().count();
        let shown = match self.options.length {
            TextLength::Beginning if count > MAX_LINES + 1 => MAX_LINES,
            _ => count,
        };
        for line in text.lines().take(shown) {
            let beginning = line.char_indices().nth(MAX_LINE_CHARACTERS).map(|(end, _)| end);
            match beginning.filter(|_| self.options.length == TextLength::Beginning) {
                Some(end) => {
                    let more = line[end..].chars().count();
                    self.line(sign, &format!("{}… {more} more characters", &line[..end]));
                }
                None => self.line(sign, line),
            }
        }
        if shown < count {
            self.line(sign, &format!("… {} more lines", count - shown));
        }
    }

    /// An escaped line behind a sign.
    pub(super) fn line(&mut self, sign: &str, line: &str) {
        let _ = writeln!(self.text, "{sign}{line}");
    }
}

/// A value as a person reads it: a string as its text, also if it is JSON in a string; a short object on one line.
pub(super) fn readable(value: &JsonValue) -> String {
    let parsed = value.as_str().map(serde_json::from_str::<JsonValue>);
    let value = match (value, parsed) {
        (JsonValue::String(_), Some(Ok(inner @ (JsonValue::Object(_) | JsonValue::Array(_))))) => inner,
        (JsonValue::String(text), _) => return text.clone(),
        (other, _) => other.clone(),
    };
    let line = value.to_string();
    if line.len() <= MAX_ONE_LINE_BYTES { line } else { serde_json::to_string_pretty(&value).unwrap_or(line) }
}

const MAX_LINES: usize = 12;
const MAX_LINE_CHARACTERS: usize = 600;
const MAX_ONE_LINE_BYTES: usize = 100;

pub(super) const BOLD: &str = "\u{1b}[1m";
const DIM: &str = "\u{1b}[2m";
pub(super) const CYAN: &str = "\u{1b}[36m";
pub(super) const GREEN: &str = "\u{1b}[32m";
const RESET: &str = "\u{1b}[0m";

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn written(input: JsonValue, output: JsonValue, length: TextLength) -> String {
        let span = json!({
            "rollout_id": "r", "attempt_id": "a", "sequence_id": 7, "trace_id": "t", "span_id": "s", "parent_id": null,
            "name": "chat m", "kind": "CLIENT", "status": {"status_code": "OK", "description": null},
            "attributes": {
                "tracewire.llm.dialect": "openai.chat", "gen_ai.operation.name": "chat", "gen_ai.request.model": "m",
                "gen_ai.input.messages": input.to_string(), "gen_ai.output.messages": output.to_string(),
            },
            "events": [], "links": [], "start_time": 1.0, "end_time": 1.5, "context": null, "parent": null,
            "resource": {"attributes": {}, "schema_url": ""},
        });
        let span: Span = serde_json::from_value(span).unwrap();
        conversations(&[span], &ConversationOptions { width: 60, color: false, length })
    }

    fn message(role: &str, part: JsonValue) -> JsonValue {
        json!([{ "role": role, "parts": [part] }])
    }

    #[test]
    fn tool_calls_are_read_without_json_in_json() {
        let call = json!({"type": "tool_call", "id": "c", "name": "add", "arguments": "{\"a\": 1}"});
        let result = json!({"type": "tool_call_response", "id": "c", "response": "two\nlines"});
        let text = written(message("tool", result), message("assistant", call), TextLength::Beginning);
        assert!(text.contains("\n← two\n← lines\n"), "{text}");
        assert!(text.contains("── assistant · call 7 · m · 500 ms ──"), "{text}");
        assert!(text.contains("\n→ add {\"a\":1}\n"), "{text}");
    }

    #[test]
    fn long_texts_are_cut_unless_they_are_wanted_whole() {
        let part = json!({"type": "text", "content": "line\n".repeat(100) + "\u{1b}[2J" + &"x".repeat(1000)});
        let of = |length| written(message("user", part.clone()), json!([]), length);
        let (cut, whole) = (of(TextLength::Beginning), of(TextLength::Whole));
        assert!(cut.contains("… 89 more lines") && cut.matches("line\n").count() == 12, "{cut}");
        assert!(whole.matches("line\n").count() == 100 && whole.contains(&"x".repeat(1000)), "{whole}");
        assert!(!whole.contains('\u{1b}') && cut.contains("(no answer was recorded)"));
    }
}

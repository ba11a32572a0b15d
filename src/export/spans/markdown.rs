//! A transcript in Markdown: the conversations of a rollout, for people to read and to quote.
//!
//! Texts of messages are Markdown themselves and stay as they are, in block quotes, so that a heading in one does not
//! become one of the document. Arguments and results of tools are code blocks with a fence that the content can't close.

use super::format::{Framing, RecordedRollout, SpanFormat};
use super::span_facts::{call_facts, rfc3339, text};
use super::transcript::{Message, Part, Transcript, TranscriptCall};
use crate::export::text::{escape_for_document, escape_for_terminal};
use crate::llm::recorded::is_llm_call;
use crate::trace::failure::failure;
use crate::trace::semconv as names;
use crate::trace::{Span, Value};
use serde_json::Value as JsonValue;
use std::fmt::Write as _;

/// `--format markdown`
pub(super) struct Markdown;

impl SpanFormat for Markdown {
    fn name(&self) -> &'static str {
        "markdown"
    }

    fn media_type(&self) -> &'static str {
        "text/markdown; charset=utf-8"
    }

    fn framing(&self) -> Framing {
        Framing { separator: "\n", ..Framing::NONE }
    }

    fn encoded(&self, recorded: &RecordedRollout) -> serde_json::Result<Vec<u8>> {
        let (rollout, spans) = (&recorded.rollout.rollout, &recorded.spans);
        let mut out = String::new();
        let title = rollout.name().unwrap_or(rollout.rollout_id.as_str());
        // Writing to a String can't fail.
        let _ = writeln!(out, "# {}\n", one_line(title));
        let _ = writeln!(out, "- rollout: {}", code(rollout.rollout_id.as_str()));
        if let Some(attempt) = &recorded.rollout.attempt {
            let _ = writeln!(out, "- latest attempt: {}", code(attempt.attempt_id.as_str()));
        }
        let _ = writeln!(out, "- status: {}", rollout.status.as_str());
        let _ = writeln!(out, "- started: {}", rfc3339(rollout.start_time));
        let _ = writeln!(out, "- spans: {}", spans.len());
        let transcript = Transcript::of(spans);
        let conversations = transcript.conversations();
        for (number, calls) in conversations.iter().enumerate() {
            let _ = writeln!(out, "\n## Conversation {}", number + 1);
            for at in calls {
                call(&mut out, &transcript.calls[*at], &transcript);
            }
        }
        if conversations.is_empty() {
            out.push_str("\nNo LLM calls were recorded.\n");
        }
        others(&mut out, spans);
        Ok(out.into_bytes())
    }
}

fn call(out: &mut String, call: &TranscriptCall<'_>, all: &Transcript<'_>) {
    for message in &call.input {
        let role = if message.role.is_empty() { "unknown" } else { &message.role };
        let _ = writeln!(out, "\n### {}\n", one_line(role));
        parts(out, message);
    }
    let span = call.span;
    let before = call.continues.map(|at| all.calls[at].span.sequence_id);
    let _ = writeln!(out, "\n### assistant · {}\n", one_line(&call_facts(span, before)));
    for message in &call.output {
        parts(out, message);
    }
    if let Some(failure) = failure(span) {
        let _ = writeln!(out, "**Failed:** {}", one_line(&failure));
    } else if call.output.is_empty() {
        out.push_str("*No answer was recorded.*\n");
    }
}

fn parts(out: &mut String, message: &Message) {
    for part in message.parts() {
        match part {
            Part::Text(text) => quote(out, text),
            Part::Reasoning(text) => {
                out.push_str("*Reasoning:*\n\n");
                quote(out, text);
            }
            Part::ToolCall { id, name, arguments } => {
                let _ = writeln!(out, "**Calls** {} ({})\n", code(name), code(id));
                fenced(out, arguments);
            }
            Part::ToolResult { id, response } => {
                let _ = writeln!(out, "**Result of** {}\n", code(id));
                fenced(out, response);
            }
            Part::Other(part) => {
                let kind = part["modality"].as_str().or(part["type"].as_str()).unwrap_or("unknown");
                let _ = writeln!(out, "*[{}]*\n", one_line(kind));
            }
        }
    }
}

/// A text as a block quote.
fn quote(out: &mut String, text: &str) {
    for line in escape_for_document(text).lines() {
        let _ = writeln!(out, "> {line}");
    }
    out.push('\n');
}

/// A value as a code block: JSON, or the text of a string.
fn fenced(out: &mut String, value: &JsonValue) {
    let (language, text) = match value {
        JsonValue::String(text) => ("text", text.clone()),
        other => ("json", serde_json::to_string_pretty(other).unwrap_or_default()),
    };
    let fence = "`".repeat(longest_run(&text).max(2) + 1);
    let _ = writeln!(out, "{fence}{language}");
    let _ = writeln!(out, "{}", escape_for_document(&text).trim_end_matches('\n'));
    let _ = writeln!(out, "{fence}\n");
}

/// A text as code within a line.
fn code(text: &str) -> String {
    let fence = "`".repeat(longest_run(text) + 1);
    let space = if text.starts_with('`') || text.ends_with('`') { " " } else { "" };
    if text.is_empty() {
        "–".to_owned()
    } else {
        format!("{fence}{space}{}{space}{fence}", escape_for_terminal(text))
    }
}

/// The length of the longest run of backticks.
fn longest_run(text: &str) -> usize {
    text.split(|letter| letter != '`').map(str::len).max().unwrap_or_default()
}

/// A text without line breaks, and without what Markdown would read in it.
fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for letter in escape_for_terminal(text).chars() {
        if matches!(letter, '\\' | '`' | '*' | '_' | '<' | '>' | '[' | ']' | '#' | '|') {
            line.push('\\');
        }
        line.push(letter);
    }
    line
}

/// The exchanges that are no LLM calls, as a list.
fn others(out: &mut String, spans: &[Span]) {
    let others = spans.iter().filter(|span| !is_llm_call(span));
    let mut lines = others.filter_map(|span| {
        let what = text(span, names::GEN_AI_TOOL_NAME).or_else(|| text(span, names::URL_FULL))?;
        let status = span.attributes.get(names::HTTP_RESPONSE_STATUS_CODE).and_then(Value::as_int);
        let status = status.map(|status| format!(" → {status}")).unwrap_or_default();
        Some(format!("- {}: {} {}{status}\n", span.sequence_id, one_line(&span.name), code(what)))
    });
    if let Some(first) = lines.next() {
        out.push_str("\n## Other exchanges\n\n");
        out.push_str(&first);
        out.extend(lines);
    }
}

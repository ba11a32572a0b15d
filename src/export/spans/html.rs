//! A page of HTML for each rollout, in one file without scripts, images or links: a table of spans with bars on a time
//! axis, and the conversations.
//!
//! Everything from the network is escaped, and the page forbids itself to load or run anything.

use super::format::{Framing, RecordedRollout, SpanFormat};
use super::span_facts::{Times, rfc3339, text, value_text};
use super::transcript::{Message, Part, Transcript};
use super::tree::SpanTree;
use crate::export::text::escape_for_document;
use crate::trace::failure::failure;
use crate::trace::semconv as names;
use crate::trace::{Span, Value};
use serde_json::Value as JsonValue;
use std::fmt::Write as _;

/// `--format html`
pub(super) struct Html;

impl SpanFormat for Html {
    fn name(&self) -> &'static str {
        "html"
    }

    fn media_type(&self) -> &'static str {
        "text/html; charset=utf-8"
    }

    fn framing(&self) -> Framing {
        Framing { start: concat!(include_str!("page.html"), "\n"), separator: "<hr>\n", end: "</body>\n</html>\n" }
    }

    fn encoded(&self, recorded: &RecordedRollout) -> serde_json::Result<Vec<u8>> {
        let (rollout, spans) = (&recorded.rollout.rollout, &recorded.spans);
        let mut out = String::new();
        // Writing to a String can't fail.
        let _ = writeln!(out, "<h1>{}</h1>", escaped(rollout.name().unwrap_or(rollout.rollout_id.as_str())));
        let attempt = recorded.rollout.attempt.as_ref().map(|attempt| attempt.attempt_id.to_string());
        let facts = [
            ("rollout", rollout.rollout_id.to_string()),
            ("latest attempt", attempt.unwrap_or_default()),
            ("status", rollout.status.as_str().to_owned()),
            ("started", rfc3339(rollout.start_time)),
            ("spans", spans.len().to_string()),
        ];
        out.push_str("<dl>");
        for (name, value) in facts {
            let _ = write!(out, "<dt>{name}</dt><dd>{}</dd>", escaped(&value));
        }
        out.push_str("</dl>\n<h2>Spans</h2>\n");
        span_table(&mut out, spans);
        conversations(&mut out, &Transcript::of(spans));
        Ok(out.into_bytes())
    }
}

fn span_table(out: &mut String, spans: &[Span]) {
    let times = Times::of_all(spans);
    let start = times.iter().map(|times| times.start).min().unwrap_or_default();
    let end = times.iter().map(|times| times.end).max().unwrap_or_default();
    let whole = end.since(start).as_secs_f64().max(f64::MIN_POSITIVE);
    out.push_str("<table><thead><tr><th>#<th>span<th>result<th>ms<th class=axis>time</tr></thead><tbody>\n");
    for (at, depth) in SpanTree::of(spans).walk() {
        let (span, times) = (&spans[at], times[at]);
        let percent = |seconds: f64| 100.0 * seconds / whole;
        let left = percent(times.start.since(start).as_secs_f64());
        let width = percent(times.end.since(times.start).as_secs_f64());
        let class = if span.is_error() { " class=error" } else { "" };
        let millis = if times.are_known { format!("{:.1}", times.millis()) } else { "–".to_owned() };
        let _ = writeln!(
            out,
            "<tr{class}><td>{}<td style=\"padding-left:{}em\">{}<td>{}<td>{millis}<td class=axis><i style=\"margin-left:{left:.2}%;width:{width:.2}%\"></i></tr>",
            span.sequence_id,
            depth.min(MAX_INDENT),
            details(span),
            escaped(&result(span)),
        );
    }
    out.push_str("</tbody></table>\n");
}

/// The name of a span, which opens its attributes.
fn details(span: &Span) -> String {
    let about = text(span, names::URL_FULL).or_else(|| text(span, names::GEN_AI_TOOL_NAME)).unwrap_or_default();
    let mut out = format!("<details><summary>{} <small>{}</small></summary><dl>", escaped(&span.name), escaped(about));
    if let Some(failure) = failure(span) {
        let _ = write!(out, "<dt>failure</dt><dd>{}</dd>", escaped(&failure));
    }
    for (name, value) in span.attributes.iter().filter(|(name, _)| !IN_CONVERSATIONS.contains(&name.as_str())) {
        let _ = write!(out, "<dt>{}</dt><dd>{}</dd>", escaped(name), escaped(&value_text(value)));
    }
    out.push_str("</dl></details>");
    out
}

fn result(span: &Span) -> String {
    let status = span.attributes.get(names::HTTP_RESPONSE_STATUS_CODE).and_then(Value::as_int);
    let status = status.map(|status| status.to_string());
    let error = text(span, names::ERROR_TYPE).map(str::to_owned);
    status.or(error).unwrap_or_else(|| if span.is_error() { "error".to_owned() } else { String::new() })
}

fn conversations(out: &mut String, transcript: &Transcript<'_>) {
    for (number, calls) in transcript.conversations().into_iter().enumerate() {
        let _ = writeln!(out, "<h2>Conversation {}</h2>", number + 1);
        for at in calls {
            let call = &transcript.calls[at];
            for message in &call.input {
                article(out, message, &message.role);
            }
            let model =
                text(call.span, names::GEN_AI_RESPONSE_MODEL).or_else(|| text(call.span, names::GEN_AI_REQUEST_MODEL));
            let title = format!("assistant · call {} · {}", call.span.sequence_id, model.unwrap_or("unknown model"));
            for message in &call.output {
                article(out, message, &title);
            }
            if call.output.is_empty() {
                let why = failure(call.span).unwrap_or_else(|| "no answer was recorded".to_owned());
                let _ = writeln!(
                    out,
                    "<article class=error><h3>{}</h3><p>{}</p></article>",
                    escaped(&title),
                    escaped(&why)
                );
            }
        }
    }
}

fn article(out: &mut String, message: &Message, title: &str) {
    let class = match message.role.as_str() {
        "assistant" | "model" => "assistant",
        "system" | "developer" => "system",
        "tool" => "tool",
        _ => "user",
    };
    let _ = write!(out, "<article class={class}><h3>{}</h3>", escaped(title));
    for part in message.parts() {
        let html = match part {
            Part::Text(text) => format!("<pre>{}</pre>", escaped(text)),
            Part::Reasoning(text) => {
                format!("<details><summary>reasoning</summary><pre>{}</pre></details>", escaped(text))
            }
            Part::ToolCall { name, arguments, .. } => {
                format!("<p>calls <code>{}</code></p><pre>{}</pre>", escaped(name), escaped(&shown(arguments)))
            }
            Part::ToolResult { id, response } => {
                format!("<p>result of <code>{}</code></p><pre>{}</pre>", escaped(id), escaped(&shown(response)))
            }
            Part::Other(part) => {
                let kind = part["modality"].as_str().or(part["type"].as_str()).unwrap_or("unknown");
                format!("<p><small>[{}]</small></p>", escaped(kind))
            }
        };
        out.push_str(&html);
    }
    out.push_str("</article>\n");
}

/// A value as text: a string as it is, anything else as indented JSON.
fn shown(value: &JsonValue) -> String {
    match value {
        JsonValue::String(text) => text.clone(),
        other => serde_json::to_string_pretty(other).unwrap_or_default(),
    }
}

/// A text that is no markup, in which control characters and changes of direction are visible.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + text.len() / 8);
    for letter in escape_for_document(text).chars() {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            other => out.push(other),
        }
    }
    out
}

/// A deeper indent would leave no room for the name.
const MAX_INDENT: usize = 12;

/// Attributes that the conversations show.
const IN_CONVERSATIONS: &[&str] =
    &[names::GEN_AI_INPUT_MESSAGES, names::GEN_AI_OUTPUT_MESSAGES, names::GEN_AI_SYSTEM_INSTRUCTIONS];

//! What a line of the timeline says of a span, escaped for terminals.

use crate::export::text::escape_for_terminal;
use crate::trace::semconv as names;
use crate::trace::{Span, SpanKind, Value};
use crate::trajectory::read;
use std::fmt::Write as _;
use std::time::Duration;

/// The second line of an LLM call: tokens, finish reasons, time to first chunk, token id status, policy version, attempts.
pub(super) fn details(span: &Span) -> Option<String> {
    text(span, names::DIALECT)?;
    let number = |name: &str| span.attributes.get(name);
    let mut found = Vec::new();
    let tokens = |name: &str| number(name).and_then(Value::as_int).map_or("?".to_owned(), |count| count.to_string());
    if [names::GEN_AI_USAGE_INPUT_TOKENS, names::GEN_AI_USAGE_OUTPUT_TOKENS].iter().any(|name| number(name).is_some()) {
        let (input, output) = (tokens(names::GEN_AI_USAGE_INPUT_TOKENS), tokens(names::GEN_AI_USAGE_OUTPUT_TOKENS));
        found.push(format!("{input} → {output} tokens"));
    }
    if let Some(Value::Strings(reasons)) = number(names::GEN_AI_RESPONSE_FINISH_REASONS) {
        found.push(reasons.join(", "));
    }
    if let Some(seconds) = number(names::GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK).and_then(Value::as_float) {
        found.push(format!("first chunk {}", human_duration(Duration::from_secs_f64(seconds.clamp(0.0, 1e6)))));
    }
    if let Some(status) = text(span, names::TOKENS_STATUS) {
        let reasons = match number(names::TOKENS_REASONS) {
            Some(Value::Strings(reasons)) => format!(" ({})", reasons.join(", ")),
            _ => String::new(),
        };
        found.push(format!("ids {status}{reasons}"));
    }
    if let Some(Value::Strings(versions)) = number(names::POLICY_VERSIONS) {
        found.push(format!("policy {}", versions.join(" → ")));
    } else if let Some(version) = text(span, names::POLICY_VERSION) {
        found.push(format!("policy {version}"));
    }
    if let Some(count) = number(names::HTTP_REQUEST_RESEND_COUNT).and_then(Value::as_int) {
        found.push(format!("try {}", count + 1));
    }
    if let Some(millis) = number(names::GATEWAY_HELD_MS).and_then(Value::as_float) {
        found.push(format!("held {}", human_duration(Duration::from_secs_f64((millis / 1000.0).clamp(0.0, 1e6)))));
    }
    (!found.is_empty()).then(|| escape_for_terminal(&found.join(" · ")).into_owned())
}

/// The name of an LLM call or of a span without HTTP; otherwise method, host and path.
pub(super) fn label(span: &Span) -> String {
    if text(span, names::DIALECT).is_some() {
        return escape_for_terminal(&span.name).into_owned();
    }
    let Some(method) = text(span, names::HTTP_REQUEST_METHOD) else {
        let name = rewards(span).unwrap_or_else(|| span.name.clone());
        return escape_for_terminal(&name).into_owned();
    };
    let shown = match text(span, names::URL_FULL) {
        Some(url) => url.split_once("://").map_or(url, |(_, rest)| rest).to_owned(),
        None => {
            let port = span.attributes.get(names::SERVER_PORT).and_then(|port| port.as_int()).unwrap_or(0);
            format!("{}:{port}", text(span, names::SERVER_ADDRESS).unwrap_or("?"))
        }
    };
    let mut label = format!("{method} {}", shown.split('?').next().unwrap_or_default());
    if text(span, names::CONNECT_POLICY).is_some_and(|policy| policy != "intercept") {
        let reason = text(span, names::CONNECT_REASON).or_else(|| text(span, names::CONNECT_POLICY));
        let _ = write!(label, " ({})", reason.unwrap_or_default());
    }
    for (name, note) in [
        (names::RECORD_DAMAGED, " [record damaged]"),
        (names::CAPTURE_REQUEST_TRUNCATED, " [request cut]"),
        (names::CAPTURE_RESPONSE_TRUNCATED, " [response cut]"),
        (names::IDENTITY_CONFLICT, " [identity conflict]"),
    ] {
        if span.attributes.contains_key(name) {
            label.push_str(note);
        }
    }
    escape_for_terminal(&label).into_owned()
}

/// The rewards of an annotation. `None` for other spans.
fn rewards(span: &Span) -> Option<String> {
    let rewards = read(std::slice::from_ref(span)).rewards;
    let texts: Vec<String> = rewards.iter().map(|reward| format!("reward {} {}", reward.name, reward.value)).collect();
    (!texts.is_empty()).then(|| texts.join(", "))
}

pub(super) fn result(span: &Span) -> String {
    match span.attributes.get(names::HTTP_RESPONSE_STATUS_CODE).and_then(|code| code.as_int()) {
        Some(code) if text(span, names::OUTCOME) != Some("failed") => code.to_string(),
        _ if span.is_error() && span.kind == Some(SpanKind::Client) => "error".to_owned(),
        _ => span
            .attributes
            .get(names::PROCESS_EXIT_CODE)
            .and_then(|code| code.as_int())
            .map_or_else(String::new, |code| format!("={code}")),
    }
}

pub(super) fn duration(span: &Span) -> String {
    match (span.start_time, span.end_time) {
        (Some(start), Some(end)) => human_duration(end.since(start)),
        _ => "-".to_owned(),
    }
}

pub(super) fn human_duration(duration: Duration) -> String {
    let millis = duration.as_secs_f64() * 1000.0;
    match millis {
        _ if millis < 9.95 => format!("{millis:.1} ms"),
        _ if millis < 999.5 => format!("{millis:.0} ms"),
        _ if millis < 99_950.0 => format!("{:.2} s", millis / 1000.0),
        _ => format!("{:.1} min", millis / 60_000.0),
    }
}

pub(super) fn text<'a>(span: &'a Span, name: &str) -> Option<&'a str> {
    span.attributes.get(name).and_then(|value| value.as_str())
}

//! The timeline for terminals: a tree of spans with durations and bars on a common time axis.
//!
//! It needs 80 columns and no colour. Text from the network is escaped.

use super::text::{escape_for_terminal, shortened, wrapped};
use crate::trace::failure::failure;
use crate::trace::semconv as names;
use crate::trace::{Span, SpanKind, Timestamp, Value};
use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;
use std::time::Duration;

/// How the timeline is drawn.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TimelineOptions {
    /// Maximum number of columns; no line is longer.
    pub(crate) width: usize,
    /// Whether marks and bars are coloured with ANSI sequences.
    pub(crate) color: bool,
}

impl Default for TimelineOptions {
    fn default() -> Self {
        Self { width: 80, color: false }
    }
}

/// Draws the spans of an attempt or a rollout. `title` is the first line if there is no root span.
pub(crate) fn render(title: &str, spans: &[Span], options: &TimelineOptions) -> String {
    let start = spans.iter().filter_map(|span| span.start_time).min().unwrap_or_default();
    let end = spans.iter().filter_map(|span| span.end_time).max().unwrap_or_default();
    let axis = Axis { start, length: end.since(start) };
    let mut out = String::new();
    let roots = roots(spans);
    if !spans.iter().any(is_root) {
        let _ = writeln!(out, "{}", shortened(&escape_for_terminal(title), options.width));
    }
    let children = children(spans);
    let mut drawn = HashSet::new();
    for (at, root) in roots.iter().enumerate() {
        let branch = if is_root(root) { Branch::Root } else { Branch::in_list(at, roots.len()) };
        draw(&mut out, root, "", branch, &children, &mut drawn, &axis, options);
    }
    // Spans in a cycle of parents were not reached from a root.
    for span in spans {
        if !drawn.contains(span.span_id.as_str()) {
            draw(&mut out, span, "", Branch::Last, &children, &mut drawn, &axis, options);
        }
    }
    let _ = writeln!(out, "{}", shortened(&summary(spans, &axis), options.width));
    out
}

struct Axis {
    start: Timestamp,
    length: Duration,
}

#[derive(Clone, Copy, PartialEq)]
enum Branch {
    Root,
    Middle,
    Last,
}

impl Branch {
    /// The branch of the item at `index` in a list of `count` items.
    fn in_list(index: usize, count: usize) -> Self {
        if index + 1 == count { Self::Last } else { Self::Middle }
    }
}

type Children<'a> = HashMap<&'a str, Vec<&'a Span>>;

fn is_root(span: &Span) -> bool {
    span.parent_id.is_none()
}

/// Spans without a parent first, then spans with a parent that is not among `spans`.
fn roots(spans: &[Span]) -> Vec<&Span> {
    let known: HashSet<&str> = spans.iter().map(|span| span.span_id.as_str()).collect();
    let is_orphan = |span: &&Span| span.parent_id.as_deref().is_some_and(|parent| !known.contains(parent));
    let mut roots: Vec<&Span> = spans.iter().filter(|span| is_root(span) || is_orphan(span)).collect();
    roots.sort_by_key(|span| (!is_root(span), span.sequence_id, span.start_time));
    roots
}

fn children(spans: &[Span]) -> Children<'_> {
    let mut children = Children::new();
    for span in spans {
        if let Some(parent) = span.parent_id.as_deref() {
            children.entry(parent).or_default().push(span);
        }
    }
    for list in children.values_mut() {
        list.sort_by_key(|span| (span.sequence_id, span.start_time));
    }
    children
}

#[allow(clippy::too_many_arguments, reason = "one recursive walk; a struct would only rename them")]
fn draw<'a>(
    out: &mut String,
    span: &'a Span,
    indent: &str,
    branch: Branch,
    children: &Children<'a>,
    drawn: &mut HashSet<&'a str>,
    axis: &Axis,
    options: &TimelineOptions,
) {
    if !drawn.insert(span.span_id.as_str()) {
        return;
    }
    let (elbow, below) = match branch {
        Branch::Root => ("", ""),
        Branch::Middle => ("├─ ", "│  "),
        Branch::Last => ("└─ ", "   "),
    };
    line(out, span, &format!("{indent}{elbow}"), axis, options);
    let below = format!("{indent}{below}");
    // A deeper indent would leave no room for the label.
    let below = if below.chars().count() > MAX_INDENT { indent.to_owned() } else { below };
    let list = children.get(span.span_id.as_str()).map_or(&[][..], Vec::as_slice);
    if let Some(details) = details(span) {
        let rule = if list.is_empty() { "  " } else { "│ " };
        let _ = writeln!(out, "{}", shortened(&format!("{below}{rule}{details}"), options.width));
    }
    if let Some(failure) = failure(span) {
        let rule = if list.is_empty() { "  " } else { "│ " };
        let room = options.width.saturating_sub(below.chars().count() + 2);
        for part in wrapped(&escape_for_terminal(&failure), room) {
            let _ = writeln!(out, "{}", shortened(&format!("{below}{rule}{part}"), options.width));
        }
    }
    for (at, child) in list.iter().enumerate() {
        draw(out, child, &below, Branch::in_list(at, list.len()), children, drawn, axis, options);
    }
}

fn line(out: &mut String, span: &Span, indent: &str, axis: &Axis, options: &TimelineOptions) {
    let (mark, color) = match (span.is_error(), text(span, names::OUTCOME)) {
        (true, _) => ("✗", RED),
        (false, Some("aborted")) => ("–", YELLOW),
        _ => ("✓", GREEN),
    };
    let bar_width = (options.width / 4).clamp(4, 24);
    let tail = format!(" {:>5} {:>8} ", shortened(&result(span), 5), duration(span));
    let used = indent.chars().count() + 2 + tail.chars().count() + bar_width;
    let label = shortened(&label(span), options.width.saturating_sub(used));
    let room = options.width.saturating_sub(used + label.chars().count());
    let bar = bar(span, axis, bar_width);
    let (on, off) = if options.color { (color, RESET) } else { ("", "") };
    let plain = format!("{indent}{mark} {label}{:room$}{tail}{bar}", "");
    if plain.chars().count() > options.width {
        // Too narrow for columns: the label alone.
        let _ = writeln!(out, "{}", shortened(&format!("{indent}{mark} {label}"), options.width));
        return;
    }
    let _ = writeln!(out, "{indent}{on}{mark}{off} {label}{:room$}{tail}{on}{}{off}", "", bar.trim_end());
}

/// The second line of an LLM call: tokens, finish reasons, time to first chunk, token id status, policy version, attempts.
fn details(span: &Span) -> Option<String> {
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
fn label(span: &Span) -> String {
    if text(span, names::DIALECT).is_some() {
        return escape_for_terminal(&span.name).into_owned();
    }
    let Some(method) = text(span, names::HTTP_REQUEST_METHOD) else {
        return escape_for_terminal(&span.name).into_owned();
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

fn result(span: &Span) -> String {
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

fn duration(span: &Span) -> String {
    match (span.start_time, span.end_time) {
        (Some(start), Some(end)) => human_duration(end.since(start)),
        _ => "-".to_owned(),
    }
}

fn human_duration(duration: Duration) -> String {
    let millis = duration.as_secs_f64() * 1000.0;
    match millis {
        _ if millis < 9.95 => format!("{millis:.1} ms"),
        _ if millis < 999.5 => format!("{millis:.0} ms"),
        _ if millis < 99_950.0 => format!("{:.2} s", millis / 1000.0),
        _ => format!("{:.1} min", millis / 60_000.0),
    }
}

/// The span's position on the axis; at least one cell wide.
fn bar(span: &Span, axis: &Axis, width: usize) -> String {
    let (Some(start), Some(end)) = (span.start_time, span.end_time) else { return String::new() };
    let whole = axis.length.as_secs_f64().max(1e-9);
    let cell = |at: Timestamp| (at.since(axis.start).as_secs_f64() / whole * width as f64) as usize;
    let from = cell(start).min(width - 1);
    let to = cell(end).clamp(from + 1, width);
    format!("{}{}", " ".repeat(from), "━".repeat(to - from))
}

fn summary(spans: &[Span], axis: &Axis) -> String {
    let exchanges = spans.iter().filter(|span| span.kind == Some(SpanKind::Client) && span.name != "CONNECT");
    let (mut count, mut up, mut down) = (0, 0, 0);
    for span in exchanges {
        let size = |name| span.attributes.get(name).and_then(|size| size.as_int()).unwrap_or(0);
        count += 1;
        up += size(names::HTTP_REQUEST_BODY_SIZE);
        down += size(names::HTTP_RESPONSE_BODY_SIZE);
    }
    let errors = spans.iter().filter(|span| span.kind == Some(SpanKind::Client) && span.is_error()).count();
    let plural = |number: usize, word: &str| format!("{number} {word}{}", if number == 1 { "" } else { "s" });
    format!(
        "{}, {}, {} in all, {} B up, {} B down",
        plural(count, "exchange"),
        plural(errors, "error"),
        human_duration(axis.length),
        up,
        down
    )
}

fn text<'a>(span: &'a Span, name: &str) -> Option<&'a str> {
    span.attributes.get(name).and_then(|value| value.as_str())
}

const MAX_INDENT: usize = 24;
const RED: &str = "\u{1b}[31m";
const GREEN: &str = "\u{1b}[32m";
const YELLOW: &str = "\u{1b}[33m";
const RESET: &str = "\u{1b}[0m";

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn span(id: &str, parent: Option<&str>, name: &str, start_ms: u64, end_ms: u64) -> Span {
        let json = serde_json::json!({
            "rollout_id": "ro-1", "attempt_id": "at-1", "sequence_id": start_ms, "trace_id": "t", "span_id": id,
            "parent_id": parent, "name": name, "status": {"status_code": "UNSET", "description": null},
            "attributes": {}, "events": [], "links": [], "start_time": start_ms as f64 / 1e3,
            "end_time": end_ms as f64 / 1e3, "context": null, "parent": null,
            "resource": {"attributes": {}, "schema_url": ""},
        });
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn nests_by_parent_and_draws_to_scale() {
        let spans = [
            span("a", None, "agent", 1000, 2000),
            span("b", Some("a"), "first", 1000, 1500),
            span("c", Some("b"), "inner", 1100, 1200),
            span("d", Some("a"), "second", 1500, 2000),
        ];
        let text = render("x", &spans, &TimelineOptions::default());
        let lines: Vec<_> = text.lines().collect();
        assert!(lines[0].starts_with("✓ agent") && lines[0].ends_with(&"━".repeat(20)), "{text}");
        assert!(lines[1].starts_with("├─ ✓ first") && lines[2].starts_with("│  └─ ✓ inner"), "{text}");
        assert!(
            lines[3].starts_with("└─ ✓ second") && lines[3].ends_with(&format!("{}{}", " ".repeat(10), "━".repeat(10))),
            "{text}"
        );
    }

    #[test]
    fn a_failure_is_explained_below_its_span() {
        let mut failed = span("a", None, "GET", 0, 5);
        failed.status = crate::trace::Status {
            status_code: crate::trace::StatusCode::Error,
            description: Some("Connection refused (os error 111)".to_owned()),
        };
        failed.set(names::OUTCOME, "failed");
        failed.set(names::ERROR_TYPE, "connection_refused");
        let text = render("x", &[failed.clone()], &TimelineOptions::default());
        assert!(text.contains("  connection_refused: Connection refused (os error 111); check that"), "{text}");
        failed.set(names::CLIENT_ADVICE, "set SSL_CERT_FILE");
        let text = render("x", &[failed], &TimelineOptions::default());
        assert!(text.contains("rejected the proxy's certificate: set SSL_CERT_FILE"), "{text}");
    }

    #[test]
    fn orphans_cycles_and_unsafe_names_are_drawn() {
        let spans = [
            span("a", Some("gone"), "or\u{1b}[2Jphan", 0, 5),
            span("b", Some("c"), "one", 0, 5),
            span("c", Some("b"), "two", 0, 5),
        ];
        let text = render("title", &spans, &TimelineOptions::default());
        assert!(text.starts_with("title\n") && text.contains("one") && text.contains("two"), "{text}");
        assert!(!text.contains('\u{1b}'));
    }

    proptest! {
        #[test]
        fn no_line_is_wider_than_the_limit(names in prop::collection::vec(".{0,200}", 1..8), width in 10usize..160) {
            let spans: Vec<Span> = names.iter().enumerate().map(|(at, name)| {
                let parent = at.checked_sub(1).map(|above| above.to_string());
                span(&at.to_string(), parent.as_deref(), name, at as u64, at as u64 + 7)
            }).collect();
            for line in render("t", &spans, &TimelineOptions { width, color: false }).lines() {
                prop_assert!(line.chars().count() <= width, "{line:?}");
            }
        }
    }
}

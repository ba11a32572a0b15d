//! The tree of spans with durations and bars on a common time axis.
//!
//! It needs 80 columns and no colour. Text from the network is escaped.

use super::siblings::{Fold, Sibling, folded};
use super::span_text::{details, duration, human_duration, label, result, text};
use crate::export::text::{escape_for_terminal, shortened, wrapped};
use crate::trace::failure::failure;
use crate::trace::semconv as names;
use crate::trace::{Span, SpanKind, Timestamp};
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
    /// How much of long lists is drawn.
    pub(crate) fold: Fold,
}

impl Default for TimelineOptions {
    fn default() -> Self {
        Self { width: 80, color: false, fold: Fold::Nothing }
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
    draw_list(&mut out, &roots, "", &children, &mut drawn, &axis, options);
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
    draw_list(out, list, &below, children, drawn, axis, options);
}

/// Draws spans that have the same parent, or none.
fn draw_list<'a>(
    out: &mut String,
    list: &[&'a Span],
    indent: &str,
    children: &Children<'a>,
    drawn: &mut HashSet<&'a str>,
    axis: &Axis,
    options: &TimelineOptions,
) {
    for sibling in folded(list, options.fold) {
        match sibling {
            Sibling::Shown { at, span } => {
                let branch = if is_root(span) { Branch::Root } else { Branch::in_list(at, list.len()) };
                draw(out, span, indent, branch, children, drawn, axis, options);
            }
            Sibling::LeftOut(spans) => {
                let failed = spans.iter().filter(|span| span.is_error()).count();
                let failed = if failed > 0 { format!(", {failed} of them failed") } else { String::new() };
                let line = format!("{indent}⋮  {} more{failed}; `trace show --full` has them", spans.len());
                let _ = writeln!(out, "{}", shortened(&line, options.width));
                // They were not forgotten, as spans in a cycle are.
                mark_drawn(spans, children, drawn);
            }
        }
    }
}

/// Marks spans and all below them as drawn.
fn mark_drawn<'a>(spans: &[&'a Span], children: &Children<'a>, drawn: &mut HashSet<&'a str>) {
    let mut open = spans.to_vec();
    while let Some(span) = open.pop() {
        if drawn.insert(span.span_id.as_str()) {
            open.extend(children.get(span.span_id.as_str()).into_iter().flatten());
        }
    }
}

/// One span as a line: when it ended, its rollout, what it was, and of a call its tokens.
pub(crate) fn line_of(rollout: &str, span: &Span, options: &TimelineOptions) -> String {
    let (mark, color) = mark(span);
    let end = span.end_time.or(span.start_time).map(time_of_day).unwrap_or_else(|| "--:--:--".to_owned());
    let (on, off) = if options.color { (color, RESET) } else { ("", "") };
    let rollout = shortened(&escape_for_terminal(rollout), MAX_ROLLOUT_CHARACTERS);
    let facts = details(span).or_else(|| failure(span).map(|failure| escape_for_terminal(&failure).into_owned()));
    let rest = format!(
        "{} {:>5} {:>8}{}",
        label(span),
        result(span),
        duration(span),
        facts.map(|facts| format!("  {facts}")).unwrap_or_default()
    );
    let head = format!("{end} {rollout} ");
    let room = options.width.saturating_sub(head.chars().count() + 2);
    format!("{head}{on}{mark}{off} {}", shortened(&rest, room))
}

fn mark(span: &Span) -> (&'static str, &'static str) {
    match (span.is_error(), text(span, names::OUTCOME)) {
        (true, _) => ("✗", RED),
        (false, Some("aborted")) => ("–", YELLOW),
        _ => ("✓", GREEN),
    }
}

/// The time of day in UTC.
fn time_of_day(time: Timestamp) -> String {
    let seconds = time.unix_nanos / 1_000_000_000 % 86_400;
    format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

fn line(out: &mut String, span: &Span, indent: &str, axis: &Axis, options: &TimelineOptions) {
    let (mark, color) = mark(span);
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

const MAX_ROLLOUT_CHARACTERS: usize = 20;
const MAX_INDENT: usize = 24;
const RED: &str = "\u{1b}[31m";
const GREEN: &str = "\u{1b}[32m";
const YELLOW: &str = "\u{1b}[33m";
const RESET: &str = "\u{1b}[0m";

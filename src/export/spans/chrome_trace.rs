//! The trace event format of Chrome, which Perfetto's UI opens: a process for each rollout, and a thread for each lane of
//! spans.
//!
//! The format nests what overlaps on one thread. So a span is on the lane of its parent if it lies within it and no sibling
//! is in the way, and otherwise on a lane of its own.

use super::format::{Framing, RecordedRollout, SpanFormat};
use super::span_facts::{Times, micros};
use super::tree::SpanTree;
use crate::trace::{IdBytes, Span, Timestamp};
use serde_json::{Value as JsonValue, json};

/// `--format perfetto`
pub(super) struct ChromeTrace;

impl SpanFormat for ChromeTrace {
    fn name(&self) -> &'static str {
        "perfetto"
    }

    fn media_type(&self) -> &'static str {
        "application/json"
    }

    fn framing(&self) -> Framing {
        Framing { start: "{\"displayTimeUnit\":\"ms\",\"traceEvents\":[", separator: ",\n", end: "]}\n" }
    }

    fn encoded(&self, recorded: &RecordedRollout) -> serde_json::Result<Vec<u8>> {
        let (rollout, spans) = (&recorded.rollout.rollout, &recorded.spans);
        if spans.is_empty() {
            return Ok(Vec::new());
        }
        let times = Times::of_all(spans);
        let lanes = lanes(spans, &times);
        let process = process_id(rollout.rollout_id.as_str());
        let name = rollout.name().map(|name| format!("{name} ({})", rollout.rollout_id));
        let name = name.unwrap_or_else(|| rollout.rollout_id.to_string());
        let mut out = Vec::new();
        let named = json!({ "ph": "M", "name": "process_name", "pid": process, "tid": 0, "args": { "name": name } });
        serde_json::to_writer(&mut out, &named)?;
        for (at, span) in spans.iter().enumerate() {
            for event in events(span, times[at], process, lanes[at] + 1) {
                out.extend_from_slice(b",\n");
                serde_json::to_writer(&mut out, &event)?;
            }
        }
        Ok(out)
    }
}

/// A number for the process, which the format wants: 31 bits that depend on the rollout only.
fn process_id(rollout: &str) -> u32 {
    let IdBytes { bytes: [a, b, c, d, ..], .. } = IdBytes::<8>::of(rollout);
    u32::from_be_bytes([a, b, c, d]) & 0x7fff_ffff
}

fn events(span: &Span, times: Times, process: u32, thread: usize) -> impl Iterator<Item = JsonValue> {
    let args = json!({
        "rollout_id": span.rollout_id,
        "attempt_id": span.attempt_id,
        "sequence_id": span.sequence_id,
        "trace_id": span.trace_id,
        "span_id": span.span_id,
        "parent_id": span.parent_id,
        "status": span.status,
        "attributes": span.attributes,
    });
    let category = if span.is_error() { "error" } else { "span" };
    let whole = json!({
        "ph": "X", "name": span.name, "cat": category, "pid": process, "tid": thread,
        "ts": times.start_micros(), "dur": times.duration_micros(), "args": args,
    });
    let instants = span.events.iter().map(move |event| {
        json!({
            "ph": "i", "s": "t", "name": event.name, "cat": "event", "pid": process, "tid": thread,
            "ts": micros(event.timestamp.unwrap_or(times.start)), "args": event.attributes,
        })
    });
    std::iter::once(whole).chain(instants)
}

/// The lane of each span.
fn lanes(spans: &[Span], times: &[Times]) -> Vec<usize> {
    let tree = SpanTree::of(spans);
    let mut order: Vec<usize> = (0..spans.len()).collect();
    // A parent comes before its children, also if they start and end with it.
    let mut depths = vec![0; spans.len()];
    tree.walk().into_iter().for_each(|(at, depth)| depths[at] = depth);
    order.sort_by_key(|at| (times[*at].start, std::cmp::Reverse(times[*at].end), depths[*at]));
    let mut lanes: Vec<Vec<(usize, Timestamp)>> = Vec::new();
    let mut lane_of = vec![0; spans.len()];
    for at in order {
        let Times { start, end, .. } = times[at];
        let holds = |lane: &mut Vec<(usize, Timestamp)>| {
            while lane.last().is_some_and(|(_, ends)| *ends <= start) {
                lane.pop();
            }
            lane.last().is_none_or(|(top, ends)| tree.parent(at) == Some(*top) && end <= *ends)
        };
        let parents = tree.parent(at).map(|parent| lane_of[parent]);
        let found = match parents {
            Some(lane) if holds(&mut lanes[lane]) => Some(lane),
            _ => lanes.iter_mut().position(holds),
        };
        let lane = found.unwrap_or_else(|| {
            lanes.push(Vec::new());
            lanes.len() - 1
        });
        lanes[lane].push((at, end));
        lane_of[at] = lane;
    }
    lane_of
}

//! Secrets that a stream of events divides: a tool's arguments arrive in pieces, and no event has a whole key or value.

use serde_json::Value;
use std::collections::HashMap;

/// Pieces that belong together: the field that has them, and the `index` of the nearest object around it.
type Series = (String, u64);

/// Redacts what the pieces of each series are together. The first piece of a series with a secret gets the whole redacted
/// text, the others become empty. `None`: no series has a secret.
pub(super) fn redact_series(text: &str, redact: &dyn Fn(&str) -> Option<String>) -> Option<String> {
    let mut joined = HashMap::<Series, String>::new();
    let events = |line: &str| -> Option<Value> { serde_json::from_str(line.strip_prefix("data:")?.trim()).ok() };
    for mut event in text.lines().filter_map(events) {
        pieces(&mut event, 0, &mut |series, piece| joined.entry(series).or_default().push_str(piece));
    }
    let mut redacted: HashMap<Series, String> =
        joined.into_iter().filter_map(|(series, joined)| Some((series, redact(&joined)?))).collect();
    if redacted.is_empty() {
        return None;
    }
    let mut out = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        let Some(mut event) = events(line.trim_end()) else {
            out.push_str(line);
            continue;
        };
        let mut is_changed = false;
        pieces(&mut event, 0, &mut |series, piece| {
            if let Some(whole) = redacted.get_mut(&series) {
                *piece = std::mem::take(whole);
                is_changed = true;
            }
        });
        if is_changed {
            out.push_str("data: ");
            out.push_str(&event.to_string());
            out.push_str(&line[line.trim_end().len()..]);
        } else {
            out.push_str(line);
        }
    }
    Some(out)
}

/// Calls `each` with every piece in an event.
fn pieces(value: &mut Value, index: u64, each: &mut dyn FnMut(Series, &mut String)) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(|item| pieces(item, index, each)),
        Value::Object(fields) => {
            let index = fields.get("index").and_then(Value::as_u64).unwrap_or(index);
            for (name, field) in fields {
                match field {
                    Value::String(piece) if PIECES.contains(&name.as_str()) => each((name.clone(), index), piece),
                    field => pieces(field, index, each),
                }
            }
        }
        _ => {}
    }
}

/// The fields in which the streams of LLM APIs carry pieces of a text or of arguments.
const PIECES: &[&str] =
    &["arguments", "partial_json", "content", "text", "delta", "thinking", "reasoning", "reasoning_content"];

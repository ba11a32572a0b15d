//! Tracewire's own JSON: lines of `tracewire export --format json`, and lists of spans as `tracewire trace show --json` and
//! Agent Lightning's API print them.

use super::imported::{ImportError, Imported};
use crate::trace::{Attempt, Rollout, Span};
use serde::Deserialize;
use serde_json::Value as JsonValue;

/// A line of an export.
#[derive(Deserialize)]
struct ExportedRollout {
    rollout: Rollout,
    attempt: Option<Attempt>,
    spans: Vec<JsonValue>,
}

/// Reads a rollout, a span, or a list of either.
pub(super) fn read(value: JsonValue) -> Result<Imported, ImportError> {
    let mut imported = Imported::default();
    let values = if let JsonValue::Array(list) = value { list } else { vec![value] };
    for value in values {
        if value.get("spans").is_some() {
            let ExportedRollout { rollout, attempt, spans } = serde_json::from_value(value)?;
            imported.rollouts.push((rollout, attempt));
            spans.into_iter().for_each(|span| add(&mut imported, span));
        } else {
            add(&mut imported, value);
        }
    }
    Ok(imported)
}

/// Adds a span. One that is damaged costs only itself.
fn add(imported: &mut Imported, span: JsonValue) {
    match serde_json::from_value::<Span>(span) {
        Ok(span) => imported.spans.push(span),
        Err(error) => imported.leave_out(format!("a span: {error}")),
    }
}

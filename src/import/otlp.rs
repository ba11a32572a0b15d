//! OTLP: `TracesData` as JSON or protobuf. Spans that name no rollout are in one with the id of their trace.

use super::imported::{ImportError, Imported};
use crate::trace::{AttemptId, RolloutId};
use crate::wire::otlp::{DecodedSpan, OtlpFormat, restore_identity, spans};
use serde_json::Value as JsonValue;
use std::collections::HashMap;

/// Reads JSON: an object, or a list of some. `text` is the same as `value`.
pub(super) fn json(text: &[u8], value: &JsonValue) -> Result<Imported, ImportError> {
    let mut imported = Imported::default();
    match value.as_array() {
        None => add(&mut imported, OtlpFormat::Json, text)?,
        Some(list) => {
            for one in list {
                add(&mut imported, OtlpFormat::Json, one.to_string().as_bytes())?;
            }
        }
    }
    Ok(imported)
}

/// Reads protobuf.
pub(super) fn protobuf(bytes: &[u8]) -> Result<Imported, ImportError> {
    let mut imported = Imported::default();
    add(&mut imported, OtlpFormat::Protobuf, bytes)?;
    if imported.spans.is_empty() && imported.left_out.is_empty() {
        // Any bytes are fields that OTLP does not know, if they are fields at all.
        return Err(ImportError::Unknown);
    }
    Ok(imported)
}

fn add(imported: &mut Imported, format: OtlpFormat, body: &[u8]) -> Result<(), ImportError> {
    let decoded = spans(format, body).map_err(|error| ImportError::Otlp(error.to_string()))?;
    let mut positions: HashMap<RolloutId, u64> = HashMap::new();
    for span in decoded {
        add_span(imported, span, &mut positions);
    }
    Ok(())
}

fn add_span(imported: &mut Imported, decoded: DecodedSpan, positions: &mut HashMap<RolloutId, u64>) {
    let (mut span, attribution) = match decoded {
        Ok(decoded) => decoded,
        Err(defect) => return imported.leave_out(format!("a span: {defect}")),
    };
    let rollout = attribution.rollout.unwrap_or_else(|| span.trace_id.clone());
    span.rollout_id = rollout.as_str().into();
    span.attempt_id = match &attribution.attempt {
        Some(attempt) => attempt.as_str().into(),
        None => AttemptId::default_of(&span.rollout_id),
    };
    let position = positions.entry(span.rollout_id.clone()).or_default();
    *position += 1;
    span.sequence_id = attribution.sequence_id.unwrap_or(*position);
    restore_identity(&mut span);
    imported.spans.push(span);
}

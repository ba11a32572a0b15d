//! HAR: each entry as the exchange that it records, of which spans are made as of one that the proxy saw. So calls of LLM
//! APIs are read from their bodies, and everything is redacted in the same way.
//!
//! Ids of entries that Tracewire exported are kept. Any other file is one rollout, with an id made from its content.

use super::har_entry::{Place, exchange};
use super::imported::{ImportError, Imported};
use super::options::ImportOptions;
use super::rfc3339;
use crate::pipeline::{Relations, build_spans};
use crate::trace::{IdBytes, Span, Value};
use serde_json::Value as JsonValue;
use std::collections::HashMap;

/// Reads a file. `text` is the same as `value`.
pub(super) fn read(text: &[u8], value: &JsonValue, options: &ImportOptions) -> Result<Imported, ImportError> {
    let entries = value["log"]["entries"].as_array().ok_or(ImportError::Shape("a HAR has no list of entries"))?;
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text);
    let rollout = format!("har-{}", const_hex::encode(&digest.as_ref()[..6]));
    let (mut imported, mut relations) = (Imported::default(), Relations::default());
    let mut order: Vec<(usize, &JsonValue)> = entries.iter().enumerate().collect();
    // Browsers write entries in the order of their ends.
    order.sort_by_key(|(_, entry)| rfc3339::parsed(entry["startedDateTime"].as_str().unwrap_or_default()));
    let mut place = Place { rollout: &rollout, position: 0, at: 0 };
    for (position, (at, json)) in order.into_iter().enumerate() {
        (place.position, place.at) = (position, at);
        add_entry(&mut imported, json, place, &mut relations, options);
    }
    Ok(imported)
}

/// Adds the spans of an entry. Entries are added by their time.
pub(super) fn add_entry(
    imported: &mut Imported,
    json: &JsonValue,
    place: Place<'_>,
    relations: &mut Relations,
    options: &ImportOptions,
) {
    match exchange(json, place) {
        Ok(mut exchange) => {
            let built = build_spans(&mut exchange, None, relations, &options.spans);
            let mut spans = vec![built.span];
            spans.extend(built.inferred);
            add_recorded(&mut spans[0], json);
            rename_inferred(&mut spans);
            imported.spans.extend(spans);
        }
        Err(why) => imported.leave_out(format!("an entry {why}")),
    }
}

/// Adds what an export of Tracewire has of a call that can't be read from bodies, because they were not recorded.
fn add_recorded(span: &mut Span, entry: &JsonValue) {
    let recorded = entry["_genAi"].as_object().into_iter().flatten();
    for (name, value) in recorded {
        if let Ok(value) = serde_json::from_value::<Value>(value.clone()) {
            span.attributes.entry(name.clone()).or_insert(value);
        }
    }
}

/// Gives the spans that were inferred from an exchange ids that depend on it, so that they are the same in each import.
fn rename_inferred(spans: &mut [Span]) {
    let Some((first, inferred)) = spans.split_first_mut() else { return };
    let mut renamed: HashMap<String, String> = HashMap::new();
    for (at, span) in inferred.iter_mut().enumerate() {
        let id = IdBytes::<8>::of(&format!("{}/{}/{at}", span.rollout_id, first.span_id)).hex();
        renamed.insert(std::mem::replace(&mut span.span_id, id.clone()), id);
    }
    for span in inferred {
        if let Some(context) = &mut span.context {
            context.span_id.clone_from(&span.span_id);
        }
        if let Some(id) = span.parent_id.as_ref().and_then(|parent| renamed.get(parent)) {
            if let Some(parent) = &mut span.parent {
                parent.span_id.clone_from(id);
            }
            span.parent_id = Some(id.clone());
        }
    }
}

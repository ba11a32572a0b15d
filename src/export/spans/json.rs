//! `json`: everything that the store has of a rollout, as one line. `tracewire import` reads it again without loss.

use super::format::{Framing, RecordedRollout, SpanFormat};
use crate::export::shapes::encoded;
use serde_json::json;

/// `--format json`
pub(super) struct Json;

impl SpanFormat for Json {
    fn name(&self) -> &'static str {
        "json"
    }

    fn media_type(&self) -> &'static str {
        "application/x-ndjson"
    }

    fn framing(&self) -> Framing {
        Framing::NONE
    }

    fn encoded(&self, recorded: &RecordedRollout) -> serde_json::Result<Vec<u8>> {
        let rollout = &recorded.rollout;
        encoded(&[json!({ "rollout": rollout.rollout, "attempt": rollout.attempt, "spans": recorded.spans })])
    }
}

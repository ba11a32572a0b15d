//! Conversations for fine-tuning as OpenAI and Hugging Face have them, a line for each branch: `messages` and `tools`.

use super::shape::Shape;
use crate::export::conversation::conversations;
use crate::export::parquet::{ConversationTable, Table};
use crate::export::sample::AttemptSample;
use serde_json::Value as JsonValue;

/// `--format messages`. It needs no token ids.
pub(super) struct Messages;

impl Shape for Messages {
    fn name(&self) -> &'static str {
        "messages"
    }

    fn lines(&self, sample: &AttemptSample) -> Vec<JsonValue> {
        conversations(sample).filter_map(|conversation| serde_json::to_value(conversation).ok()).collect()
    }

    fn table(&self) -> Option<Box<dyn Table>> {
        Some(Box::new(ConversationTable::default()))
    }
}

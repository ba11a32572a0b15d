//! The columns of `messages`, as Hugging Face's `datasets` and the trainers on it have them: `messages` and `tools`.
//!
//! Tools are JSON text, because a column has one type and the parameters of each tool have another.

use super::table::{Table, TableError};
use crate::export::conversation::conversations;
use crate::export::sample::AttemptSample;
use arrow_array::builder::StringBuilder;
use arrow_array::{ArrayRef, ListArray, RecordBatch, StructArray};
use arrow_buffer::{NullBuffer, OffsetBuffer};
use arrow_schema::{ArrowError, DataType, Field, Fields, Schema, SchemaRef};
use serde_json::Value as JsonValue;
use std::sync::Arc;

/// Conversations: a row each.
#[derive(Default)]
pub(crate) struct ConversationTable {
    // Messages of each conversation.
    lengths: Vec<usize>,
    tools: StringBuilder,
    // An entry for each message.
    role: StringBuilder,
    content: StringBuilder,
    reasoning: StringBuilder,
    tool_call_id: StringBuilder,
    tool_calls: ToolCalls,
    bytes: usize,
}

/// The tool calls of all messages.
#[derive(Default)]
struct ToolCalls {
    // Calls of each message.
    lengths: Vec<usize>,
    // An entry for each call.
    id: StringBuilder,
    kind: StringBuilder,
    name: StringBuilder,
    arguments: StringBuilder,
}

impl ConversationTable {
    fn add_message(&mut self, message: &JsonValue) {
        let text = |name: &str| message[name].as_str();
        self.role.append_option(text("role"));
        self.content.append_option(text("content"));
        self.reasoning.append_option(text("reasoning_content"));
        self.tool_call_id.append_option(text("tool_call_id"));
        self.tool_calls.add(message["tool_calls"].as_array().map(Vec::as_slice).unwrap_or_default());
        let texts = ["content", "reasoning_content"].into_iter().filter_map(text).map(str::len).sum::<usize>();
        self.bytes += MESSAGE_BYTES + texts;
    }
}

impl ToolCalls {
    fn add(&mut self, calls: &[JsonValue]) {
        self.lengths.push(calls.len());
        for call in calls {
            self.id.append_option(call["id"].as_str());
            self.kind.append_option(call["type"].as_str());
            self.name.append_option(call["function"]["name"].as_str());
            self.arguments.append_option(call["function"]["arguments"].as_str());
        }
    }

    /// A list of calls for each message; null for messages without.
    fn take(&mut self) -> Result<ArrayRef, ArrowError> {
        let function = structs([("name", &mut self.name), ("arguments", &mut self.arguments)].map(texts).into())?;
        let call = [("id", &mut self.id), ("type", &mut self.kind)].map(texts);
        let lengths = std::mem::take(&mut self.lengths);
        let is_some: NullBuffer = lengths.iter().map(|length| *length > 0).collect();
        lists(lengths, structs(call.into_iter().chain([("function", function)]).collect())?, Some(is_some))
    }
}

impl Table for ConversationTable {
    fn schema(&self) -> SchemaRef {
        let text = |name: &str| Field::new(name, DataType::Utf8, true);
        let nested = |name: &str, fields: Vec<Field>| Field::new(name, DataType::Struct(fields.into()), true);
        let list = |name: &str, fields| Field::new(name, DataType::List(nested("element", fields).into()), true);
        let function = nested("function", vec![text("name"), text("arguments")]);
        let message = vec![
            text("role"),
            text("content"),
            text("reasoning_content"),
            text("tool_call_id"),
            list("tool_calls", vec![text("id"), text("type"), function]),
        ];
        Arc::new(Schema::new(vec![list("messages", message), text("tools")]))
    }

    fn schema_version(&self) -> u32 {
        1
    }

    fn add(&mut self, sample: &AttemptSample) -> Result<(), TableError> {
        for conversation in conversations(sample) {
            self.lengths.push(conversation.messages.len());
            conversation.messages.iter().for_each(|message| self.add_message(message));
            let tools = (!conversation.tools.is_null()).then(|| conversation.tools.to_string());
            self.bytes += tools.as_ref().map_or(0, String::len);
            self.tools.append_option(tools);
        }
        Ok(())
    }

    fn bytes(&self) -> usize {
        self.bytes
    }

    fn take(&mut self) -> Result<RecordBatch, ArrowError> {
        self.bytes = 0;
        let names = ["role", "content", "reasoning_content", "tool_call_id"];
        let columns = [&mut self.role, &mut self.content, &mut self.reasoning, &mut self.tool_call_id];
        let mut message: Vec<(&str, ArrayRef)> = names.into_iter().zip(columns).map(texts).collect();
        message.push(("tool_calls", self.tool_calls.take()?));
        let messages = lists(std::mem::take(&mut self.lengths), structs(message)?, None)?;
        RecordBatch::try_new(self.schema(), vec![messages, Arc::new(self.tools.finish())])
    }
}

fn texts<'a>((name, builder): (&'a str, &mut StringBuilder)) -> (&'a str, ArrayRef) {
    (name, Arc::new(builder.finish()))
}

fn structs(columns: Vec<(&str, ArrayRef)>) -> Result<ArrayRef, ArrowError> {
    let field = |(name, array): &(&str, ArrayRef)| Field::new(*name, array.data_type().clone(), true);
    let fields: Fields = columns.iter().map(field).collect();
    Ok(Arc::new(StructArray::try_new(fields, columns.into_iter().map(|(_, array)| array).collect(), None)?))
}

fn lists(lengths: Vec<usize>, values: ArrayRef, is_some: Option<NullBuffer>) -> Result<ArrayRef, ArrowError> {
    let element = Arc::new(Field::new("element", values.data_type().clone(), true));
    Ok(Arc::new(ListArray::try_new(element, OffsetBuffer::from_lengths(lengths), values, is_some)?))
}

/// Role, ids and offsets of a message, roughly.
const MESSAGE_BYTES: usize = 128;

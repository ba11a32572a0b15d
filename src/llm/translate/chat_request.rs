//! Building blocks of a chat request.
//!
//! The API that is translated is not known here.

use crate::llm::json_object::{IntoJson, field, object, without_nulls};
use crate::wire::json::Json;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The messages of a chat.
#[derive(Debug)]
pub(super) struct ChatMessages<'a> {
    turns: Turns,
    messages: Vec<Json<'a>>,
    // The message at the end, which may still grow: at most one of these is there.
    told: Option<Told<'a>>,
    assistant: Option<AssistantMessage>,
}

/// Which messages become one. Many chat templates demand that user and assistant alternate, and that the system speaks
/// first and once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Turns {
    /// Consecutive messages of one role, and system messages behind the first other message become parts of the user's.
    #[default]
    Merge,
    /// Only those of the assistant. System messages stay where they are.
    Keep,
}

/// A message to the assistant.
#[derive(Debug)]
enum Told<'a> {
    BySystem(String),
    ByUser(Vec<Json<'a>>),
}

/// A message of the assistant. Its pieces are joined without separators, as the model sampled them.
#[derive(Debug, Default)]
pub(super) struct AssistantMessage {
    /// The reasoning in front of the text; empty if there is none.
    pub(super) reasoning: String,
    /// The text; empty if the message only calls tools.
    pub(super) text: String,
    calls: Vec<Json<'static>>,
}

impl AssistantMessage {
    /// Adds a tool call. Templates need an object as arguments, also where the model wrote nothing.
    pub(super) fn call(&mut self, id: &str, name: &str, arguments: String) {
        let arguments = if arguments.trim().is_empty() { "{}".to_owned() } else { arguments };
        self.calls.push(object! {
            "id": id.to_owned(),
            "type": "function",
            "function": object! {"name": name.to_owned(), "arguments": arguments},
        });
    }

    fn message(self) -> Json<'static> {
        let has_calls_only = self.text.is_empty() && !self.calls.is_empty();
        let mut fields = vec![field("role", "assistant"), field("content", (!has_calls_only).then_some(self.text))];
        // Engines and their versions differ in the name that they read.
        if !self.reasoning.is_empty() {
            fields.push(field("reasoning_content", self.reasoning.clone()));
            fields.push(field("reasoning", self.reasoning));
        }
        if !self.calls.is_empty() {
            fields.push(field("tool_calls", self.calls));
        }
        Json::Object(fields)
    }
}

impl<'a> ChatMessages<'a> {
    /// No messages yet.
    pub(super) fn new(turns: Turns) -> Self {
        Self { turns, messages: Vec::new(), told: None, assistant: None }
    }

    /// The assistant's message at the end, a new one if the last is another's.
    pub(super) fn assistant(&mut self) -> &mut AssistantMessage {
        self.end_told();
        self.assistant.get_or_insert_default()
    }

    /// Adds a message of the user.
    pub(super) fn user(&mut self, parts: Vec<Json<'a>>) {
        self.end_assistant();
        match &mut self.told {
            Some(Told::ByUser(last)) if self.turns == Turns::Merge => last.extend(parts),
            _ => {
                self.end_told();
                self.told = Some(Told::ByUser(parts));
            }
        }
    }

    /// Adds the result of a tool.
    pub(super) fn tool(&mut self, id: impl IntoJson<'a>, content: Json<'a>) {
        self.end_told();
        self.end_assistant();
        self.messages.push(object! {"role": "tool", "tool_call_id": id, "content": content});
    }

    /// Adds system instructions, unless they are empty. Consecutive ones become one message.
    pub(super) fn system(&mut self, text: &str) {
        if text.is_empty() {
            return;
        }
        self.end_assistant();
        match &mut self.told {
            Some(Told::BySystem(last)) => {
                last.push_str("\n\n");
                last.push_str(text);
            }
            None if self.messages.is_empty() => self.told = Some(Told::BySystem(text.to_owned())),
            _ if self.turns == Turns::Merge => self.user(vec![text_part(text.to_owned())]),
            _ => {
                self.end_told();
                self.told = Some(Told::BySystem(text.to_owned()));
            }
        }
    }

    /// Ends the chat and gives its messages.
    pub(super) fn finish(mut self) -> Vec<Json<'a>> {
        self.end_told();
        self.end_assistant();
        self.messages
    }

    fn end_told(&mut self) {
        self.messages.extend(self.told.take().map(|told| match told {
            Told::BySystem(text) => object! {"role": "system", "content": text},
            Told::ByUser(parts) => object! {"role": "user", "content": content(parts)},
        }));
    }

    fn end_assistant(&mut self) {
        self.messages.extend(self.assistant.take().map(AssistantMessage::message));
    }
}

/// A text part of a message.
pub(super) fn text_part<'a>(text: impl IntoJson<'a>) -> Json<'a> {
    object! {"type": "text", "text": text}
}

/// An image part of a message, at a URL or in a `data:` URL.
pub(super) fn image_part<'a>(url: impl IntoJson<'a>, detail: Option<&'a str>) -> Json<'a> {
    object! {"type": "image_url", "image_url": without_nulls(object! {"url": url, "detail": detail})}
}

/// Bytes in base64 as a `data:` URL.
pub(super) fn data_url(media_type: &str, base64: &str) -> String {
    format!("data:{media_type};base64,{base64}")
}

/// Parts as the content of a message. If all are texts, they become one text: not every chat template takes a list, and
/// backends differ in what they put between its elements.
pub(super) fn content(parts: Vec<Json<'_>>) -> Json<'_> {
    let texts: Option<Vec<&str>> = parts.iter().map(|part| part.get("text").text()).collect();
    let joined = texts.map(|texts| texts.join("\n"));
    joined.map_or(Json::List(parts), String::into_json)
}

/// The definition of a function.
pub(super) fn function<'a>(
    name: impl IntoJson<'a>,
    description: impl IntoJson<'a>,
    parameters: impl IntoJson<'a>,
    strict: impl IntoJson<'a>,
) -> Json<'a> {
    let function = object! {"name": name, "description": description, "parameters": parameters, "strict": strict};
    object! {"type": "function", "function": without_nulls(function)}
}

/// The `tool_choice` for one function.
pub(super) fn named_function<'a>(name: impl IntoJson<'a>) -> Json<'a> {
    object! {"type": "function", "function": object! {"name": name}}
}

/// The `response_format` for a JSON schema.
pub(super) fn json_schema<'a>(
    name: &'a str,
    description: Option<&'a str>,
    schema: impl IntoJson<'a>,
    strict: impl IntoJson<'a>,
) -> Json<'a> {
    let schema = object! {"name": name, "description": description, "schema": schema, "strict": strict};
    object! {"type": "json_schema", "json_schema": without_nulls(schema)}
}

/// The options of a stream: without them no usage is sent.
pub(super) fn stream_options() -> Json<'static> {
    object! {"include_usage": true}
}

/// The body of a request, without fields that have no effect. Backends refuse `tool_choice` without tools.
pub(super) fn body(chat: Json<'_>) -> Map<String, Value> {
    let no_tools = chat.get("tools").list().is_empty();
    let has_no_effect = |name: &str, value: &Json<'_>| match name {
        "tool_choice" if no_tools => value.is_null() || matches!(value.text(), Some("auto" | "none")),
        "parallel_tool_calls" => no_tools || value.is_null(),
        _ => value.is_null() || value.is_empty_list(),
    };
    let Json::Object(fields) = chat else { return Map::new() };
    fields
        .into_iter()
        .filter(|(name, value)| !has_no_effect(name, value))
        // Every key is a string, so this can't fail.
        .map(|(name, value)| (name.into_owned(), serde_json::to_value(value).unwrap_or_default()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn conversation(turns: Turns) -> Value {
        let mut messages = ChatMessages::new(turns);
        messages.system("a");
        messages.system("b");
        messages.user(vec![text_part("hi")]);
        messages.system("c");
        messages.user(vec![text_part("there")]);
        messages.assistant().reasoning.push_str("hm");
        messages.assistant().text.push_str("on");
        messages.assistant().text.push_str("ce");
        messages.assistant().call("c", "f", " ".to_owned());
        messages.tool("c", content(vec![text_part("1"), text_part("2")]));
        messages.system("d");
        messages.assistant().call("d", "g", "{}".to_owned());
        messages.user(vec![text_part("look"), image_part("http://x/y.png", None)]);
        serde_json::to_value(messages.finish()).unwrap()
    }

    fn call(id: &str, name: &str) -> Value {
        let function = json!({"name": name, "arguments": "{}"});
        json!([{"id": id, "type": "function", "function": function}])
    }

    #[test]
    fn turns_alternate_and_the_system_speaks_first() {
        assert_eq!(
            conversation(Turns::Merge),
            json!([
                {"role": "system", "content": "a\n\nb"},
                {"role": "user", "content": "hi\nc\nthere"},
                {
                    "role": "assistant",
                    "content": "once",
                    "reasoning_content": "hm",
                    "reasoning": "hm",
                    "tool_calls": call("c", "f"),
                },
                {"role": "tool", "tool_call_id": "c", "content": "1\n2"},
                {"role": "user", "content": "d"},
                {"role": "assistant", "content": null, "tool_calls": call("d", "g")},
                {"role": "user", "content": [
                    {"type": "text", "text": "look"},
                    {"type": "image_url", "image_url": {"url": "http://x/y.png"}},
                ]},
            ])
        );
    }

    #[test]
    fn turns_are_kept_where_templates_take_them() {
        let kept = conversation(Turns::Keep);
        let roles: Vec<&str> =
            kept.as_array().unwrap().iter().map(|message| message["role"].as_str().unwrap()).collect();
        assert_eq!(roles, ["system", "user", "system", "user", "assistant", "tool", "system", "assistant", "user"]);
        assert_eq!(kept[2]["content"], "c");
    }

    #[test]
    fn a_choice_without_tools_is_left_out_unless_it_demands_one() {
        let chosen = |choice: Json<'static>, tools: Vec<Json<'static>>| {
            body(object! {"tools": tools, "tool_choice": choice, "parallel_tool_calls": false})
        };
        assert!(chosen("auto".into_json(), Vec::new()).is_empty());
        assert!(chosen(Json::Null, Vec::new()).is_empty());
        assert_eq!(chosen("required".into_json(), Vec::new()).len(), 1);
        assert_eq!(chosen(named_function("f"), Vec::new()).len(), 1);
        assert_eq!(chosen("auto".into_json(), vec![Json::Null]).len(), 3);
    }
}

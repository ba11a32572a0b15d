//! Messages and their parts, in the shapes of OpenTelemetry's GenAI conventions (v1.41.1).

use crate::wire::json::Json;
use serde::Serialize;
use std::borrow::Cow;

/// A message of the conversation.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Message {
    /// `system`, `user`, `assistant`, `tool`.
    pub role: String,
    /// What it consists of.
    pub parts: Vec<Part>,
    /// Who, if it says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Why it ended; answers only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finish_reason: Option<String>,
}

/// A part of a message.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Part {
    /// Text.
    Text {
        /// The text.
        content: String,
    },
    /// Thinking.
    Reasoning {
        /// The text.
        content: String,
    },
    /// A tool is called.
    ToolCall {
        /// The call's id.
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<String>,
        /// The tool.
        name: String,
        /// Its arguments: an object, or the text that is none.
        #[serde(skip_serializing_if = "Json::is_null")]
        arguments: Json<'static>,
    },
    /// What a tool gave back.
    ToolCallResponse {
        /// The call's id.
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<String>,
        /// The result.
        response: Json<'static>,
    },
    /// Bytes, in base64.
    Blob {
        /// Their type.
        #[serde(skip_serializing_if = "Option::is_none")]
        mime_type: Option<String>,
        /// `image`, `video`, `audio`, `document`.
        modality: &'static str,
        /// The bytes.
        content: String,
    },
    /// Something at an address.
    Uri {
        /// Its type.
        #[serde(skip_serializing_if = "Option::is_none")]
        mime_type: Option<String>,
        /// As of a blob.
        modality: &'static str,
        /// The address.
        uri: String,
    },
    /// A file that the endpoint has.
    File {
        /// Its type.
        #[serde(skip_serializing_if = "Option::is_none")]
        mime_type: Option<String>,
        /// As of a blob.
        modality: &'static str,
        /// Its id.
        file_id: String,
    },
    /// Whatever else: the object as it came, which has a `type` of its own.
    #[serde(untagged)]
    Other(Json<'static>),
}

impl Part {
    /// A text.
    pub fn text(content: impl Into<String>) -> Self {
        Self::Text { content: content.into() }
    }

    /// A tool call whose arguments came as text.
    pub fn call(id: Option<String>, name: impl Into<String>, arguments: &str) -> Self {
        Self::ToolCall { id, name: name.into(), arguments: from_text(arguments) }
    }

    /// What a `data:` or other URL shows.
    pub fn at_url(modality: &'static str, url: &str) -> Self {
        let data = url.strip_prefix("data:").and_then(|rest| rest.split_once(','));
        match data {
            Some((head, content)) if head.ends_with(";base64") => {
                let mime = head.trim_end_matches(";base64");
                let mime_type = (!mime.is_empty()).then(|| mime.to_owned());
                Self::Blob { mime_type, modality, content: content.to_owned() }
            }
            _ => Self::Uri { mime_type: None, modality, uri: url.to_owned() },
        }
    }
}

/// Arguments that came as text: an object if they are one.
pub fn from_text(arguments: &str) -> Json<'static> {
    match crate::wire::json::parse(arguments.as_bytes()) {
        Ok(json @ Json::Object(_)) => json.into_owned(),
        _ if arguments.is_empty() => Json::Null,
        _ => Json::Text(Cow::Owned(arguments.to_owned())),
    }
}

/// The convention's word for a reason to end; an endpoint's own word stays what it is.
pub fn finish_word(word: &str) -> &str {
    match word {
        "tool_calls" | "function_call" | "tool_use" | "TOOL_CALL" => "tool_call",
        "end_turn" | "stop_sequence" | "STOP" | "COMPLETE" | "STOP_SEQUENCE" | "completed" | "eos" => "stop",
        "max_tokens" | "MAX_TOKENS" | "max_output_tokens" | "limit" => "length",
        "refusal"
        | "SAFETY"
        | "RECITATION"
        | "BLOCKLIST"
        | "PROHIBITED_CONTENT"
        | "guardrail_intervened"
        | "content_filtered"
        | "ERROR_TOXIC" => "content_filter",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_parts_stay_as_they_came() {
        let part = Part::Other(crate::wire::json::parse(br#"{"type":"compaction","id":"c"}"#).unwrap().into_owned());
        assert_eq!(serde_json::to_string(&part).unwrap(), r#"{"type":"compaction","id":"c"}"#);
        let blob = Part::at_url("image", "data:image/png;base64,AAAA");
        assert_eq!(
            serde_json::to_string(&blob).unwrap(),
            r#"{"type":"blob","mime_type":"image/png","modality":"image","content":"AAAA"}"#
        );
    }
}

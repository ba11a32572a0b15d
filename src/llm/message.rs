//! Messages and their parts, in the shapes of OpenTelemetry's GenAI conventions (v1.41.1).

use crate::wire::json::Json;
use serde::Serialize;
use std::borrow::Cow;

/// A message of a prompt or an answer.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Message {
    /// `system`, `user`, `assistant`, `tool`.
    pub role: String,
    /// Its parts, in order.
    pub parts: Vec<Part>,
    /// The name of the participant, where the message has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The reason for the end, in the conventions' word; answers only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finish_reason: Option<String>,
}

/// A part of a message.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Part {
    /// Text of the user, the model or the system.
    Text {
        /// The text as it was sent, or as the events of a stream add it up.
        content: String,
    },
    /// Reasoning of the model.
    Reasoning {
        /// The text, as far as the endpoint shows it.
        content: String,
    },
    /// The model calls a tool.
    ToolCall {
        /// The call's id.
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<String>,
        /// The tool's name.
        name: String,
        /// The arguments: an object, or a text if they are no object.
        #[serde(skip_serializing_if = "Json::is_null")]
        arguments: Json<'static>,
    },
    /// The result of a tool.
    ToolCallResponse {
        /// The call's id.
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<String>,
        /// The result: a text, or any JSON.
        response: Json<'static>,
    },
    /// Bytes, in base64.
    Blob {
        /// Their MIME type.
        #[serde(skip_serializing_if = "Option::is_none")]
        mime_type: Option<String>,
        /// What kind of content it is.
        modality: Modality,
        /// The bytes, in base64.
        content: String,
    },
    /// Content at a URL.
    Uri {
        /// Its MIME type.
        #[serde(skip_serializing_if = "Option::is_none")]
        mime_type: Option<String>,
        /// What kind of content it is.
        modality: Modality,
        /// The URL, as the request has it.
        uri: String,
    },
    /// A file that the endpoint stores.
    File {
        /// Its MIME type.
        #[serde(skip_serializing_if = "Option::is_none")]
        mime_type: Option<String>,
        /// What kind of content it is.
        modality: Modality,
        /// The endpoint's id for it.
        file_id: String,
    },
    /// Any other part: the object as it came, with a `type` of its own.
    #[serde(untagged)]
    Other(Json<'static>),
}

/// What kind of content a part has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Modality {
    /// Pictures.
    Image,
    /// Moving pictures.
    Video,
    /// Sound.
    Audio,
    /// Any other, such as PDF.
    Document,
}

impl Modality {
    /// The kind of a MIME type.
    pub fn of_mime_type(mime_type: Option<&str>) -> Self {
        match mime_type.and_then(|mime| mime.split('/').next()) {
            Some("image") => Self::Image,
            Some("video") => Self::Video,
            Some("audio") => Self::Audio,
            _ => Self::Document,
        }
    }
}

impl Part {
    /// A text part.
    pub fn text(content: impl Into<String>) -> Self {
        Self::Text { content: content.into() }
    }

    /// An estimate of the bytes of memory in use.
    pub(super) fn memory_bytes(&self) -> usize {
        let content = match self {
            Self::Text { content } | Self::Reasoning { content } | Self::Blob { content, .. } => content.capacity(),
            Self::ToolCall { arguments: json, .. }
            | Self::ToolCallResponse { response: json, .. }
            | Self::Other(json) => json.memory_bytes(),
            Self::Uri { uri: text, .. } | Self::File { file_id: text, .. } => text.capacity(),
        };
        size_of::<Self>() + content
    }

    /// The content of a `data:` URL, or the content at another URL.
    pub fn at_url(modality: Modality, url: &str) -> Self {
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

/// Arguments that came as text: the object that the text is, or the text itself; null if it is empty.
pub(crate) fn arguments_of_text(arguments: &str) -> Json<'static> {
    match crate::wire::json::parse(arguments.as_bytes()) {
        Ok(json @ Json::Object(_)) => json.into_owned(),
        _ if arguments.is_empty() => Json::Null,
        _ => Json::Text(Cow::Owned(arguments.to_owned())),
    }
}

/// The conventions' word for a finish reason. A word that they don't know stays as it is.
pub(crate) fn finish_reason(word: &str) -> &str {
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
        let blob = Part::at_url(Modality::Image, "data:image/png;base64,AAAA");
        assert_eq!(
            serde_json::to_string(&blob).unwrap(),
            r#"{"type":"blob","mime_type":"image/png","modality":"image","content":"AAAA"}"#
        );
    }
}

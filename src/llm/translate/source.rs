//! The APIs that are translated to OpenAI's chat completions.

use crate::llm::api::detect::{ApiCall, wants_events};
use crate::llm::api::endpoint::Streaming;
use crate::llm::api::table::{ANTHROPIC_MESSAGES, GEMINI, OPENAI_RESPONSES};
use crate::wire::json::parse;

/// The API that an agent uses when its backend has only chat completions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SourceApi {
    /// Anthropic messages.
    Messages,
    /// OpenAI responses.
    Responses,
    /// Gemini's generateContent.
    Gemini,
}

/// What the path and query of a Gemini request say; its body has no fields for it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct GeminiPath {
    /// `:streamGenerateContent`
    pub(crate) streams: bool,
    /// `alt=sse`
    pub(crate) sse: bool,
}

/// The API that a call is translated from, and what its path says. `None`: it can't be translated.
pub(crate) fn source_of(call: &ApiCall, query: &str) -> Option<(SourceApi, GeminiPath)> {
    let source = [
        (&ANTHROPIC_MESSAGES, SourceApi::Messages),
        (&OPENAI_RESPONSES, SourceApi::Responses),
        (&GEMINI, SourceApi::Gemini),
    ];
    let (_, source) = source.into_iter().find(|(api, _)| *api == call.api).filter(|_| call.operation().samples())?;
    let streams = call.endpoint.streaming == Streaming::Always;
    Some((source, GeminiPath { streams, sse: wants_events(query) }))
}

/// True if a request of responses has tools or items that only OpenAI's own service takes, as Codex sends them. Engines with that
/// API reject or ignore those; chat completions can express them.
pub(crate) fn is_for_service_only(body: &[u8]) -> bool {
    // What is no JSON is rejected later, with the cause.
    let Ok(body) = parse(body) else { return false };
    let has_other = |list: &str, usual: &[&str]| {
        let mut kinds = body.get(list).list().iter().filter_map(|element| element.get("type").text());
        kinds.any(|kind| !usual.contains(&kind))
    };
    has_other("tools", &["function"]) || has_other("input", ITEMS_OF_ENGINES)
}

const ITEMS_OF_ENGINES: &[&str] = &["message", "function_call", "function_call_output", "reasoning", "item_reference"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tools_and_items_of_the_service_are_known() {
        for (body, expected) in [
            (r#"{"input":"hi","tools":[{"type":"function","name":"f"}]}"#, false),
            (r#"{"input":[{"role":"user","content":"hi"},{"type":"function_call_output","output":""}]}"#, false),
            (r#"{"input":"hi","tools":[{"type":"function","name":"f"},{"type":"custom","name":"g"}]}"#, true),
            (r#"{"input":"hi","tools":[{"type":"namespace","name":"n","tools":[]}]}"#, true),
            (r#"{"input":[{"type":"additional_tools","tools":[]}]}"#, true),
            ("{", false),
        ] {
            assert_eq!(is_for_service_only(body.as_bytes()), expected, "{body}");
        }
    }
}

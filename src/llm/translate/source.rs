//! The APIs that are translated to OpenAI's chat completions.

use crate::llm::api::detect::{ApiCall, wants_events};
use crate::llm::api::endpoint::Streaming;
use crate::llm::api::table::{ANTHROPIC_MESSAGES, GEMINI, OPENAI_RESPONSES};

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

//! Requests of other APIs become requests of OpenAI's chat completions, and their responses are translated back.
//!
//! Pure. Fields that chat completions can't express are never dropped silently: the request is refused, with their place.

mod blocks;
mod chat_request;
mod chat_response;
mod chat_usage;
mod gemini_request;
mod gemini_response;
mod gemini_schema;
mod messages_request;
mod messages_response;
mod node;
mod response;
mod responses_request;
mod responses_response;
mod source;
#[cfg(test)]
mod tests;
mod to_chat;
mod untranslatable;

pub(crate) use response::{ResponseTranslator, StreamTranslator};
pub(crate) use source::{GeminiPath, SourceApi, source_of};
pub(crate) use to_chat::to_chat;
pub(crate) use untranslatable::Untranslatable;

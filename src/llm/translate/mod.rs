//! Requests of other APIs become requests of OpenAI's chat completions, and their responses go back.
//!
//! Pure. What chat completions can't express is never dropped silently: the request is refused, with the place of it.

mod answer;
mod blocks;
mod chat;
mod gemini;
mod gemini_answer;
mod gemini_schema;
mod messages;
mod messages_answer;
mod node;
mod request;
mod request_to_chat;
mod responses;
mod responses_answer;
mod source;
#[cfg(test)]
mod tests;
mod untranslatable;

pub(crate) use answer::{Answer, AnswerStream};
pub(crate) use request_to_chat::to_chat;
pub(crate) use source::{GeminiPath, SourceApi, source_of};
pub(crate) use untranslatable::Untranslatable;

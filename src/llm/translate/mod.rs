//! Requests of other APIs become requests of OpenAI's chat completions, and their responses are translated back.
//!
//! Pure. What chat completions can't express is never dropped silently: if it changes the answer, the request is refused,
//! with its place; anything else is named in [`TranslatedRequest::dropped`].

mod blocks;
mod chat_request;
mod chat_response;
mod chat_usage;
mod gemini_request;
#[cfg(test)]
mod gemini_request_tests;
mod gemini_response;
mod gemini_schema;
mod messages_request;
#[cfg(test)]
mod messages_request_tests;
mod messages_response;
mod node;
mod opaque;
mod options;
mod response;
mod response_items;
mod responses_request;
mod responses_response;
#[cfg(test)]
mod responses_response_tests;
mod responses_tools;
mod source;
#[cfg(test)]
mod test_support;
#[cfg(test)]
mod tests;
mod to_chat;
mod tools;
mod untranslatable;

pub(crate) use chat_request::Turns;
pub(crate) use options::{ServerTools, TranslationOptions};
pub(crate) use response::{ResponseTranslator, StreamTranslator};
pub(crate) use response_items::{
    NOT_REMEMBERED, answered_response, find_item, input_items, output_items, response_of_item, with_input,
};
pub(crate) use source::{GeminiPath, SourceApi, is_for_service_only, source_of};
pub(crate) use to_chat::{TranslatedRequest, to_chat};
pub(crate) use untranslatable::Untranslatable;

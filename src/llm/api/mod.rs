//! The APIs of models and tools: a table with one row an API, and the questions that it answers.
//!
//! It answers for every other part whether a request is a call, of which API, whether its response is complete, and how
//! errors are reported.
//! Everything but [`detect`] costs the same for a body of any size and is safe on the hot path.

pub(crate) mod detect;
pub(crate) mod endpoint;
pub(crate) mod error;
mod key;
pub(crate) mod spec;
pub(crate) mod stream_end;
pub(crate) mod table;
#[cfg(test)]
mod tests;

pub(crate) use detect::{
    ApiCall, ends_stream, has_api, is_api_path, may_be_call, models_path, models_path_beside, websocket_calls,
};
pub(crate) use error::{ApiErrorKind, ErrorShape, error_message};
pub(crate) use key::{api_key, api_key_in_query};
pub(crate) use spec::ApiSpec;
pub(crate) use table::{ANTHROPIC_MESSAGES, OPENAI_CHAT, OPENAI_COMPLETIONS, OPENAI_RESPONSES};

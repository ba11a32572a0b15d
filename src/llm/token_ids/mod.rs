//! Token ids and logprobs: requesting them, taking them out of responses again, and checking that they are complete.
//!
//! Pure. Which engine takes and returns what is in its row ([`crate::llm::engine`]).

mod arrays;
mod rejection;
pub(crate) mod request;
mod strip;
pub(crate) mod tokens;
mod validate;

pub(crate) use rejection::{may_reject, rejected_fields};
pub(crate) use request::{InjectedRequest, Logprobs, Stripping, TokenIdPlan, open_request, takes_open_request};
pub(crate) use strip::ResponseStripper;
pub(crate) use tokens::{TokenIdIssue, Tokens};
pub(crate) use validate::validate;

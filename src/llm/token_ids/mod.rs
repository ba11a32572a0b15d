//! Token ids, logprobs and weight versions: what engines return, and whether it is complete.

pub(crate) mod request;
pub(crate) mod tokens;
mod validate;

pub(crate) use request::{InjectedRequest, Logprobs, Stripping, TokenIdPlan, open_request};
pub use tokens::{TokenIdIssue, Tokens};
pub use validate::{TokenIdCheck, validate};

//! Token ids, logprobs and weight versions: what engines return, and whether it is complete.

mod validate;

pub use validate::{TokenIdCheck, TokenIdIssue, Tokens, validate};

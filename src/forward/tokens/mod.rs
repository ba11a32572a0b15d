//! Requests token ids on the agent's behalf, and removes them from what the agent sees again.
//!
//! What the agent sent and what the endpoint answered is recorded. A message that can't be changed safely passes
//! unchanged.

mod settings;
mod strip;

pub(crate) use settings::TokenSettings;
pub(crate) use strip::{StrippedBody, stripped};

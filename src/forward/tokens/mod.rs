//! Requests token ids on the agent's behalf, and removes them from what the agent sees again.
//!
//! What the agent sent and what the endpoint answered is recorded. A message that can't be changed safely passes
//! unchanged.

mod held_response;
mod settings;
mod strip;

pub(crate) use settings::MAX_BUFFERED_BYTES;
pub(crate) use settings::TokenSettings;
pub(crate) use strip::stripped;

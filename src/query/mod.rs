//! What lists show of a rollout, and the language that selects rollouts: `model:qwen* status:failed tokens>4k`.
//!
//! Pure: callers read the store. One parser and one meaning for every list.

mod error;
mod facts;
mod parse;
mod prices;
mod restrictions;
mod span_kind;
mod term;
mod totals;

pub(crate) use error::QueryError;
pub(crate) use facts::{FoundPhrases, RolloutFacts, task_text};
pub(crate) use parse::Query;
pub(crate) use prices::{Cost, Prices};
pub(crate) use span_kind::SpanClass;
pub(crate) use totals::RolloutTotals;

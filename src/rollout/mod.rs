//! Rollouts, attempts, workers and resources: what trainers and runners do with them.
//!
//! Start with [`Rollouts`]: each operation is one transaction of the store, and [`lifecycle`] decides what it changes.
//! This module must not know HTTP.

mod attempts;
mod ended_rollouts;
mod kept_rollouts;
mod known_attempts;
pub mod lifecycle;
mod operations;
mod requests;
mod retention;
mod rollouts;
mod search;
mod search_cache;
mod tail_sampling;
mod text_index;
mod totals;
mod verdicts;
mod watchdog;

pub use crate::trace::RolloutMode;
pub(crate) use kept_rollouts::KeptRollouts;
pub use requests::{AttemptChange, NewRollout, RolloutChange};
pub(crate) use retention::{RetentionError, RetentionSettings, apply_rules, preview_expired, prune_expired};
pub use rollouts::{Result, RolloutError, Rollouts};
pub(crate) use search::{FoundRollout, MAX_SPANS_READ, RolloutSearch, SearchPageRequest};
pub(crate) use search_cache::SearchCache;
pub(crate) use tail_sampling::{SoundnessCheck, TailSampler, forget_place};
pub(crate) use text_index::IndexWait;
pub(crate) use totals::TotalsCache;

//! Trajectories: the LLM calls of an attempt as a tree of token sequences, ready for training.
//!
//! [`read()`] takes calls and rewards from spans, [`Trajectory::build`] makes the tree, [`rows()`] the rows that
//! trainers load, and [`verdict()`] says whether a rollout is sound enough to train on. Pure: spans in, values out. Memory
//! grows with the calls of one attempt, never with the number of rollouts.

mod breaks;
mod call;
mod network;
mod not_stored;
mod outline;
mod prefix;
#[cfg(test)]
mod properties;
mod read;
mod rewards;
mod rows;
#[cfg(test)]
mod tests;
mod tree;
mod verdict;
mod verdict_settings;
#[cfg(test)]
mod verdict_tests;

pub use breaks::{Break, BreakCause, BreakSide};
pub use call::{Call, CallContent, Exclusion, VersionStart};
pub use outline::outline;
pub use read::{AttemptRecord, read};
pub use rewards::{Reward, RewardRule, discounted_returns, final_reward};
pub use rows::{ROW_SCHEMA_VERSION, RewardSource, TrainingRow, group_id, rows};
pub use tree::{Branch, CallNode, MergeMode, Trajectory};
pub use verdict::{Reason, Verdict, verdict};
pub use verdict_settings::VerdictSettings;

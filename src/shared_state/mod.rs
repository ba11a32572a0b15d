//! State that modules share for the life of the process. Each type is a handle: clones refer to the same state.
//!
//! | state | written by | read by |
//! |---|---|---|
//! | [`SequenceAllocator`]: the sequence ids of rollouts | `forward`, `gateway`; `api` through `app` | the same |
//! | [`DetectedEngines`]: what serves at an endpoint | `pipeline`, `forward` | `forward`; `app` |
//! | [`RecordedCalls`]: which span recorded a response | `pipeline` | `api` through `app` |
//! | [`TokenUsageTracker`]: tokens that rollouts used | `pipeline` | `gateway` through `app` |
//!
//! Writer and reader must not import each other, so the state belongs to neither. It performs no I/O, holds no lock
//! across an await, and is lost when the process ends, unless `app` keeps it; every map is bounded.

mod detected_engines;
mod recorded_calls;
mod sequence;
mod token_usage;

pub(crate) use detected_engines::{DetectedEngines, FirstLook, KnownEndpoint};
pub(crate) use recorded_calls::RecordedCalls;
pub use sequence::SequenceLease;
pub(crate) use sequence::{SequenceAllocator, SequenceSource, SequenceStart, SequenceStartFuture};
pub(crate) use token_usage::TokenUsageTracker;

//! The data types of the program: ids, spans, exchanges, rollouts, and the names of attributes.
//!
//! Plain values that every other module may import. No I/O, no clock, no tokio.

pub mod exchange;
pub(crate) mod failure;
pub mod ids;
pub(crate) mod metric;
pub(crate) mod number_lists;
pub mod rollout;
mod sampler_arrays;
pub mod semconv;
pub mod span;
pub mod units;
pub mod value;
mod words;

pub use exchange::{Body, Exchange, Outcome};
pub use ids::{AttemptId, RolloutId, SpanId, TraceId};
pub(crate) use ids::{IdBytes, InvalidId, check_id};
pub(crate) use rollout::PrunedSpans;
pub use rollout::{
    Attempt, AttemptPosition, AttemptScope, AttemptStatus, AttemptedRollout, ResourcesUpdate, Rollout, RolloutConfig,
    RolloutMode, RolloutStatus, Worker, WorkerStatus,
};
pub use sampler_arrays::{SamplerArray, SamplerArrays};
pub use span::{Span, SpanKind, Status, StatusCode};
pub use units::Timestamp;
pub use value::{Attributes, Value};
pub(crate) use words::{MAX_PHRASE_WORDS, has_phrase, message_words};
pub use words::{Word, words_of};

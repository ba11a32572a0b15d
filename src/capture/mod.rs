//! Records exchanges without touching them: a tee on each body, one record per exchange, delivered exactly once.
//!
//! Capture never fails, blocks or delays a request, with one exception that a setting names: with `durability = commit`
//! the end of a response waits until its span is stored. It parses, redacts and stores nothing. Memory is bounded by
//! `capture.memory_budget_bytes` and the number of exchanges by `capture.queue_exchanges`.

mod captured;
mod counters;
mod memory_budget;
mod recorded_body;
mod recorder;
mod recording;
mod settings;
mod tee;

pub use captured::Captured;
pub(crate) use captured::CommitStatus;
pub(crate) use recorder::is_trace_export;
pub use recorder::{ExchangeStart, Recorder};
pub(crate) use recording::{Recording, VersionChange};
pub(crate) use settings::Absorb;
pub use settings::CaptureSettings;
pub use tee::TeeBody;

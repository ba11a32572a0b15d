//! Records exchanges without touching them: a tee on each body, one record per exchange, delivered exactly once.
//!
//! Capture never fails, blocks or delays a request, with two exceptions that settings name: with `durability = commit`
//! the end of a response waits until its span is stored, and with `when_full = wait` a request waits for room in a full
//! queue. `auto`, the default of both, means registered rollouts. It redacts and stores nothing. The response of an LLM call
//! is read as it passes once it is long ([`crate::llm::formats`]), so that its text need not be held. Memory is bounded by
//! `capture.memory_budget_bytes`; what exceeds it goes to the spill file, which may delay its own connection when the disk
//! is slow. The number of exchanges is bounded by `capture.queue_exchanges`.

mod body_record;
mod captured;
mod counters;
mod edited_bytes;
mod held_bytes;
mod memory;
mod memory_budget;
mod queue;
mod recorder;
mod recording;
mod recording_state;
mod settings;
mod spill;
mod tee;

pub(crate) use captured::BegunCall;
pub use captured::Captured;
pub(crate) use captured::CommitStatus;
pub(crate) use edited_bytes::{EditedBytes, HeldBody};
pub(crate) use held_bytes::HeldBytes;
pub(crate) use memory::Memory;
pub(crate) use memory_budget::MemoryUse;
pub use queue::CaptureQueue;
pub(crate) use recorder::is_trace_export;
pub use recorder::{ExchangeStart, Recorder};
pub(crate) use recording::{Recording, VersionChange};
pub(crate) use settings::Absorb;
pub use settings::CaptureSettings;
pub(crate) use spill::SpillError;
pub(crate) use tee::RecordedFrames;
pub use tee::TeeBody;

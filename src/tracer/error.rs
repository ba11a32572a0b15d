//! Errors of tracers. Each text says what happened and what to do.

use crate::store::StoreError;

/// Why a tracer can't do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum TracerError {
    /// No worker is initialized.
    #[error("tracer `{tracer}` was used before init_worker; call `tracer.init_worker(0)` first, or use `lifespan`")]
    NotInitialized {
        /// Name of the tracer.
        tracer: String,
    },
    /// The last worker was torn down.
    #[error("tracer `{tracer}` was used after teardown_worker; call `init_worker` again to go on using it")]
    TornDown {
        /// Name of the tracer.
        tracer: String,
    },
    /// A worker with this id is initialized already.
    #[error("worker {worker} of tracer `{tracer}` is initialized already; give each worker an id of its own")]
    AlreadyInitialized {
        /// Name of the tracer.
        tracer: String,
        /// Id of the worker.
        worker: u32,
    },
    /// The tracer has as many workers as it can have.
    #[error("tracer `{tracer}` has {limit} workers already; tear down workers that have ended")]
    TooManyWorkers {
        /// Name of the tracer.
        tracer: String,
        /// Maximum number of workers of a tracer.
        limit: usize,
    },
    /// A trace context was opened within another one.
    #[error(
        "trace context `{inner}` was opened within `{outer}`; trace contexts do not nest: use `operation` for a step within \
         a trace, or end the outer one first"
    )]
    Nested {
        /// Name of the trace that is active.
        outer: String,
        /// Name of the trace that could not be started.
        inner: String,
    },
    /// No trace context is active on this thread and task.
    #[error(
        "no trace context is active here; call this within `trace_context`, and give spawned tasks and threads the context \
         with `with_current_context` or `Context::attach`"
    )]
    NoActiveTrace,
    /// The active trace context belongs to another tracer.
    #[error(
        "the active trace context belongs to tracer `{active}`, not to `{tracer}`; use `tracer::operation`, which takes the active one"
    )]
    OtherTracer {
        /// Name of the tracer that was used.
        tracer: String,
        /// Name of the tracer of the active trace context.
        active: String,
    },
    /// The trace has ended, but a task or thread still has its context.
    #[error("trace `{trace}` has ended; await spawned tasks before its trace context ends")]
    TraceEnded {
        /// Name of the trace.
        trace: String,
    },
    /// No trace has ended yet.
    #[error("tracer `{tracer}` has no trace yet; last_trace returns one after a trace context has ended")]
    NoTrace {
        /// Name of the tracer.
        tracer: String,
    },
    /// An attempt has no stored spans.
    #[error(
        "rollout {rollout} has no stored spans of attempt {attempt}; check both ids, and flush the tracer that recorded them"
    )]
    NothingStored {
        /// Id of the rollout.
        rollout: String,
        /// Id of the attempt.
        attempt: String,
    },
    /// A value can't be an attribute.
    #[error("attribute `{name}` can't be recorded: {problem}")]
    InvalidAttribute {
        /// Name of the attribute.
        name: String,
        /// What is wrong with its value, and what to do.
        problem: String,
    },
    /// A baggage entry can't be sent in a header.
    #[error("baggage entry `{key}` was not added: {problem}")]
    InvalidBaggage {
        /// Key of the entry.
        key: String,
        /// What is wrong with the entry, and what to do.
        problem: &'static str,
    },
    /// An id of a rollout or an attempt can't be used.
    #[error("`{name}` is not a usable id: {problem}")]
    InvalidId {
        /// What the id names.
        name: &'static str,
        /// What is wrong with the id.
        problem: String,
    },
    /// Spans that were recorded are not in the store.
    #[error(
        "{spans} spans are not stored ({cause}); they are kept and stored when the store answers again, up to the bound of \
         the queue: check the store, then call `flush` again"
    )]
    NotStored {
        /// Number of spans that wait for the store.
        spans: u64,
        /// Why the last attempt to store them failed.
        cause: String,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A trace could not be written in a format.
    #[error("the trace can't be written: {0}")]
    Format(#[from] serde_json::Error),
    /// No format has this name.
    #[error("there is no format `{name}`; use one of {known}")]
    UnknownFormat {
        /// The name that was asked for.
        name: String,
        /// The names that exist.
        known: String,
    },
    /// The thread that writes to the store can't be started.
    #[error(
        "the thread that writes spans to the store can't be started ({0}); check the limits of processes and memory"
    )]
    NoThread(std::io::Error),
    /// The future of a trace was dropped.
    #[error("the trace was stopped after {} s; set a longer limit with `with_timeout`", limit.as_secs_f64())]
    TimedOut {
        /// The limit of the tracer.
        limit: std::time::Duration,
    },
    /// The proxy of a trace could not be started or used.
    #[error("the proxy of this trace can't be used: {0}")]
    Proxy(String),
}

/// Result of a tracer's operation.
pub type Result<T, E = TracerError> = std::result::Result<T, E>;

//! The tracer that writes into a store.

use super::contract::Tracer;
use super::core::TracerCore;
use super::error::{Result, TracerError};
use super::processor::SpanProcessor;
use super::store_writer::{CLOSE_TIMEOUT, Progress, Writer};
use crate::store::{BoxFuture, SharedStore, Store};
use crate::trace::Span;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc as std_mpsc};
use std::time::Duration;
use tokio::sync::{Notify, mpsc, watch};

/// Writes spans into a [`Store`]: of this process, a file that `tracewire serve` and `tracewire ui` show too, or a server.
///
/// Spans pass a queue of 8,192 to a thread that stores them in batches. The traced code never waits for the store: spans that
/// find the queue full are dropped and counted ([`Self::counters`]). The thread retries while the store can't be reached, and
/// [`Tracer::flush`] returns the cause after one more try. When the last clone is dropped, the thread gets 5 s to store what is
/// left. Credentials are redacted in what is stored.
///
/// ```
/// use std::sync::Arc;
/// use tracewire::store::{Retention, StoreExt, memory::MemoryStore};
/// use tracewire::tracer::{StoreTracer, TraceOptions, Tracer, TracerError, emit};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), TracerError> {
/// let store = Arc::new(MemoryStore::new(Retention::default()));
/// let tracer = StoreTracer::new(store.clone())?;
/// tracer.init_worker(0)?;
/// tracer.trace_context(TraceOptions::new("solve").rollout("ro-1"), async { emit::reward(1.0) }).await?;
/// assert_eq!(store.spans("ro-1".into(), None).await?.len(), 2);
/// tracer.teardown_worker(0).await
/// # }
/// ```
#[derive(Clone)]
pub struct StoreTracer {
    core: TracerCore,
    queue: Arc<StoreQueue>,
}

/// What a [`StoreTracer`] has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreTracerCounters {
    /// Spans in the store.
    pub stored: u64,
    /// Spans that wait for the store.
    pub waiting: u64,
    /// Spans lost because the queue was full.
    pub dropped: u64,
    /// Spans lost because the store rejected their data.
    pub refused: u64,
}

impl StoreTracer {
    /// A tracer into `store`, which stays open. It needs no async runtime of its own.
    pub fn new(store: Arc<impl Store>) -> Result<Self> {
        Self::shared(store)
    }

    /// As [`Self::new`], for a store of any kind.
    pub fn shared(store: SharedStore) -> Result<Self> {
        Self::named("store", store)
    }

    pub(super) fn named(name: &str, store: SharedStore) -> Result<Self> {
        let queue = Arc::new(StoreQueue::start(store)?);
        let processor: Arc<dyn SpanProcessor> = Arc::<StoreQueue>::clone(&queue);
        Ok(Self { core: TracerCore::with_shared(name, processor), queue })
    }

    /// What has happened to the spans so far.
    pub fn counters(&self) -> StoreTracerCounters {
        let (stored, refused) = {
            let progress = self.queue.progress.borrow();
            (progress.stored, progress.refused)
        };
        let dropped = self.queue.dropped.load(Ordering::Relaxed);
        StoreTracerCounters { stored, waiting: self.queue.waiting(), dropped, refused }
    }
}

impl Tracer for StoreTracer {
    fn core(&self) -> &TracerCore {
        &self.core
    }
}

impl fmt::Debug for StoreTracer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreTracer").field("core", &self.core).field("counters", &self.counters()).finish()
    }
}

/// The way of spans to the thread that stores them.
pub(super) struct StoreQueue {
    /// `None` only while it is dropped.
    spans: Option<mpsc::Sender<Arc<Span>>>,
    progress: watch::Receiver<Progress>,
    hurry: Arc<Notify>,
    accepted: AtomicU64,
    dropped: AtomicU64,
    /// Closed by the thread when it has ended.
    ended: std::sync::Mutex<std_mpsc::Receiver<()>>,
}

impl StoreQueue {
    fn start(store: SharedStore) -> Result<Self> {
        let (spans, received) = mpsc::channel(QUEUED_SPANS);
        let (end, ended) = std_mpsc::channel();
        let (sender, progress) = watch::channel(Progress::default());
        let hurry = Arc::new(Notify::new());
        let writer = Writer::new(store, received, sender, Arc::clone(&hurry));
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(TracerError::NoThread)?;
        let run = move || {
            runtime.block_on(writer.run());
            drop(end);
        };
        std::thread::Builder::new().name("tracewire-tracer".to_owned()).spawn(run).map_err(TracerError::NoThread)?;
        Ok(Self {
            spans: Some(spans),
            progress,
            hurry,
            accepted: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            ended: std::sync::Mutex::new(ended),
        })
    }

    fn waiting(&self) -> u64 {
        // The thread may be done with a span before it is counted here.
        self.accepted.load(Ordering::Relaxed).saturating_sub(self.progress.borrow().done())
    }

    fn not_stored(&self) -> TracerError {
        let cause = self.progress.borrow().last_error.clone();
        let cause = cause.unwrap_or_else(|| "the store has not answered".to_owned());
        TracerError::NotStored { spans: self.waiting(), cause }
    }
}

impl SpanProcessor for StoreQueue {
    fn on_end(&self, span: Arc<Span>) {
        if self.spans.as_ref().is_some_and(|spans| spans.try_send(span).is_ok()) {
            self.accepted.fetch_add(1, Ordering::Relaxed);
        } else if self.dropped.fetch_add(1, Ordering::Relaxed) == 0 {
            tracing::warn!("a span was dropped: the queue of a store tracer is full; see its counters");
        }
    }

    fn force_flush(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            let accepted = self.accepted.load(Ordering::Relaxed);
            let mut progress = self.progress.clone();
            let failures = progress.borrow().failures;
            self.hurry.notify_one();
            // Spans are stored in the order in which they were accepted.
            let settled = progress.wait_for(|now| now.done() >= accepted || now.failures > failures).await;
            match settled {
                Ok(now) if now.done() >= accepted => Ok(()),
                Ok(_) | Err(_) => Err(self.not_stored()),
            }
        })
    }
}

impl Drop for StoreQueue {
    fn drop(&mut self) {
        // The thread stores what is left, and ends.
        self.spans = None;
        let ended = self.ended.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner);
        // A store that does not answer at all is not waited for.
        let _ = ended.recv_timeout(CLOSE_TIMEOUT + GRACE);
        if self.waiting() > 0 {
            tracing::error!(error = %self.not_stored(), "spans of a tracer were not stored");
        }
    }
}

const QUEUED_SPANS: usize = 8192;
/// For the last try of the thread.
const GRACE: Duration = Duration::from_secs(1);

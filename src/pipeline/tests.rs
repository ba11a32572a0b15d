//! The pipeline with a store that rejects spans.

use super::{ObservedState, Pipeline, SpanOptions};
use crate::capture::{CaptureSettings, ExchangeStart, Recorder, Recording};
use crate::shared_state::{SequenceAllocator, SequenceLease, SequenceStart};
use crate::store::memory::MemoryStore;
use crate::store::{
    Appended, BoxFuture, Change, EndedRollouts, Pruned, RolloutFilter, RolloutSequenceState, RolloutSummary,
    SequenceAuthority, SharedStore, Statistics, Store, StoreError,
};
use crate::trace::exchange::{ConnectionFacts, ExchangeKind, Identity, IdentitySource, RequestHead, TraceContext};
use crate::trace::{
    Attempt, AttemptId, AttemptedRollout, ResourcesUpdate, Rollout, RolloutId, Span, SpanId, TraceId, Worker,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

/// A store that never takes a span of `poison`, and takes none at all for the first `outage` appends.
struct Picky {
    inner: MemoryStore,
    outage: AtomicU32,
}

type Answer<'a, T> = BoxFuture<'a, crate::store::Result<T>>;

impl Store for Picky {
    fn append(&self, spans: Vec<Arc<Span>>) -> Answer<'_, Appended> {
        let down = self.outage.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok();
        if down || spans.iter().any(|span| span.rollout_id.as_str() == "poison") {
            return Box::pin(async { Err(StoreError::Closed) });
        }
        self.inner.append(spans)
    }
    fn rollout(&self, id: RolloutId) -> Answer<'_, Option<Rollout>> {
        self.inner.rollout(id)
    }
    fn rollouts(&self, limit: usize) -> Answer<'_, Vec<RolloutSummary>> {
        self.inner.rollouts(limit)
    }
    fn attempts(&self, id: RolloutId) -> Answer<'_, Vec<Attempt>> {
        self.inner.attempts(id)
    }
    fn spans(&self, rollout: RolloutId, attempt: Option<AttemptId>) -> Answer<'_, Vec<Span>> {
        self.inner.spans(rollout, attempt)
    }
    fn change(&self, change: Change) -> Answer<'_, ()> {
        self.inner.change(change)
    }
    fn attempted_rollouts(&self, filter: RolloutFilter) -> Answer<'_, Vec<AttemptedRollout>> {
        self.inner.attempted_rollouts(filter)
    }
    fn workers(&self) -> Answer<'_, Vec<Worker>> {
        self.inner.workers()
    }
    fn all_resources(&self) -> Answer<'_, Vec<ResourcesUpdate>> {
        self.inner.all_resources()
    }
    fn trace_owners(
        &self,
        traces: Vec<String>,
    ) -> Answer<'_, std::collections::HashMap<String, (RolloutId, AttemptId)>> {
        self.inner.trace_owners(traces)
    }
    fn llm_calls(&self, rollouts: Vec<RolloutId>) -> Answer<'_, std::collections::HashMap<RolloutId, u64>> {
        self.inner.llm_calls(rollouts)
    }
    fn sequence_authority(&self) -> SequenceAuthority {
        self.inner.sequence_authority()
    }
    fn next_sequence(&self, id: RolloutId) -> Answer<'_, RolloutSequenceState> {
        self.inner.next_sequence(id)
    }
    fn sequence_state(&self, id: RolloutId) -> Answer<'_, RolloutSequenceState> {
        self.inner.sequence_state(id)
    }
    fn ended_rollouts(&self, after: u64, limit: usize) -> Answer<'_, EndedRollouts> {
        self.inner.ended_rollouts(after, limit)
    }
    fn statistics(&self) -> Answer<'_, Statistics> {
        self.inner.statistics()
    }
    fn prune(&self) -> Answer<'_, Pruned> {
        self.inner.prune()
    }
    fn close(&self) -> Answer<'_, ()> {
        self.inner.close()
    }
}

fn start(recorder: &Recorder, rollout: &str) -> Recording {
    start_leased(recorder, rollout, SequenceLease::default())
}

fn start_leased(recorder: &Recorder, rollout: &str, sequence: SequenceLease) -> Recording {
    recorder.start(ExchangeStart {
        identity: Identity {
            rollout_id: rollout.into(),
            attempt_id: "at".into(),
            sequence_id: 1,
            source: IdentitySource::Headers,
            conflict: None,
        },
        trace: TraceContext {
            trace_id: TraceId::of_attempt(&rollout.into(), &"at".into()),
            span_id: SpanId::from_random(fastrand::u64(1..)),
            parent_id: SpanId::of_attempt_root(&rollout.into(), &"at".into()),
            parent_is_remote: false,
        },
        kind: ExchangeKind::Http,
        request: RequestHead {
            method: http::Method::GET,
            scheme: "http",
            host: "h".into(),
            port: 80,
            target: "/".into(),
            version: http::Version::HTTP_11,
            headers: http::HeaderMap::new(),
        },
        connection: ConnectionFacts::default(),
        started: Instant::now(),
        auto_durable: false,
        records_bodies: false,
        sequence,
    })
}

async fn stored_and_lost(outage: u32, rollouts: &[&str]) -> (u64, u64) {
    let inner = MemoryStore::new(crate::store::Retention::default());
    let store: SharedStore = Arc::new(Picky { inner, outage: AtomicU32::new(outage) });
    let (recorder, queue) = Recorder::new(CaptureSettings::default(), std::env::temp_dir());
    for rollout in rollouts {
        drop(start(&recorder, rollout));
    }
    let pipeline =
        Pipeline::start(queue, Arc::clone(&store), SpanOptions::default(), ObservedState::default()).unwrap();
    let counters = Arc::clone(pipeline.counters());
    // Every exchange is stored or lost in the end.
    while counters.stored.load(Ordering::Relaxed) + counters.lost.load(Ordering::Relaxed) < rollouts.len() as u64 {
        tokio::task::yield_now().await;
    }
    let lost = pipeline.finish(&recorder.counters().started).await;
    (counters.stored.load(Ordering::Relaxed), lost)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_span_that_the_store_rejects_does_not_block_the_others() {
    assert_eq!(stored_and_lost(0, &["a", "poison", "b"]).await, (2, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_loses_nothing() {
    assert_eq!(stored_and_lost(6, &["a", "b", "c"]).await, (3, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_id_of_a_span_that_waits_for_the_store_is_not_allocated_again() {
    let inner = MemoryStore::new(crate::store::Retention::default());
    let store: SharedStore = Arc::new(Picky { inner, outage: AtomicU32::new(u32::MAX) });
    let (recorder, queue) = Recorder::new(CaptureSettings::default(), std::env::temp_dir());
    let pipeline = Pipeline::start(queue, store, SpanOptions::default(), ObservedState::default()).unwrap();
    let allocator = SequenceAllocator::new(Arc::new(|_| Box::pin(std::future::ready(Some(SequenceStart::default())))));
    let rollout = RolloutId::from("a");
    let allocated = allocator.next(&rollout).await;
    drop(start_leased(&recorder, "a", allocated.lease));
    // More rollouts than the allocator keeps.
    for other in 0..1 << 16 {
        allocator.next(&RolloutId::from_random(other)).await;
    }
    assert_eq!(allocator.next(&rollout).await.sequence_id, allocated.sequence_id + 1);
    assert_eq!(pipeline.finish(&recorder.counters().started).await, 1, "the store takes no span until the end");
}

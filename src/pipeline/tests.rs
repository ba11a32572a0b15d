//! The pipeline with a store that rejects spans.

use super::counters::PipelineCounters;
use super::pending::PendingSpans;
use super::{ObservedState, Pipeline, SpanOptions};
use crate::capture::{CaptureSettings, CommitStatus, ExchangeStart, Recorder, Recording};
use crate::filter::SpanFilter;
use crate::shared_state::{SequenceAllocator, SequenceLease};
use crate::store::memory::MemoryStore;
use crate::store::{
    Appended, BoxFuture, Change, EndedRollouts, FoundRollouts, NumberedSpans, PruneCursor, PruneRequest, PruneSlice,
    Pruned, RolloutCounts, RolloutFilter, RolloutSequenceState, RolloutSummary, SequenceAuthority, SharedStore,
    SpanContent, SpanOutline, SpanPage, SpanPlace, SpanQuery, SpansAt, Statistics, Store, StoreError, StoreUsage,
    Vacuum, WordBatch, WordSearch,
};
use crate::trace::exchange::{ConnectionFacts, ExchangeKind, Identity, IdentitySource, RequestHead, TraceContext};
use crate::trace::span::Resource;
use crate::trace::{
    Attempt, AttemptId, AttemptedRollout, Attributes, ResourcesUpdate, Rollout, RolloutId, Span, SpanId, SpanKind,
    Status, TraceId, Worker,
};
use proptest::prelude::*;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;
use tokio::sync::oneshot;

/// A store that takes no span of `poison` for the first `poisoned` appends, and none at all for the first `outage` ones.
struct Picky {
    inner: MemoryStore,
    outage: AtomicU32,
    poisoned: AtomicU32,
    rejection: fn() -> StoreError,
    /// Rollout and sequence id of each span that it took.
    taken: Mutex<Vec<(RolloutId, u64)>>,
}

impl Picky {
    fn new(outage: u32) -> Self {
        let inner = MemoryStore::new(crate::store::Retention::default());
        let (outage, poisoned) = (AtomicU32::new(outage), AtomicU32::new(u32::MAX));
        Self { inner, outage, poisoned, rejection: || StoreError::Closed, taken: Mutex::default() }
    }
}

fn counts_down(left: &AtomicU32) -> bool {
    left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
}

type Answer<'a, T> = BoxFuture<'a, crate::store::Result<T>>;

impl Store for Picky {
    fn append(&self, spans: Vec<Arc<Span>>) -> Answer<'_, Appended> {
        let is_poisonous = spans.iter().any(|span| span.rollout_id.as_str() == "poison");
        if counts_down(&self.outage) || (is_poisonous && counts_down(&self.poisoned)) {
            return Box::pin(std::future::ready(Err((self.rejection)())));
        }
        self.taken.lock().unwrap().extend(spans.iter().map(|span| (span.rollout_id.clone(), span.sequence_id)));
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
    fn span_page(&self, query: SpanQuery) -> Answer<'_, SpanPage> {
        self.inner.span_page(query)
    }
    fn spans_at(&self, id: RolloutId, places: Vec<SpanPlace>, content: SpanContent) -> Answer<'_, SpansAt> {
        self.inner.spans_at(id, places, content)
    }
    fn span_outlines(&self, rollout: RolloutId, after: u64, limit: usize) -> Answer<'_, Vec<SpanOutline>> {
        self.inner.span_outlines(rollout, after, limit)
    }
    fn spans_by_number(&self, after: u64, limit: usize) -> Answer<'_, NumberedSpans> {
        self.inner.spans_by_number(after, limit)
    }
    fn words_through(&self) -> Answer<'_, u64> {
        self.inner.words_through()
    }
    fn add_words(&self, batch: WordBatch) -> Answer<'_, ()> {
        self.inner.add_words(batch)
    }
    fn find_words(&self, search: WordSearch) -> Answer<'_, FoundRollouts> {
        self.inner.find_words(search)
    }
    fn span(&self, rollout: RolloutId, attempt: AttemptId, span_id: String) -> Answer<'_, Option<Span>> {
        self.inner.span(rollout, attempt, span_id)
    }
    fn rollout_counts(&self, rollouts: Vec<RolloutId>) -> Answer<'_, HashMap<RolloutId, RolloutCounts>> {
        self.inner.rollout_counts(rollouts)
    }
    fn change(&self, change: Change) -> Answer<'_, ()> {
        self.inner.change(change)
    }
    fn attempted_rollouts(&self, filter: RolloutFilter) -> Answer<'_, Vec<AttemptedRollout>> {
        self.inner.attempted_rollouts(filter)
    }
    fn count_rollouts(&self, filter: RolloutFilter) -> Answer<'_, u64> {
        self.inner.count_rollouts(filter)
    }
    fn workers(&self) -> Answer<'_, Vec<Worker>> {
        self.inner.workers()
    }
    fn all_resources(&self) -> Answer<'_, Vec<ResourcesUpdate>> {
        self.inner.all_resources()
    }
    fn trace_owners(&self, traces: Vec<String>) -> Answer<'_, HashMap<String, (RolloutId, AttemptId)>> {
        self.inner.trace_owners(traces)
    }
    fn llm_calls(&self, rollouts: Vec<RolloutId>) -> Answer<'_, HashMap<RolloutId, u64>> {
        self.inner.llm_calls(rollouts)
    }
    fn sequence_authority(&self) -> SequenceAuthority {
        self.inner.sequence_authority()
    }
    fn next_sequences(&self, id: RolloutId, above: u64, count: u64) -> Answer<'_, RolloutSequenceState> {
        self.inner.next_sequences(id, above, count)
    }
    fn take_sequence(&self, id: &RolloutId, at_least: u64) -> u64 {
        self.inner.take_sequence(id, at_least)
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
    fn usage(&self) -> Answer<'_, StoreUsage> {
        self.inner.usage()
    }
    fn prune_slice(&self, request: PruneRequest, from: PruneCursor) -> Answer<'_, PruneSlice> {
        self.inner.prune_slice(request, from)
    }
    fn prune_preview(&self, request: PruneRequest) -> Answer<'_, Pruned> {
        self.inner.prune_preview(request)
    }
    fn vacuum(&self, extent: Vacuum) -> Answer<'_, ()> {
        self.inner.vacuum(extent)
    }
    fn close(&self) -> Answer<'_, ()> {
        self.inner.close()
    }
}

fn start(recorder: &Recorder, rollout: &str) -> Recording {
    recorder.start_now(exchange_start(rollout, 1, SequenceLease::default()))
}

fn exchange_start(rollout: &str, sequence_id: u64, sequence: SequenceLease) -> ExchangeStart {
    ExchangeStart {
        identity: Identity {
            rollout_id: rollout.into(),
            attempt_id: "at".into(),
            sequence_id,
            source: IdentitySource::Headers,
            conflict: None,
        },
        trace: TraceContext {
            trace_id: TraceId::of_attempt(&rollout.into(), &"at".into()),
            span_id: SpanId::from_random(fastrand::u64(1..)),
            parent_id: SpanId::of_attempt_root(&rollout.into(), &"at".into()),
            parent_is_remote: false,
            otel_state: None,
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
        is_required: false,
        records_bodies: false,
        sequence,
    }
}

async fn stored_and_lost(store: Picky, rollouts: &[&str]) -> (u64, u64) {
    let store: SharedStore = Arc::new(store);
    let (recorder, queues) = Recorder::new(CaptureSettings::default(), std::env::temp_dir());
    for rollout in rollouts {
        drop(start(&recorder, rollout));
    }
    let pipeline = Pipeline::start(
        queues,
        Arc::clone(&store),
        &SpanFilter::default(),
        &SpanOptions::default(),
        ObservedState::default(),
    )
    .unwrap();
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
    assert_eq!(stored_and_lost(Picky::new(0), &["a", "poison", "b"]).await, (2, 1));
}

const FULL: fn() -> StoreError = || StoreError::Full { path: "x".into() };
const INVALID: fn() -> StoreError = || StoreError::InvalidData { cause: "x".to_owned() };

#[tokio::test(flavor = "multi_thread")]
async fn a_span_that_fails_because_of_the_stores_state_is_never_lost() {
    // More appends than it takes to find a span that the store rejects.
    let store = Picky { poisoned: AtomicU32::new(8), rejection: FULL, ..Picky::new(0) };
    assert_eq!(stored_and_lost(store, &["a", "poison", "b"]).await, (3, 0));
}

#[tokio::test]
async fn invalid_data_is_lost_at_once() {
    let store: SharedStore = Arc::new(Picky { rejection: INVALID, ..Picky::new(0) });
    for (rollouts, expected) in [(&["poison"] as &[&str], 0), (&["a", "poison", "b"], 2)] {
        let counters = PipelineCounters::default();
        let mut pending = pending(rollouts);
        pending.append(&store, &counters, 0).await.unwrap();
        let counted = [&counters.stored, &counters.lost].map(|counter| counter.load(Ordering::Relaxed));
        assert_eq!((pending.spans.len(), counted), (0, [expected, 1]));
    }
}

fn pending(rollouts: &[&str]) -> PendingSpans {
    let span = |rollout: &&str| Span {
        rollout_id: (*rollout).into(),
        attempt_id: "at".into(),
        sequence_id: 1,
        trace_id: "1".repeat(32),
        span_id: "2".repeat(16),
        parent_id: None,
        name: "GET".to_owned(),
        kind: Some(SpanKind::Client),
        status: Status::default(),
        attributes: Attributes::new(),
        events: Vec::new(),
        links: Vec::new(),
        start_time: None,
        end_time: None,
        context: None,
        parent: None,
        resource: Resource::default(),
    };
    PendingSpans { spans: rollouts.iter().map(span).map(Arc::new).collect(), ..PendingSpans::default() }
}

#[tokio::test]
async fn a_waiting_response_learns_what_became_of_spans_that_were_stored_one_by_one() {
    for (poisoned, expected) in [(1, CommitStatus::Committed), (u32::MAX, CommitStatus::NotCommitted)] {
        let store: SharedStore = Arc::new(Picky { poisoned: AtomicU32::new(poisoned), ..Picky::new(0) });
        let mut pending = pending(&["a", "poison", "b"]);
        let (sender, committed) = oneshot::channel();
        pending.waiting.push(sender);
        // A batch that has failed often enough.
        pending.append(&store, &PipelineCounters::default(), 3).await.unwrap();
        assert_eq!(committed.await, Ok(expected));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_loses_nothing() {
    assert_eq!(stored_and_lost(Picky::new(6), &["a", "b", "c"]).await, (3, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_id_of_a_span_that_waits_for_the_store_is_not_allocated_again() {
    let store: SharedStore = Arc::new(Picky::new(u32::MAX));
    let (recorder, queues) = Recorder::new(CaptureSettings::default(), std::env::temp_dir());
    let pipeline =
        Pipeline::start(queues, store, &SpanFilter::default(), &SpanOptions::default(), ObservedState::default())
            .unwrap();
    let allocator = SequenceAllocator::without_store();
    let rollout = RolloutId::from("a");
    let allocated = allocator.next(&rollout).await;
    drop(recorder.start_now(exchange_start("a", allocated.sequence_id, allocated.lease)));
    // More rollouts than the allocator keeps.
    for other in 0..1 << 16 {
        allocator.next(&RolloutId::from_random(other)).await;
    }
    assert_eq!(allocator.next(&rollout).await.sequence_id, allocated.sequence_id + 1);
    assert_eq!(pipeline.finish(&recorder.counters().started).await, 1, "the store takes no span until the end");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    /// Workers store the exchanges of different rollouts at the same time, and those of one in their order, also when more of them
    /// wait than one append takes.
    #[test]
    fn a_rollouts_exchanges_stay_in_order(
        rollouts in prop::collection::vec(0_u8..20, 1..4000),
        outage in 0_u32..3,
        workers in prop::sample::select(vec![1_usize, 2, 8]),
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        let store = Arc::new(Picky::new(outage));
        runtime.block_on(async {
            let settings = CaptureSettings { workers, ..CaptureSettings::default() };
            let (recorder, queues) = Recorder::new(settings, std::env::temp_dir());
            let (shared, options): (SharedStore, _) = (Arc::<Picky>::clone(&store), SpanOptions::default());
            let pipeline = Pipeline::start(queues, shared, &SpanFilter::default(), &options, ObservedState::default()).unwrap();
            let mut counts: HashMap<u8, u64> = HashMap::new();
            for rollout in &rollouts {
                let count = counts.entry(*rollout).or_default();
                *count += 1;
                drop(recorder.start_now(exchange_start(&format!("ro-{rollout}"), *count, SequenceLease::default())));
            }
            prop_assert_eq!(pipeline.finish(&recorder.counters().started).await, 0);
            Ok(())
        })?;
        let mut counts: HashMap<RolloutId, u64> = HashMap::new();
        let taken = store.taken.lock().unwrap();
        prop_assert_eq!(taken.len(), rollouts.len());
        for (rollout, sequence_id) in taken.iter() {
            let count = counts.entry(rollout.clone()).or_default();
            *count += 1;
            prop_assert_eq!(*sequence_id, *count);
        }
    }
}

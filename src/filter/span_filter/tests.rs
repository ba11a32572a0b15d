//! Tests of the filter with a store in memory.

use super::*;
use crate::store::memory::MemoryStore;
use crate::store::{Retention, StoreExt};
use crate::trace::semconv as names;
use serde_json::json;

fn span(id: u64) -> Arc<Span> {
    let span = json!({"rollout_id": "r", "attempt_id": "a", "sequence_id": id, "trace_id": "t", "span_id": id.to_string(),
        "parent_id": null, "name": "x", "status": {"status_code": "UNSET", "description": null}, "attributes": {},
        "events": [], "links": [], "start_time": null, "end_time": null, "context": null, "parent": null,
        "resource": {"attributes": {}, "schema_url": ""}});
    Arc::new(serde_json::from_value(span).unwrap())
}

async fn append(filter: &SpanFilter, store: &SharedStore, ids: std::ops::Range<u64>) -> (u64, u64) {
    let FilteredSpans { spans, removed, added } = filter.apply(ids.map(span).collect()).await;
    store.append(spans).await.unwrap();
    (removed, added)
}

async fn counts(store: &SharedStore) -> Vec<i64> {
    let spans = store.spans("r".into(), None).await.unwrap();
    spans.iter().filter_map(|span| span.attributes.get(names::NOT_STORED_SPANS)?.as_int()).collect()
}

fn filter(store: &SharedStore) -> SpanFilter {
    let limits = LimitSettings { max_rollout_spans: 2, ..LimitSettings::default() };
    SpanFilter::new(limits, &SamplingSettings::default(), Arc::clone(store))
}

#[tokio::test]
async fn counts_are_stored_when_their_rollout_ends_but_not_after_its_removal() {
    let store: SharedStore = Arc::new(MemoryStore::new(Retention::default()));
    let filter = filter(&store);
    let inner = filter.0.as_ref().unwrap();
    assert_eq!(append(&filter, &store, 0..5).await, (3, 1));
    assert_eq!(append(&filter, &store, 5..9).await, (4, 0));
    assert_eq!(counts(&store).await, [3]);
    inner.end(&"r".into()).await;
    assert_eq!(counts(&store).await, [3, 4]);
    assert_eq!(append(&filter, &store, 9..10).await, (1, 0));
    store.change(Box::new(|records| records.remove_rollout(&"r".into()).map(drop))).await.unwrap();
    inner.end(&"r".into()).await;
    filter.finish().await;
    assert!(store.rollout("r".into()).await.unwrap().is_none(), "a count has created the rollout again");
    // Its id may be used again.
    assert_eq!(append(&filter, &store, 0..3).await, (1, 1));
}

#[tokio::test]
async fn counts_that_do_not_arrive_are_stored_later() {
    let store: SharedStore = Arc::new(MemoryStore::new(Retention::default()));
    let filter = filter(&store);
    let filtered = filter.apply((0..5).map(span).collect()).await;
    // The append fails, or its caller goes away.
    drop(filter.sent_counts(&filtered));
    filter.finish().await;
    let stored = counts(&store).await;
    assert_eq!(stored.iter().sum::<i64>(), i64::try_from(filtered.removed).unwrap());
    filter.sent_counts(&filtered).arrived();
    filter.finish().await;
    assert_eq!(counts(&store).await, stored);
}

#[tokio::test]
async fn spans_are_kept_if_the_store_does_not_answer() {
    let store: SharedStore = Arc::new(MemoryStore::new(Retention::default()));
    let filter = filter(&store);
    store.close().await.unwrap();
    let FilteredSpans { spans, removed, added } = filter.apply((0..5).map(span).collect()).await;
    assert_eq!((spans.len(), removed, added), (5, 0, 0));
}

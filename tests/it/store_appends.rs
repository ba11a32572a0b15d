//! Appends to a PostgreSQL store at the same time: each has its own result, whatever others do.

use crate::support::postgres::{connect, database};
use crate::support::store::{no_tls, shared, span};
use std::sync::Arc;
use tokio::task::JoinSet;
use tracewire::store::postgres::{PostgresOptions, PostgresStore};
use tracewire::store::{Appended, Store, StoreError, StoreExt};
use tracewire::trace::{Rollout, Timestamp};

async fn open(url: &str) -> Arc<PostgresStore> {
    Arc::new(PostgresStore::open(url, no_tls(), PostgresOptions::default()).await.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn rejected_spans_do_not_reject_others() {
    let store = open(&database()).await;
    let mut appends = JoinSet::new();
    for number in 0..12_u64 {
        let store = Arc::clone(&store);
        let id = if number % 4 == 0 { "\0".to_owned() } else { number.to_string() };
        appends.spawn(async move { (number, store.append(shared([span("r", "a", number, &id)])).await) });
    }
    for (number, appended) in appends.join_all().await {
        match appended {
            Err(StoreError::InvalidData { .. }) => assert_eq!(number % 4, 0),
            appended => assert_eq!(appended.unwrap(), Appended { stored: 1, duplicates: 0 }, "{number}"),
        }
    }
    assert_eq!(store.spans("r".into(), None).await.unwrap().len(), 9);
}

/// Two programs append the same spans of many rollouts in opposite orders: each span is stored once, and each is counted by one.
#[tokio::test(flavor = "multi_thread")]
async fn programs_that_store_the_same_spans_store_each_once() {
    let url = database();
    let (one, other) = (open(&url).await, open(&url).await);
    let mut appends = JoinSet::new();
    for batch in 0..20 {
        for (store, is_reversed) in [(&one, false), (&other, true)] {
            let store = Arc::clone(store);
            appends.spawn(async move {
                let mut spans: Vec<_> = (0..30_u64)
                    .map(|number| {
                        let mut span = span(&format!("r{number}"), "a", number, &format!("{batch}-{number}"));
                        span.trace_id = format!("{number:032x}");
                        span.set("text", format!("text {number} ").repeat(100));
                        span
                    })
                    .collect();
                if is_reversed {
                    spans.reverse();
                }
                store.append(shared(spans)).await.unwrap()
            });
        }
    }
    let appended = appends.join_all().await;
    let sum = |of: fn(&Appended) -> usize| appended.iter().map(of).sum::<usize>();
    assert_eq!((sum(|one| one.stored), sum(|one| one.duplicates)), (600, 600));
    for number in [0, 29] {
        let spans = one.spans(format!("r{number}").as_str().into(), None).await.unwrap();
        assert_eq!(spans.len(), 20);
        assert!(spans.iter().all(|span| span.attributes.contains_key("text")));
    }
}

/// A caller that goes away takes no spans of others with it, and later ones are stored.
#[tokio::test(flavor = "multi_thread")]
async fn callers_that_go_away_hold_up_no_others() {
    let url = database();
    let store = open(&url).await;
    store.append(shared([span("r", "a", 1, "first")])).await.unwrap();
    let session = connect(&url).await;
    session.batch_execute("BEGIN; SELECT 1 FROM rollout WHERE rollout_id = 'r' FOR UPDATE").await.unwrap();
    let mut appends = JoinSet::new();
    let mut leaving = JoinSet::new();
    for number in 0..12_u64 {
        let (store, id) = (Arc::clone(&store), number.to_string());
        let append = async move { store.append(shared([span("r", "a", number, &id)])).await.unwrap() };
        if number % 2 == 0 {
            appends.spawn(append)
        } else {
            leaving.spawn(append)
        };
    }
    tokio::task::yield_now().await;
    leaving.shutdown().await;
    session.batch_execute("COMMIT").await.unwrap();
    assert!(appends.join_all().await.iter().all(|one| one.stored == 1));
    let stored = store.spans("r".into(), None).await.unwrap();
    assert!((7..=13).contains(&stored.len()), "{}", stored.len());
}

/// Attempts that only spans name are numbered in a batch as one by one.
#[tokio::test]
async fn attempts_of_a_batch_are_numbered() {
    let store = open(&database()).await;
    let numbers = async |rollout: &str| {
        let attempts = store.attempts(rollout.into()).await.unwrap();
        let mut numbers: Vec<_> =
            attempts.into_iter().map(|one| (one.attempt_id.to_string(), one.sequence_id)).collect();
        numbers.sort();
        numbers.into_iter().map(|(id, number)| format!("{id}{number}")).collect::<Vec<_>>().join(" ")
    };
    store.upsert_rollout(Rollout::running("registered".into(), Timestamp::default())).await.unwrap();
    for rollout in ["registered", "named"] {
        let batch = |attempts: &[&str]| {
            let spans = attempts.iter().zip(1..).map(|(attempt, number)| span(rollout, attempt, number, attempt));
            shared(spans.collect::<Vec<_>>())
        };
        store.append(batch(&["b", "a", "c", "a"])).await.unwrap();
        store.append(batch(&["d", "b"])).await.unwrap();
    }
    assert_eq!(numbers("registered").await, "a1 b0 c0 d0");
    assert_eq!(numbers("named").await, "a1 b2 c3 d4");
}

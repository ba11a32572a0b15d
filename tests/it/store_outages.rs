//! What the PostgreSQL store and its spool do while the server is away, read-only, silent, or rejects data.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests, outside the functions clippy takes for tests")]

use crate::support::postgres::{Access, connect, database, execute, set_access};
use crate::support::store::{no_tls, shared, span};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tracewire::store::postgres::{PostgresOptions, PostgresStore};
use tracewire::store::spool::SpooledStore;
use tracewire::store::{Appended, Store, StoreError, StoreExt};

async fn open(url: &str) -> PostgresStore {
    PostgresStore::open(url, no_tls(), PostgresOptions::default()).await.unwrap()
}

async fn open_spooled(url: &str, folder: &Path) -> SpooledStore {
    SpooledStore::new(Arc::new(open(url).await), folder, 2 << 20).unwrap()
}

/// Polls until `condition` holds. A test that does not reach it runs into the harness's timeout.
async fn until(mut condition: impl AsyncFnMut() -> bool) {
    while !condition().await {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Until the spool's file is gone.
async fn until_drained(store: &SpooledStore) {
    until(async || store.statistics().await.is_ok_and(|statistics| statistics.waiting == 0)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn spans_wait_while_the_server_is_away() {
    let (url, folder) = (database(), tempfile::tempdir().unwrap());
    let store = open_spooled(&url, folder.path()).await;
    store.append(shared([span("r", "a", 1, "before")])).await.unwrap();
    set_access(&url, Access::Nothing);
    let away = store.rollouts(1).await.unwrap_err();
    assert!(matches!(away, StoreError::Unreachable { .. }), "{away}");
    let kept = store.append(shared([span("r", "a", 2, "during"), span("s", "a", 1, "too")])).await.unwrap();
    assert_eq!(kept, Appended { stored: 2, duplicates: 0 });
    // The program ends while the server is away. The next start sends the spans.
    store.close().await.unwrap();
    drop(store);
    set_access(&url, Access::Everything);
    let store = open_spooled(&url, folder.path()).await;
    let spans = async |rollout: &str| store.spans(rollout.into(), None).await.unwrap_or_default().len();
    until(async || (spans("r").await, spans("s").await) == (2, 1)).await;
    // Appends fail when the file is full.
    set_access(&url, Access::Nothing);
    let mut tries = 0;
    let refused = loop {
        let mut long = span("r", "a", tries, &format!("long{tries}"));
        long.set("text", (0..4000).map(|_| fastrand::u64(..).to_string()).collect::<String>());
        match store.append(shared([long])).await {
            Ok(_) => tries += 1,
            Err(error) => break error,
        }
    };
    assert!(tries > 5 && matches!(refused, StoreError::Unreachable { .. }), "{tries} {refused}");
    set_access(&url, Access::Everything);
    until_drained(&store).await;
    assert_eq!(spans("r").await, 2 + usize::try_from(tries).unwrap());
}

/// A server that returns read-only (SQLSTATE 25006) takes no spans for a while, and loses none.
#[tokio::test(flavor = "multi_thread")]
async fn a_read_only_server_loses_no_spans() {
    let (url, folder) = (database(), tempfile::tempdir().unwrap());
    let store = open_spooled(&url, folder.path()).await;
    set_access(&url, Access::Nothing);
    let spooled = Appended { stored: 1, duplicates: 0 };
    assert_eq!(store.append(shared([span("r", "a", 1, "away")])).await.unwrap(), spooled);
    set_access(&url, Access::Reads);
    // Closing drains the spool a last time: the server answers, and refuses to write.
    store.close().await.unwrap();
    drop(store);
    set_access(&url, Access::Everything);
    let store = open_spooled(&url, folder.path()).await;
    until_drained(&store).await;
    set_access(&url, Access::Reads);
    // The live path has the same policy.
    assert_eq!(store.append(shared([span("r", "a", 2, "read-only")])).await.unwrap(), spooled);
    set_access(&url, Access::Everything);
    until_drained(&store).await;
    assert_eq!(store.spans("r".into(), None).await.unwrap().len(), 2);
    assert_eq!(store.statistics().await.unwrap().refused, 0);
}

/// PostgreSQL rejects NUL in a text (SQLSTATE 22021). Such a span is dropped and counted; the others of its batch arrive.
#[tokio::test(flavor = "multi_thread")]
async fn only_spans_with_invalid_data_are_dropped() {
    let (url, folder) = (database(), tempfile::tempdir().unwrap());
    let store = open_spooled(&url, folder.path()).await;
    let nul = span("r", "a", 2, "nul\0");
    // Longer than what an index of PostgreSQL takes.
    let long = span("r", "a", 3, &"long ".repeat(1000));
    for invalid in [&nul, &long] {
        let rejected = store.append(shared([invalid.clone()])).await.unwrap_err();
        assert!(matches!(rejected, StoreError::InvalidData { .. }), "{rejected}");
    }
    set_access(&url, Access::Nothing);
    store.append(shared([span("r", "a", 1, "first"), nul, span("r", "a", 4, "last")])).await.unwrap();
    set_access(&url, Access::Everything);
    until_drained(&store).await;
    assert_eq!(store.spans("r".into(), None).await.unwrap().len(), 2);
    assert_eq!(store.statistics().await.unwrap().refused, 1);
}

/// A read that takes too long, or that its caller gives up, is cancelled, and its connection is not used again.
#[tokio::test(flavor = "multi_thread")]
async fn a_read_that_takes_too_long_leaves_no_busy_connection() {
    let url = database();
    let options = PostgresOptions { answer_timeout: Duration::from_millis(200), ..PostgresOptions::default() };
    let store = PostgresStore::open(&url, no_tls(), options).await.unwrap();
    store.append(shared([span("r", "a", 1, "x")])).await.unwrap();
    let mut blocker = connect(&url).await;
    let transaction = blocker.transaction().await.unwrap();
    transaction.batch_execute("LOCK TABLE rollout IN ACCESS EXCLUSIVE MODE").await.unwrap();
    // More than there are connections in the pool.
    for _ in 0..8 {
        let error = store.rollouts(1).await.unwrap_err();
        assert!(matches!(error, StoreError::Unreachable { .. }), "{error}");
        let given_up = tokio::time::timeout(Duration::from_millis(20), store.rollouts(1)).await;
        assert!(given_up.is_err());
        let error = store.change(Box::new(|records| records.rollout(&"r".into()).map(drop))).await.unwrap_err();
        assert!(matches!(error, StoreError::Unreachable { .. }), "{error}");
    }
    // The server ends every cancelled statement though the lock is still held. Only its own session waits for nothing.
    let observer = connect(&url).await;
    let waiting = "SELECT COUNT(*) FROM pg_stat_activity
         WHERE datname = current_database() AND wait_event_type = 'Lock' AND state = 'active'";
    until(async || observer.query_one(waiting, &[]).await.unwrap().get::<_, i64>(0) == 0).await;
    transaction.rollback().await.unwrap();
    for _ in 0..20 {
        assert_eq!(store.rollouts(1).await.unwrap().len(), 1);
    }
}

/// A database of schema version 2 has leftovers of removed rollouts. The migration removes them, and keeps everything else.
#[tokio::test(flavor = "multi_thread")]
async fn an_older_database_loses_its_leftovers() {
    let url = database();
    let store = open(&url).await;
    let mut long = span("r", "a", 1, "x");
    long.set("text", "kept ".repeat(500));
    store.append(shared([long.clone()])).await.unwrap();
    store.close().await.unwrap();
    execute(
        &url,
        "DROP TABLE orphaned_text, export_cursor; ALTER TABLE trace DROP COLUMN last_span; ALTER TABLE span DROP COLUMN is_llm_call;
         INSERT INTO text (hash, parent, data) VALUES ('a', NULL, 'left'), ('b', 'a', 'over');
         INSERT INTO trace (trace_id, rollout_id, attempt_id) VALUES ('gone', 'gone', 'a');
         UPDATE tracewire_schema SET version = 2",
    );
    let store = open(&url).await;
    let client = connect(&url).await;
    let count = async |sql: &str| client.query_one(sql, &[]).await.unwrap().get::<_, i64>(0);
    assert_eq!(count("SELECT COUNT(*) FROM text WHERE data IN ('left', 'over')").await, 0);
    assert_eq!(count("SELECT COUNT(*) FROM orphaned_text").await, 0);
    assert_eq!(count("SELECT COUNT(*) FROM trace").await, 1);
    assert_eq!(store.spans("r".into(), None).await.unwrap(), [long]);
}

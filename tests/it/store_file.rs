//! A SQLite file that is removed, replaced or moved away under a running program, among reads and writes.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests, outside the functions clippy takes for tests")]

use crate::support::store::{shared, span};
use std::path::{Path, PathBuf};
use tempfile::TempDir;
use tokio::task::JoinSet;
use tracewire::store::sqlite::{SqliteOptions, SqliteStore};
use tracewire::store::{Store, StoreExt};

/// Reads at once: more than one connection of the pool takes part.
const READS: usize = 4;

fn store() -> (TempDir, PathBuf, std::sync::Arc<SqliteStore>) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("spans.db");
    let store = std::sync::Arc::new(SqliteStore::open(&path, SqliteOptions::default()).unwrap());
    (folder, path, store)
}

/// The spans of a rollout as another program sees them.
async fn seen_by_others(path: &Path, rollout: &str) -> usize {
    let other = SqliteStore::open_for_reading(path, SqliteOptions::default()).unwrap();
    let count = other.spans(rollout.into(), None).await.unwrap().len();
    other.close().await.unwrap();
    count
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_may_be_replaced_again_and_again_while_it_is_read() {
    let (folder, path, store) = store();
    let backup = folder.path().join("backup.db");
    store.append(shared([span("backup", "a", 1, "x")])).await.unwrap();
    store.statistics().await.unwrap();
    rusqlite::Connection::open(&path).unwrap().execute("VACUUM INTO ?1", [backup.to_str().unwrap()]).unwrap();
    for round in 0..20 {
        let rollout = format!("round-{round}");
        let copy = folder.path().join("copy.db");
        std::fs::copy(&backup, &copy).unwrap();
        std::fs::rename(&copy, &path).unwrap();
        let mut reads = JoinSet::new();
        for _ in 0..READS {
            let store = std::sync::Arc::clone(&store);
            reads.spawn(async move { store.rollouts(10).await.map(|_| ()) });
        }
        while let Some(read) = reads.join_next().await {
            read.unwrap().unwrap();
        }
        store.append(shared([span(&rollout, "a", 1, "x")])).await.unwrap();
        assert_eq!(store.spans(rollout.as_str().into(), None).await.unwrap().len(), 1);
        assert_eq!(store.spans("backup".into(), None).await.unwrap().len(), 1);
        assert_eq!(seen_by_others(&path, &rollout).await, 1, "in round {round}");
        assert_eq!(store.statistics().await.unwrap().lost_files, round + 1);
    }
    store.close().await.unwrap();
    assert_eq!(seen_by_others(&path, "round-19").await, 1);
}

/// A store with one rollout, `before`, and a file that was moved away. Returns the new path last.
async fn moved_away() -> (TempDir, PathBuf, std::sync::Arc<SqliteStore>, PathBuf) {
    let (folder, path, store) = store();
    store.append(shared([span("before", "a", 1, "x")])).await.unwrap();
    let moved = folder.path().join("moved.db");
    std::fs::rename(&path, &moved).unwrap();
    (folder, path, store, moved)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_moved_away_takes_all_its_spans_with_it() {
    let (_folder, path, store, moved) = moved_away().await;
    store.append(shared([span("after", "a", 1, "x")])).await.unwrap();
    assert_eq!(seen_by_others(&moved, "before").await, 1);
    assert_eq!(seen_by_others(&path, "before").await, 0);
    assert_eq!(seen_by_others(&path, "after").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_replaced_before_the_end_stays_as_it_is() {
    let (_folder, path, store, moved) = moved_away().await;
    let next = SqliteStore::open(&path, SqliteOptions::default()).unwrap();
    next.append(shared([span("next", "a", 1, "x")])).await.unwrap();
    store.close().await.unwrap();
    next.append(shared([span("next", "a", 2, "y")])).await.unwrap();
    assert_eq!(seen_by_others(&path, "next").await, 2);
    assert_eq!(seen_by_others(&moved, "before").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_does_not_give_up_a_file_whose_folder_is_away_for_a_while() {
    let parent = tempfile::tempdir().unwrap();
    let (folder, away) = (parent.path().join("store"), parent.path().join("away"));
    let path = folder.join("spans.db");
    let store = SqliteStore::open(&path, SqliteOptions::default()).unwrap();
    store.append(shared([span("before", "a", 1, "x")])).await.unwrap();
    std::fs::rename(&folder, &away).unwrap();
    // No connection for reading is open yet.
    assert!(store.spans("before".into(), None).await.is_err());
    store.append(shared([span("meanwhile", "a", 1, "x")])).await.unwrap();
    assert!(!folder.exists(), "the folder is not made anew");
    std::fs::rename(&away, &folder).unwrap();
    for rollout in ["before", "meanwhile"] {
        assert_eq!(store.spans(rollout.into(), None).await.unwrap().len(), 1, "{rollout}");
    }
    store.append(shared([span("after", "a", 1, "x")])).await.unwrap();
    store.close().await.unwrap();
    for rollout in ["before", "meanwhile", "after"] {
        assert_eq!(seen_by_others(&path, rollout).await, 1, "{rollout}");
    }
}

#[tokio::test]
async fn a_damaged_record_costs_that_record_only() {
    let (_folder, path, store) = store();
    let mut long = span("r", "a", 2, "y");
    long.set("long", "words ".repeat(10_000));
    store.append(shared([span("r", "a", 1, "x"), long, span("r", "a", 3, "z")])).await.unwrap();
    let file = rusqlite::Connection::open(&path).unwrap();
    for damage in ["record = 'text'", "record = x'00ff'", "record = x'01ff'", "record = NULL, json = '{}'"] {
        file.execute(&format!("UPDATE span SET {damage} WHERE sequence_id = 1"), []).unwrap();
        let spans = store.spans("r".into(), None).await.unwrap();
        assert_eq!(spans.iter().map(|span| span.sequence_id).collect::<Vec<_>>(), [1, 2, 3], "{damage}");
        assert_eq!(
            (spans[0].name.as_str(), &spans[0].span_id, spans[0].is_error()),
            ("damaged record", &span("r", "a", 1, "x").span_id, true)
        );
        assert!(
            spans[1].attributes.contains_key("long") && !spans[1].attributes.contains_key("tracewire.record.damaged")
        );
    }
    file.execute("UPDATE text SET data = x'00'", []).unwrap();
    // The connections of the first store have the text from before, which they have verified.
    assert_eq!(store.spans("r".into(), None).await.unwrap()[1].attributes["long"], "words ".repeat(10_000).into());
    let other = SqliteStore::open_for_reading(&path, SqliteOptions::default()).unwrap();
    let spans = other.spans("r".into(), None).await.unwrap();
    assert_eq!(spans[1].attributes["tracewire.record.damaged"], vec!["long".to_owned()].into());
    assert_eq!(spans[2], span("r", "a", 3, "z"));
    // Five reads of one damaged record, and one of two.
    let counts = [store.statistics().await.unwrap(), other.statistics().await.unwrap()];
    assert_eq!(counts.map(|statistics| statistics.damaged_reads), [5, 2]);
}

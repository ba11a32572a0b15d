//! After a removal or a prune, every table of every store is bounded by what is left, and what was removed is unreadable.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests, outside the functions clippy takes for tests")]

use crate::support::postgres::{connect, database};
use crate::support::store::{no_tls, shared, span};
use aho_corasick::AhoCorasick;
use rusqlite::Connection;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::task::JoinSet;
use tracewire::rollout::{NewRollout, Rollouts};
use tracewire::store::memory::MemoryStore;
use tracewire::store::postgres::{PostgresOptions, PostgresStore};
use tracewire::store::sqlite::{SqliteOptions, SqliteStore};
use tracewire::store::{Retention, SharedStore, StoreExt};
use tracewire::trace::{Rollout, RolloutStatus, Span, Timestamp};

/// Where a store's content is, to look at it from outside.
enum Backend {
    Sqlite(TempDir),
    Postgres(String),
}

impl Backend {
    fn sqlite() -> Self {
        Self::Sqlite(tempfile::tempdir().unwrap())
    }

    fn postgres() -> Self {
        Self::Postgres(database())
    }

    async fn open(&self, retention: Retention) -> SharedStore {
        match self {
            Self::Sqlite(folder) => {
                let options = SqliteOptions { retention, ..SqliteOptions::default() };
                Arc::new(SqliteStore::open(&file(folder), options).unwrap())
            }
            Self::Postgres(url) => {
                let options = PostgresOptions { retention, ..PostgresOptions::default() };
                Arc::new(PostgresStore::open(url, no_tls(), options).await.unwrap())
            }
        }
    }

    /// The rows of every table that the database has, so that a new table is covered too.
    async fn rows(&self) -> BTreeMap<String, u64> {
        let count = |table: &str| format!("SELECT COUNT(*) FROM {table}");
        match self {
            Self::Sqlite(folder) => {
                let connection = Connection::open(file(folder)).unwrap();
                let sql = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite%'";
                let mut statement = connection.prepare(sql).unwrap();
                let tables: Vec<String> =
                    statement.query_map([], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap();
                let rows =
                    |table: &String| connection.query_row(&count(table), [], |row| row.get::<_, i64>(0)).unwrap();
                tables.iter().map(|table| (table.clone(), rows(table) as u64)).collect()
            }
            Self::Postgres(url) => {
                let client = connect(url).await;
                let sql = "SELECT table_name::TEXT FROM information_schema.tables WHERE table_schema = 'public'";
                let mut all = BTreeMap::new();
                for row in client.query(sql, &[]).await.unwrap() {
                    let table: String = row.get(0);
                    let rows: i64 = client.query_one(&count(&table), &[]).await.unwrap().get(0);
                    all.insert(table, rows as u64);
                }
                all
            }
        }
    }
}

fn file(folder: &TempDir) -> PathBuf {
    folder.path().join("spans.db")
}

/// Tables that removals do not empty: versions, and the log of ended rollouts with its counter, which has ids only.
const LASTING: [&str; 4] = ["tracewire_schema", "terminal", "terminal_count", "row_count"];

const SPANS: u64 = 1500;

fn trace(number: u64) -> String {
    format!("{number:032x}")
}

/// Spans with distinct traces, attempts and texts, in a registered rollout, an unregistered one, the unassigned one, and
/// rollouts with one span.
fn spans() -> Vec<Span> {
    (0..SPANS)
        .map(|number| {
            let rollout = match number % 4 {
                0 => "registered".to_owned(),
                1 => "unregistered".to_owned(),
                2 => "unassigned".to_owned(),
                _ => format!("ro-{number}"),
            };
            let mut span = span(&rollout, &format!("at-{number}"), number, &format!("s{number}"));
            span.trace_id = trace(number);
            let mut random = fastrand::Rng::with_seed(number);
            let text: String = (0..1500).map(|_| random.alphanumeric()).collect();
            span.set("short", format!("MARKER-{number}-"));
            span.set("text", text);
            // Shared by some of them.
            span.set(
                "gen_ai.input.messages",
                format!("[{{\"content\":\"{}\"}}]", "same ".repeat(200 + number as usize % 3)),
            );
            span
        })
        .collect()
}

/// Registers a rollout, which has ended so that its spans can go, and puts another into the queue.
async fn register(store: &SharedStore) {
    let ended =
        Rollout { status: RolloutStatus::Succeeded, ..Rollout::running("registered".into(), Timestamp::default()) };
    store.upsert_rollout(ended).await.unwrap();
    let new =
        NewRollout { input: json!("MARKER-of-queued-"), mode: None, resources_id: None, config: None, metadata: None };
    Rollouts::new(Arc::clone(store)).enqueue(vec![new]).await.unwrap();
}

async fn remove_all(store: &SharedStore) {
    let rollouts = Rollouts::new(Arc::clone(store));
    for summary in store.rollouts(usize::MAX).await.unwrap() {
        rollouts.remove(summary.rollout.rollout_id).await.unwrap();
    }
}

async fn every_table_is_bounded(backend: &Backend) {
    let store = backend.open(Retention::default()).await;
    register(&store).await;
    for batch in spans().chunks(100) {
        store.append(shared(batch.to_vec())).await.unwrap();
    }
    let before = backend.rows().await;
    for table in ["span", "trace", "attempt", "text", "span_text"] {
        assert!(before[table] >= SPANS / 2, "{before:?}");
    }
    // Sent again with other texts, which nothing would refer to.
    let mut duplicates = spans();
    duplicates.truncate(50);
    for (number, span) in duplicates.iter_mut().enumerate() {
        span.set("text", format!("{number} ").repeat(1000));
    }
    assert_eq!(store.append(shared(duplicates)).await.unwrap().duplicates, 50);
    assert_eq!(backend.rows().await, before);
    store.close().await.unwrap();
    let store = backend.open(Retention { max_spans: 20, ..Retention::default() }).await;
    store.prune().await.unwrap();
    let after = backend.rows().await;
    let left = after["span"];
    assert!((1..=20).contains(&left), "{after:?}");
    for (table, rows) in &after {
        // A span has at most two texts; two rollouts were registered.
        let bound = 2 * left + 2;
        assert!(*rows <= bound, "{table} has {rows} rows for {left} spans; before: {before:?}");
    }
    assert_eq!(after["trace"] + store.spans("unassigned".into(), None).await.unwrap().len() as u64, left);
    remove_all(&store).await;
    let empty = backend.rows().await;
    for (table, rows) in &empty {
        assert!(*rows == 0 || LASTING.contains(&table.as_str()), "{table} has {rows} rows: {empty:?}");
    }
}

#[tokio::test]
async fn every_table_of_sqlite_is_bounded() {
    every_table_is_bounded(&Backend::sqlite()).await;
}

#[tokio::test]
async fn every_table_of_postgresql_is_bounded() {
    every_table_is_bounded(&Backend::postgres()).await;
}

#[tokio::test]
async fn the_memory_store_is_bounded() {
    let store: SharedStore = Arc::new(MemoryStore::new(Retention { max_spans: 20, ..Retention::default() }));
    register(&store).await;
    for batch in spans().chunks(100) {
        store.append(shared(batch.to_vec())).await.unwrap();
    }
    let left = store.statistics().await.unwrap();
    assert!((1..=20).contains(&left.spans), "{left:?}");
    assert!(left.attempts <= left.spans + 2 && left.rollouts <= left.spans + 2, "{left:?}");
    let owners = store.trace_owners((0..SPANS).map(trace).collect()).await.unwrap();
    assert!(owners.len() as u64 <= left.spans, "{} owners", owners.len());
    remove_all(&store).await;
    let left = store.statistics().await.unwrap();
    assert_eq!((left.spans, left.rollouts, left.attempts, left.size_bytes), (0, 0, 0, 0));
    assert!(store.trace_owners((0..SPANS).map(trace).collect()).await.unwrap().is_empty());
}

/// The patterns that are somewhere in the files of a SQLite store.
fn found(path: &Path, patterns: &[Vec<u8>]) -> BTreeSet<usize> {
    let search = AhoCorasick::new(patterns).unwrap();
    let mut found = BTreeSet::new();
    for suffix in ["", "-wal", "-shm"] {
        let mut path = path.to_owned().into_os_string();
        path.push(suffix);
        let bytes = std::fs::read(path).unwrap_or_default();
        found.extend(search.find_overlapping_iter(&bytes).map(|hit| hit.pattern().as_usize()));
    }
    found
}

/// Removed spans are neither in the file nor in its log: no attributes, no compressed texts.
#[tokio::test]
async fn removed_content_is_not_in_the_files_of_sqlite() {
    let backend = Backend::sqlite();
    let Backend::Sqlite(folder) = &backend else { unreachable!() };
    let path = file(folder);
    let store = backend.open(Retention::default()).await;
    register(&store).await;
    let mut all = spans();
    fastrand::Rng::with_seed(7).shuffle(&mut all);
    for batch in all.chunks(100) {
        store.append(shared(batch.to_vec())).await.unwrap();
    }
    let mut markers: Vec<Vec<u8>> = all.iter().map(|span| span.attributes["short"].as_str().unwrap().into()).collect();
    markers.push("MARKER-of-queued-".into());
    // Of each packed text, enough bytes to recognise it.
    let texts: Vec<Vec<u8>> = {
        let connection = Connection::open(&path).unwrap();
        let mut statement =
            connection.prepare("SELECT substr(data, 100, 40) FROM text WHERE length(data) > 600").unwrap();
        statement.query_map([], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap()
    };
    assert!(texts.len() as u64 >= SPANS);
    let counts = || (found(&path, &markers).len(), found(&path, &texts).len());
    assert_eq!(counts(), (markers.len(), texts.len()));
    // A part of the rollouts, one after the other. The last copies go while the store is open and idle.
    let rollouts = Rollouts::new(Arc::clone(&store));
    for number in (3..SPANS).step_by(8) {
        rollouts.remove(format!("ro-{number}").as_str().into()).await.unwrap();
    }
    let left = store.statistics().await.unwrap().spans as usize;
    assert!(left < SPANS as usize);
    while counts() != (left + 1, left) {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    store.close().await.unwrap();
    // Then the oldest, by a limit. The last copies go when the store is closed.
    let store = backend.open(Retention { max_spans: 500, ..Retention::default() }).await;
    store.prune().await.unwrap();
    // The store removes some by itself too.
    let kept = store.statistics().await.unwrap().spans as usize;
    assert!(kept > 0 && kept < left);
    store.close().await.unwrap();
    assert_eq!(counts(), (kept + 1, kept));
    // Then everything.
    let store = backend.open(Retention::default()).await;
    remove_all(&store).await;
    store.close().await.unwrap();
    assert_eq!(counts(), (0, 0));
}

/// Spans of other rollouts keep the pieces that they share with removed ones, also with spans that are being stored.
async fn shared_texts_survive(store: SharedStore) {
    let long = |rollout: &str, id: &str, messages: usize| {
        let mut span = span(rollout, "a", 1, id);
        let all: Vec<String> =
            (0..messages).map(|number| format!("{{\"content\":\"{}\"}}", number.to_string().repeat(600))).collect();
        span.set("gen_ai.input.messages", format!("[{}]", all.join(",")));
        span
    };
    let mut writers = JoinSet::new();
    for writer in 0..6 {
        let store = Arc::clone(&store);
        writers.spawn(async move {
            let rollouts = Rollouts::new(Arc::clone(&store));
            for round in 0..12 {
                let (kept, removed) = (format!("kept-{writer}-{round}"), format!("removed-{writer}-{round}"));
                store.append(shared([long(&removed, "x", 4 + round % 3)])).await.unwrap();
                let removing = rollouts.remove(removed.as_str().into());
                let (stored, removed) = tokio::join!(store.append(shared([long(&kept, "x", 5)])), removing);
                assert_eq!((stored.unwrap().stored, removed.unwrap()), (1, 1));
                if round % 2 == 0 {
                    rollouts.remove(kept.as_str().into()).await.unwrap();
                }
            }
        });
    }
    writers.join_all().await;
    for writer in 0..6 {
        for round in (1..12).step_by(2) {
            let kept = format!("kept-{writer}-{round}");
            assert_eq!(store.spans(kept.as_str().into(), None).await.unwrap(), [long(&kept, "x", 5)]);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn shared_texts_of_sqlite_survive_removals() {
    shared_texts_survive(Backend::sqlite().open(Retention::default()).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn shared_texts_of_postgresql_survive_removals() {
    let backend = Backend::postgres();
    let store = backend.open(Retention::default()).await;
    shared_texts_survive(Arc::clone(&store)).await;
    remove_all(&store).await;
    assert_eq!(backend.rows().await["text"], 0);
}

//! `tracewire store`: what it prints of stores of both kinds, also while a server uses them.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests, outside the functions clippy takes for tests")]

use crate::support::collector::{span_ids, store_spans};
use crate::support::postgres::database;
use crate::support::store::{START_NANOS, no_tls, shared, span};
use crate::support::{Bench, text, tracewire};
use rusqlite::Connection;
use serde_json::{Value as JsonValue, json};
use std::path::Path;
use std::process::Output;
use std::sync::Arc;
use tracewire::store::postgres::{PostgresOptions, PostgresStore};
use tracewire::store::sqlite::{SqliteOptions, SqliteStore};
use tracewire::store::{SharedStore, StoreExt};
use tracewire::trace::{Rollout, RolloutStatus, Timestamp};

/// Runs `tracewire store ARGUMENTS --store STORE`.
fn upkeep(home: &Path, store: &str, arguments: &[&str]) -> Output {
    tracewire(home).arg("store").args(arguments).args(["--store", store]).output().unwrap()
}

/// The JSON that a successful command prints.
fn printed(output: &Output) -> JsonValue {
    assert!(output.status.success(), "{}", text(output));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The message of a command that failed.
fn message(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(2), "{}", text(output));
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn sqlite(path: &Path) -> SharedStore {
    Arc::new(SqliteStore::open(path, SqliteOptions::default()).unwrap())
}

async fn postgres(url: &str) -> SharedStore {
    Arc::new(PostgresStore::open(url, no_tls(), PostgresOptions::default()).await.unwrap())
}

/// Three rollouts: one that runs, one that failed, one that only spans name. Two spans share a long text.
async fn fill(store: &SharedStore) {
    for (id, status) in [("running", RolloutStatus::Running), ("failed", RolloutStatus::Failed)] {
        store.upsert_rollout(Rollout { status, ..Rollout::running(id.into(), Timestamp::default()) }).await.unwrap();
    }
    for (rollout, number) in [("running", 1), ("failed", 2), ("named", 3)] {
        let mut span = span(rollout, "a", number, "x");
        span.set("text", if number == 3 { "its own ".repeat(300) } else { "shared ".repeat(300) });
        store.append(shared([span])).await.unwrap();
    }
}

fn shows_the_whole_store(stats: &JsonValue) {
    assert_eq!((&stats["rollouts"], &stats["attempts"], &stats["spans"]), (&json!(3), &json!(3), &json!(3)));
    assert_eq!(stats["rollouts_by_status"], json!({ "running": 2, "failed": 1 }));
    let secs = |number: u64| Timestamp::from_unix_nanos(START_NANOS + number + 7).unix_secs();
    assert_eq!((stats["oldest_span"].as_f64(), stats["newest_span"].as_f64()), (Some(secs(1)), Some(secs(3))));
    let bytes = &stats["bytes"];
    let (total, pieces) = (bytes["total"].as_u64().unwrap(), bytes["pieces"].as_u64().unwrap());
    assert!(pieces > 0 && total > pieces, "{stats:#}");
}

/// The program that writes has the file open.
#[tokio::test(flavor = "multi_thread")]
async fn stats_of_a_file_in_use() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("traces.db");
    let store = sqlite(&path);
    fill(&store).await;
    let stats = printed(&upkeep(home.path(), path.to_str().unwrap(), &["stats", "--json"]));
    shows_the_whole_store(&stats);
    let connection = Connection::open(&path).unwrap();
    let number = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
    assert_eq!(stats["schema_version"].as_i64(), Some(number("PRAGMA user_version")));
    assert_eq!(stats["pieces"].as_i64(), Some(number("SELECT COUNT(*) FROM text")));
    assert_eq!(stats["bytes"]["pieces"].as_i64(), Some(number("SELECT SUM(LENGTH(data)) FROM text")));
    assert!(stats["bytes"]["log"].as_u64() > Some(0) && stats["bytes"]["spool"].is_null());
    // What a removal takes along is no longer counted.
    store.transaction(|records| records.remove_rollout(&"named".into())).await.unwrap();
    let stats = printed(&upkeep(home.path(), path.to_str().unwrap(), &["stats", "--json"]));
    assert_eq!(stats["bytes"]["pieces"].as_i64(), Some(number("SELECT SUM(LENGTH(data)) FROM text")));
    assert_eq!(stats["spans"], 2);
    store.close().await.unwrap();
    let output = upkeep(home.path(), path.to_str().unwrap(), &["stats"]);
    let table = String::from_utf8_lossy(&output.stdout);
    for part in ["(SQLite, schema version ", "1 running, 1 failed", "the oldest ended ", "on disk", "1 piece, "] {
        assert!(table.contains(part), "{part} is not in {}", text(&output));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn stats_of_a_server_in_use() {
    let (home, url) = (tempfile::tempdir().unwrap(), database());
    let store = postgres(&url).await;
    fill(&store).await;
    let stats = printed(&upkeep(home.path(), &url, &["stats", "--json"]));
    shows_the_whole_store(&stats);
    assert_eq!((&stats["kind"], &stats["bytes"]["spool"]), (&json!("postgresql"), &json!(0)));
    assert!(stats["schema_version"].as_u64() > Some(0) && stats["bytes"]["log"].is_null());
    let table = upkeep(home.path(), &url, &["stats"]);
    assert!(String::from_utf8_lossy(&table.stdout).contains("PostgreSQL"), "{}", text(&table));
}

#[test]
fn stats_beside_a_server_that_writes() {
    let bench = Bench::new();
    let serve = bench.serve(&[]);
    store_spans(serve.address("server"), "ro-a", &span_ids(0..40));
    let stats = printed(&tracewire(bench.home()).args(["store", "stats", "--json"]).output().unwrap());
    assert_eq!((&stats["spans"], &stats["rollouts"]), (&json!(40), &json!(1)));
    store_spans(serve.address("server"), "ro-b", &span_ids(40..50));
    assert_eq!(serve.stop(), Some(0));
}

/// What can't be used is named with the cause and what to do, and stays as it is.
#[tokio::test(flavor = "multi_thread")]
async fn files_that_are_no_usable_stores_are_refused() {
    let home = tempfile::tempdir().unwrap();
    let path = |name: &str| home.path().join(name).to_str().unwrap().to_owned();
    let newer = path("newer.db");
    sqlite(Path::new(&newer)).close().await.unwrap();
    Connection::open(&newer).unwrap().execute_batch("PRAGMA user_version = 9999").unwrap();
    let foreign = path("foreign.db");
    Connection::open(&foreign).unwrap().execute_batch("CREATE TABLE mine (x)").unwrap();
    let damaged = path("damaged.db");
    std::fs::write(&damaged, "no database at all").unwrap();
    let locked = path("locked.db");
    sqlite(Path::new(&locked)).close().await.unwrap();
    let holder = Connection::open(&locked).unwrap();
    holder.execute_batch("PRAGMA journal_mode = DELETE; BEGIN EXCLUSIVE").unwrap();
    for (store, cause, fix) in [
        (path("missing.db"), "there is no trace store", "tracewire run"),
        (newer, "schema version 9999", "update tracewire"),
        (foreign, "another program's database", "--store"),
        (damaged, "not a usable trace store", "move it away"),
        (locked, "locked by another process", "stop that process"),
    ] {
        // Not its content: this process would lose its lock when it closes the file.
        let state = || std::fs::metadata(&store).ok().map(|file| (file.len(), file.modified().unwrap()));
        let before = state();
        let message = message(&upkeep(home.path(), &store, &["stats"]));
        assert!(message.contains(cause) && message.contains(fix), "{store}: {message}");
        assert_eq!(state(), before, "{store} was changed");
    }
    drop(holder);
    let message = message(&upkeep(home.path(), "memory:", &["stats"]));
    assert!(message.contains("--store"), "{message}");
}

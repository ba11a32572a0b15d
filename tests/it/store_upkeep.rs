//! `tracewire store`: what it prints of stores of both kinds, also while a server uses them.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests, outside the functions clippy takes for tests")]

use crate::support::collector::{span_ids, store_spans};
use crate::support::postgres::database;
use crate::support::store::{START_NANOS, no_tls, shared, span};
use crate::support::{Bench, eventually, say, text, tracewire};
use rusqlite::Connection;
use serde_json::{Value as JsonValue, json};
use std::path::Path;
use std::process::Output;
use std::sync::Arc;
use std::time::Instant;
use tracewire::store::postgres::{PostgresOptions, PostgresStore};
use tracewire::store::sqlite::{SqliteOptions, SqliteStore};
use tracewire::store::{PruneLimits, PruneRequest, SharedStore, StoreExt};
use tracewire::trace::{Rollout, RolloutStatus, Timestamp, Value};

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
        for command in [&["stats"][..], &["prune", "--older-than", "1d"], &["vacuum"]] {
            let message = message(&upkeep(home.path(), &store, command));
            assert!(message.contains(cause) && message.contains(fix), "{command:?} {store}: {message}");
        }
        assert_eq!(state(), before, "{store} was changed");
    }
    drop(holder);
    let message = message(&upkeep(home.path(), "memory:", &["vacuum"]));
    assert!(message.contains("--store"), "{message}");
}

/// Spans of rollouts with ten spans each, every one with a text of its own and one that it shares.
async fn fill_with(store: &SharedStore, spans: u64) {
    for first in (0..spans).step_by(500) {
        let spans = (first..(first + 500).min(spans)).map(|number| {
            let mut span = span(&format!("ro-{:06}", number / 10), "a", number, &format!("{number:016x}"));
            span.trace_id = format!("{number:032x}");
            span.set("text", format!("{number} ").repeat(100));
            span.set("other", "shared ".repeat(200));
            span
        });
        store.append(shared(spans)).await.unwrap();
    }
}

/// The kept counts are those of the tables, no piece is left over, and the file is sound.
fn is_consistent(path: &Path) -> i64 {
    let connection = Connection::open(path).unwrap();
    let number = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
    let sound: String = connection.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(sound, "ok");
    for (count, table) in [("rollouts", "rollout"), ("attempts", "attempt"), ("spans", "span"), ("pieces", "text")] {
        assert_eq!(number(&format!("SELECT {count} FROM row_count")), number(&format!("SELECT COUNT(*) FROM {table}")));
    }
    assert_eq!(number("SELECT COUNT(*) FROM orphaned_text"), 0);
    let unreferred =
        "SELECT COUNT(*) FROM text WHERE NOT EXISTS (SELECT 1 FROM span_text WHERE span_text.text = text.id)
        AND NOT EXISTS (SELECT 1 FROM text AS next WHERE next.parent = text.id)";
    assert_eq!(
        (
            number(unreferred),
            number("SELECT piece_bytes - (SELECT COALESCE(SUM(LENGTH(data)), 0) FROM text) FROM row_count")
        ),
        (0, 0)
    );
    number("SELECT COUNT(*) FROM span")
}

/// A prune is killed in the middle: what it removed is gone as a whole, and the next one removes the rest.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_prune_leaves_a_consistent_store() {
    const SPANS: u64 = 20_000;
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("traces.db");
    let store = sqlite(&path);
    fill_with(&store, SPANS).await;
    store.close().await.unwrap();
    let prune = ["prune", "--max-spans", "1000", "--store", path.to_str().unwrap()];
    let mut pruning = tracewire(home.path()).arg("store").args(prune).spawn().unwrap();
    let watched = Connection::open(&path).unwrap();
    eventually(|| {
        let spans = watched.query_row("SELECT spans FROM row_count", [], |row| row.get::<_, i64>(0)).unwrap();
        (spans < SPANS as i64).then_some(())
    });
    pruning.kill().unwrap();
    pruning.wait().unwrap();
    drop(watched);
    let left = is_consistent(&path);
    assert!(left < SPANS as i64 && left > 1000, "{left}");
    let pruned = printed(&upkeep(home.path(), path.to_str().unwrap(), &["prune", "--max-spans", "1000", "--json"]));
    assert_eq!((&pruned["spans"], &pruned["rollouts"]), (&json!(left - 900), &json!(2000 - 90)));
    assert_eq!(is_consistent(&path), 900);
    let store = sqlite(&path);
    assert_eq!(store.spans("ro-001999".into(), None).await.unwrap().len(), 10);
    assert_eq!(store.statistics().await.unwrap().rollouts, 90);
}

/// Another program stores spans while a prune removes others: none is lost, and the log stays small.
#[tokio::test(flavor = "multi_thread")]
async fn spans_are_stored_beside_a_prune() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("traces.db");
    let store = sqlite(&path);
    fill_with(&store, 10_000).await;
    let prune = ["prune", "--older-than", "1d", "--store", path.to_str().unwrap()];
    let mut pruning = tracewire(home.path()).arg("store").args(prune).spawn().unwrap();
    let mut stored = 0;
    while pruning.try_wait().unwrap().is_none() {
        let mut new = span("new", "a", stored, &format!("{stored}"));
        let now = Timestamp::from(std::time::SystemTime::now());
        (new.start_time, new.end_time) = (Some(now), Some(now));
        assert_eq!(store.append(shared([new])).await.unwrap().stored, 1);
        stored += 1;
    }
    assert!(pruning.wait().unwrap().success());
    assert_eq!(store.spans("new".into(), None).await.unwrap().len() as u64, stored);
    assert_eq!(store.statistics().await.unwrap().spans, stored);
    store.close().await.unwrap();
    assert_eq!(is_consistent(&path), stored as i64);
}

/// What is printed is what goes, also of a server; without options the settings say what goes.
async fn prunes_as_it_says(store: SharedStore, home: &Path, name: &str) {
    fill(&store).await;
    fill_with(&store, 200).await;
    let settings = home.join("proxy.toml");
    std::fs::write(&settings, "[store.retention]\nmax_spans = 120\n").unwrap();
    let run = |arguments: &[&str]| upkeep(home, name, &[&["prune"], arguments].concat());
    let config = ["--config", settings.to_str().unwrap()];
    let dry = printed(&run(&[&config[..], &["--dry-run", "--json"]].concat()));
    assert_eq!(store.statistics().await.unwrap().spans, 203);
    let pruned = printed(&run(&[&config[..], &["--json"]].concat()));
    // The limit less a tenth is 108; the span of the rollout that runs is kept.
    assert_eq!((&pruned["spans"], &dry["spans"]), (&json!(95), &json!(95)));
    assert_eq!((&pruned["rollouts"], &dry["rollouts"]), (&json!(10), &json!(10)));
    assert_eq!(store.statistics().await.unwrap().spans, 108);
    // By a query: the rollout that runs is kept.
    let output = run(&["--query", "status:failed,running", "--query", "id:*ed", "--dry-run"]);
    assert!(
        String::from_utf8_lossy(&output.stdout).starts_with("would remove 1 rollouts, 0 spans"),
        "{}",
        text(&output)
    );
    let pruned = printed(&run(&["--query", "id:running", "--query", "id:failed", "--json"]));
    assert_eq!(pruned["rollouts"], 0);
    let pruned = printed(&run(&["--query", "status:failed", "--older-than", "1d", "--json"]));
    assert_eq!(pruned["rollouts"], 1);
    assert!(store.rollout("failed".into()).await.unwrap().is_none());
    assert!(store.rollout("running".into()).await.unwrap().is_some());
    let output = run(&["--older-than", "1d"]);
    assert!(String::from_utf8_lossy(&output.stdout).contains("107 spans"), "{}", text(&output));
    let output = run(&["--older-than", "1d"]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "nothing to remove\n");
    assert_eq!(store.statistics().await.unwrap().spans, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_pruned_as_it_says() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("traces.db");
    prunes_as_it_says(sqlite(&path), home.path(), path.to_str().unwrap()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_is_pruned_as_it_says() {
    let (home, url) = (tempfile::tempdir().unwrap(), database());
    prunes_as_it_says(postgres(&url).await, home.path(), &url).await;
    let refused = message(&upkeep(home.path(), &url, &["prune", "--max-bytes", "1MB"]));
    assert!(refused.contains("--max-spans"), "{refused}");
}

#[test]
fn a_prune_that_says_nothing_is_refused() {
    let bench = Bench::new();
    let path = bench.home().join("traces.db");
    sqlite_file(&path);
    let run = |arguments: &[&str]| upkeep(bench.home(), path.to_str().unwrap(), &[&["prune"], arguments].concat());
    for (arguments, cause) in [
        (&[][..], "nothing says what to remove"),
        (&["--max-spans", "0"], "--older-than 0s"),
        (&["--older-than", "soon"], "90s, 30m, 2h or 7d"),
        (&["--max-bytes", "1.5GB"], "10GB"),
        (&["--query", "colour:red"], "colour"),
        (&["--query", "status:failed", "--max-spans", "3"], "cannot be used with"),
    ] {
        let message = message(&run(arguments));
        assert!(message.contains(cause), "{arguments:?}: {message}");
    }
    let missing =
        upkeep(bench.home(), bench.home().join("missing.db").to_str().unwrap(), &["prune", "--older-than", "1d"]);
    assert!(message(&missing).contains("there is no trace store"));
    assert!(!bench.home().join("missing.db").exists());
}

/// An empty store.
fn sqlite_file(path: &Path) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async { sqlite(path).close().await.unwrap() });
}

/// The limits of a running server, and the metrics of what they remove.
#[test]
fn a_server_prunes_by_its_limits_and_counts_it() {
    let bench = Bench::new();
    let settings = bench.home().join("limits.toml");
    std::fs::write(&settings, "[store.retention]\nmax_spans = 100\n").unwrap();
    let serve = bench.serve(&["--config", settings.to_str().unwrap()]);
    store_spans(serve.address("server"), "ro-a", &span_ids(0..1000));
    let metric = |name: &str| {
        let request = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nconnection: close\r\n\r\n";
        let metrics = say(serve.address("server"), request);
        let line = metrics.lines().find_map(|line| line.strip_prefix(&format!("tracewire_store_{name} ")));
        line.map_or(0, |value| value.parse::<u64>().unwrap())
    };
    eventually(|| (metric("spans") <= 400 && metric("pruned_spans_total") >= 600).then_some(()));
    assert_eq!(serve.stop(), Some(0));
}

/// A rollout that ended so many days ago, with a span, and with a reward if it has one.
async fn ended(store: &SharedStore, id: &str, status: RolloutStatus, days: u64, reward: Option<f64>) {
    let now = Timestamp::from(std::time::SystemTime::now()).unix_nanos;
    let end = Timestamp::from_unix_nanos(now - days * 24 * 3600 * 1_000_000_000);
    let rollout = Rollout { status, end_time: status.is_final().then_some(end), ..Rollout::running(id.into(), end) };
    if id != "named" {
        store.upsert_rollout(rollout).await.unwrap();
    }
    let mut span = span(id, "a", 1, "x");
    (span.start_time, span.end_time) = (Some(end), Some(end));
    if let Some(reward) = reward {
        span.set("agentlightning.reward.0.value", Value::Float(reward));
    }
    store.append(shared([span])).await.unwrap();
}

/// The first rule that matches counts, then the age of the section.
async fn rules_are_applied(store: SharedStore, home: &Path, name: &str) {
    use RolloutStatus::{Failed, Running, Succeeded};
    for (id, status, days, reward) in [
        ("rewarded", Succeeded, 100, Some(1.0)),
        ("failed-rewarded", Failed, 100, Some(1.0)),
        ("unrewarded", Succeeded, 100, Some(0.0)),
        ("failed", Failed, 10, None),
        ("failed-lately", Failed, 2, None),
        ("young", Succeeded, 10, None),
        ("running", Running, 100, None),
        ("named", Running, 100, None),
    ] {
        ended(&store, id, status, days, reward).await;
    }
    let settings = home.join("rules.toml");
    let rules = "[store.retention]\nmax_age_days = 30\n
        [[store.retention.rule]]\nquery = \"reward>0\"\nmax_age_days = 0\n
        [[store.retention.rule]]\nquery = \"status:failed\"\nmax_age_days = 7\n";
    std::fs::write(&settings, rules).unwrap();
    let run = |more: &[&str]| {
        upkeep(home, name, &[&["prune", "--json", "--config", settings.to_str().unwrap()], more].concat())
    };
    let dry = printed(&run(&["--dry-run"]));
    assert_eq!((&dry["rollouts"], &dry["spans"]), (&json!(3), &json!(3)));
    let pruned = printed(&run(&[]));
    assert_eq!((&pruned["rollouts"], &pruned["spans"]), (&json!(3), &json!(3)));
    let left = store.rollouts(usize::MAX).await.unwrap();
    let mut left: Vec<_> = left.iter().map(|one| one.rollout.rollout_id.as_str()).collect();
    left.sort_unstable();
    assert_eq!(left, ["failed-lately", "failed-rewarded", "rewarded", "running", "young"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_of_a_file_are_applied() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("traces.db");
    rules_are_applied(sqlite(&path), home.path(), path.to_str().unwrap()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_of_a_server_are_applied() {
    let (home, url) = (tempfile::tempdir().unwrap(), database());
    rules_are_applied(postgres(&url).await, home.path(), &url).await;
}

/// `serve` applies rules when it starts, and refuses those that can have no effect.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_applies_rules() {
    let bench = Bench::new();
    let path = bench.home().join("traces.db");
    let store = sqlite(&path);
    ended(&store, "failed", RolloutStatus::Failed, 10, None).await;
    ended(&store, "succeeded", RolloutStatus::Succeeded, 10, None).await;
    store.close().await.unwrap();
    let settings = bench.home().join("rules.toml");
    let rule = |query: &str| format!("[[store.retention.rule]]\nquery = \"{query}\"\nmax_age_days = 7\n");
    std::fs::write(&settings, rule("status:failed")).unwrap();
    let serve = bench.serve(&["--config", settings.to_str().unwrap()]);
    let stats = || printed(&tracewire(bench.home()).args(["store", "stats", "--json"]).output().unwrap());
    eventually(|| (stats()["rollouts_by_status"] == json!({ "succeeded": 1 })).then_some(()));
    assert_eq!(serve.stop(), Some(0));
    for (rules, cause) in [
        (rule("") + &rule("status:failed"), "entry 1 matches all rollouts"),
        (rule("colour:red"), "`colour:red` of entry 1"),
        ("[[store.retention.rule]]\nquery = \"x\"\n".to_owned(), "missing field `max_age_days`"),
        ("[[store.retention.rules]]\n".to_owned(), "did you mean `rule`?"),
    ] {
        std::fs::write(&settings, rules).unwrap();
        let arguments = ["serve", "--proxy", "127.0.0.1:0", "--server", "127.0.0.1:0", "--config"];
        let output = tracewire(bench.home()).args(arguments).arg(&settings).output().unwrap();
        assert!(message(&output).contains(cause), "{}", text(&output));
    }
}

/// A vacuum gives back what a prune has left unused.
#[tokio::test(flavor = "multi_thread")]
async fn a_vacuum_gives_space_back() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("traces.db");
    let store = sqlite(&path);
    fill_with(&store, 5000).await;
    store.close().await.unwrap();
    // Unused pages, as a program leaves them that is killed in a removal.
    Connection::open(&path).unwrap().execute_batch("DELETE FROM span WHERE id > 500").unwrap();
    let unused = || {
        printed(&upkeep(home.path(), path.to_str().unwrap(), &["stats", "--json"]))["bytes"]["unused"].as_u64().unwrap()
    };
    assert!(unused() > 100_000);
    let run =
        |more: &[&str]| printed(&upkeep(home.path(), path.to_str().unwrap(), &[&["vacuum", "--json"], more].concat()));
    let given = run(&[]);
    let bytes = |json: &JsonValue, name: &str| json[name].as_u64().unwrap();
    assert!(bytes(&given, "bytes_after") + 100_000 < bytes(&given, "bytes_before"), "{given}");
    assert_eq!(unused(), 0);
    let full = upkeep(home.path(), path.to_str().unwrap(), &["vacuum", "--full"]);
    assert!(String::from_utf8_lossy(&full.stderr).contains("of free disk"), "{}", text(&full));
    assert!(String::from_utf8_lossy(&full.stdout).contains("given back"), "{}", text(&full));
    assert_eq!(sqlite(&path).statistics().await.unwrap().spans, 500);
    let missing = upkeep(home.path(), home.path().join("missing.db").to_str().unwrap(), &["vacuum"]);
    assert!(message(&missing).contains("there is no trace store"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vacuum_of_a_server_gives_space_back() {
    let (home, url) = (tempfile::tempdir().unwrap(), database());
    let store = postgres(&url).await;
    fill_with(&store, 2000).await;
    let all =
        PruneLimits { ended_before: Some(Timestamp::from(std::time::SystemTime::now())), ..PruneLimits::default() };
    assert_eq!(store.prune_all(PruneRequest::Limits(all), |_| {}).await.unwrap().rollouts, 200);
    let given = printed(&upkeep(home.path(), &url, &["vacuum", "--full", "--json"]));
    assert!(given["bytes_after"].as_u64() < given["bytes_before"].as_u64(), "{given}");
    printed(&upkeep(home.path(), &url, &["vacuum", "--json"]));
    assert_eq!(store.statistics().await.unwrap().spans, 0);
}

/// Prints how long others wait for the writer of a file with 300,000 spans while 270,000 are removed, and how large the log gets.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "measures, and takes minutes"]
async fn how_long_a_prune_holds_the_writer() {
    const SPANS: u64 = 300_000;
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("traces.db");
    let store = sqlite(&path);
    fill_with(&store, SPANS).await;
    let log = home.path().join("traces.db-wal");
    let log_bytes = || std::fs::metadata(&log).map_or(0, |log| log.len());
    println!("file {} MB, log {} MB", std::fs::metadata(&path).unwrap().len() / 1_000_000, log_bytes() / 1_000_000);
    let asked = Instant::now();
    printed(&upkeep(home.path(), path.to_str().unwrap(), &["stats", "--json"]));
    println!("stats in {:?}", asked.elapsed());
    // The log keeps its size until it is truncated.
    Connection::open(&path).unwrap().query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
    let pruned = Arc::clone(&store);
    let began = Instant::now();
    let pruning = tokio::spawn(async move {
        let limits = PruneLimits { max_spans: SPANS / 9, ..PruneLimits::default() };
        let (mut last, mut slices) = (Instant::now(), Vec::new());
        let progress = |_: &_| slices.push(std::mem::replace(&mut last, Instant::now()).elapsed());
        let removed = pruned.prune_all(PruneRequest::Limits(limits), progress).await.unwrap();
        (removed, slices.len())
    });
    let (mut waits, mut log_peak) = (Vec::new(), 0);
    while !pruning.is_finished() {
        let asked = Instant::now();
        let number = SPANS + waits.len() as u64;
        store.append(shared([span("new", "a", number, &number.to_string())])).await.unwrap();
        waits.push(asked.elapsed());
        log_peak = log_peak.max(log_bytes());
    }
    let (removed, slices) = pruning.await.unwrap();
    waits.sort_unstable();
    let at = |share: usize| waits[(waits.len() - 1) * share / 100];
    println!("{removed:?} in {slices} slices, {:?}", began.elapsed());
    println!(
        "{} appends: median {:?}, p99 {:?}, longest {:?}; log up to {} MB",
        waits.len(),
        at(50),
        at(99),
        at(100),
        log_peak / 1_000_000
    );
    is_consistent(&path);
}

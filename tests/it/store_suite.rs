//! The contract of all stores, tested with each of them, and the properties of the SQLite file.
//!
//! Tests use the public interface, and read the file only for properties that the interface does not show.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests, outside the functions clippy takes for tests")]

use crate::support::postgres::database;
use crate::support::store::{START_NANOS, no_tls, shared, span};
use rusqlite::Connection;
use std::borrow::Borrow;
use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::task::JoinSet;
use tracewire::rollout::{AttemptChange, NewRollout, Rollouts};
use tracewire::store::memory::MemoryStore;
use tracewire::store::postgres::{PostgresOptions, PostgresStore};
use tracewire::store::sqlite::{SqliteOptions, SqliteStore};
use tracewire::store::{
    Appended, ExportCursor, FoundRollouts, PruneCursor, PruneLimits, PruneRequest, Retention, RolloutCounts,
    RolloutFilter, RolloutOrder, RolloutPlace, RolloutSequenceState, SharedStore, SpanContent, SpanPlace, SpanQuery,
    SpanReplacement, SpanWords, Store, StoreError, StoreExt, WordBatch, WordSearch,
};
use tracewire::trace::{
    Attempt, AttemptStatus, AttemptedRollout, Attributes, Rollout, RolloutId, RolloutStatus, Span, StatusCode,
    Timestamp, Value, words_of,
};

struct Opened {
    store: SharedStore,
    _folder: Option<TempDir>,
}

async fn memory(retention: Retention) -> Opened {
    Opened { store: Arc::new(MemoryStore::new(retention)), _folder: None }
}

async fn sqlite(retention: Retention) -> Opened {
    let folder = tempfile::tempdir().unwrap();
    let options = SqliteOptions { retention, ..SqliteOptions::default() };
    let store = SqliteStore::open(&folder.path().join("spans.db"), options).unwrap();
    Opened { store: Arc::new(store), _folder: Some(folder) }
}

async fn postgres(retention: Retention) -> Opened {
    let options = PostgresOptions { retention, ..PostgresOptions::default() };
    let store = PostgresStore::open(&database(), no_tls(), options).await.unwrap();
    Opened { store: Arc::new(store), _folder: None }
}

fn ids<S: Borrow<Span>>(spans: &[S]) -> Vec<&str> {
    spans.iter().map(|span| span.borrow().span_id.as_str()).collect()
}

async fn duplicates(store: SharedStore) {
    let first = store.append(shared([span("r", "a", 1, "x"), span("r", "a", 1, "x")])).await.unwrap();
    assert_eq!(first, Appended { stored: 1, duplicates: 1 });
    let mut changed = span("r", "a", 1, "x");
    changed.name = "other".to_owned();
    let second = store.append(shared([changed, span("r", "b", 1, "x")])).await.unwrap();
    assert_eq!(second, Appended { stored: 1, duplicates: 1 });
    let spans = store.spans("r".into(), Some("a".into())).await.unwrap();
    assert_eq!(spans, [span("r", "a", 1, "x")]);
}

async fn creates_rollouts(store: SharedStore) {
    assert_eq!(store.rollout("r".into()).await.unwrap(), None);
    store.append(shared([span("r", "a", 3, "x")])).await.unwrap();
    let start = Timestamp::from_unix_nanos(START_NANOS + 3);
    assert_eq!(store.rollout("r".into()).await.unwrap(), Some(Rollout::running("r".into(), start)));
    assert_eq!(store.attempts("r".into()).await.unwrap().len(), 1);
    let all = store.rollouts(10).await.unwrap();
    assert_eq!((all.len(), all[0].attempts, all[0].spans, all[0].errors), (1, 1, 1, 0));
    let statistics = store.statistics().await.unwrap();
    assert_eq!((statistics.rollouts, statistics.attempts, statistics.spans), (1, 1, 1));
    assert!(statistics.size_bytes > 0);
}

async fn sequence_state_survives(store: SharedStore) {
    assert_eq!(store.sequence_state("r".into()).await.unwrap(), RolloutSequenceState::default());
    store.append(shared([span("r", "a", 9, "x"), span("r", "a", 4, "y")])).await.unwrap();
    let seen = store.sequence_state("r".into()).await.unwrap();
    assert_eq!(seen, RolloutSequenceState { registered: false, last_sequence_id: 9 });
    store.upsert_rollout(Rollout::running("r".into(), Timestamp::default())).await.unwrap();
    store.append(shared([span("r", "a", 5, "z")])).await.unwrap();
    let registered = store.sequence_state("r".into()).await.unwrap();
    assert_eq!(registered, RolloutSequenceState { registered: true, last_sequence_id: 9 });
}

async fn order(store: SharedStore) {
    let mut early = span("r", "a", 2, "early");
    early.start_time = Some(Timestamp::from_unix_nanos(1));
    let spans = vec![span("r", "a", 2, "tie1"), span("r", "b", 2, "tie2"), span("r", "a", 1, "first"), early];
    store.append(shared(spans)).await.unwrap();
    let spans = store.spans("r".into(), None).await.unwrap();
    assert_eq!(ids(&spans), ["first", "early", "tie1", "tie2"]);
    store.append(shared([span("later", "a", 100, "x")])).await.unwrap();
    let newest = store.rollouts(1).await.unwrap();
    assert_eq!(newest[0].rollout.rollout_id.as_str(), "later");
}

/// Outlines come in the order in which they were stored, in pages, without what is long; one span has all of it.
async fn spans_are_outlined(store: SharedStore) {
    let mut long = span("r", "a", 9, "long");
    long.set("text", "long ".repeat(1000));
    long.set("short", "word");
    long.status.status_code = StatusCode::Error;
    let mut call = span("r", "b", 1, "call");
    call.set("gen_ai.operation.name", "chat");
    store.append(shared([long.clone(), span("other", "a", 5, "x")])).await.unwrap();
    store.append(shared([call.clone(), span("r", "a", 3, "last")])).await.unwrap();
    let (mut seen, mut after) = (Vec::new(), 0);
    while let page = store.span_outlines("r".into(), after, 2).await.unwrap()
        && let Some(last) = page.last()
    {
        after = last.number;
        seen.extend(page.into_iter().map(|outline| outline.span));
    }
    assert_eq!(ids(&seen), ["long", "call", "last"]);
    assert_eq!(seen[0].attributes.keys().collect::<Vec<_>>(), ["short"]);
    assert_eq!(seen[1], call);
    assert_eq!(store.span_outlines("r".into(), after, 10).await.unwrap(), []);
    store.append(shared([span("r", "a", 2, "later")])).await.unwrap();
    let later = store.span_outlines("r".into(), after, 10).await.unwrap();
    assert_eq!(later.iter().map(|outline| outline.span.span_id.as_str()).collect::<Vec<_>>(), ["later"]);
    assert_eq!(store.span("r".into(), "a".into(), "long".to_owned()).await.unwrap(), Some(long));
    assert_eq!(store.span("r".into(), "b".into(), "long".to_owned()).await.unwrap(), None);
    let counts = store.rollout_counts(vec!["r".into(), "none".into()]).await.unwrap();
    let newest = later[0].number;
    let expected = RolloutCounts { attempts: 2, spans: 4, errors: 1, llm_calls: 1, newest };
    assert_eq!(counts.into_iter().collect::<Vec<_>>(), [("r".into(), expected)]);
}

/// Every span of the store comes once, by number, and no number is given again.
async fn spans_are_read_by_number(store: SharedStore) {
    let mut long = span("r", "a", 1, "long");
    long.set("text", "long ".repeat(1000));
    store.append(shared([long.clone(), span("q", "a", 1, "two")])).await.unwrap();
    store.append(shared([span("q", "a", 1, "two"), span("q", "b", 1, "three")])).await.unwrap();
    let first = store.spans_by_number(0, 2).await.unwrap();
    assert_eq!(first.spans, shared([long, span("q", "a", 1, "two")]));
    assert_eq!((first.numbers.last(), first.removed), (Some(&first.through), 0));
    assert!(first.newest > first.through);
    let second = store.spans_by_number(first.through, 10).await.unwrap();
    // In a server, a number is missing that the second append used for nothing; a transaction might still commit it.
    if !second.spans.is_empty() {
        assert_eq!((ids(&second.spans), second.through), (vec!["three"], second.newest));
    }
    // The newest spans are removed: the next ones get higher numbers.
    let newest = second.newest;
    store.transaction(|records| records.remove_rollout(&"q".into())).await.unwrap();
    store.append(shared([span("s", "a", 1, "four")])).await.unwrap();
    let last = store.spans_by_number(newest, 10).await.unwrap();
    assert_eq!((ids(&last.spans), last.removed), (vec!["four"], 0));
    let from_start = store.spans_by_number(0, 1).await.unwrap();
    assert_eq!(ids(&from_start.spans), ["long"]);
    let cursor = ExportCursor {
        name: "x".to_owned(),
        position: last.through,
        holder: "h".to_owned(),
        held_until: Timestamp::from_unix_nanos(1_000_000_000),
    };
    let mut put = cursor.clone();
    store
        .transaction(move |records| {
            assert_eq!(records.export_cursor("x")?, None);
            records.upsert_export_cursor(&put)?;
            put.position += 1;
            records.upsert_export_cursor(&put)
        })
        .await
        .unwrap();
    let read = store.transaction(|records| records.export_cursor("x")).await.unwrap();
    assert_eq!(read, Some(ExportCursor { position: cursor.position + 1, ..cursor }));
}

/// A reader that follows the store sees what is stored, as it is read later, and nothing of what was removed meanwhile.
async fn spans_are_followed(store: SharedStore) {
    let mut position = store.spans_by_number(0, 10).await.unwrap().through;
    let mut followed = async || {
        let mut spans = Vec::new();
        loop {
            let page = store.spans_by_number(position, 3).await.unwrap();
            if page.through == position {
                return spans;
            }
            position = page.through;
            spans.extend(page.spans);
        }
    };
    let mut whole = span("r", "a", 2, "two");
    whole.set("text", "long ".repeat(1000));
    whole.attributes.insert("ids".to_owned(), Value::Ints((0..600).collect()));
    let mut unreadable = span("r", "a", 4, "four");
    unreadable.attributes.insert("nan".to_owned(), Value::Float(f64::NAN));
    let spans = || [span("r", "a", 1, "one"), whole.clone(), span("r", "a", 3, "three"), unreadable.clone()];
    for from in [0, 2] {
        store.append(shared(spans().into_iter().skip(from).take(2))).await.unwrap();
        store.append(shared(spans().into_iter().skip(from).take(2))).await.unwrap();
    }
    let read = followed().await;
    assert_eq!(ids(&read), ["one", "two", "three", "four"]);
    assert_eq!(*read[1], whole);
    // As it is read later: only a store in memory has room for NaN.
    let later = store.span("r".into(), "a".into(), "four".to_owned()).await.unwrap().unwrap();
    assert_eq!(read[3].attributes.keys().collect::<Vec<_>>(), later.attributes.keys().collect::<Vec<_>>());
    store.append(shared([span("gone", "a", 1, "five"), span("r", "a", 6, "six")])).await.unwrap();
    store.transaction(|records| records.remove_rollout(&"gone".into())).await.unwrap();
    assert_eq!(ids(&followed().await), ["six"]);
}

/// Pages have all rollouts once, in the order of the whole, also those of one start time.
/// A phrase is found in the spans of the index, in its order, until the spans are gone. Batches that do not fit change nothing.
async fn messages_are_found(store: SharedStore) {
    let mut first = span("r", "a", 1, "x");
    first.set("gen_ai.input.messages", r#"[{"role":"user","parts":[{"content":"Where is my refund?"}]}]"#);
    let mut second = span("q", "a", 1, "y");
    second.set(
        "gen_ai.output.messages",
        format!(r#"[{{"parts":[{{"content":"{} refund is my"}}]}}]"#, "long ".repeat(500)),
    );
    // More words than one vector of a server has.
    let long = (0..45_000).map(|number| format!("w{number}")).collect::<Vec<_>>().join(" ");
    let mut third = span("s", "a", 1, "z");
    third.set("gen_ai.tool.call.result", long.clone());
    // More places of a word than a vector keeps.
    let common = (0..600).map(|number| format!("the v{number}")).collect::<Vec<_>>().join(" ");
    let mut fourth = span("t", "a", 1, "c");
    fourth.set("gen_ai.tool.call.result", common.clone());
    store.append(shared([first, second, third, fourth])).await.unwrap();
    let page = store.spans_by_number(0, 10).await.unwrap();
    let batch = |after: u64, through: u64, relies_on: Vec<u64>| {
        let texts = [words_of("Where is my refund"), words_of("refund is my"), words_of(&long), words_of(&common)];
        let spans = page.numbers.iter().zip(texts).map(|(number, words)| SpanWords { number: *number, words });
        WordBatch { after, through, spans: spans.collect(), relies_on }
    };
    let needs_index = store.words_through().await.unwrap() == 0;
    if needs_index {
        store.add_words(batch(page.through + 9, page.through + 10, Vec::new())).await.unwrap();
        store.add_words(batch(0, page.through, vec![page.through + 99])).await.unwrap();
        assert_eq!(store.words_through().await.unwrap(), 0);
        store.add_words(batch(0, page.through, page.numbers.clone())).await.unwrap();
        assert_eq!(store.words_through().await.unwrap(), page.through);
    }
    let found = async |text: &str, rollout: Option<&str>, max_spans: usize| {
        let search = WordSearch { phrase: words_of(text), rollout: rollout.map(RolloutId::from), max_spans };
        let FoundRollouts { rollouts, is_cut } = store.find_words(search).await.unwrap();
        let ids: BTreeSet<String> = rollouts.iter().map(RolloutId::to_string).collect();
        (ids.into_iter().collect::<Vec<_>>().join(" "), is_cut)
    };
    for (text, rollout, expected) in [
        ("REFUND", None, "q r"),
        ("my refund", None, "r"),
        ("refund, is", None, "q"),
        ("refund", Some("q"), "q"),
        ("my refund", Some("q"), ""),
        ("refunds", None, ""),
        ("w3999 w4000", None, "s"),
        ("w44998 W44999", None, "s"),
        ("w44999 w44998", None, ""),
        ("the v599", None, "t"),
    ] {
        assert_eq!(found(text, rollout, 100).await, (expected.to_owned(), false), "{text}");
    }
    for start in [3936, 44_936] {
        let phrase = (start..start + 64).map(|number| format!("w{number}")).collect::<Vec<_>>().join(" ");
        assert_eq!(found(&phrase, None, 100).await, ("s".to_owned(), false), "{start}");
    }
    assert_eq!(found("refund", None, 1).await, ("q".to_owned(), true), "the newest");
    store.transaction(|records| records.remove_rollout(&"q".into())).await.unwrap();
    assert_eq!(found("refund", None, 100).await, ("r".to_owned(), false));
    store
        .prune_all(
            PruneRequest::Limits(PruneLimits {
                max_spans: 0,
                ended_before: Some(Timestamp::from_unix_secs(4e9)),
                ..PruneLimits::default()
            }),
            |_| {},
        )
        .await
        .unwrap();
    assert_eq!(found("refund", None, 100).await, (String::new(), false));
}

async fn rollouts_are_paged(store: SharedStore) {
    for number in 0..7_u64 {
        let rollout =
            Rollout::running(format!("r{}", 6 - number).as_str().into(), Timestamp::from_unix_nanos(number / 3));
        let status = if number == 4 { RolloutStatus::Failed } else { rollout.status };
        store.upsert_rollout(Rollout { status, ..rollout }).await.unwrap();
    }
    let ids =
        |found: &[AttemptedRollout]| found.iter().map(|one| one.rollout.rollout_id.to_string()).collect::<Vec<_>>();
    let page = async |filter: RolloutFilter| store.attempted_rollouts(filter).await.unwrap();
    let all = ids(&page(RolloutFilter::default()).await);
    assert_eq!(all, ["r4", "r5", "r6", "r1", "r2", "r3", "r0"]);
    let (mut filter, mut paged) = (RolloutFilter { limit: Some(2), ..RolloutFilter::default() }, Vec::new());
    while let found = page(filter.clone()).await
        && let Some(last) = found.last()
    {
        filter.after = Some(RolloutPlace::of(&last.rollout));
        paged.extend(ids(&found));
    }
    assert_eq!(paged, all);
    let started_from = Some(Timestamp::from_unix_nanos(1));
    let running = RolloutFilter { started_from, ..RolloutFilter::of_statuses(vec![RolloutStatus::Running]) };
    assert_eq!(ids(&page(running.clone()).await), ["r1", "r3", "r0"]);
    assert_eq!(ids(&page(RolloutFilter { limit: Some(1), ..running.clone() }).await), ["r1"]);
    let first = RolloutPlace { start_time: Timestamp::from_unix_nanos(1), rollout_id: "r1".into() };
    let rest = RolloutFilter { after: Some(first), limit: Some(1), ..running.clone() };
    assert_eq!((ids(&page(rest.clone()).await), store.count_rollouts(rest).await.unwrap()), (vec!["r3".to_owned()], 3));
    let listed = RolloutFilter { started_from, ..RolloutFilter::of_ids(vec!["r4".into(), "r0".into()]) };
    assert_eq!(ids(&page(listed).await), ["r0"]);
    let part = |part: &str| RolloutFilter { id_contains: Some(part.to_owned()), ..RolloutFilter::default() };
    assert_eq!((ids(&page(part("3")).await), ids(&page(part("R")).await)), (vec!["r3".to_owned()], vec![]));
    assert_eq!(ids(&page(RolloutFilter { limit: Some(2), offset: 1, ..part("") }).await), ["r5", "r6"]);
    store.append(shared([span("r9", "a", 1, "x")])).await.unwrap();
    let registered = RolloutFilter { is_registered: Some(true), ..RolloutFilter::default() };
    let count = async |filter: &RolloutFilter| store.count_rollouts(filter.clone()).await.unwrap();
    assert_eq!((count(&RolloutFilter::default()).await, count(&registered).await), (8, 7));
    let unregistered = RolloutFilter { is_registered: Some(false), ..RolloutFilter::default() };
    assert_eq!(ids(&page(unregistered).await), ["r9"]);
    let both = vec![RolloutStatus::Failed, RolloutStatus::Running];
    for statuses in [None, Some(both), Some(vec![RolloutStatus::Running]), Some(vec![])] {
        let newest = RolloutFilter { statuses, order: RolloutOrder::NewestFirst, ..registered.clone() };
        let expected: Vec<String> = all
            .iter()
            .rev()
            .filter(|id| newest.statuses.as_ref().is_none_or(|all| all.len() == 2 || (all.len() == 1 && *id != "r2")))
            .cloned()
            .collect();
        assert_eq!(ids(&page(newest.clone()).await), expected);
        let part = RolloutFilter { limit: Some(2), offset: 3, ..newest.clone() };
        let end = expected.len().min(5);
        assert_eq!(ids(&page(part.clone()).await), expected[end.min(3)..end]);
        assert_eq!(count(&part).await, expected.len() as u64);
        if let Some(second) = page(RolloutFilter { limit: Some(1), offset: 1, ..newest.clone() }).await.first() {
            let after = RolloutFilter { after: Some(RolloutPlace::of(&second.rollout)), limit: Some(9), ..newest };
            assert_eq!(ids(&page(after).await), expected[2..]);
        }
    }
}

/// However the pages are cut, they have each span once, in the order of the rollout.
async fn spans_are_paged(store: SharedStore) {
    let new = |number: u64| {
        let attempt = if number.is_multiple_of(3) { "b" } else { "a" };
        let mut span = span("r", attempt, number / 4, &format!("s{number}"));
        span.start_time = (!number.is_multiple_of(5)).then(|| Timestamp::from_unix_nanos(START_NANOS + number % 3));
        span.set("text", format!("text {number} ").repeat(if number.is_multiple_of(7) { 20_000 } else { 100 }));
        span.attributes.insert("ids".to_owned(), Value::Ints((0..300).collect()));
        span.set("short", "é");
        span
    };
    store.append(shared((0..50).map(new).chain([span("other", "a", 1, "x")]))).await.unwrap();
    let all = store.spans("r".into(), None).await.unwrap();
    assert_eq!(all.len(), 50);
    let read = async |query: SpanQuery| {
        let (mut query, mut spans, mut pages) = (query, Vec::new(), 0);
        loop {
            let page = store.span_page(query.clone()).await.unwrap();
            pages += 1;
            assert!(page.spans.len() <= query.limit.get() && (page.is_last || !page.spans.is_empty()));
            query.after = page.spans.last().map(|(place, _)| *place).or(query.after);
            spans.extend(page.spans);
            if page.is_last {
                return (spans, pages);
            }
        }
    };
    let whole = SpanQuery::of_rollout("r".into());
    let limit_of = |limit: usize| NonZeroUsize::new(limit).unwrap();
    let only = |spans: &[(SpanPlace, Span)]| spans.iter().map(|(_, span)| span.clone()).collect::<Vec<_>>();
    let mut places = Vec::new();
    for limit in [1, 7, 50, 1000] {
        let (spans, pages) = read(SpanQuery { limit: limit_of(limit), ..whole.clone() }).await;
        assert_eq!(only(&spans), all, "{limit}");
        assert!(limit < 1000 || pages > 1, "long spans fill a page");
        places = spans.into_iter().map(|(place, _)| place).collect();
    }
    let (of_attempt, _) = read(SpanQuery { attempt_id: Some("b".into()), limit: limit_of(3), ..whole.clone() }).await;
    assert_eq!(only(&of_attempt), store.spans("r".into(), Some("b".into())).await.unwrap());
    let mut some: Vec<SpanPlace> = places.iter().copied().skip(4).step_by(3).collect();
    some.reverse();
    some.extend([some[2], places[0], places[0], SpanPlace { sequence_id: 0, start_ns: None, number: i64::MAX }]);
    let expected: Vec<(SpanPlace, Span)> = some
        .iter()
        .filter_map(|place| Some((*place, all[places.iter().position(|one| one == place)?].clone())))
        .collect();
    let (mut named, mut left, mut reads) = (Vec::new(), some.as_slice(), 0);
    while !left.is_empty() {
        let read = store.spans_at("r".into(), left.to_vec(), SpanContent::Whole).await.unwrap();
        named.extend(read.spans);
        left = &left[read.places_read..];
        reads += 1;
    }
    assert_eq!(named, expected);
    assert!(reads > 1, "long spans fill a page");
    let elsewhere = store.spans_at("other".into(), some.clone(), SpanContent::Whole).await.unwrap();
    assert_eq!((elsewhere.spans, elsewhere.places_read), (vec![], some.len()));
    let (outlines, _) = read(SpanQuery { content: SpanContent::Outline(&["text"]), ..whole }).await;
    for ((_, outline), span) in outlines.iter().zip(&all) {
        assert_eq!(outline.attributes["ids"], Value::Ints(Vec::new()));
        let others = |span: &Span| Span { attributes: Attributes::new(), ..span.clone() };
        assert_eq!(others(outline), others(span));
        assert_eq!(outline.attributes["text"], span.attributes["text"]);
    }
}

async fn attempts_are_numbered(store: SharedStore) {
    let attempt = |id: &str| {
        let attempt = Attempt::running("r".into(), id.into(), Timestamp::default());
        Attempt { sequence_id: 77, ..attempt }
    };
    assert_eq!(store.upsert_attempt(attempt("b")).await.unwrap().sequence_id, 1);
    assert_eq!(store.upsert_attempt(attempt("a")).await.unwrap().sequence_id, 2);
    let replaced = Attempt { worker_id: Some("w".to_owned()), ..attempt("b") };
    assert_eq!(store.upsert_attempt(replaced).await.unwrap().sequence_id, 1);
    store.append(shared([span("r", "c", 1, "x")])).await.unwrap();
    let attempts = store.attempts("r".into()).await.unwrap();
    let numbered: Vec<_> = attempts.iter().map(|one| (one.attempt_id.as_str(), one.sequence_id)).collect();
    assert_eq!(numbered, [("b", 1), ("a", 2), ("c", 3)]);
    assert_eq!(attempts[0].worker_id.as_deref(), Some("w"));
}

async fn keeps_at_most(store: SharedStore) {
    store.upsert_rollout(Rollout::running("kept".into(), Timestamp::default())).await.unwrap();
    store.append(shared([span("kept", "a", 1, "x"), span("gone", "a", 1, "x")])).await.unwrap();
    for number in 0..600 {
        store.append(shared([span("r", "a", number, &format!("s{number}"))])).await.unwrap();
    }
    store.prune().await.unwrap();
    let statistics = store.statistics().await.unwrap();
    assert!((90..=100).contains(&statistics.spans), "{statistics:?}");
    assert_eq!(store.spans("r".into(), None).await.unwrap().last().unwrap().span_id, "s599");
    assert!(store.rollout("kept".into()).await.unwrap().is_some());
    assert!(store.rollout("gone".into()).await.unwrap().is_none());
}

/// Limits and requests remove nothing of rollouts in progress, and what a preview said.
async fn prunes_keep_rollouts_in_progress(store: SharedStore) {
    for (id, status) in
        [("running", RolloutStatus::Running), ("waiting", RolloutStatus::Requeuing), ("ended", RolloutStatus::Failed)]
    {
        store.upsert_rollout(Rollout { status, ..Rollout::running(id.into(), Timestamp::default()) }).await.unwrap();
    }
    let spans = |rollout: &'static str, from: u64| {
        (from..from + 300).map(move |number| span(rollout, "a", number, &format!("s{number}")))
    };
    for (rollout, from) in [("running", 0), ("ended", 300), ("named", 600), ("waiting", 900)] {
        store.append(shared(spans(rollout, from))).await.unwrap();
    }
    let mut open = span("named", "a", 9, "open");
    (open.start_time, open.end_time) = (Some(Timestamp::from_unix_nanos(1)), None);
    store.append(shared([open])).await.unwrap();
    let left = async |rollout: &str| store.spans(rollout.into(), None).await.unwrap().len();
    // By age: those that ended before the 450th, and the one without an end.
    let ended_before = Some(Timestamp::from_unix_nanos(START_NANOS + 450 + 7));
    let by_age = PruneRequest::Limits(PruneLimits { ended_before, ..PruneLimits::default() });
    let preview = store.prune_preview(by_age.clone()).await.unwrap();
    let removed = store.prune_all(by_age, |_| {}).await.unwrap();
    assert_eq!((removed.spans, removed.rollouts), (151, 0));
    assert_eq!((preview.spans, preview.rollouts), (151, 0));
    assert_eq!((left("running").await, left("ended").await, left("named").await), (300, 150, 300));
    // What is left of an attempt says how much is missing.
    let pruned = async |rollout: &str| {
        let attempt = store.attempts(rollout.into()).await.unwrap().remove(0);
        attempt.metadata["tracewire.pruned.spans"].as_u64()
    };
    assert_eq!((pruned("running").await, pruned("ended").await, pruned("named").await), (None, Some(150), Some(1)));
    // A client's metadata leave the numbers.
    let change = |metadata| AttemptChange { metadata: Some(metadata), ..AttemptChange::default() };
    let metadata = serde_json::from_value(serde_json::json!({ "own": 1, "tracewire.pruned.spans": 0 })).unwrap();
    let rollouts = Rollouts::new(Arc::clone(&store));
    rollouts.update_attempt("named".into(), None, change(metadata)).await.unwrap();
    assert_eq!(pruned("named").await, Some(1));
    let metadata = store.attempts("named".into()).await.unwrap().remove(0).metadata;
    assert_eq!((&metadata["own"], &metadata["tracewire.pruned.llm_calls"]), (&1.into(), &0.into()));
    // Nor do they bring any.
    let metadata = serde_json::from_value(serde_json::json!({ "tracewire.pruned.spans": 5 })).unwrap();
    rollouts.update_attempt("running".into(), None, change(metadata)).await.unwrap();
    assert_eq!(pruned("running").await, None);
    // By number: all that may go, since the others alone are more.
    let by_number = PruneRequest::Limits(PruneLimits { max_spans: 500, ..PruneLimits::default() });
    let preview = store.prune_preview(by_number.clone()).await.unwrap();
    let mut slices = 0;
    let removed = store.prune_all(by_number.clone(), |_| slices += 1).await.unwrap();
    assert_eq!((removed.spans, removed.rollouts), (450, 1));
    assert_eq!((preview.spans, preview.rollouts), (450, 1));
    assert!(slices > 0);
    let again = store.prune_slice(by_number, PruneCursor::default()).await.unwrap();
    assert_eq!(again.removed.spans, 0);
    // Whole rollouts.
    let ids = ["running", "ended", "gone"].map(RolloutId::from);
    let of_ids = PruneRequest::Rollouts(Arc::from(ids));
    assert_eq!(store.prune_preview(of_ids.clone()).await.unwrap().rollouts, 1);
    assert_eq!(store.prune_all(of_ids, |_| {}).await.unwrap().rollouts, 1);
    assert!(store.rollout("ended".into()).await.unwrap().is_none());
    assert_eq!((left("running").await, left("waiting").await), (300, 300));
    let statistics = store.statistics().await.unwrap();
    assert_eq!((statistics.pruned_spans, statistics.pruned_rollouts, statistics.spans), (601, 2, 600));
}

/// The last span of a trace goes and an earlier one stays, and then that one goes.
async fn traces_go_with_their_spans(store: SharedStore) {
    let of_trace = |number: u64, trace: &str| {
        let mut span = span("r", "a", number, &format!("s{number}"));
        span.trace_id = format!("{trace:0>32}");
        span
    };
    store
        .append(shared([of_trace(300, "1"), of_trace(100, "1"), of_trace(200, "2"), of_trace(400, "3")]))
        .await
        .unwrap();
    let owned = async |before: u64| {
        let ended_before = Some(Timestamp::from_unix_nanos(START_NANOS + before + 7));
        let limits = PruneLimits { ended_before, ..PruneLimits::default() };
        store.prune_all(PruneRequest::Limits(limits), |_| {}).await.unwrap();
        let traces = ["1", "2", "3"].map(|trace| format!("{trace:0>32}"));
        let owners = store.trace_owners(traces.to_vec()).await.unwrap();
        traces.map(|trace| owners.get(&trace).is_some_and(|(rollout, _)| rollout.as_str() == "r"))
    };
    assert_eq!(owned(250).await, [true, false, true]);
    assert_eq!(owned(350).await, [false, false, true]);
    assert_eq!(owned(450).await, [false; 3]);
}

/// Spans take the place of others, all or none, and traces go with their spans; rollouts and attempts stay.
async fn spans_are_replaced(store: SharedStore) {
    store.upsert_rollout(Rollout::running("running".into(), Timestamp::default())).await.unwrap();
    let in_trace = |rollout: &str, number: u64, trace: u64| {
        let mut span = span(rollout, "a", number, &format!("s{number}"));
        span.trace_id = format!("{trace:032x}");
        span.set("text", format!("text {number} ").repeat(300));
        span
    };
    // The last span of the third trace goes, and the one before it stays.
    let spans = (0..400).map(|number| in_trace("named", number, if number >= 398 { 3 } else { 1 + number % 2 }));
    store.append(shared(spans)).await.unwrap();
    store.append(shared([span("running", "a", 1, "x")])).await.unwrap();
    let numbers = async |rollout: &str, is_selected: fn(u64) -> bool| {
        let outlines = store.span_outlines(rollout.into(), 0, 1000).await.unwrap();
        let selected = outlines.iter().filter(|outline| is_selected(outline.span.sequence_id));
        selected.map(|outline| outline.number).collect::<Vec<_>>()
    };
    let replaced = async |request: &PruneRequest| {
        let (mut places, mut from) = (Vec::new(), PruneCursor::default());
        loop {
            let slice = store.prune_slice(request.clone(), from).await.unwrap();
            places.extend(slice.replaced);
            match slice.next {
                Some(next) => from = next,
                None => return places,
            }
        }
    };
    let (odd, even, running) = (|n| n % 2 == 1, |n| n % 2 == 0, |_| true);
    let (odd, mut even, running) =
        (numbers("named", odd).await, numbers("named", even).await, numbers("running", running).await);
    even.push(1 << 40);
    let by = |name: &str| {
        shared([in_trace("named", 1000, 4)])
            .into_iter()
            .map(|mut span| {
                Arc::make_mut(&mut span).name = name.to_owned();
                span
            })
            .collect::<Vec<_>>()
    };
    // One that is not stored, and one of a rollout in progress: nothing changes.
    let request = PruneRequest::Replace(Arc::from([
        SpanReplacement { numbers: odd, by: by("counts") },
        SpanReplacement { numbers: even, by: by("none") },
        SpanReplacement { numbers: running, by: by("none") },
    ]));
    assert_eq!(replaced(&request).await, [0]);
    assert!(replaced(&request).await.is_empty());
    let left = store.spans("named".into(), None).await.unwrap();
    let (counts, left): (Vec<_>, Vec<_>) = left.into_iter().partition(|span| span.sequence_id == 1000);
    assert!(counts.len() == 1 && counts[0].name == "counts", "{counts:?}");
    assert!(left.len() == 200 && left.iter().all(|span| span.sequence_id % 2 == 0));
    assert_eq!(store.spans("running".into(), None).await.unwrap().len(), 1);
    let traces = [1, 2, 3, 4].map(|trace| format!("{trace:032x}"));
    let owners = store.trace_owners(traces.to_vec()).await.unwrap();
    assert_eq!(traces.map(|trace| owners.contains_key(&trace)), [true, false, true, true], "{owners:?}");
    assert_eq!(store.attempts("named".into()).await.unwrap()[0].metadata, serde_json::json!({}));
}

async fn concurrent_appends(store: SharedStore) {
    let mut tasks = JoinSet::new();
    for task in 0..50 {
        let store = Arc::clone(&store);
        tasks.spawn(async move {
            let spans: Vec<_> = (0..5).map(|n| span("r", &format!("a{task}"), n, &format!("{task}-{n}"))).collect();
            store.append(shared(spans)).await.unwrap().stored
        });
    }
    assert_eq!(tasks.join_all().await.iter().sum::<usize>(), 250);
    assert_eq!(store.spans("r".into(), None).await.unwrap().len(), 250);
    assert_eq!(store.attempts("r".into()).await.unwrap().len(), 50);
}

async fn large_texts(store: SharedStore) {
    let mut long = span("r", "a", 1, "x");
    long.set("text", "漢字🦀é\u{0}\n".repeat(20_000));
    long.set("same", "漢字🦀é\u{0}\n".repeat(20_000));
    long.set("short", "é");
    long.set("number", 0.5);
    store.append(shared([long.clone()])).await.unwrap();
    assert_eq!(store.spans("r".into(), None).await.unwrap(), [long]);
}

async fn long_numbers(store: SharedStore) {
    let mut long = span("r", "a", 1, "x");
    let (ids, most) = ((0..5000).map(|id| id * 31 % 151_000).collect(), vec![i64::from(u32::MAX); 300]);
    long.attributes.insert("ids".to_owned(), Value::Ints(ids));
    long.attributes.insert("most".to_owned(), Value::Ints(most));
    long.attributes.insert("negative".to_owned(), Value::Ints(vec![-1; 300]));
    long.attributes.insert("logprobs".to_owned(), Value::Floats((0..300).map(|at| -f64::from(at) / 8.0).collect()));
    long.attributes.insert("precise".to_owned(), Value::Floats(vec![0.1; 300]));
    store.append(shared([long.clone()])).await.unwrap();
    assert_eq!(store.spans("r".into(), None).await.unwrap(), [long]);
}

/// With many workers, each rollout is dequeued once. A single worker gets them in their order.
/// Bodies are given back byte for byte, also those with the ids that their span has, and in part.
async fn bodies_are_restored(store: SharedStore) {
    let ids: Vec<i64> = (0..3000).map(|id| id * 7919 % 150_001).collect();
    let list = |separator| ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(separator);
    let mut written = span("r", "a", 1, "x");
    written.set("http.response.body.content", format!(r#"{{"p":[{}],"é":[1],"q":[{}]}}"#, list(","), list(", ")));
    written.set("http.request.body.content", format!(r#"{{"messages":[{{"content":"{}"}}],"#, "é".repeat(9000)));
    written.attributes.insert("prompt_token_ids".to_owned(), Value::Ints(ids.clone()));
    written.set("a\u{1}000000000009c", "x".repeat(600));
    store.append(shared([written.clone()])).await.unwrap();
    assert_eq!(store.spans("r".into(), None).await.unwrap(), [written.clone()]);
    const BODY: &str = "http.response.body.content";
    let query = SpanQuery { content: SpanContent::Outline(&[BODY]), ..SpanQuery::of_rollout("r".into()) };
    let part = store.span_page(query).await.unwrap().spans.remove(0).1;
    assert_eq!(part.attributes.get(BODY), written.attributes.get(BODY));
    assert!(part.attributes.keys().eq(written.attributes.keys()));
    let query = SpanQuery { content: SpanContent::Outline(&[]), ..SpanQuery::of_rollout("r".into()) };
    let outline = store.span_page(query).await.unwrap().spans.remove(0).1;
    assert!(outline.attributes.keys().eq(written.attributes.keys()));
}

async fn queue_is_fair(store: SharedStore) {
    let rollouts = Rollouts::new(store);
    let new =
        |input: u64| NewRollout { input: input.into(), mode: None, resources_id: None, config: None, metadata: None };
    let first = rollouts.enqueue((0..20).map(new).collect()).await.unwrap();
    let taken = rollouts.dequeue(20, None).await.unwrap();
    let ids = |all: Vec<&Rollout>| all.into_iter().map(|rollout| rollout.rollout_id.clone()).collect::<Vec<_>>();
    assert_eq!(ids(taken.iter().map(|one| &one.rollout).collect()), ids(first.iter().collect()));
    let many = rollouts.enqueue((0..60).map(new).collect()).await.unwrap();
    let mut runners = JoinSet::new();
    for runner in 0..8 {
        let rollouts = rollouts.clone();
        runners.spawn(async move {
            let mut taken = Vec::new();
            // A concurrent dequeue of the head can leave this one empty although the queue is not.
            while taken.len() < 60 {
                let got = rollouts.dequeue(1, Some(format!("w{runner}"))).await.unwrap();
                if got.is_empty() && rollouts.store().attempted_rollouts(queued()).await.unwrap().is_empty() {
                    break;
                }
                taken.extend(got.into_iter().map(|one| one.rollout.rollout_id));
            }
            taken
        });
    }
    let mut taken: Vec<_> = runners.join_all().await.into_iter().flatten().collect();
    let mut expected = ids(many.iter().collect());
    taken.sort();
    expected.sort();
    assert_eq!(taken, expected);
    assert_eq!(rollouts.store().workers().await.unwrap().len(), 8);
}

fn queued() -> RolloutFilter {
    RolloutFilter::of_statuses(vec![RolloutStatus::Queuing])
}

/// An attempt that only a span names is never the latest if attempts were started.
async fn a_span_makes_no_latest_attempt(store: SharedStore) {
    let rollouts = Rollouts::new(Arc::clone(&store));
    let new = NewRollout { input: 1.into(), mode: None, resources_id: None, config: None, metadata: None };
    let started = rollouts.start(new, None).await.unwrap();
    let id = started.rollout.rollout_id;
    store.append(shared([span(id.as_str(), "at-stray", 1, "x"), span(id.as_str(), "at-other", 2, "y")])).await.unwrap();
    let change = AttemptChange { status: Some(AttemptStatus::Succeeded), ..AttemptChange::default() };
    let ended = rollouts.update_attempt(id.clone(), None, change).await.unwrap();
    assert_eq!(Some(ended.attempt_id), started.attempt.map(|attempt| attempt.attempt_id));
    assert_eq!(store.rollout(id.clone()).await.unwrap().unwrap().status, RolloutStatus::Succeeded);
    assert_eq!(rollouts.start_attempt(id.clone(), None).await.unwrap().attempt.unwrap().sequence_id, 2);
    assert_eq!(store.attempts(id).await.unwrap().len(), 4);
}

/// Concurrent attempts, spans and changes of one rollout: attempts have distinct numbers, and nothing is lost.
async fn one_rollout_many_writers(store: SharedStore) {
    let rollouts = Rollouts::new(Arc::clone(&store));
    let new = NewRollout { input: 1.into(), mode: None, resources_id: None, config: None, metadata: None };
    let id = rollouts.start(new, None).await.unwrap().rollout.rollout_id;
    let mut writers = JoinSet::new();
    for writer in 0..12_u64 {
        let (rollouts, store, id) = (rollouts.clone(), Arc::clone(&store), id.clone());
        writers.spawn(async move {
            let attempt =
                rollouts.start_attempt(id.clone(), Some(format!("w{writer}"))).await.unwrap().attempt.unwrap();
            let spans = (0..3)
                .map(|n| span(id.as_str(), attempt.attempt_id.as_str(), writer * 3 + n, &format!("{writer}-{n}")));
            store.append(shared(spans)).await.unwrap();
            let change = AttemptChange { status: Some(AttemptStatus::Succeeded), ..AttemptChange::default() };
            rollouts.update_attempt(id, Some(attempt.attempt_id), change).await.unwrap();
        });
    }
    writers.join_all().await;
    let attempts = store.attempts(id.clone()).await.unwrap();
    let numbers: Vec<u64> = attempts.iter().map(|attempt| attempt.sequence_id).collect();
    assert_eq!(numbers, (1..=13).collect::<Vec<_>>());
    assert!(
        attempts[1..].iter().all(|attempt| attempt.status == AttemptStatus::Succeeded && attempt.end_time.is_some())
    );
    assert_eq!(store.spans(id, None).await.unwrap().len(), 36);
}

fn in_state(id: &str, status: RolloutStatus) -> Rollout {
    Rollout { status, ..Rollout::running(id.into(), Timestamp::default()) }
}

/// The log of ended rollouts from `after` on, and its length.
async fn log(store: &SharedStore, after: u64, limit: usize) -> (String, u64) {
    let page = store.ended_rollouts(after, limit).await.unwrap();
    let ids: Vec<&str> = page.ids.iter().map(|id| id.as_str()).collect();
    (ids.join(" "), page.total)
}

/// Each end of a rollout has an entry in the log, also after the removal of the rollout.
async fn ends_are_logged(store: SharedStore) {
    let put = async |id: &str, status: RolloutStatus| store.upsert_rollout(in_state(id, status)).await.unwrap();
    put("a", RolloutStatus::Running).await;
    put("b", RolloutStatus::Queuing).await;
    assert_eq!(log(&store, 0, 10).await, (String::new(), 0));
    put("b", RolloutStatus::Failed).await;
    put("a", RolloutStatus::Succeeded).await;
    // A change from one final state to another, or a late span, is not an end.
    put("b", RolloutStatus::Failed).await;
    put("b", RolloutStatus::Cancelled).await;
    store.append(shared([span("a", "at", 1, "x"), span("running", "at", 1, "x")])).await.unwrap();
    // A rollout that is new and has ended.
    put("c", RolloutStatus::Cancelled).await;
    assert_eq!(log(&store, 0, 10).await, ("b a c".to_owned(), 3));
    assert_eq!(log(&store, 1, 1).await, ("a".to_owned(), 3));
    for past in [3, 4, u64::MAX] {
        assert_eq!(log(&store, past, usize::MAX).await, (String::new(), 3));
    }
    put("a", RolloutStatus::Running).await;
    put("a", RolloutStatus::Failed).await;
    assert_eq!(log(&store, 2, usize::MAX).await, ("c a".to_owned(), 4));
    store.change(Box::new(|records| records.remove_rollout(&"b".into()).map(drop))).await.unwrap();
    assert_eq!(store.rollout("b".into()).await.unwrap(), None);
    assert_eq!(log(&store, 0, 1).await, ("b".to_owned(), 4));
}

async fn concurrent_ends_leave_no_gap(store: SharedStore) {
    let mut writers = JoinSet::new();
    for writer in 0..24 {
        let store = Arc::clone(&store);
        writers.spawn(async move {
            // Two tasks end the same rollout concurrently.
            store.upsert_rollout(in_state(&format!("r{}", writer / 2 * 2), RolloutStatus::Succeeded)).await.unwrap();
            store.upsert_rollout(in_state(&format!("own{writer}"), RolloutStatus::Failed)).await.unwrap();
        });
    }
    writers.join_all().await;
    let page = store.ended_rollouts(0, 100).await.unwrap();
    let distinct: BTreeSet<_> = page.ids.iter().collect();
    assert_eq!((distinct.len(), page.ids.len(), page.total), (36, 36, 36));
}

/// A transaction that is rolled back ends nothing. (The memory store can't roll back.)
async fn undone_ends_are_not_logged(store: SharedStore) {
    let undone = store.change(Box::new(|records| {
        records.upsert_rollout(&in_state("undone", RolloutStatus::Failed))?;
        Err(StoreError::RolledBack("on purpose".to_owned()))
    }));
    let error = undone.await.unwrap_err();
    assert!(matches!(&error, StoreError::RolledBack(cause) if cause == "on purpose"), "{error}");
    store.upsert_rollout(in_state("done", RolloutStatus::Failed)).await.unwrap();
    assert_eq!(log(&store, 0, 10).await, ("done".to_owned(), 1));
}

async fn a_removed_rollout_leaves_nothing(store: SharedStore) {
    let rollouts = Rollouts::new(Arc::clone(&store));
    let new = NewRollout { input: 1.into(), mode: None, resources_id: None, config: None, metadata: None };
    let id = rollouts.enqueue(vec![new]).await.unwrap()[0].rollout_id.clone();
    let mut long = span(id.as_str(), "at", 7, "x");
    let trace = "1af7651916cd43dd8448eb211c80319c".to_owned();
    long.trace_id = trace.clone();
    long.set("text", "long ".repeat(1000));
    store.append(shared([long.clone(), span("other", "at", 1, "x")])).await.unwrap();
    rollouts.require_attempt(&id, &"at".into()).await.unwrap();
    assert_eq!(store.trace_owners(vec![trace.clone()]).await.unwrap().len(), 1);
    assert_eq!(rollouts.remove(id.clone()).await.unwrap(), 1);
    assert_eq!(rollouts.remove(id.clone()).await.unwrap(), 0);
    assert!(rollouts.require_attempt(&id, &"at".into()).await.is_err());
    assert_eq!(store.rollout(id.clone()).await.unwrap(), None);
    assert!(store.attempts(id.clone()).await.unwrap().is_empty());
    assert!(store.spans(id.clone(), None).await.unwrap().is_empty());
    assert_eq!(store.sequence_state(id.clone()).await.unwrap(), RolloutSequenceState::default());
    assert!(store.trace_owners(vec![trace.clone()]).await.unwrap().is_empty());
    let queued = rollouts.transact_silently(|records, _| Ok(records.dequeue()?)).await.unwrap();
    assert_eq!(queued, None);
    assert_eq!(store.spans("other".into(), None).await.unwrap(), [span("other", "at", 1, "x")]);
    // The same span creates it again.
    long.sequence_id = 1;
    assert_eq!(store.append(shared([long.clone()])).await.unwrap(), Appended { stored: 1, duplicates: 0 });
    assert_eq!(store.spans(id.clone(), None).await.unwrap(), [long]);
    assert_eq!(store.attempts(id.clone()).await.unwrap()[0].sequence_id, 1);
    assert_eq!(
        store.sequence_state(id.clone()).await.unwrap(),
        RolloutSequenceState { registered: false, last_sequence_id: 1 }
    );
    assert_eq!(store.trace_owners(vec![trace.clone()]).await.unwrap()[&trace].0, id);
}

/// Processes that share a server get distinct sequence ids.
#[tokio::test(flavor = "multi_thread")]
async fn programs_that_share_a_server_never_give_an_id_twice() {
    let url = database();
    let mut all = JoinSet::new();
    for _ in 0..2 {
        let store = Arc::new(PostgresStore::open(&url, no_tls(), PostgresOptions::default()).await.unwrap());
        for _ in 0..4 {
            let store = Arc::clone(&store);
            all.spawn(async move {
                let mut ids = Vec::new();
                for _ in 0..25 {
                    ids.push(store.next_sequence("r".into(), 0).await.unwrap().last_sequence_id);
                }
                assert!(ids.is_sorted());
                ids
            });
        }
    }
    let mut ids: Vec<u64> = all.join_all().await.into_iter().flatten().collect();
    ids.sort_unstable();
    assert_eq!(ids, (1..=200).collect::<Vec<_>>());
}

/// Ids continue from those of stored spans. The rollout is created if it is missing, and is not registered by that.
async fn sequence_ids_are_assigned(store: SharedStore) {
    let next = async || store.next_sequence("r".into(), 0).await.unwrap();
    assert_eq!(next().await, RolloutSequenceState { registered: false, last_sequence_id: 1 });
    store.append(shared([span("r", "a", 7, "x")])).await.unwrap();
    assert_eq!(next().await.last_sequence_id, 8);
    store.upsert_rollout(Rollout::running("r".into(), Timestamp::default())).await.unwrap();
    assert_eq!(next().await, RolloutSequenceState { registered: true, last_sequence_id: 9 });
    assert_eq!(store.sequence_state("r".into()).await.unwrap().last_sequence_id, 9);
    for (rollout, above, expected) in [("r", 30, 31), ("r", 5, 32), ("new", 9, 10)] {
        assert_eq!(store.next_sequence(rollout.into(), above).await.unwrap().last_sequence_id, expected);
    }
    for (rollout, above, count, expected) in [("r", 0, 5, 37), ("r", 40, 3, 43), ("newer", 0, 512, 512)] {
        let last = store.next_sequences(rollout.into(), above, count).await.unwrap().last_sequence_id;
        assert_eq!(last, expected, "{rollout} {above} {count}");
    }
    assert_eq!(next().await.last_sequence_id, 44);
}

async fn closed(store: SharedStore) {
    store.close().await.unwrap();
    assert!(matches!(store.append(shared([span("r", "a", 1, "x")])).await, Err(StoreError::Closed)));
    assert!(matches!(store.rollouts(1).await, Err(StoreError::Closed)));
    store.close().await.unwrap();
}

macro_rules! suite {
    ($($module:ident => [$($test:ident),* $(,)?]),* $(,)?) => {$(
        mod $module {
            use tracewire::store::{Retention, StoreExt};
            $(
                #[tokio::test]
                async fn $test() {
                    let opened = super::$module(Retention::default()).await;
                    super::$test(opened.store.clone()).await;
                }
            )*

            #[tokio::test]
            async fn keeps_at_most() {
                let opened = super::$module(Retention { max_spans: 100, ..Retention::default() }).await;
                super::keeps_at_most(opened.store.clone()).await;
            }

            #[tokio::test]
            async fn old_spans_go() {
                let opened = super::$module(Retention { max_age_days: 1, ..Retention::default() }).await;
                opened.store.append(super::shared([super::span("r", "a", 1, "x")])).await.unwrap();
                opened.store.prune().await.unwrap();
                assert_eq!(opened.store.statistics().await.unwrap().spans, 0);
            }
        }
    )*};
}
suite!(
    memory => [duplicates, creates_rollouts, sequence_state_survives, sequence_ids_are_assigned, order, spans_are_paged, spans_are_outlined, spans_are_read_by_number, spans_are_followed, messages_are_found, rollouts_are_paged, attempts_are_numbered, prunes_keep_rollouts_in_progress, spans_are_replaced, traces_go_with_their_spans, concurrent_appends, large_texts, long_numbers, bodies_are_restored, queue_is_fair, one_rollout_many_writers, a_span_makes_no_latest_attempt, ends_are_logged, concurrent_ends_leave_no_gap, a_removed_rollout_leaves_nothing, closed],
    sqlite => [duplicates, creates_rollouts, sequence_state_survives, sequence_ids_are_assigned, order, spans_are_paged, spans_are_outlined, spans_are_read_by_number, spans_are_followed, messages_are_found, rollouts_are_paged, attempts_are_numbered, prunes_keep_rollouts_in_progress, spans_are_replaced, traces_go_with_their_spans, concurrent_appends, large_texts, long_numbers, bodies_are_restored, queue_is_fair, one_rollout_many_writers, a_span_makes_no_latest_attempt, ends_are_logged, concurrent_ends_leave_no_gap, a_removed_rollout_leaves_nothing, undone_ends_are_not_logged, closed],
    postgres => [duplicates, creates_rollouts, sequence_state_survives, sequence_ids_are_assigned, order, spans_are_paged, spans_are_outlined, spans_are_read_by_number, messages_are_found, rollouts_are_paged, attempts_are_numbered, prunes_keep_rollouts_in_progress, spans_are_replaced, traces_go_with_their_spans, concurrent_appends, large_texts, long_numbers, bodies_are_restored, queue_is_fair, one_rollout_many_writers, a_span_makes_no_latest_attempt, ends_are_logged, concurrent_ends_leave_no_gap, a_removed_rollout_leaves_nothing, undone_ends_are_not_logged, closed],
);

fn fresh() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("new").join("spans.db");
    (folder, path)
}

fn open(path: &Path) -> Result<SqliteStore, StoreError> {
    let options = SqliteOptions { busy_timeout: Duration::from_millis(50), ..SqliteOptions::default() };
    SqliteStore::open(path, options)
}

fn open_error(path: &Path) -> StoreError {
    match open(path) {
        Ok(_) => panic!("{} was opened", path.display()),
        Err(error) => error,
    }
}

/// What this program has stored just now is not returned any more once another program has removed it.
#[tokio::test]
async fn spans_are_followed_beside_another_program() {
    let (_folder, path) = fresh();
    let (store, other) = (open(&path).unwrap(), open(&path).unwrap());
    let followed = async |after: u64| {
        let page = store.spans_by_number(after, 10).await.unwrap();
        (ids(&page.spans).join(" "), page.newest)
    };
    assert_eq!(followed(0).await, (String::new(), 0));
    store.append(shared([span("gone", "a", 1, "one"), span("r", "a", 1, "two")])).await.unwrap();
    assert_eq!(followed(0).await, ("one two".to_owned(), 2));
    other.transaction(|records| records.remove_rollout(&"gone".into())).await.unwrap();
    assert_eq!(followed(0).await, ("two".to_owned(), 2));
    store.append(shared([span("r", "a", 2, "three")])).await.unwrap();
    assert_eq!(followed(0).await, ("two three".to_owned(), 3));
    other.append(shared([span("r", "a", 3, "four")])).await.unwrap();
    assert_eq!(followed(2).await, ("three four".to_owned(), 4));
}

#[tokio::test]
async fn reopening_keeps_everything() {
    let (_folder, path) = fresh();
    let mut long = span("r", "a", 8, "x");
    long.set("text", "long ".repeat(1000));
    let store = open(&path).unwrap();
    store.upsert_rollout(Rollout::running("r".into(), Timestamp::default())).await.unwrap();
    store.append(shared([long.clone()])).await.unwrap();
    drop(store);
    let store = open(&path).unwrap();
    assert_eq!(store.spans("r".into(), None).await.unwrap(), [long.clone()]);
    assert_eq!(
        store.sequence_state("r".into()).await.unwrap(),
        RolloutSequenceState { registered: true, last_sequence_id: 8 }
    );
    assert_eq!(store.append(shared([long])).await.unwrap().duplicates, 1);
}

#[tokio::test]
async fn files_are_their_owners() {
    use std::os::unix::fs::PermissionsExt;
    let (_folder, path) = fresh();
    let _store = open(&path).unwrap();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
}

#[tokio::test]
async fn a_text_is_stored_once_and_removed_with_its_last_span() {
    let (_folder, path) = fresh();
    let retention = Retention { max_spans: 10, ..Retention::default() };
    let store = SqliteStore::open(&path, SqliteOptions { retention, ..SqliteOptions::default() }).unwrap();
    let spans = (0..20).map(|number| {
        let mut span = span("r", "a", number, &format!("s{number}"));
        span.set("text", if number == 0 { "only the first ".repeat(100) } else { "all others ".repeat(100) });
        span
    });
    store.append(shared(spans)).await.unwrap();
    let texts = || -> i64 {
        let connection = Connection::open(&path).unwrap();
        connection.query_row("SELECT COUNT(*) FROM text", [], |row| row.get(0)).unwrap()
    };
    store.prune().await.unwrap();
    assert_eq!(store.statistics().await.unwrap().spans, 9);
    assert_eq!(texts(), 1);
}

/// A removal takes the texts that were stored before it, but no text of another rollout.
#[tokio::test]
async fn a_removed_rollout_takes_its_texts_along() {
    let (_folder, path) = fresh();
    let store: SharedStore = Arc::new(SqliteStore::open(&path, SqliteOptions::default()).unwrap());
    let rollouts = Rollouts::new(Arc::clone(&store));
    let long = |rollout: &str, id: &str, text: &str| {
        let mut span = span(rollout, "a", 1, id);
        span.set("text", text.repeat(1000));
        span
    };
    let kept = long("kept", "x", "shared ");
    store.append(shared([kept.clone(), long("gone", "x", "shared ")])).await.unwrap();
    assert_eq!(store.append(shared([long("gone", "y", "its own ")])).await.unwrap().stored, 1);
    assert_eq!(rollouts.remove("gone".into()).await.unwrap(), 2);
    assert_eq!(store.spans("kept".into(), None).await.unwrap(), [kept]);
    let connection = Connection::open(&path).unwrap();
    let count = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
    assert_eq!((count("SELECT COUNT(*) FROM text"), count("SELECT COUNT(*) FROM span_text")), (1, 1));
    assert_eq!(count("SELECT COUNT(*) FROM orphaned_text"), 0);
}

/// A conversation with 4 kB per turn, as an agent sends it: the whole conversation with each call, as messages and token ids.
fn conversation(turns: u64) -> Vec<Span> {
    let turn = |number: u64| {
        let mut random = fastrand::Rng::with_seed(number);
        let text: String = (0..4000).map(|_| random.alphanumeric()).collect();
        let ids: Vec<i64> = (0..1000).map(|_| random.i64(0..151_000)).collect();
        (format!("{{\"role\":\"user\",\"parts\":[{{\"type\":\"text\",\"content\":\"{text}\"}}]}}"), ids)
    };
    let all: Vec<_> = (0..turns).map(turn).collect();
    let call = |number: usize| {
        let mut call = span("r", "a", number as u64, &format!("s{number}"));
        let messages: Vec<&str> = all[..=number].iter().map(|(message, _)| message.as_str()).collect();
        call.set("gen_ai.input.messages", format!("[{}]", messages.join(",")));
        let ids = all[..=number].iter().flat_map(|(_, ids)| ids.clone()).collect();
        call.attributes.insert("prompt_token_ids".to_owned(), Value::Ints(ids));
        call
    };
    (0..all.len()).map(call).collect()
}

#[tokio::test]
async fn a_growing_conversation_stores_what_is_new_in_each_call() {
    let (_folder, path) = fresh();
    let store = SqliteStore::open(&path, SqliteOptions::default()).unwrap();
    let spans = conversation(100);
    for span in &spans {
        store.append(shared([span.clone()])).await.unwrap();
    }
    assert!(store.spans("r".into(), None).await.unwrap() == spans, "the stored spans are not restored");
    // Random text takes 6 bits a character, an id 4 bytes.
    let (size, distinct) = (store.statistics().await.unwrap().size_bytes, 100 * (4000 + 4 * 1000));
    assert!(size <= 2 * distinct, "{size} bytes for {distinct}");
}

#[tokio::test]
async fn ids_in_a_body_are_stored_once_with_those_of_the_span() {
    let (folder, path) = fresh();
    let store = open(&path).unwrap();
    let ids: Vec<i64> = (0..200_000).map(|id| id * 7919 % 150_001).collect();
    let mut written = span("r", "a", 1, "x");
    written.set("http.response.body.content", format!(r#"{{"ids":{}}}"#, serde_json::to_string(&ids).unwrap()));
    written.attributes.insert("prompt_token_ids".to_owned(), Value::Ints(ids));
    store.append(shared([written])).await.unwrap();
    store.close().await.unwrap();
    let size = std::fs::metadata(&path).unwrap().len();
    assert!(size < 900_000, "{size}");
    drop(folder);
}

#[tokio::test]
async fn pieces_are_removed_with_their_last_span() {
    let (_folder, path) = fresh();
    let retention = Retention { max_spans: 10, ..Retention::default() };
    let store = SqliteStore::open(&path, SqliteOptions { retention, ..SqliteOptions::default() }).unwrap();
    let mut spans = conversation(30);
    spans.reverse();
    // The longest are removed first, with the pieces that only they have.
    store.append(shared(spans.clone())).await.unwrap();
    store.prune().await.unwrap();
    let left = store.spans("r".into(), None).await.unwrap();
    assert!(!left.is_empty() && left.len() <= 10);
    let kept: Vec<&Span> = spans.iter().rev().take(left.len()).collect();
    assert!(left.iter().eq(kept), "the remaining spans are incomplete");
    let connection = Connection::open(&path).unwrap();
    let count = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
    let unused = "SELECT COUNT(*) FROM text WHERE NOT EXISTS (SELECT 1 FROM span_text WHERE span_text.text = text.id)
        AND NOT EXISTS (SELECT 1 FROM text AS next WHERE next.parent = text.id)";
    assert_eq!((count(unused), count("SELECT COUNT(*) FROM orphaned_text")), (0, 0));
}

#[test]
fn garbage_is_refused() {
    let (folder, _) = fresh();
    let path = folder.path().join("garbage.db");
    std::fs::write(&path, b"this is no database ".repeat(500)).unwrap();
    let error = open_error(&path);
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
    assert!(error.to_string().contains("garbage.db"));
}

#[test]
fn another_programs_database_is_refused_and_left_alone() {
    let (folder, _) = fresh();
    let path = folder.path().join("foreign.db");
    Connection::open(&path).unwrap().execute_batch("CREATE TABLE theirs (id INTEGER)").unwrap();
    let before = std::fs::read(&path).unwrap();
    assert!(matches!(open_error(&path), StoreError::Corrupt { .. }));
    assert_eq!(std::fs::read(&path).unwrap(), before);
}

#[test]
fn a_newer_schema_is_refused() {
    let (_folder, path) = fresh();
    drop(open(&path).unwrap());
    Connection::open(&path).unwrap().execute_batch("PRAGMA user_version = 999").unwrap();
    assert!(matches!(open_error(&path), StoreError::TooNew { found: 999, .. }));
}

#[test]
fn a_place_that_cannot_hold_a_file_is_unusable() {
    // A regular file as the folder, since a read-only folder does not stop root.
    let (folder, _) = fresh();
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    assert!(matches!(open_error(&file.join("spans.db")), StoreError::Unusable { .. }));
    assert!(matches!(open_error(&file.join("deeper").join("spans.db")), StoreError::Unusable { .. }));
    assert!(matches!(open_error(folder.path()), StoreError::Unusable { .. }));
}

#[test]
fn a_locked_file_is_named_as_such() {
    let (_folder, path) = fresh();
    drop(open(&path).unwrap());
    let holder = Connection::open(&path).unwrap();
    holder.execute_batch("BEGIN EXCLUSIVE").unwrap();
    assert!(matches!(open_error(&path), StoreError::Locked { .. }));
    holder.execute_batch("ROLLBACK").unwrap();
    drop(open(&path).unwrap());
}

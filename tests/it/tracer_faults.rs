//! Tracers when something goes wrong: stores that are away, two processes in one attempt, futures that are dropped, and headers
//! of others.

use crate::support::Bench;
use crate::support::tracers::{dummy, memory_store, tree};
use serde_json::json;
use std::future::Future;
use std::sync::Arc;
use std::task::{Context as TaskContext, Waker};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tracewire::store::{Store, StoreExt, memory::MemoryStore};
use tracewire::trace::Timestamp;
use tracewire::tracer::{
    self, Baggage, Context, DummyTracer, FutureExt, HttpTracer, NewSpan, OtelSpanProcessor, StoreTracer, Trace,
    TraceOptions, Tracer, TracerError, create_span,
};

fn store_tracer(store: &Arc<MemoryStore>) -> StoreTracer {
    let tracer = StoreTracer::new(Arc::clone(store)).unwrap();
    tracer.init_worker(0).unwrap();
    tracer
}

/// Polls a future once, which does not end, and drops it.
fn start_and_drop(future: impl Future) {
    let mut future = Box::pin(future);
    assert!(future.as_mut().poll(&mut TaskContext::from_waker(Waker::noop())).is_pending());
}

#[tokio::test]
async fn a_flush_ends_while_the_store_is_away() {
    let store = memory_store();
    let tracer = store_tracer(&store);
    store.close().await.unwrap();
    // More than the thread takes at once, and less than the queue holds.
    let guard = tracer.trace_guard("task").unwrap();
    (0..2000).for_each(|_| drop(create_span("step").unwrap()));
    guard.end();
    for _ in 0..3 {
        let error = tracer.flush().await.unwrap_err().to_string();
        assert!(error.starts_with("2001 spans are not stored (the trace store is closed)"), "{error}");
    }
    assert_eq!(tracer.counters().waiting, 2001);
}

#[tokio::test]
async fn two_processes_in_one_attempt_lose_no_root() {
    let store = memory_store();
    let (first, second) = (store_tracer(&store), store_tracer(&store));
    let options = |name: &str| TraceOptions::new(name).rollout("ro-1").attempt("at-1");
    let work = |name: &'static str| async move {
        (0..50).try_for_each(|number| create_span(format!("{name} {number}")).map(drop))
    };
    let (one, two) = tokio::join!(
        first.trace_context(options("first"), work("first")),
        second.trace_context(options("second"), work("second")),
    );
    one.and(two).unwrap();
    let trace = Trace::read(&*store, "ro-1", "at-1").await.unwrap();
    assert_eq!(trace.spans().len(), 102);
    let ids: std::collections::BTreeSet<u64> = trace.spans().iter().map(|span| span.sequence_id).collect();
    assert_eq!(ids.len(), 102, "a sequence id was used twice");
    let (one, two) = (trace.find("first").unwrap(), trace.find("second").unwrap());
    let (root, other) = if one.parent_id.is_none() { (one, two) } else { (two, one) };
    assert_eq!((root.parent_id.as_ref(), other.parent_id.as_ref()), (None, Some(&root.span_id)));
    assert!(!root.attributes.contains_key("tracewire.span.unended"));
    assert_eq!((first.counters().stored, second.counters().stored), (51, 51));
}

#[tokio::test]
async fn a_task_that_outlives_its_trace_may_start_another() {
    let tracer = dummy();
    let (end, ended) = tokio::sync::oneshot::channel::<()>();
    let later = tracer.clone();
    let spawned = tracer
        .trace_context("first", async {
            let task = async move {
                ended.await.unwrap();
                later.trace_context("second", async { create_span("step").map(drop) }).await
            };
            Ok::<_, TracerError>(tokio::spawn(task.with_current_context()))
        })
        .await
        .unwrap();
    end.send(()).unwrap();
    spawned.await.unwrap().unwrap();
    assert_eq!(tree(&tracer.last_trace().unwrap()), [(0, "second"), (1, "step")]);
}

#[tokio::test]
async fn a_lifespan_that_is_dropped_frees_its_worker() {
    let tracer = DummyTracer::new();
    start_and_drop(tracer.lifespan(std::future::pending::<Result<(), TracerError>>()));
    let result = tracer.lifespan(tracer.trace_context("task", async { Ok::<_, TracerError>(7) })).await;
    assert_eq!(result.unwrap(), 7);
}

#[test]
fn headers_of_others_never_stop_a_trace_and_never_mix_ids() {
    let tracer = dummy();
    let ids = |options: TraceOptions| {
        let guard = tracer.trace_guard(options).unwrap();
        let context = guard.root().context();
        (context.rollout_id().to_string(), context.attempt_id().to_string(), context.baggage().clone())
    };
    let baggage = |text: &str| [("baggage", text.to_owned())];
    let both = baggage("agentlightning.rollout_id=ro-1,agentlightning.attempt_id=at-1,tenant=red");
    let (rollout, attempt, _) = ids(TraceOptions::new("x").remote_parent(both.clone()));
    assert_eq!((rollout.as_str(), attempt.as_str()), ("ro-1", "at-1"));
    // The attempt of one rollout is not that of another.
    let (rollout, attempt, _) = ids(TraceOptions::new("x").rollout("ro-2").remote_parent(both.clone()));
    assert!(rollout == "ro-2" && attempt != "at-1", "{attempt}");
    let (_, attempt, _) = ids(TraceOptions::new("x").rollout("ro-1").remote_parent(both.clone()));
    assert_eq!(attempt, "at-1");
    let (rollout, ..) = ids(TraceOptions::new("x").remote_parent(baggage("agentlightning.rollout_id=a%0Ab")));
    assert!(rollout.starts_with("ro-"), "{rollout}");
    // What is set here stays, in any order.
    let own = Baggage::default().with("tenant", "blue").unwrap().with("own", "1").unwrap();
    for options in [
        TraceOptions::new("x").baggage(own.clone()).remote_parent(both.clone()),
        TraceOptions::new("x").remote_parent(both).baggage(own),
    ] {
        let (_, _, baggage) = ids(options);
        assert_eq!((baggage.get("tenant"), baggage.get("own")), (Some("blue"), Some("1")));
    }
}

#[test]
fn spans_of_the_sdk_below_unrecorded_ones_join_where_they_start() {
    use opentelemetry::trace::{Tracer as _, TracerProvider as _};
    let provider =
        opentelemetry_sdk::trace::SdkTracerProvider::builder().with_span_processor(OtelSpanProcessor::new()).build();
    let (library, tracer) = (provider.tracer("library"), dummy());
    let trace = library.in_span("outside", |_| {
        let guard = tracer.trace_guard("task").unwrap();
        library.in_span("query", |_| library.in_span("connect", |_| ()));
        guard.end()
    });
    assert_eq!(tree(&trace), [(0, "task"), (1, "query"), (2, "connect")]);
}

#[test]
fn an_operation_that_started_earlier_ends_now() {
    let tracer = dummy();
    let guard = tracer.trace_guard("task").unwrap();
    let start = Timestamp::from(std::time::SystemTime::now() - std::time::Duration::from_secs(60));
    tracer::operation(NewSpan::new("download").start_time(start)).unwrap().end();
    let future = Timestamp::from(std::time::SystemTime::now() + std::time::Duration::from_secs(60));
    tracer::operation(NewSpan::new("planned").start_time(future)).unwrap().end();
    let trace = guard.end();
    let (download, planned) = (trace.find("download").unwrap(), trace.find("planned").unwrap());
    let seconds = download.end_time.unwrap().unix_nanos.saturating_sub(start.unix_nanos) / 1_000_000_000;
    assert!((60..120).contains(&seconds), "{seconds} s");
    assert_eq!(planned.end_time, Some(future));
}

#[test]
fn content_of_operations_is_flattened_as_agent_lightning_does_it() {
    let tracer = dummy();
    let guard = tracer.trace_guard("task").unwrap();
    let step = tracer::operation("step").unwrap();
    step.record_input(
        &json!({ "task": { "id": 7, "tags": ["a", "b"] }, "mixed": [1, 0.5], "none": null, "empty": [] }),
    )
    .unwrap();
    step.record_output(&"done").unwrap();
    step.end();
    let trace = guard.end();
    let mut attributes = serde_json::to_value(&trace.find("step").unwrap().attributes).unwrap();
    assert!(attributes.as_object_mut().unwrap().remove("tracewire.input.size").is_some());
    let input = "agentlightning.operation.input";
    assert_eq!(
        attributes,
        json!({ format!("{input}.task.id"): 7, format!("{input}.task.tags"): ["a", "b"], format!("{input}.mixed.0"): 1,
            format!("{input}.mixed.1"): 0.5, format!("{input}.none"): "null",
            "agentlightning.operation.output": "done", "tracewire.output.size": 4 })
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_trace_that_is_dropped_keeps_its_calls() {
    let bench = Bench::new();
    let url = format!("{}/v1/models", bench.http());
    let store = memory_store();
    let tracer = HttpTracer::into_store(Arc::clone(&store)).unwrap();
    tracer.init_worker(0).unwrap();
    let (called, has_called) = tokio::sync::oneshot::channel();
    let options = TraceOptions::new("task").rollout("ro-1").attempt("at-1");
    let running = tokio::spawn({
        let tracer = tracer.clone();
        async move {
            tracer
                .run_with_proxy(options, |proxy| async move {
                    let address = proxy.url().trim_start_matches("http://").trim_end_matches('/').to_owned();
                    let mut stream = tokio::net::TcpStream::connect(address).await.map_err(anyhow::Error::from)?;
                    let host = url.trim_start_matches("http://").split('/').next().unwrap_or_default();
                    let request = format!("GET {url} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
                    stream.write_all(request.as_bytes()).await?;
                    let mut response = String::new();
                    stream.read_to_string(&mut response).await?;
                    called.send(response).unwrap();
                    std::future::pending::<anyhow::Result<()>>().await
                })
                .await
        }
    });
    assert!(has_called.await.unwrap().starts_with("HTTP/1.1 200"));
    running.abort();
    assert!(running.await.unwrap_err().is_cancelled());
    // The end of the trace is a task of the runtime.
    let stored = async {
        while store.spans("ro-1".into(), None).await.unwrap().len() < 2 {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(30), stored).await.unwrap();
    let trace = Trace::read(&*store, "ro-1", "at-1").await.unwrap();
    assert_eq!(tree(&trace).iter().map(|(depth, _)| *depth).collect::<Vec<_>>(), [0, 1]);
    assert!(tracer.counters().is_some_and(|counters| (counters.stored, counters.waiting) == (2, 0)));
    assert!(Context::current().is_err());
}

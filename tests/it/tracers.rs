//! The tracer library by its public interface: the contract, misuse, stores that are away, and what other services get.

use crate::support::client::get;
use crate::support::tracers::{dummy, memory_store, tree};
use crate::support::{Bench, eventually, say};
use serde_json::json;
use std::future::Future;
use std::sync::Arc;
use std::task::{Context as TaskContext, Waker};
use tracewire::store::sqlite::{SqliteOptions, SqliteStore};
use tracewire::store::{Store, StoreExt};
use tracewire::trace::{Attributes, Span, StatusCode, Value};
use tracewire::tracer::{
    self, Baggage, Context, DummyTracer, FutureExt, HttpTracer, NewSpan, OtelSpanExporter, OtelSpanProcessor,
    StoreTracer, Trace, TraceOptions, Tracer, TracerError, TracerLayer, agent, create_span, emit, traced, traced_sync,
};

#[tokio::test]
async fn spans_are_below_the_operation_that_runs() {
    let tracer = dummy();
    let result = tracer
        .trace_context(TraceOptions::new("task").rollout("ro-1").attempt("at-1").attribute("difficulty", 3), async {
            create_span("first")?;
            let step = tracer.operation(NewSpan::new("step").attribute("size", 2.5))?;
            let inner = step.run(traced("inner", async { emit::reward(1.0) })).await?;
            create_span("last")?;
            Ok::<_, TracerError>(inner.sequence_id)
        })
        .await;
    assert!(result.is_ok());
    let trace = tracer.last_trace().unwrap();
    assert_eq!(
        tree(&trace),
        [(0, "task"), (1, "first"), (1, "step"), (2, "inner"), (3, "agentlightning.annotation"), (1, "last")]
    );
    let root = trace.root().unwrap();
    assert_eq!((root.attributes["difficulty"].as_int(), root.parent_id.as_deref()), (Some(3), None));
    assert!(!root.attributes.contains_key("tracewire.span.unended"));
    assert_eq!(root.resource.attributes["agentlightning.tracer.name"].as_str(), Some("dummy"));
    assert!(trace.spans().iter().all(|span| span.trace_id == root.trace_id && span.end_time >= span.start_time));
    assert!(trace.spans().iter().all(|span| (span.rollout_id.as_str(), span.attempt_id.as_str()) == ("ro-1", "at-1")));
    assert!(trace.timeline().contains("inner"));
    for format in ["json", "otlp", "otlp-json", "jaeger", "zipkin", "perfetto", "html"] {
        assert!(!trace.to_format(format).unwrap().is_empty(), "{format}");
    }
    let unknown = trace.to_format("yaml").unwrap_err().to_string();
    assert!(unknown.contains("`yaml`") && unknown.contains("jaeger"), "{unknown}");
}

#[tokio::test]
async fn errors_are_recorded_and_returned() {
    let tracer = dummy();
    let result: Result<(), anyhow::Error> = tracer
        .trace_context("task", async {
            let parsed: Result<u32, _> = traced_sync("parse", || "x".parse::<u32>());
            assert!(parsed.is_err());
            Err(anyhow::anyhow!("no disk").context("cannot save"))
        })
        .await;
    assert_eq!(result.unwrap_err().to_string(), "cannot save");
    let trace = tracer.last_trace().unwrap();
    let failed = |name: &str, type_name: &str, message: &str| {
        let span = trace.find(name).unwrap();
        assert_eq!((span.status.status_code, span.status.description.as_deref()), (StatusCode::Error, Some(message)));
        assert_eq!(span.attributes["error.type"].as_str(), Some(type_name));
        assert_eq!(span.events[0].name, "exception");
        assert_eq!(span.events[0].attributes["exception.message"].as_str(), Some(message));
    };
    failed("parse", "core::num::error::ParseIntError", "invalid digit found in string");
    failed("task", "anyhow::Error", "cannot save: no disk");
}

#[tokio::test]
async fn misuse_is_an_error_that_names_the_fix() {
    let new = DummyTracer::new();
    let text = |error: TracerError| error.to_string();
    assert!(text(new.trace_guard("task").err().unwrap()).contains("call `tracer.init_worker(0)` first"));
    assert!(text(new.create_span("early").unwrap_err()).contains("before init_worker"));
    assert!(matches!(new.last_trace().unwrap_err(), TracerError::NoTrace { .. }));
    new.init_worker(3).unwrap();
    assert!(text(new.init_worker(3).unwrap_err()).contains("worker 3 of tracer `dummy` is initialized already"));
    assert!(text(create_span("outside").unwrap_err()).contains("no trace context is active here"));
    let guard = new.trace_guard("outer").unwrap();
    let nested = text(new.trace_guard("inner").err().unwrap());
    assert!(nested.contains("`inner` was opened within `outer`"), "{nested}");
    let nested = new.trace_context("inner", async { Ok::<_, TracerError>(()) }).await;
    assert!(matches!(nested, Err(TracerError::Nested { .. })));
    let other = dummy();
    let other = StoreTracer::new(memory_store()).map(|store| (store, other)).unwrap();
    other.0.init_worker(0).unwrap();
    assert!(text(other.0.operation("x").err().unwrap()).contains("belongs to tracer `dummy`, not to `store`"));
    let late = Context::current().unwrap();
    guard.end();
    let late = late.attach();
    assert!(text(create_span("late").unwrap_err()).contains("trace `outer` has ended"));
    drop(late);
    new.teardown_worker(3).await.unwrap();
    assert!(text(new.trace_guard("task").err().unwrap()).contains("after teardown_worker"));
    let rollout = dummy().trace_guard(TraceOptions::new("task").rollout("a\nb")).err().unwrap();
    assert!(text(rollout).contains("rollout` is not a usable id"));
}

#[test]
fn each_thread_has_a_trace_of_its_own() {
    let tracer = dummy();
    let (barrier, traces) = (std::sync::Barrier::new(4), std::sync::Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for number in 0..4 {
            let (tracer, barrier, traces) = (&tracer, &barrier, &traces);
            scope.spawn(move || {
                let guard = tracer.trace_guard(format!("task {number}")).unwrap();
                barrier.wait();
                create_span(format!("span {number}")).unwrap();
                barrier.wait();
                traces.lock().unwrap().push((number, guard.end()));
            });
        }
    });
    for (number, trace) in traces.into_inner().unwrap() {
        let (task, span) = (format!("task {number}"), format!("span {number}"));
        assert_eq!(tree(&trace), [(0, task.as_str()), (1, span.as_str())]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_that_interleave_keep_their_contexts() {
    let (tracer, barrier) = (dummy(), Arc::new(tokio::sync::Barrier::new(2)));
    let task = |name: &'static str| {
        let (tracer, barrier) = (tracer.clone(), Arc::clone(&barrier));
        tokio::spawn(async move {
            tracer
                .trace_context(name, async {
                    for step in 0..10 {
                        barrier.wait().await;
                        create_span(format!("{name} {step}"))?;
                    }
                    Context::current().map(|context| context.rollout_id().to_string())
                })
                .await
        })
    };
    let (one, two) = (task("one"), task("two"));
    assert_ne!(one.await.unwrap().unwrap(), two.await.unwrap().unwrap());
    let trace = tracer.last_trace().unwrap();
    let name = trace.root().unwrap().name.clone();
    assert_eq!(trace.spans().len(), 11);
    assert!(trace.spans().iter().all(|span| span.name.starts_with(&name)));
}

#[tokio::test]
async fn a_trace_ends_what_was_left_open() {
    let tracer = dummy();
    let kept = tracer.trace_context("task", async { tracer::operation("left open") }).await.unwrap();
    kept.record("too", "late");
    let trace = tracer.last_trace().unwrap();
    let open = trace.find("left open").unwrap();
    assert_eq!(open.attributes.get("tracewire.span.unended"), Some(&Value::Bool(true)));
    assert!(open.end_time.is_some() && !open.attributes.contains_key("too"));
    assert!(kept.end().is_none());
    // A future that is dropped half-way ends its trace too.
    let mut dropped = Box::pin(tracer.trace_context("cancelled", async {
        create_span("before")?;
        std::future::pending::<Result<(), TracerError>>().await
    }));
    assert!(dropped.as_mut().poll(&mut TaskContext::from_waker(Waker::noop())).is_pending());
    drop(dropped);
    assert_eq!(tree(&tracer.last_trace().unwrap()), [(0, "cancelled"), (1, "before")]);
    assert!(Context::current().is_err());
}

#[test]
fn a_panic_fails_what_it_ends() {
    let tracer = dummy();
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let _guard = tracer.trace_guard("task").unwrap();
        let _: Result<(), TracerError> = traced_sync("step", || panic!("on purpose"));
    }));
    assert!(panicked.is_err() && Context::current().is_err());
    let trace = tracer.last_trace().unwrap();
    assert_eq!(tree(&trace), [(0, "task"), (1, "step")]);
    assert!(trace.spans().iter().all(|span| span.status.description.as_deref() == Some("panicked")));
}

#[tokio::test]
async fn baggage_is_inherited_and_travels_with_the_trace() {
    let (client, service) = (dummy(), dummy());
    let options = TraceOptions::new("agent").rollout("ro-ü").attempt("at-1");
    let headers = client
        .trace_context(options.baggage(Baggage::default().with("tenant", "blue, green").unwrap()), async {
            let call = tracer::operation("call")?;
            Ok::<_, TracerError>(call.context().with_baggage("step", "1")?.headers())
        })
        .await
        .unwrap();
    let call = client.last_trace().unwrap().find("call").unwrap().clone();
    assert_eq!(call.attributes["baggage.tenant"].as_str(), Some("blue, green"));
    // The service runs in another process: it has only the headers.
    let handled = async { traced("handle", async { Ok::<_, TracerError>(()) }).with_current_context().await };
    service.trace_context(TraceOptions::new("service").remote_parent(headers), handled).await.unwrap();
    let trace = service.last_trace().unwrap();
    let root = trace.root().unwrap();
    assert_eq!((&root.trace_id, root.parent_id.as_ref()), (&call.trace_id, Some(&call.span_id)));
    assert_eq!((root.rollout_id.as_str(), root.attempt_id.as_str()), ("ro-ü", "at-1"));
    let handle = trace.find("handle").unwrap();
    assert_eq!(handle.attributes["baggage.step"].as_str(), Some("1"));
    assert!(!handle.attributes.contains_key("baggage.agentlightning.rollout_id"));
    let invalid = [("traceparent", "00-nonsense"), ("baggage", "=;,,")];
    assert!(service.trace_guard(TraceOptions::new("x").remote_parent(invalid)).is_ok());
}

#[tokio::test]
async fn a_store_tracer_writes_into_any_store() {
    let folder = tempfile::tempdir().unwrap();
    let file = Arc::new(SqliteStore::open(&folder.path().join("traces.db"), SqliteOptions::default()).unwrap());
    let stores: [Arc<dyn Store>; 2] = [memory_store(), file];
    for store in stores {
        let tracer = StoreTracer::shared(Arc::clone(&store)).unwrap();
        tracer.init_worker(0).unwrap();
        for step in ["one", "two"] {
            let options = TraceOptions::new(step).rollout("ro-1").attempt("at-1");
            let secret = async { emit::message(&format!("{step} Authorization: Bearer sk-1234567890abcdefghij")) };
            tracer.trace_context(options, secret).await.unwrap();
        }
        let trace = Trace::read(&*store, "ro-1", "at-1").await.unwrap();
        let ids: Vec<u64> = trace.spans().iter().map(|span| span.sequence_id).collect();
        assert_eq!(ids, [1, 2, 3, 4]);
        let messages: Vec<_> =
            trace.spans().iter().filter_map(|span| span.attributes.get("agentlightning.message.body")).collect();
        assert!(
            messages.len() == 2 && messages.iter().all(|text| !format!("{text:?}").contains("sk-123")),
            "{messages:?}"
        );
        // The second trace of an attempt is below the root of the first.
        assert_eq!(
            tree(&trace),
            [(0, "one"), (1, "agentlightning.message"), (1, "two"), (2, "agentlightning.message")]
        );
        assert_eq!((tracer.counters().stored, tracer.counters().waiting), (4, 0));
        tracer.teardown_worker(0).await.unwrap();
        let missing = Trace::read(&*store, "ro-1", "at-2").await.unwrap_err().to_string();
        assert!(missing.contains("rollout ro-1 has no stored spans of attempt at-2"), "{missing}");
    }
}

#[test]
fn spans_are_stored_when_the_tracer_is_dropped() {
    let store = memory_store();
    let tracer = StoreTracer::new(Arc::clone(&store)).unwrap();
    tracer.init_worker(0).unwrap();
    let guard = tracer.trace_guard(TraceOptions::new("task").rollout("ro-1")).unwrap();
    (0..1000).for_each(|number| drop(create_span(format!("span {number}")).unwrap()));
    drop(guard);
    drop(tracer);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    assert_eq!(runtime.block_on(store.spans("ro-1".into(), None)).unwrap().len(), 1001);
}

#[tokio::test]
async fn a_store_that_is_away_costs_the_agent_nothing() {
    let store = memory_store();
    let tracer = StoreTracer::new(Arc::clone(&store)).unwrap();
    tracer.init_worker(0).unwrap();
    store.close().await.unwrap();
    let result = tracer.trace_context("task", async { (0..20_000).try_for_each(|_| create_span("step").map(drop)) });
    assert!(result.await.is_ok());
    assert_eq!(tracer.last_trace().unwrap().spans().len(), 20_001);
    let counters = tracer.counters();
    assert!(counters.stored == 0 && counters.waiting >= 8192, "{counters:?}");
    assert_eq!(counters.waiting + counters.dropped, 20_001);
    let error = tracer.teardown_worker(0).await.unwrap_err().to_string();
    assert!(error.contains("spans are not stored (the trace store is closed)"), "{error}");
    assert!(error.contains("check the store, then call `flush` again"), "{error}");
}

#[test]
fn emitters_write_the_attributes_of_agent_lightning() {
    let tracer = dummy();
    let _guard = tracer.trace_guard("task").unwrap();
    let of = |span: Arc<Span>| (span.name.clone(), serde_json::to_value(&span.attributes).unwrap());
    let expect = |span: Arc<Span>, name: &str, attributes: serde_json::Value| {
        assert_eq!(of(span), (format!("agentlightning.{name}"), attributes));
    };
    expect(
        emit::rewards([("task", 1.0), ("style", -0.5)]).unwrap(),
        "annotation",
        json!({ "agentlightning.reward.0.name": "task", "agentlightning.reward.0.value": 1.0,
            "agentlightning.reward.1.name": "style", "agentlightning.reward.1.value": -0.5 }),
    );
    expect(emit::message("hi").unwrap(), "message", json!({ "agentlightning.message.body": "hi" }));
    for (value, kind, text) in
        [(json!("a"), "str", "a"), (json!(7), "int", "7"), (json!(0.5), "float", "0.5"), (json!(true), "bool", "True")]
    {
        let attributes = json!({ "agentlightning.object.type": kind, "agentlightning.object.literal": text });
        expect(emit::object(&value).unwrap(), "object", attributes);
    }
    for (value, kind) in [(json!({ "a": [1, null] }), "dict"), (json!([1]), "list"), (json!(null), "NoneType")] {
        let attributes = json!({ "agentlightning.object.type": kind, "agentlightning.object.json": value.to_string() });
        expect(emit::object(&value).unwrap(), "object", attributes);
    }
    expect(
        emit::annotation(&json!({ "a": { "b": 1, "c": [1, 2] }, "mixed": [1, "x", { "y": true }] })).unwrap(),
        "annotation",
        json!({ "a.b": 1, "a.c": [1, 2], "mixed.0": 1, "mixed.1": "x", "mixed.2.y": true }),
    );
    let exception = emit::exception(&std::fmt::Error).unwrap();
    assert_eq!((exception.name.as_str(), exception.status.status_code), ("agentlightning.exception", StatusCode::Ok));
    assert_eq!(exception.attributes["exception.type"].as_str(), Some("core::fmt::Error"));
    for (refused, reason) in [
        (emit::reward(f64::NAN), "use a finite number"),
        (emit::annotation(&json!({ "a": null })), "attribute `a` can't be recorded: null is no attribute"),
        (emit::annotation(&json!(7)), "attributes are a JSON object"),
    ] {
        let error = refused.unwrap_err().to_string();
        assert!(error.contains(reason), "{error}");
    }
}

#[tokio::test]
async fn agents_steps_have_the_names_of_the_conventions() {
    let tracer = dummy();
    let run = async {
        let run = agent::agent_run("planner")?;
        run.run(async {
            let turn = agent::iteration(1)?;
            turn.run(async {
                let call = agent::llm_call("openai", "gpt-4o")?;
                call.record_input(&json!([{ "role": "user", "content": "hi" }]))?;
                agent::record_usage(&call, 12, 3);
                agent::record_response(&call, "gpt-4o-mini", &["tool_calls"]);
                agent::record_tool_definitions(&call, &json!([{ "name": "search" }]))?;
                call.end();
                agent::decision("next step", "search", &["search", "answer"], "the memory is empty")?;
                let tool = agent::tool_call("search")?;
                tool.record_input(&json!({ "query": "rust" }))?;
                tool.record_output(&"found")?;
                tool.end();
                agent::memory(agent::MemoryOperation::Create, "notes")?.end();
                Ok::<_, TracerError>(())
            })
            .await
        })
        .await
    };
    tracer.trace_context("task", run).await.unwrap();
    let trace = tracer.last_trace().unwrap();
    assert_eq!(
        tree(&trace),
        [
            (0, "task"),
            (1, "invoke_agent planner"),
            (2, "iteration 1"),
            (3, "chat gpt-4o"),
            (3, "decision next step"),
            (3, "execute_tool search"),
            (3, "create_memory notes"),
        ]
    );
    let attributes = |name: &str| serde_json::to_value(&trace.find(name).unwrap().attributes).unwrap();
    let messages = r#"[{"role":"user","content":"hi"}]"#;
    assert_eq!(
        attributes("chat gpt-4o"),
        json!({ "gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai", "gen_ai.request.model": "gpt-4o",
            "gen_ai.input.messages": messages, "tracewire.input.size": messages.len(),
            "gen_ai.usage.input_tokens": 12, "gen_ai.usage.output_tokens": 3,
            "gen_ai.response.model": "gpt-4o-mini", "gen_ai.response.finish_reasons": ["tool_calls"],
            "gen_ai.tool.definitions": r#"[{"name":"search"}]"# })
    );
    assert_eq!(
        attributes("execute_tool search"),
        json!({ "gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "search", "gen_ai.tool.type": "function",
            "gen_ai.tool.call.arguments": "{\"query\":\"rust\"}", "tracewire.input.size": 16,
            "gen_ai.tool.call.result": "found", "tracewire.output.size": 5 })
    );
    let mut event = Attributes::new();
    event.insert("k".to_owned(), 1.into());
    let guard = tracer.trace_guard("events").unwrap();
    (0..2000).for_each(|_| guard.root().add_event("e", event.clone()));
    assert_eq!(guard.end().root().unwrap().events.len(), 1000);
}

/// Sends a GET request through a proxy, and reads the response.
async fn get_through(proxy: &str, url: &str) -> std::io::Result<String> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let address = proxy.trim_start_matches("http://").trim_end_matches('/');
    let mut stream = tokio::net::TcpStream::connect(address).await?;
    let host = url.trim_start_matches("http://").split('/').next().unwrap();
    let request = format!("GET {url} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut response = String::new();
    stream.read_to_string(&mut response).await?;
    Ok(response)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_http_tracer_records_calls_below_its_trace() {
    let bench = Bench::new();
    let url = format!("{}/v1/models", bench.http());
    let store = memory_store();
    let tracer = HttpTracer::into_store(Arc::clone(&store)).unwrap().with_bodies();
    tracer.init_worker(0).unwrap();
    let options = TraceOptions::new("task").rollout("ro-1").attempt("at-1");
    let response = tracer
        .run_with_proxy(options, |proxy| async move {
            assert!(proxy.ca_pem().contains("BEGIN CERTIFICATE"));
            assert!(proxy.environment().iter().any(|(name, _)| name == "HTTPS_PROXY"));
            emit::message("before")?;
            get_through(proxy.url(), &url).await.map_err(anyhow::Error::from)
        })
        .await
        .unwrap();
    assert!(response.starts_with("HTTP/1.1 200"), "{response}");
    let trace = tracer.last_trace().unwrap();
    let call = trace.spans().iter().find(|span| span.attributes.contains_key("http.response.status_code")).unwrap();
    assert_eq!(call.parent_id.as_ref(), Some(&trace.root().unwrap().span_id));
    assert!(call.attributes.contains_key("http.response.body.content"));
    assert_eq!(tree(&trace).len(), 3);
    assert_eq!(Trace::read(&*store, "ro-1", "at-1").await.unwrap().spans().len(), 3);
    // A second trace of the attempt: its calls are below its own root.
    let url = format!("{}/v1/models", bench.http());
    let options = TraceOptions::new("again").rollout("ro-1").attempt("at-1");
    tracer
        .run_with_proxy(
            options,
            |proxy| async move { get_through(proxy.url(), &url).await.map_err(anyhow::Error::from) },
        )
        .await
        .unwrap();
    let trace = tracer.last_trace().unwrap();
    assert_eq!(tree(&trace).iter().map(|(depth, _)| *depth).collect::<Vec<_>>(), [0, 1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_runs_behind_a_proxy_until_its_timeout() {
    let bench = Bench::new();
    let tracer = HttpTracer::new().with_headers();
    tracer.init_worker(0).unwrap();
    let script = format!("curl -sS --noproxy '' {}/v1/models > /dev/null; exit 3", bench.http());
    let end = tracer.run_command("agent", ["sh", "-c", &script]).await.unwrap();
    assert_eq!((end.exit_code, end.timed_out), (3, false));
    let trace = tracer.last_trace().unwrap();
    let call = trace.spans().iter().find(|span| span.attributes.contains_key("http.response.status_code")).unwrap();
    assert!(call.attributes.contains_key("http.request.header.user-agent"), "{call:#?}");
    // The command knows the trace: `traceparent` of its environment names the root.
    let root = trace.root().unwrap();
    assert_eq!((root.status.status_code, call.parent_id.as_ref()), (StatusCode::Error, Some(&root.span_id)));
    let hung = tracer.with_timeout(std::time::Duration::from_millis(200));
    let end = hung.run_command("hangs", ["sleep", "600"]).await.unwrap();
    assert_eq!((end.exit_code, end.timed_out), (124, true));
    let stopped = hung.run_with_proxy("hangs", |_| std::future::pending::<Result<(), TracerError>>()).await;
    assert!(matches!(stopped, Err(TracerError::TimedOut { .. })));
    let missing = hung.run_command("missing", ["tracewire-no-such-program"]).await.unwrap_err().to_string();
    assert!(missing.contains("tracewire-no-such-program"), "{missing}");
    let nested = DummyTracer::new();
    nested.init_worker(0).unwrap();
    let _guard = nested.trace_guard("outer").unwrap();
    assert!(matches!(hung.run_command("inner", ["true"]).await, Err(TracerError::Nested { .. })));
}

#[tokio::test]
async fn spans_of_the_crate_tracing_join_the_trace() {
    use tracing::Instrument;
    use tracing_subscriber::layer::SubscriberExt;
    let subscriber = tracing_subscriber::registry().with(TracerLayer);
    let _default = tracing::subscriber::set_default(subscriber);
    let tracer = dummy();
    let work = async {
        tracing::warn!(left = 3, "slow");
        let nested = tracing::info_span!("nested", size = tracing::field::Empty);
        nested.record("size", 7_u64);
        nested.in_scope(|| emit::message("hi"))?;
        tracing::error!("failed");
        Ok::<_, TracerError>(())
    };
    tracing::info_span!("outside").in_scope(|| tracing::info!("is ignored"));
    tracer.trace_context("task", work.instrument(tracing::info_span!("too early"))).await.unwrap();
    assert_eq!(tree(&tracer.last_trace().unwrap())[1].1, "nested");
    let work = async {
        async { tracing::warn!(left = 3, "slow") }.instrument(tracing::info_span!("one")).await;
        tracing::info_span!("two").in_scope(|| tracing::error!("failed"));
        Ok::<_, TracerError>(())
    };
    tracer.trace_context("task", work).await.unwrap();
    let trace = tracer.last_trace().unwrap();
    assert_eq!(tree(&trace), [(0, "task"), (1, "one"), (1, "two")]);
    let (one, two): (&Span, &Span) = (trace.find("one").unwrap(), trace.find("two").unwrap());
    assert_eq!((one.events[0].name.as_str(), one.events[0].attributes["left"].as_int()), ("slow", Some(3)));
    assert_eq!((two.status.status_code, two.status.description.as_deref()), (StatusCode::Error, Some("failed")));
}

#[test]
fn spans_of_the_opentelemetry_sdk_join_the_trace() {
    use opentelemetry::trace::{Span as _, Status, Tracer as _, TracerProvider as _};
    let provider =
        opentelemetry_sdk::trace::SdkTracerProvider::builder().with_span_processor(OtelSpanProcessor::new()).build();
    let (library, tracer) = (provider.tracer("library"), dummy());
    drop(library.start("outside"));
    let guard = tracer.trace_guard("task").unwrap();
    let step = tracer.operation("step").unwrap();
    let attached = step.attach();
    let mut late = library.in_span("query", |_| {
        library.in_span("connect", |_| ());
        library.start("late")
    });
    late.set_attribute(opentelemetry::KeyValue::new("rows", 7));
    late.set_status(Status::error("cut off"));
    late.add_event("retry", vec![opentelemetry::KeyValue::new("in_s", 0.5)]);
    late.end();
    let outlives = library.start("outlives");
    drop((attached, step));
    let trace = guard.end();
    drop(outlives);
    assert_eq!(tree(&trace), [(0, "task"), (1, "step"), (2, "query"), (3, "connect"), (3, "late")]);
    let late = trace.find("late").unwrap();
    assert_eq!(late.attributes["rows"].as_int(), Some(7));
    assert_eq!((late.status.status_code, late.status.description.as_deref()), (StatusCode::Error, Some("cut off")));
    assert_eq!(late.events[0].attributes["in_s"].as_float(), Some(0.5));
    assert_eq!(late.trace_id, trace.root().unwrap().trace_id);
}

#[tokio::test]
async fn an_exporter_of_the_opentelemetry_sdk_writes_into_one_attempt() {
    use opentelemetry::trace::{TraceContextExt as _, Tracer as _, TracerProvider as _};
    let store = memory_store();
    let tracer = StoreTracer::new(Arc::clone(&store)).unwrap();
    let options = TraceOptions::new("agent").rollout("ro-1").attempt("at-1");
    let exporter = OtelSpanExporter::new(&tracer, options).unwrap();
    assert!(OtelSpanExporter::new(&tracer, TraceOptions::new("agent").rollout("")).is_err());
    let resource = opentelemetry_sdk::Resource::builder_empty().with_service_name("shop").build();
    let provider = opentelemetry_sdk::trace::SdkTracerProvider::builder()
        .with_resource(resource)
        .with_simple_exporter(exporter)
        .build();
    let trace_id = provider.tracer("library").in_span("query", |context| {
        provider.tracer("library").in_span("connect", |_| ());
        context.span().span_context().trace_id().to_string()
    });
    provider.shutdown().unwrap();
    let spans = store.spans("ro-1".into(), Some("at-1".into())).await.unwrap();
    let names: Vec<_> = spans.iter().map(|span| span.name.as_str()).collect();
    assert_eq!(names, ["connect", "query"]);
    assert_eq!(spans[0].parent_id.as_ref(), Some(&spans[1].span_id));
    assert!(spans[1].parent_id.is_some() && spans.iter().all(|span| span.trace_id == trace_id));
    assert_eq!(spans[0].resource.attributes["service.name"].as_str(), Some("shop"));
    // A store that is away: the SDK is told, and the program goes on.
    store.close().await.unwrap();
    let exporter = OtelSpanExporter::new(&tracer, "agent").unwrap();
    let provider = opentelemetry_sdk::trace::SdkTracerProvider::builder().with_batch_exporter(exporter).build();
    provider.tracer("library").in_span("late", |_| ());
    let error = provider.force_flush().unwrap_err().to_string();
    assert!(error.contains("1 spans are not stored (the trace store is closed)"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tracer_and_a_running_server_write_one_rollout() {
    let bench = Bench::new();
    let file = bench.home().join("shared.db");
    let serve = bench.serve(&["--store", file.to_str().unwrap()]);
    let tracer = StoreTracer::new(Arc::new(SqliteStore::open(&file, SqliteOptions::default()).unwrap())).unwrap();
    tracer.init_worker(0).unwrap();
    let options = TraceOptions::new("agent").rollout("ro-1").attempt("at-1");
    let (proxy, url) = (serve.address("proxy"), format!("{}/v1/models", bench.http()));
    let answer = tracer
        .trace_context(options, async {
            let [(_, parent), _] = Context::current()?.headers();
            let ids = "x-rollout-id: ro-1\r\nx-attempt-id: at-1";
            let request =
                format!("GET {url} HTTP/1.1\r\nHost: x\r\n{ids}\r\ntraceparent: {parent}\r\nConnection: close\r\n\r\n");
            let answer = tokio::task::block_in_place(|| say(proxy, request.as_bytes()));
            emit::reward(1.0).map(|_| answer)
        })
        .await
        .unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    tracer.teardown_worker(0).await.unwrap();
    let spans = eventually(|| {
        let listed = get(serve.address("server"), "/v1/agl/spans?rollout_id=ro-1&limit=-1").json();
        let spans = listed["items"].as_array().unwrap().clone();
        (spans.len() == 3).then_some(spans)
    });
    let root = spans.iter().find(|span| span["name"] == "agent").unwrap();
    assert!(root["parent_id"].is_null());
    let below =
        |span: &&serde_json::Value| span["parent_id"] == root["span_id"] && span["trace_id"] == root["trace_id"];
    assert_eq!(spans.iter().filter(below).count(), 2, "{spans:#?}");
    let numbers: std::collections::HashSet<String> = spans.iter().map(|span| span["sequence_id"].to_string()).collect();
    assert_eq!(numbers.len(), 3, "{spans:#?}");
}

#[test]
fn a_tracer_within_a_run_joins_its_rollout() {
    let bench = Bench::new();
    let program = std::env::current_exe().unwrap();
    let arguments = ["--exact", "tracers::the_command_of_a_run", "--ignored"];
    let output = bench.run(&["--rollout", "ro-1"], &[&[program.to_str().unwrap()], &arguments[..]].concat());
    assert!(output.status.success(), "{}", crate::support::text(&output));
    let spans = bench.spans("ro-1");
    let named = |name: &str| spans.iter().find(|span| span["name"] == name).unwrap();
    let root = spans.iter().find(|span| span["parent_id"].is_null()).unwrap();
    assert_eq!(root["attributes"]["process.exit.code"], 0);
    assert_eq!(named("within")["parent_id"], root["span_id"]);
    assert_eq!(named("step")["parent_id"], named("within")["span_id"]);
    assert!(spans.iter().all(|span| span["trace_id"] == root["trace_id"]));
}

#[test]
#[ignore = "the command of the test above"]
fn the_command_of_a_run() {
    let file = std::path::PathBuf::from(std::env::var_os("TRACEWIRE_STORE").unwrap());
    let tracer = StoreTracer::new(Arc::new(SqliteStore::open(&file, SqliteOptions::default()).unwrap())).unwrap();
    tracer.init_worker(0).unwrap();
    let guard = tracer.trace_guard(TraceOptions::new("within").from_environment()).unwrap();
    create_span("step").unwrap();
    guard.end();
}

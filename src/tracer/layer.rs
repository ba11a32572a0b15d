//! The bridge from the crate `tracing`: its spans become operations of the active trace.

use super::context::{Context, ContextGuard};
use super::contract::operation;
use super::new_span::NewSpan;
use super::operation::Operation;
use crate::trace::{Attributes, StatusCode, Value};
use std::cell::RefCell;
use std::fmt::Debug;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes as SpanAttributes, Id, Record};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context as LayerContext, Layer};
use tracing_subscriber::registry::LookupSpan;

/// A layer of `tracing_subscriber` that records spans and events of `tracing` in the trace that is active where they are
/// created, of any [`Tracer`](super::Tracer). Spans outside of a trace are ignored. Programs that are instrumented with
/// `#[tracing::instrument]` need no other change.
///
/// An event becomes an event of its span, and one of level `ERROR` marks it as failed. The span of `tracing` is the parent of
/// what [`operation`](fn@super::operation) and [`emit`](super::emit) record within it.
///
/// ```
/// use tracewire::tracer::{DummyTracer, Tracer, TracerError, TracerLayer, create_span};
/// use tracing_subscriber::layer::SubscriberExt;
///
/// let subscriber = tracing_subscriber::registry().with(TracerLayer);
/// tracing::subscriber::with_default(subscriber, || {
///     let tracer = DummyTracer::new();
///     tracer.init_worker(0)?;
///     let guard = tracer.trace_guard("task")?;
///     tracing::info_span!("search", query = "rust").in_scope(|| create_span("found"))?;
///     let trace = guard.end();
///     let names: Vec<_> = trace.tree().into_iter().map(|(depth, span)| (depth, span.name.as_str())).collect();
///     assert_eq!(names, [(0, "task"), (1, "search"), (2, "found")]);
///     assert_eq!(trace.find("search").unwrap().attributes["query"].as_str(), Some("rust"));
///     Ok::<_, TracerError>(())
/// })?;
/// # Ok::<(), TracerError>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct TracerLayer;

thread_local! {
    /// The spans that this thread is in, innermost last. As many as are entered at once.
    static ENTERED: RefCell<Vec<(u64, ContextGuard)>> = const { RefCell::new(Vec::new()) };
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for TracerLayer {
    fn on_new_span(&self, attributes: &SpanAttributes<'_>, id: &Id, context: LayerContext<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        let new = NewSpan::new(attributes.metadata().name())
            .attribute("code.namespace", attributes.metadata().target())
            .attributes(fields.0);
        // A parent that is named, not entered.
        let parent = span.parent().filter(|_| attributes.parent().is_some());
        let parent = parent.and_then(|parent| parent.extensions().get::<Operation>().map(|op| op.context().clone()));
        let opened = match parent {
            Some(parent) => Operation::start(&parent, new),
            None => operation(new),
        };
        // Without an active trace there is nothing to record.
        if let Ok(operation) = opened {
            span.extensions_mut().insert(operation);
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: LayerContext<'_, S>) {
        let Some(span) = context.span(id) else { return };
        if let Some(operation) = span.extensions().get::<Operation>() {
            let mut fields = Fields::default();
            values.record(&mut fields);
            operation.record_attributes(fields.0);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: LayerContext<'_, S>) {
        let Some(span) = context.event_span(event) else { return };
        if let Some(operation) = span.extensions().get::<Operation>() {
            let mut fields = Fields::default();
            event.record(&mut fields);
            fields.0.insert("level".to_owned(), event.metadata().level().as_str().into());
            let message = fields.0.remove("message");
            let message = message.as_ref().and_then(Value::as_str).unwrap_or(event.metadata().name());
            if *event.metadata().level() == Level::ERROR {
                operation.record_status(StatusCode::Error, Some(message));
            }
            operation.add_event(message, fields.0);
        }
    }

    fn on_enter(&self, id: &Id, context: LayerContext<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let entered: Option<Context> =
            span.extensions().get::<Operation>().map(|operation| operation.context().clone());
        if let Some(entered) = entered {
            ENTERED.with_borrow_mut(|all| all.push((id.into_u64(), entered.attach())));
        }
    }

    fn on_exit(&self, id: &Id, _: LayerContext<'_, S>) {
        let exited = ENTERED.with_borrow_mut(|all| {
            let at = all.iter().rposition(|(entered, _)| *entered == id.into_u64())?;
            Some(all.remove(at))
        });
        // Dropped here: a guard may not be dropped while the list is borrowed.
        drop(exited);
    }

    fn on_close(&self, id: Id, context: LayerContext<'_, S>) {
        let Some(span) = context.span(&id) else { return };
        let operation = span.extensions_mut().remove::<Operation>();
        drop(operation);
    }
}

#[derive(Default)]
struct Fields(Attributes);

impl Fields {
    fn add(&mut self, field: &Field, value: impl Into<Value>) {
        self.0.insert(field.name().to_owned(), value.into());
    }
}

impl Visit for Fields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.add(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field, value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.add(field, format!("{value:?}"));
    }
}

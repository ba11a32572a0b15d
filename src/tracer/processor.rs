//! The receiver of a tracer's spans.

use super::error::Result;
use crate::store::BoxFuture;
use crate::trace::Span;
use std::sync::Arc;

/// Receives each span when it has ended, as OpenTelemetry's span processors do. This is all that a new tracer has to provide.
pub trait SpanProcessor: Send + Sync + 'static {
    /// Takes a span that has ended. It is called on the thread of the traced code and must not block.
    fn on_end(&self, span: Arc<Span>);

    /// Waits until all spans so far have arrived where they belong.
    fn force_flush(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(std::future::ready(Ok(())))
    }
}

impl<P: SpanProcessor + ?Sized> SpanProcessor for Arc<P> {
    fn on_end(&self, span: Arc<Span>) {
        (**self).on_end(span);
    }

    fn force_flush(&self) -> BoxFuture<'_, Result<()>> {
        (**self).force_flush()
    }
}

/// Drops all spans.
pub(super) struct Discard;

impl SpanProcessor for Discard {
    fn on_end(&self, _: Arc<Span>) {}
}

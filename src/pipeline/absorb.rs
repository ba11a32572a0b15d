//! An agent's own telemetry: the spans of an OTLP export that passed, for the rollout that they name, else for that of the
//! exchange.

use super::span::SpanOptions;
use crate::trace::Span;
use crate::trace::exchange::Exchange;
use crate::wire::otlp;
use http::header;

/// The spans; none of what can't be read, which the exchange's own span shows anyway.
pub(super) fn spans(exchange: &Exchange, body: &[u8], options: &SpanOptions) -> Vec<Span> {
    let kind = exchange.request.headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let is_json = kind.is_some_and(|kind| kind.contains("json"));
    let request = match otlp::request(is_json, body) {
        Ok(request) => request,
        Err(error) => {
            tracing::warn!(host = exchange.request.host, error, "an export of spans could not be read");
            return Vec::new();
        }
    };
    let identity = &exchange.identity;
    let absorbed = otlp::spans(request).into_iter().flatten().map(|(mut span, named)| {
        let attempt = named.attempt.as_deref().filter(|_| named.rollout.is_some());
        span.rollout_id = named.rollout.as_deref().map_or_else(|| identity.rollout_id.clone(), Into::into);
        span.attempt_id = attempt.map_or_else(|| identity.attempt_id.clone(), Into::into);
        span.sequence_id = named.sequence_id.unwrap_or(identity.sequence_id);
        options.redactor.span(&mut span);
        span
    });
    absorbed.collect()
}

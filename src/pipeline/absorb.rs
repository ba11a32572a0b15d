//! An agent's own telemetry: the spans of an OTLP export that passed, for the rollout that they name, else for that of the
//! exchange. What could not be taken in is told on the exchange's own span.

use super::span::SpanOptions;
use crate::trace::exchange::Exchange;
use crate::trace::{Span, semconv as names};
use crate::wire::otlp;
use http::header;

/// The spans of an export, whose exchange has the span `export`.
pub(super) fn spans(export: &mut Span, exchange: &Exchange, body: &[u8], options: &SpanOptions) -> Vec<Span> {
    let kind = exchange.request.headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let is_json = kind.is_some_and(|kind| kind.contains("json"));
    let mut not_taken = |why: String| {
        tracing::warn!(host = exchange.request.host, why, "spans of an export could not be taken in");
        export.set(names::CAPTURE_UNDECODED, why);
    };
    let request = match otlp::request(is_json, body) {
        Ok(request) => request,
        Err(error) => {
            not_taken(format!("this is no export of spans: {error}"));
            return Vec::new();
        }
    };
    let identity = &exchange.identity;
    let (mut absorbed, mut refused) = (Vec::new(), Vec::new());
    for span in otlp::spans(request) {
        match span {
            Ok((mut span, named)) => {
                let attempt = named.attempt.as_deref().filter(|_| named.rollout.is_some());
                span.rollout_id = named.rollout.as_deref().map_or_else(|| identity.rollout_id.clone(), Into::into);
                span.attempt_id = attempt.map_or_else(|| identity.attempt_id.clone(), Into::into);
                span.sequence_id = named.sequence_id.unwrap_or(identity.sequence_id);
                options.redactor.span(&mut span);
                absorbed.push(span);
            }
            Err(why) => refused.push(why),
        }
    }
    if let Some(why) = refused.first() {
        not_taken(format!("{} spans: {why}", refused.len()));
    }
    absorbed
}

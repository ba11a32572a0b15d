//! The spans in an OTLP export that an agent sent through the proxy, for the rollout that they name, else for that of the
//! exchange.
//!
//! What can't be read is reported on the span of the exchange, never dropped silently.

use super::options::SpanOptions;
use crate::trace::exchange::Exchange;
use crate::trace::{Span, semconv as names};
use crate::wire::otlp::{self, OtlpFormat};
use http::header;

/// The spans of an export, redacted. `export` is the span of the exchange.
pub(super) fn read(export: &mut Span, exchange: &Exchange, body: &[u8], options: &SpanOptions) -> Vec<Span> {
    let is_cut = exchange.request_body.truncated.is_some();
    let kind = exchange.request.headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let format = kind.and_then(OtlpFormat::of_content_type).unwrap_or(OtlpFormat::Protobuf);
    let mut report = |why: String| {
        tracing::warn!(host = exchange.request.host, why, "spans of an OTLP export can't be read and are not stored");
        export.set(names::CAPTURE_UNDECODED, why);
    };
    if is_cut {
        // The exporter sends it again, or its endpoint has all of it: it is not taken in by halves.
        report("the export is not recorded as a whole".to_owned());
        return Vec::new();
    }
    let spans = match otlp::spans(format, body) {
        Ok(spans) => spans,
        Err(error) => {
            report(format!("the body is not an OTLP export of spans: {error}"));
            return Vec::new();
        }
    };
    let identity = &exchange.identity;
    let (mut absorbed, mut rejected) = (Vec::new(), Vec::new());
    for span in spans {
        match span {
            Ok((mut span, named)) => {
                let attempt = named.attempt.as_deref().filter(|_| named.rollout.is_some());
                span.rollout_id = named.rollout.as_deref().map_or_else(|| identity.rollout_id.clone(), Into::into);
                span.attempt_id = attempt.map_or_else(|| identity.attempt_id.clone(), Into::into);
                span.sequence_id = named.sequence_id.unwrap_or(identity.sequence_id);
                options.redactor.span(&mut span);
                absorbed.push(span);
            }
            Err(why) => rejected.push(why),
        }
    }
    if let Some(why) = rejected.first() {
        report(format!("{} spans: {why}", rejected.len()));
    }
    absorbed
}

//! Our spans as OTLP: as protobuf, and as protobuf's JSON mapping.

use super::decode::OtlpFormat;
use super::to_json::JsonTraces;
use super::to_protobuf::traces;
use crate::trace::Span;
use crate::trace::span::Resource;
use std::borrow::Borrow;

/// The spans as one `TracesData`, which is also an `ExportTraceServiceRequest`: a `ResourceSpans` for each resource.
pub(crate) fn encoded<S: Borrow<Span>>(format: OtlpFormat, spans: &[S]) -> serde_json::Result<Vec<u8>> {
    let resources = by_resource(spans.iter().map(Borrow::borrow));
    match format {
        OtlpFormat::Json => serde_json::to_vec(&JsonTraces(&resources)),
        OtlpFormat::Protobuf => Ok(traces(&resources)),
    }
}

/// The spans of each resource, both in the order in which they come.
fn by_resource<'a>(spans: impl Iterator<Item = &'a Span>) -> Vec<(&'a Resource, Vec<&'a Span>)> {
    let mut resources: Vec<(&Resource, Vec<&Span>)> = Vec::new();
    for span in spans {
        // Most spans have the resource of the one before, and a rollout has few resources.
        match resources.iter_mut().rev().find(|(resource, _)| **resource == span.resource) {
            Some((_, list)) => list.push(span),
            None => resources.push((&span.resource, vec![span])),
        }
    }
    resources
}

//! Requests in protobuf. A span that is damaged, or nested deeper than prost decodes (100), costs only itself.

use super::error::SpanDefect;
use super::message::{ExportedResource, Resource, ResourceSpans, SpanMessage, TraceRequest};
use prost::{DecodeError, Message};

pub(super) fn resources(body: &[u8]) -> Result<Vec<ExportedResource>, DecodeError> {
    Ok(TraceRequest::decode(body)?.resource_spans.into_iter().map(exported).collect())
}

fn exported(of: ResourceSpans) -> ExportedResource {
    let resource = Resource::decode(of.resource.as_slice());
    let spans = of.scope_spans.iter().flat_map(|scope| &scope.spans).map(|span| match &resource {
        Ok(_) => SpanMessage::decode(span.as_slice()).map_err(SpanDefect::from),
        // Its attributes may name the rollout of the span.
        Err(error) => Err(error.clone().into()),
    });
    let spans = spans.collect();
    ExportedResource { attributes: resource.unwrap_or_default().attributes, schema_url: of.schema_url, spans }
}

//! OTLP over gRPC: `opentelemetry.proto.collector.trace.v1.TraceService/Export`, plain or gzip, on a listener of its own.

use super::ingest::{Caller, ingest};
use crate::api::access::CallerAccess;
use crate::api::settings::MAX_BODY_BYTES;
use crate::api::state::ApiState;
use axum::Router;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use tonic::codec::CompressionEncoding;
use tonic::{Request, Response, Status};

/// The router of the gRPC listener, without authorisation.
pub(crate) fn service(state: ApiState) -> Router {
    let server = TraceServiceServer::new(Service(state))
        .accept_compressed(CompressionEncoding::Gzip)
        .send_compressed(CompressionEncoding::Gzip)
        .max_decoding_message_size(MAX_BODY_BYTES);
    Router::new().route_service("/opentelemetry.proto.collector.trace.v1.TraceService/{*method}", server)
}

struct Service(ApiState);

#[tonic::async_trait]
impl TraceService for Service {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let access = request.extensions().get::<CallerAccess>().cloned().unwrap_or_else(CallerAccess::full);
        let caller = Caller::of(request.metadata().as_ref(), access);
        let ingested = ingest(&self.0, request.into_inner(), &caller).await;
        ingested.map(Response::new).map_err(|error| {
            tracing::error!(%error, "the spans of an OTLP request could not be stored");
            Status::unavailable(error.to_string())
        })
    }
}

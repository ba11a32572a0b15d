//! OTLP over gRPC: `opentelemetry.proto.collector.trace.v1.TraceService/Export`, plain or gzip, on a listener of its own.
//!
//! The service that is generated for it decodes requests into types that reject texts which are not UTF-8, and a batch
//! with them. This one takes the bytes of a request, which are decoded as those over HTTP are.

use super::ingest::{Caller, ingest};
use crate::api::access::CallerAccess;
use crate::api::settings::MAX_BODY_BYTES;
use crate::api::state::ApiState;
use crate::store::BoxFuture;
use crate::wire::otlp::{self, OtlpFormat, TraceResponse};
use axum::Router;
use axum::extract::{Request as HttpRequest, State};
use axum::routing::post;
use bytes::{Buf, Bytes};
use http::Response as HttpResponse;
use prost::Message;
use tonic::codec::{Codec, CompressionEncoding, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::server::{Grpc, UnaryService};
use tonic::{Request, Response, Status};

/// The router of the gRPC listener, without authorisation.
pub(crate) fn service(state: ApiState) -> Router {
    Router::new()
        .route("/opentelemetry.proto.collector.trace.v1.TraceService/Export", post(export))
        .fallback(unimplemented)
        .with_state(state)
}

async fn export(State(state): State<ApiState>, request: HttpRequest) -> HttpResponse<tonic::body::Body> {
    Grpc::new(TraceCodec)
        .accept_compressed(CompressionEncoding::Gzip)
        .send_compressed(CompressionEncoding::Gzip)
        .max_decoding_message_size(MAX_BODY_BYTES)
        .unary(TraceService(state), request)
        .await
}

async fn unimplemented() -> HttpResponse<tonic::body::Body> {
    Status::unimplemented("only TraceService/Export is served").into_http()
}

struct TraceService(ApiState);

impl UnaryService<Bytes> for TraceService {
    type Response = TraceResponse;
    type Future = BoxFuture<'static, Result<Response<TraceResponse>, Status>>;

    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        let state = self.0.clone();
        Box::pin(async move {
            let access = request.extensions().get::<CallerAccess>().cloned().unwrap_or_else(CallerAccess::full);
            let caller = Caller::of(request.metadata().as_ref(), access).map_err(Status::invalid_argument)?;
            let spans = otlp::spans(OtlpFormat::Protobuf, request.get_ref()).map_err(|error| {
                Status::invalid_argument(format!("the message is no ExportTraceServiceRequest: {error}"))
            })?;
            ingest(&state, spans, &caller).await.map(Response::new).map_err(|error| {
                tracing::error!(%error, "the spans of an OTLP request could not be stored");
                Status::unavailable(error.to_string())
            })
        })
    }
}

/// Requests as their bytes, responses in protobuf.
#[derive(Clone, Copy)]
struct TraceCodec;

impl Codec for TraceCodec {
    type Encode = TraceResponse;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for TraceCodec {
    type Item = TraceResponse;
    type Error = Status;

    fn encode(&mut self, response: TraceResponse, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        response.encode(buffer).map_err(|error| Status::internal(error.to_string()))
    }
}

impl Decoder for TraceCodec {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }
}

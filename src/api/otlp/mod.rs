//! OTLP ingest: spans from other tracers, over HTTP (protobuf and JSON) and gRPC. Only traces; metrics and logs are
//! rejected.

pub(super) mod counters;
mod grpc;
mod http;
mod ingest;

pub(super) use grpc::service as grpc_service;
pub(super) use http::router;

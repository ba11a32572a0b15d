//! OTLP ingest: spans from other tracers, over HTTP (protobuf and JSON) and gRPC. Only traces; metrics and logs are
//! rejected.

pub(super) mod counters;
pub(super) mod grpc;
mod http;
mod ingest;
mod routes;

pub(crate) use counters::IngestCounters;
pub(super) use routes::routes;

//! Spans and stores for the tests of stores.

use std::sync::Arc;
use tracewire::trace::span::Resource;
use tracewire::trace::{Attributes, Span, SpanKind, Status, Timestamp};

/// Start of the spans: in 2024, so that only tests of the age limit exceed it.
pub const START_NANOS: u64 = 1_720_000_000_123_456_789;

/// TLS without roots, for servers on a socket.
pub fn no_tls() -> Arc<rustls::ClientConfig> {
    tracewire::internals::install_provider();
    Arc::new(
        rustls::ClientConfig::builder().with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth(),
    )
}

/// Spans as `append` takes them.
pub fn shared(spans: impl IntoIterator<Item = Span>) -> Vec<Arc<Span>> {
    spans.into_iter().map(Arc::new).collect()
}

/// A span without attributes.
pub fn span(rollout: &str, attempt: &str, sequence_id: u64, span_id: &str) -> Span {
    Span {
        rollout_id: rollout.into(),
        attempt_id: attempt.into(),
        sequence_id,
        trace_id: "0af7651916cd43dd8448eb211c80319c".to_owned(),
        span_id: span_id.to_owned(),
        parent_id: None,
        name: "chat".to_owned(),
        kind: Some(SpanKind::Client),
        status: Status::default(),
        attributes: Attributes::new(),
        events: Vec::new(),
        links: Vec::new(),
        start_time: Some(Timestamp::from_unix_nanos(START_NANOS + sequence_id)),
        end_time: Some(Timestamp::from_unix_nanos(START_NANOS + sequence_id + 7)),
        context: None,
        parent: None,
        resource: Resource::default(),
    }
}

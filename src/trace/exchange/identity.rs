//! Which rollout and trace an exchange belongs to.

use crate::trace::ids::{AttemptId, RolloutId, SpanId, TraceId};

/// The rollout of an exchange, and its place within it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The rollout that the exchange belongs to; without a name of its own, one made for the connection.
    pub rollout_id: RolloutId,
    /// The attempt of that rollout.
    pub attempt_id: AttemptId,
    /// Order within the rollout, allocated when the request starts. 0 before.
    pub sequence_id: u64,
    /// What named the rollout.
    pub source: IdentitySource,
    /// Another source that named a different rollout or attempt, as `source=rollout/attempt`.
    pub conflict: Option<String>,
}

/// The user name of proxy credentials that name no rollout.
pub const ANONYMOUS_USER: &str = "tracewire";

/// What named a rollout, in order of precedence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum IdentitySource {
    /// The gateway's URL prefix.
    Url,
    /// `x-rollout-id` and its companions.
    Headers,
    /// An API key that Tracewire issued for a rollout.
    Key,
    /// The user name of the proxy credentials.
    Credentials,
    /// The rollout that the proxy listener is bound to (`tracewire run`).
    Binding,
    /// Nothing: the connection got a rollout of its own.
    Connection,
}

impl IdentitySource {
    /// The word used in attributes and messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Url => "url",
            Self::Headers => "headers",
            Self::Key => "key",
            Self::Credentials => "credentials",
            Self::Binding => "binding",
            Self::Connection => "connection",
        }
    }
}

/// The place of an exchange in its trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceContext {
    /// The caller's trace, or the attempt's.
    pub trace_id: TraceId,
    /// The span of this exchange.
    pub span_id: SpanId,
    /// The caller's span, or the root span of the attempt.
    pub parent_id: SpanId,
    /// True when the parent came in a `traceparent` header.
    pub parent_is_remote: bool,
    /// OpenTelemetry's entry `ot` of the caller's `tracestate`, which has the random number of the trace for sampling. `None` without one.
    pub otel_state: Option<String>,
}

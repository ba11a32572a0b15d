//! What the gateway did with a call.

use crate::trace::ids::SpanId;
use std::time::Duration;

/// What the gateway did with a call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GatewayFacts {
    /// The URL of the backend that answered, or was tried last.
    pub backend: Option<String>,
    /// The model that the agent named, if the backend was asked for another.
    pub requested_model: Option<String>,
    /// `train` or `val`, if the route says so.
    pub mode: Option<String>,
    /// The agent's API format, if the call was translated.
    pub translated_from: Option<&'static str>,
    /// The URL that the agent called, if the call was rerouted or came through one of our base URLs.
    pub called: Option<String>,
    /// Which try this is: 0 for the first.
    pub resend_count: u32,
    /// How long the call waited while the gateway was paused.
    pub held: Duration,
    /// The policy versions in the order in which they answered, each with the length of the recorded response body when
    /// it started.
    pub versions: Vec<(i64, usize)>,
    /// By how many versions the policy is ahead of the version that the rollout started with.
    pub staleness: Option<i64>,
    /// For a retry that got the answer of an earlier call: the span of that call, and whether it was still in flight.
    pub joined: Option<(SpanId, bool)>,
    /// True for a try that was followed by another: it is not a call of its own.
    pub is_failed_try: bool,
}

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
    /// The places of what the translation left out because it has no effect on the response.
    pub dropped: Vec<String>,
    /// The line about billing that the translation left out of the system prompt.
    pub billing_line: Option<String>,
    /// True for a call of which nothing is to be sampled, in an API that can't express that.
    pub is_warmup: bool,
    /// The URL that the agent called, if the call was rerouted or came through one of our base URLs.
    pub called: Option<String>,
    /// Which try this is: 0 for the first.
    pub resend_count: u32,
    /// How long the call waited while the gateway was paused.
    pub paused_for: Duration,
    /// The policy versions in the order in which they answered.
    pub versions: Vec<PolicyVersionStart>,
    /// By how many versions the policy is ahead of the version that the rollout started with.
    pub staleness: Option<i64>,
    /// For a retry that got the response of an earlier call: that call.
    pub joined: Option<JoinedCall>,
    /// True for a try that was followed by another: it is not a call of its own.
    pub is_failed_try: bool,
}

/// A policy version that answered a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PolicyVersionStart {
    /// The version of the weights, as it was registered.
    pub version: i64,
    /// Length of the recorded response body when the version started.
    pub from: usize,
}

/// An earlier call that a retry got the response of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JoinedCall {
    /// The span of the earlier call.
    pub span_id: SpanId,
    /// True when the earlier call was still in flight, false when its response had been stored.
    pub was_in_flight: bool,
}

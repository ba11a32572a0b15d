//! What shows that a call is a retry of an earlier one.

use super::cached_response::Progress;
use super::call::GatewayCall;
use super::settings::Join;
use crate::trace::exchange::IdentitySource;
use std::time::Duration;

/// What shows that a call is a retry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RetrySign {
    /// Its agent counts its tries.
    Count(u32),
    /// Its agent does not. It is a retry if the agent of an earlier call hung up before it had anything of the response: an agent
    /// that has read a part and asks again may want another sample.
    HangUp,
    /// The body of an earlier call is enough.
    SameBody,
}

impl RetrySign {
    /// What is looked for in a call. `None`: it is no retry, and none of it can be one.
    pub(super) fn of(join: Join, call: &GatewayCall) -> Option<Self> {
        let count = call.headers.get(RETRY_COUNT).and_then(|count| count.to_str().ok()?.trim().parse().ok());
        match (join, count) {
            (Join::Off, _) => None,
            (Join::Digest, _) => Some(Self::SameBody),
            (Join::Retry, Some(count)) => Some(Self::Count(count)),
            // Its rollout ends with its connection.
            (Join::Retry, None) if call.exchange.identity.source == IdentitySource::Connection => None,
            (Join::Retry, None) => Some(Self::HangUp),
        }
    }

    /// How long a call with this progress goes on without its agent, at most.
    pub(super) fn wait_for_retry(self, progress: &Progress) -> Duration {
        match self {
            // No other call gets what has been read in part. After the last event only the end of the body is missing.
            Self::HangUp if progress.was_begun && !progress.was_delivered => Duration::ZERO,
            Self::HangUp => HANG_UP_WAIT,
            Self::Count(_) | Self::SameBody => Duration::MAX,
        }
    }

    /// The number of tries before, as its agent counts them.
    pub(super) fn count(self) -> u32 {
        match self {
            Self::Count(count) => count,
            Self::HangUp => 0,
            Self::SameBody => u32::MAX,
        }
    }
}

/// The request header in which the SDKs of OpenAI and Anthropic count retries, from 0.
const RETRY_COUNT: &str = "x-stainless-retry-count";
/// How long the call of an agent that does not count its tries waits for a retry. Most such agents hang up for good, and the engine
/// should hear of it.
const HANG_UP_WAIT: Duration = Duration::from_secs(2);

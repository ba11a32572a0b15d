//! Why a span is not stored.

use std::sync::Arc;

/// Why a span is not stored.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Cause {
    /// Its rollout has `limits.max_rollout_spans` spans.
    RolloutSpans,
    /// The spans of its rollout have `limits.max_rollout_bytes` bytes.
    RolloutBytes,
    /// A rule of `[sampling]`, by its name.
    Sampling(Arc<str>),
}

impl Cause {
    /// The reason in metrics and spans.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::RolloutSpans | Self::RolloutBytes => "rollout_limit",
            Self::Sampling(_) => "sampling",
        }
    }

    /// The setting or the rule.
    pub(crate) fn rule(&self) -> &str {
        match self {
            Self::RolloutSpans => "limits.max_rollout_spans",
            Self::RolloutBytes => "limits.max_rollout_bytes",
            Self::Sampling(rule) => rule,
        }
    }
}

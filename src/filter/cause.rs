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
    /// A rule of `[sampling.tail]`, by its name: the span was stored until its rollout had ended.
    TailSampling(Arc<str>),
}

impl Cause {
    /// The reason in metrics and spans.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::RolloutSpans | Self::RolloutBytes => "rollout_limit",
            Self::Sampling(_) => "sampling",
            Self::TailSampling(_) => "tail_sampling",
        }
    }

    /// The setting or the rule.
    pub(crate) fn rule(&self) -> &str {
        match self {
            Self::RolloutSpans => "limits.max_rollout_spans",
            Self::RolloutBytes => "limits.max_rollout_bytes",
            Self::Sampling(rule) | Self::TailSampling(rule) => rule,
        }
    }
}

/// The rule of spans and rollouts that no other rule matches: the ratio of the section.
pub(super) const DEFAULT_RULE: &str = "default";

//! `[limits]` of the settings.

use serde::{Deserialize, Serialize};

/// `[limits]` of the settings. 0 is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct LimitSettings {
    /// Attributes of a span.
    pub(crate) max_attributes: usize,
    /// Characters of a text that is the value of an attribute, or an element of it.
    pub(crate) max_attribute_chars: usize,
    /// Events of a span.
    pub(crate) max_events: usize,
    /// Links of a span.
    pub(crate) max_links: usize,
    /// Attributes of an event.
    pub(crate) max_event_attributes: usize,
    /// Attributes of a link.
    pub(crate) max_link_attributes: usize,
    /// Stored spans of a rollout.
    pub(crate) max_rollout_spans: u64,
    /// Bytes of the stored spans of a rollout, as [`crate::trace::Span::estimated_bytes`] counts them.
    pub(crate) max_rollout_bytes: u64,
    /// Which LLM calls are stored although their rollout is at its limit.
    pub(crate) beyond_rollout_limit: BeyondRolloutLimit,
}

/// Which LLM calls are stored although their rollout is at its limit. They count like all others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum BeyondRolloutLimit {
    /// Those of registered rollouts: a trainer may need their tokens.
    #[default]
    RegisteredCalls,
    /// All LLM calls, of any rollout.
    Calls,
    /// No LLM call: a rollout ends at its limit.
    Nothing,
}

impl LimitSettings {
    /// True if a span may be cut.
    pub(super) fn limits_spans(&self) -> bool {
        let limits = [
            self.max_attributes,
            self.max_attribute_chars,
            self.max_events,
            self.max_links,
            self.max_event_attributes,
            self.max_link_attributes,
        ];
        limits.iter().any(|limit| *limit > 0)
    }

    /// True if a rollout may have too many spans.
    pub(super) fn limits_rollouts(&self) -> bool {
        self.max_rollout_spans > 0 || self.max_rollout_bytes > 0
    }
}
